# SPDX-License-Identifier: BSD-3-Clause
"""Calls that would rather wait than fail, and those at C level that do not wait."""

from collections.abc import Callable

import pytest

import xmem
from xmem import Arena, Pool

PAGE = 4096
RING = 16


def whole(n_pages: int) -> int:
    """Most bytes of a block in a region of so many pages."""
    return n_pages * PAGE - 24


def filled(pool: Pool, n_bytes: int) -> list[int]:
    """Blocks until the pool has room for no more."""
    blocks = []
    while True:
        try:
            blocks.append(pool.xmalloc(n_bytes))
        except xmem.OutOfMemory:
            return blocks


def in_vain(probe, pool: Pool, n_bytes: int, waiting: list[int]) -> None:
    """One call frees a few: the numbers that wait after each."""
    for n_waiting in waiting:
        payload, _ = probe.counted_alloc(pool, n_bytes)
        assert payload == 0
        assert pool.stats().waiting_blocks == n_waiting
        pool.check()


def test_quick_lists_are_drained(probe, small_arena: Arena) -> None:
    pool = Pool(small_arena, grow_pages=4, max_pages=4, quick=True)
    blocks = filled(pool, 1000)
    assert len(blocks) == 16
    for block in blocks:
        pool.xfree(block)
    assert pool.stats().waiting_blocks == 16
    in_vain(probe, pool, 15 * 1008, [13, 10, 7, 4])  # three for each call
    payload, _ = probe.counted_patient_alloc(pool, 15 * 1008)
    assert payload
    pool.check()


def test_the_quarantine_is_drained(probe, small_arena: Arena) -> None:
    pool = Pool(small_arena, grow_pages=4, max_pages=4, hardened=["quarantine"])
    blocks = filled(pool, 1000)
    assert len(blocks) == 16
    for block in blocks:
        pool.xfree(block)
    assert pool.stats().waiting_blocks == RING
    in_vain(probe, pool, 15 * 1008, [14, 12])  # two for each call
    payload, _ = probe.counted_patient_alloc(pool, 15 * 1008)
    assert payload
    pool.check()


@pytest.mark.parametrize("align", [16, PAGE])
def test_several_regions_leave(probe, small_arena: Arena, align: int) -> None:
    pool = Pool(small_arena, grow_pages=2, max_pages=20, join_regions=False)
    for _ in range(10):
        assert pool.reserve(2) == 2
    request = 20 * PAGE if align == PAGE else whole(20)
    payload, counts = probe.counted_alloc(pool, request, align)
    assert (payload, counts["spare_drop"]) == (0, 1)
    payload, counts = probe.counted_patient_alloc(pool, request, align)
    assert payload
    assert counts["spare_drop"] == 9
    assert pool.stats().n_pages == 20
    pool.check()


def test_patience_ends(probe, small_arena: Arena) -> None:
    """After the call and 33 more; each but the last made room for the next."""
    pool = Pool(small_arena, grow_pages=1, max_pages=80, join_regions=False)
    for _ in range(80):
        assert pool.reserve(1) == 1
    payload, counts = probe.counted_patient_alloc(pool, whole(80))
    assert (payload, counts["spare_drop"]) == (0, 34)
    assert pool.stats().n_regions == 46
    payload, counts = probe.counted_patient_alloc(pool, whole(80))
    assert (payload, counts["spare_drop"]) == (0, 34)
    payload, counts = probe.counted_patient_alloc(pool, whole(80))
    assert payload
    assert counts["spare_drop"] == 12
    pool.check()


@pytest.mark.parametrize(
    ("option", "n_bytes", "n_beside"),
    [({"hardened": ["quarantine"]}, 3000, 0), ({"quick": True}, 1000, 2900)],
)
def test_waiting_blocks_may_keep_every_region(
    small_arena: Arena, option: dict[str, object], n_bytes: int, n_beside: int
) -> None:
    """First all that wait are freed, then their regions leave one by one."""
    pool = Pool(small_arena, grow_pages=1, max_pages=RING, join_regions=False, **option)
    blocks, beside = [], []
    for _ in range(RING):
        blocks.append(pool.xmalloc(n_bytes))
        if n_beside:  # it does not wait: a block of an alignment
            beside.append(pool.xmalloc(n_beside, align=64))
    assert pool.stats().n_regions == RING
    for block in beside + blocks:
        pool.xfree(block)
    assert pool.stats().waiting_blocks == RING
    assert pool.xmalloc(whole(RING) - 100)
    pool.check()


@pytest.mark.parametrize("grow_pages", [1, 2, 4, 16])
def test_empty_regions_leave_where_nothing_can_be_gathered(
    small_arena: Arena, grow_pages: int
) -> None:
    """A pool that joins keeps regions all over an arena that is otherwise free."""
    pool = Pool(small_arena, grow_pages=grow_pages)
    blocks = filled(pool, 3900)
    for block in blocks[::2] + blocks[1::2]:
        pool.xfree(block)
    assert pool.stats().live_blocks == 0
    assert pool.xmalloc(500_000)
    pool.check()


def test_no_region_leaves_for_more_than_there_is(small_arena: Arena) -> None:
    pool = Pool(small_arena, grow_pages=4)
    for _ in range(3):
        pool.reserve(4)
    before = pool.stats()
    for n_bytes in (1 << 20, 1 << 40, (1 << 64) - 1):
        with pytest.raises(xmem.OutOfMemory):
            pool.xmalloc(n_bytes)
    assert pool.stats() == before


def test_patience_makes_no_room_that_there_is_not(probe, small_arena: Arena) -> None:
    pool = Pool(small_arena, grow_pages=4, max_pages=8, join_regions=False)
    pool.xmalloc(whole(4))
    pool.reserve(4)
    before = pool.stats()
    payload, counts = probe.counted_patient_alloc(pool, whole(8))
    assert (payload, counts["spare_drop"]) == (0, 0)
    assert pool.stats() == before


def with_region(arena: Arena) -> Pool:
    """A pool whose empty regions reach its limit."""
    return Pool(arena, grow_pages=4, max_pages=12, join_regions=False)


def with_quick_lists(arena: Arena) -> Pool:
    """One in which a freed block waits, too."""
    return Pool(arena, grow_pages=4, max_pages=12, join_regions=False, quick=True)


def quarantined(arena: Arena) -> Pool:
    return Pool(
        arena, grow_pages=4, max_pages=12, join_regions=False, hardened=["quarantine"]
    )


def test_a_run_moves_by_one_call_however_long_it_is(probe) -> None:
    """Its pages are given back as one run."""
    with Arena.anonymous(8 << 20, page_size=PAGE) as arena:
        pool = Pool(arena)
        for n_pages in (1, 255, 256, 257, 300):
            run = pool.xmalloc(n_pages * PAGE, PAGE)
            pool.view(run, 200)[:] = bytes(range(200))
            moved = probe.counted_resize(pool, run, 200, 512 * PAGE)[0]
            assert moved != run
            assert moved % (512 * PAGE) == 0
            assert bytes(pool.view(moved, 200)) == bytes(range(200))
            pool.check()
            pool.xfree(moved)


@pytest.mark.parametrize("make", [with_region, with_quick_lists, quarantined])
def test_a_resize_leaves_it_to_the_caller_to_make_room(
    probe, small_arena: Arena, make: Callable[[Arena], Pool]
) -> None:
    """At C level it fails and changes nothing; Python's moves the block."""
    pool = make(small_arena)
    block = pool.xmalloc(200)
    pool.view(block, 200)[:] = bytes(range(200))
    waits = pool.xmalloc(100)
    assert pool.reserve(8) == 8
    pool.xfree(waits)
    before, walked = pool.stats(), pool.walk().tobytes()
    assert probe.counted_resize(pool, block, whole(8) + 1)[0] == 0
    assert pool.stats() == before
    assert pool.walk().tobytes() == walked
    with pytest.raises(xmem.OutOfMemory):
        pool.xrealloc(block, 12 * PAGE)
    assert bytes(pool.view(block, 200)) == bytes(range(200))
    pool.check()
    # Without new pages it moves.
    assert probe.counted_resize(pool, block, whole(8))[0] != 0


@pytest.mark.parametrize("make", [with_region, with_quick_lists, quarantined])
def test_python_s_xrealloc_makes_room(
    probe, small_arena: Arena, make: Callable[[Arena], Pool]
) -> None:
    pool = make(small_arena)
    block = pool.xmalloc(2 * PAGE)
    pool.view(block, 200)[:] = bytes(range(200))
    waits = pool.xmalloc(100)
    for _ in range(2):
        assert pool.reserve(4) == 4
    pool.xfree(waits)
    before = pool.stats()
    assert probe.counted_resize(pool, block, whole(8))[0] == 0
    assert pool.stats() == before
    moved = pool.xrealloc(block, whole(8) - 8)
    assert bytes(pool.view(moved, 200)) == bytes(range(200))
    assert pool.stats().n_pages == 12
    assert pool.stats().waiting_blocks <= 1
    with pytest.raises(xmem.InvalidFree):
        pool.xfree(block)
    pool.check()
    small_arena.check()
