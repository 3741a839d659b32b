# SPDX-License-Identifier: BSD-3-Clause
"""Empty regions leave where a request would fail: which, when, and how many."""

from typing import Any

import pytest

import xmem
from xmem import Arena, Pool
from xmem.arena import FRAME_REGION

PAGE = 4096


def whole(n_pages: int) -> int:
    """Most bytes of a block in a region of so many pages."""
    return n_pages * PAGE - 24


def regions(arena: Arena) -> list[tuple[int, int]]:
    """First page and length of each region."""
    frames = arena.frames()
    found = frames[frames["state"] == FRAME_REGION]
    return [(int(f["page"]), int(f["n_pages"])) for f in found]


def region_of(arena: Arena, payload: int) -> tuple[int, int]:
    """The region in which a payload lies."""
    page = payload // PAGE
    return next((p, n) for p, n in regions(arena) if p <= page < p + n)


# Whether it is worth anything ------------------------------------------------------


@pytest.mark.parametrize("align", [16, PAGE])
def test_more_than_the_frames_could_have_is_hopeless(probe, small_arena, align):
    pool = Pool(small_arena, grow_pages=4, join_regions=False)
    for _ in range(3):
        assert pool.reserve(4) == 4
    small_arena.page_alloc_exact(50)
    ever = small_arena.n_free_pages + 12
    assert not probe.hopeless(pool, ever)
    assert probe.hopeless(pool, ever + 1)
    before = pool.stats()
    # The words at both ends of a region may be won by joining.
    request = ever * PAGE if align == PAGE else ever * PAGE - 8
    payload, counts = probe.counted_alloc(pool, request + 1, align)
    assert (payload, counts["spare_drop"]) == (0, 0)
    assert pool.stats() == before
    # A byte less may be worth an empty region.
    payload, counts = probe.counted_alloc(pool, request, align)
    assert (payload, counts["spare_drop"]) == (0, 1)
    assert pool.stats().n_regions == 2


@pytest.mark.parametrize("used", [0, 1, 3 * PAGE - 8, 3 * PAGE])
@pytest.mark.parametrize("n_run_pages", [0, 5])
def test_more_than_the_limit_leaves_beside_what_is_used_is_hopeless(
    probe, small_arena, used, n_run_pages
):
    pool = Pool(small_arena, grow_pages=4, max_pages=20, join_regions=False)
    if n_run_pages:
        pool.xmalloc(n_run_pages * PAGE, PAGE)
    n_used = n_run_pages
    if used:
        n_used += (pool.usable_size(pool.xmalloc(used)) + 8) // PAGE
    assert pool.reserve(8) == 8
    for n_pages in range(1, 25):
        assert probe.hopeless(pool, n_pages) == (n_used + n_pages > 20)
    before = pool.stats()
    payload, counts = probe.counted_alloc(pool, (21 - n_used) * PAGE, PAGE)
    assert (payload, counts["spare_drop"]) == (0, 0)
    assert pool.stats() == before


def test_a_pool_without_a_limit_has_none(probe, small_arena):
    pool = Pool(small_arena)
    pool.xmalloc(100 * PAGE)
    assert not probe.hopeless(pool, small_arena.n_free_pages)


# How many --------------------------------------------------------------------------


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("align", [16, PAGE])
def test_a_call_that_fails_gives_one_region_back(probe, small_arena, joins, align):
    """The next call the next, until there is room."""
    pool = Pool(small_arena, grow_pages=4, max_pages=17, join_regions=joins)
    for _ in range(4):
        assert pool.reserve(4) == 4
        small_arena.page_alloc(2)
    request = 13 * PAGE if align == PAGE else whole(13)
    for n_left in (3, 2, 1):
        payload, counts = probe.counted_alloc(pool, request, align)
        assert (payload, counts["spare_drop"]) == (0, 1)
        assert pool.stats().n_regions == n_left
        pool.check()
        small_arena.check()
    # Three regions less are enough: a call that gives one back takes no pages.
    payload, counts = probe.counted_alloc(pool, request, align)
    assert payload
    assert counts["spare_drop"] == 0
    assert pool.stats().n_pages == 17
    pool.check()
    small_arena.check()


def test_what_waits_is_freed_before_a_region_leaves(probe, small_arena):
    pool = Pool(small_arena, grow_pages=4, max_pages=12, join_regions=False, quick=True)
    block = pool.xmalloc(100)
    assert pool.reserve(8) == 8
    pool.xfree(block)
    assert pool.stats().waiting_blocks == 1
    payload, counts = probe.counted_alloc(pool, whole(9))
    assert (payload, counts["spare_drop"]) == (0, 0)
    assert (pool.stats().waiting_blocks, pool.stats().n_pages) == (0, 12)
    payload, counts = probe.counted_alloc(pool, whole(9))
    assert (payload, counts["spare_drop"]) == (0, 1)


def test_no_region_leaves_where_there_is_room(probe, small_arena):
    pool = Pool(small_arena, grow_pages=4, join_regions=False)
    assert pool.reserve(4) == 4
    payload, counts = probe.counted_alloc(pool, whole(9))
    assert payload
    assert counts["spare_drop"] == 0
    assert pool.stats().n_regions == 2


# Which -----------------------------------------------------------------------------


def test_the_one_in_hand_leaves_first(probe, small_arena):
    pool = Pool(small_arena, grow_pages=4, join_regions=False)
    block = pool.xmalloc(whole(4))
    in_hand = region_of(small_arena, block)
    assert pool.reserve(8) == 8
    pool.xfree(block)
    other = next(one for one in regions(small_arena) if one != in_hand)
    assert probe.drop_spare(pool)
    assert regions(small_arena) == [other]
    pool.check()
    # None is in hand now: the lists are looked at.
    assert probe.drop_spare(pool)
    assert regions(small_arena) == []
    assert not probe.drop_spare(pool)
    pool.check()
    small_arena.check()


def test_one_in_hand_that_is_in_use_again_stays(probe, small_arena):
    pool = Pool(small_arena, grow_pages=4, join_regions=False)
    pool.xfree(pool.xmalloc(whole(4)))
    block = pool.xmalloc(100)
    used = region_of(small_arena, block)
    assert pool.reserve(8) == 8
    assert probe.drop_spare(pool)
    assert regions(small_arena) == [used]
    assert not probe.drop_spare(pool)
    pool.check()


def partly_used(arena: Arena, joins: bool, n_pages: int) -> tuple[Any, Any]:
    """A pool with a full region of 4 pages and one of so many, used at its start."""
    pool = Pool(arena, grow_pages=4, join_regions=joins)
    arena.page_alloc_exact(1)
    pool.xmalloc(whole(4))
    arena.page_alloc_exact(1)
    assert pool.reserve(n_pages) == n_pages
    block = pool.xmalloc(100)
    arena.page_alloc_exact(1)
    return pool, region_of(arena, block)


@pytest.mark.parametrize("joins", [True, False])
def test_the_least_list_that_can_have_one_comes_first(probe, joins):
    """Then the greatest; what lies between them is not looked at."""
    with Arena.anonymous(1024 * PAGE, page_size=PAGE) as arena:
        pool, _ = partly_used(arena, joins, 16)
        kept = regions(arena)
        assert pool.reserve(8) == 8
        least = next(one for one in regions(arena) if one not in kept)
        arena.page_alloc_exact(1)
        assert pool.reserve(64) == 64
        greatest = next(one for one in regions(arena) if one not in (*kept, least))
        assert greatest[1] == 64
        # The least block that may hold a region is one of 8 pages.
        assert probe.drop_spare(pool)
        assert sorted(regions(arena)) == sorted([*kept, greatest])
        pool.check()
        # In the least list there is the end of the region that is in use.
        assert probe.drop_spare(pool)
        assert regions(arena) == kept
        pool.check()
        assert not probe.drop_spare(pool)
        assert regions(arena) == kept
        pool.check()
        arena.check()


def test_what_is_on_neither_end_of_the_lists_stays(probe):
    """A constant number of looks, so an empty region may be missed."""
    with Arena.anonymous(1024 * PAGE, page_size=PAGE) as arena:
        pool, _ = partly_used(arena, False, 16)
        assert pool.reserve(32) == 32
        arena.page_alloc(6)
        kept = regions(arena)
        assert pool.reserve(128) == 128
        pool.xmalloc(33 * PAGE)
        before = regions(arena)
        assert len(before) == len(kept) + 1
        assert not probe.drop_spare(pool)
        assert regions(arena) == before
        # A shrink looks everywhere.
        assert pool.shrink() == 32
        pool.check()


def test_nothing_leaves_a_pool_without_regions(probe, small_arena):
    for joins in (True, False):
        pool = Pool(small_arena, join_regions=joins)
        assert not probe.drop_spare(pool)
        pool.xmalloc(PAGE, PAGE)
        assert not probe.drop_spare(pool)
        pool.check()


def test_the_legacy_engine_has_none_to_give(probe, small_arena):
    pool = Pool(small_arena, engine="firstfit", max_pages=4)
    pool.xmalloc(3 * PAGE)
    payload, counts = probe.counted_alloc(pool, 3 * PAGE)
    assert (payload, counts["spare_drop"]) == (0, 0)
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(3 * PAGE)
    pool.check()
