# SPDX-License-Identifier: BSD-3-Clause
"""What a report says of the surroundings of damage: bytes, owner, live neighbours."""

import ctypes

import pytest

from xmem import HeapCorruption, Pool

pytestmark = pytest.mark.damages


def flip(arena, offset, bits=1):
    """Change a byte as a stray write would."""
    address = arena.address(offset & ~15) + offset % 16
    ctypes.c_uint8.from_address(address).value ^= bits


def test_a_report_names_the_culprit(small_arena):
    pool = Pool(small_arena, hardened=True)
    culprit, victim, after = (pool.xmalloc(n) for n in (100, 200, 300))
    flip(small_arena, victim - 3, 0xFF)
    with pytest.raises(HeapCorruption) as caught:
        pool.xfree(victim)
    error = caught.value
    assert error.offset == victim - 8
    assert error.around["before"] == {"offset": culprit, "capacity": 100}
    assert error.around["after"] == {"offset": after, "capacity": 300}
    assert error.around["owner"] == pool.id
    assert f"the live block before: 100 bytes at {culprit:#x}" in str(error)
    shown = error.around["bytes"].replace(" ", "").replace("|", "")
    assert bytes.fromhex(shown) == ctypes.string_at(
        small_arena.address(victim - 24), 32
    )
    flip(small_arena, victim - 3, 0xFF)
    flip(small_arena, culprit + 100)
    with pytest.raises(HeapCorruption) as caught:
        pool.check()
    assert caught.value.around["block"] is not None
    assert caught.value.around["block"]["offset"] == culprit


def test_reports_of_the_checker_have_the_bytes_too(small_arena):
    pool = Pool(small_arena)
    first, second = pool.xmalloc(100), pool.xmalloc(100)
    flip(small_arena, second - 7)
    with pytest.raises(HeapCorruption) as caught:
        pool.check()
    error = caught.value
    assert error.invariant in ("B7", "B1")
    assert error.around["before"]["offset"] == first
    assert "the bytes there" in str(error)


def test_a_block_behind_padding_is_named_as_a_neighbour(small_arena):
    """A legacy block that is aligned begins in front of its padding."""
    pool = Pool(small_arena, engine="firstfit")
    padded, victim = pool.xmalloc(100, 512), pool.xmalloc(100)
    assert padded < victim
    flip(small_arena, victim - 61)
    with pytest.raises(HeapCorruption) as caught:
        pool.check()
    assert caught.value.around["before"] == {
        "offset": padded,
        "capacity": pool.usable_size(padded),
    }
