# SPDX-License-Identifier: BSD-3-Clause
"""Arguments that both stores take, converted and checked."""

from operator import index as as_integer

from xmem.base.errors import BadArgument, BadArgumentType

__all__ = ["integer_argument", "page_argument"]


def integer_argument(
    value: int, name: str, *, least: int = 0, most: int | None = None
) -> int:
    """Convert an integer from ``least`` to ``most``.

    Raises
    ------
    BadArgument, BadArgumentType
        It is out of range, or not an integer; the message names the argument.
    """
    try:
        number = as_integer(value)
    except TypeError:
        raise BadArgumentType(
            f"{name} must be an integer, not {type(value).__name__}"
        ) from None
    if most is None and number < least:
        raise BadArgument(f"{name} must be at least {least}, not {number}")
    if most is not None and not least <= number <= most:
        raise BadArgument(f"{name} must be from {least} to {most}, not {number}")
    return number


def page_argument(page: bytes, page_bytes: int) -> bytes:
    """Copy a page of ``page_bytes``.

    Raises
    ------
    BadArgument, BadArgumentType
        It has another length, or is not bytes-like.
    """
    try:
        data = bytes(memoryview(page))
    except TypeError:
        raise BadArgumentType(
            f"page must be bytes-like, not {type(page).__name__}"
        ) from None
    if len(data) != page_bytes:
        raise BadArgument(f"page must have {page_bytes} bytes, not {len(data)}")
    return data
