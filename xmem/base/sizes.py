# SPDX-License-Identifier: BSD-3-Clause
"""Sizes in bytes as people write them: ``65536``, ``64M``, ``1G``, ``2GiB``.

======================= ===========
unit                    bytes
======================= ===========
none, ``B``             1
``K``, ``KB``, ``KiB``  1024
``M``, ``MB``, ``MiB``  1024 ** 2
``G``, ``GB``, ``GiB``  1024 ** 3
``T``, ``TB``, ``TiB``  1024 ** 4
======================= ===========

Upper and lower case mean the same, spaces may stand between number and unit and
around both. Every unit is a power of 1024, because arenas consist of pages.
"""

import re

from xmem.base.errors import BadArgument

__all__ = ["parse_size"]

SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
PATTERN = re.compile(r"(\d{1,20})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Return the number of bytes that a text names.

    Parameters
    ----------
    text : str
        A whole number and perhaps one of the units above.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    BadArgument
        The text is no such size, or the size is 0.
    """
    match = PATTERN.fullmatch(text.strip())
    n_bytes = int(match[1]) << SHIFTS[match[2].upper()] if match else 0
    if n_bytes < 1:
        raise BadArgument(f"{text!r} is not a size such as 65536, 64M or 1G")
    return n_bytes
