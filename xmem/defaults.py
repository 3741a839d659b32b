# SPDX-License-Identifier: BSD-3-Clause
"""A heap without preparation: a pool in an anonymous arena, made on first use.

Before its first use `configure` sets its size, or the environment variable
``XMEM_ARENA_BYTES`` does: such as ``64M``, as `xmem.base.sizes` reads it.
"""

import os
import threading
from operator import index
from typing import SupportsIndex

from xmem.arena import ARENA_MAX_LOG2, Arena
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.base.sizes import parse_size
from xmem.pool import Pool

__all__ = [
    "configure",
    "default_pool",
    "usable_size",
    "view",
    "xfree",
    "xmalloc",
    "xrealloc",
    "xzalloc",
]

#: Bytes of the arena by default. They are not touched until used.
DEFAULT_BYTES = 1 << 30
VARIABLE = "XMEM_ARENA_BYTES"

_lock = threading.Lock()
_pool: Pool | None = None
_configured: int | None = None


def configure(n_bytes: SupportsIndex) -> None:
    """Set the size of the default arena, before its first use.

    Parameters
    ----------
    n_bytes : int
        Of the arena, its tables included.

    Raises
    ------
    BadArgument
        The arena is in use already, or the size is impossible.
    BadArgumentType
        Not an integer.
    """
    global _configured
    try:
        size = index(n_bytes)
    except TypeError:
        raise BadArgumentType(
            f"n_bytes must be an integer, not {type(n_bytes).__name__}"
        ) from None
    if not 0 < size <= 1 << ARENA_MAX_LOG2:
        raise BadArgument(
            f"an arena has from 1 to 2**{ARENA_MAX_LOG2} bytes, not {size}"
        )
    with _lock:
        if _pool is not None:
            raise BadArgument(
                "the default arena is in use: configure() comes before its first use"
            )
        _configured = size


def _size() -> int:
    """Bytes of the arena to be made."""
    if _configured is not None:
        return _configured
    text = os.environ.get(VARIABLE)
    if text is None:
        return DEFAULT_BYTES
    try:
        return parse_size(text)
    except BadArgument as error:
        raise BadArgument(f"{VARIABLE}: {error}") from None


def default_pool() -> Pool:
    """Return the pool that the functions of this module use; made on first use.

    Returns
    -------
    Pool
        In an anonymous arena, which no other process sees. It is never closed.

    Raises
    ------
    BadArgument
        `configure` or ``XMEM_ARENA_BYTES`` gave an impossible size.
    """
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = Pool(Arena.anonymous(_size()), name="default")
    return _pool


def xmalloc(n: SupportsIndex, /, align: SupportsIndex = 16) -> int:
    """Offset of ``n`` bytes of the default pool; see `Pool.xmalloc`."""
    return default_pool().xmalloc(n, align)


def xzalloc(n: SupportsIndex, /, align: SupportsIndex = 16) -> int:
    """Offset of ``n`` zeros of the default pool; see `Pool.xzalloc`."""
    return default_pool().xzalloc(n, align)


def xrealloc(
    offset: SupportsIndex, n: SupportsIndex, /, align: SupportsIndex = 16
) -> int:
    """Offset of a block of the default pool, resized; see `Pool.xrealloc`."""
    return default_pool().xrealloc(offset, n, align)


def xfree(offset: SupportsIndex, /) -> None:
    """Free a block of the default pool; see `Pool.xfree`."""
    default_pool().xfree(offset)


def usable_size(offset: SupportsIndex, /) -> int:
    """Bytes of a block of the default pool; see `Pool.usable_size`."""
    return default_pool().usable_size(offset)


def view(offset: SupportsIndex, n_bytes: SupportsIndex | None = None, /) -> memoryview:
    """Return a writable view of a block of the default pool; see `Pool.view`."""
    return default_pool().view(offset, n_bytes)
