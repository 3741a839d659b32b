# SPDX-License-Identifier: BSD-3-Clause
"""Sizes on the command line: ``65536``, ``64M``, ``1G``, ``2GiB``."""

import re

import click

SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
PATTERN = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Return the number of bytes that `text` says; K, M, G, T are powers of 1024.

    Parameters
    ----------
    text : str
        Digits, then perhaps a unit; large or small letters.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    click.BadParameter
        It is no such size, or 0.
    """
    match = PATTERN.fullmatch(text.strip())
    n_bytes = int(match[1]) << SHIFTS[match[2].upper()] if match else 0
    if n_bytes < 1:
        raise click.BadParameter(f"{text!r} is no size such as 65536, 64M or 1G.")
    return n_bytes
