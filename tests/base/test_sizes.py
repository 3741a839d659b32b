# SPDX-License-Identifier: BSD-3-Clause
"""Sizes as people write them, read in one place."""

import pytest

from xmem.base.errors import BadArgument
from xmem.base.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1", 1),
        ("65536", 65536),
        ("64K", 64 << 10),
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("1G", 1 << 30),
        ("2T", 2 << 40),
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("2 GB", 2 << 30),
        (" 2 G ", 2 << 30),
        ("100B", 100),
    ],
)
def test_sizes_may_have_units(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0M", "-1", "-1M", "1.5G", "M", "64X", "1e6", "64 M M", "٣", "iB"),
        *("4 000", "1,000", "0x10", "9" * 5000, "1\n2"),
    ],
)
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="is not a size such as"):
        parse_size(text)
