# SPDX-License-Identifier: BSD-3-Clause
"""How a pool that joins regions grows: by its size, and out of several runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words

import xmem
from xmem import Arena, Pool
from xmem.arena import FRAME_FREE, FRAME_JOINED, FRAME_REGION

PAGE = 4096


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.anonymous(256 * PAGE, page_size=PAGE, max_pools=4) as arena:
        yield arena


def fill(pool: Pool, n_pages: int) -> None:
    """Let the pool have at least ``n_pages`` pages of blocks in use."""
    while pool.stats().n_pages < n_pages:
        pool.xmalloc(1000)


def regions(pool: Pool) -> list[int]:
    """Pages of each region, from left to right."""
    frames = pool.arena.frames()
    own = frames[np.isin(frames["state"], (FRAME_REGION, FRAME_JOINED))]
    return [int(n_pages) for n_pages in own["n_pages"]]


def test_the_last_region_is_extended_by_what_a_request_needs(arena: Arena) -> None:
    pool = Pool(arena)
    pool.xmalloc(1000)
    assert pool.stats().n_pages == 16
    for n_pages in (1, 1, 5, 1, 30):
        before = pool.stats()
        pool.xmalloc(before.largest_free_bytes + n_pages * PAGE - 64)
        assert pool.stats().n_pages == before.n_pages + n_pages
        pool.check()


def test_regions_grow_with_the_pool() -> None:
    """Each is an eighth of what was there: so they are few, and can leave alone."""
    with Arena.anonymous(4096 * PAGE, page_size=PAGE) as arena:
        pool = Pool(arena)
        while pool.total_size < 1500 * PAGE:
            pool.xmalloc(1000)
        lengths = regions(pool)
        assert sum(lengths) == pool.stats().n_pages
        assert len(lengths) == pool.stats().n_regions < 32
        before = 0
        for n_pages in lengths:
            assert n_pages >= max(16, before // 8)
            before += n_pages
        pool.check()


def test_pages_ahead_of_need_where_nothing_can_be_extended(arena: Arena) -> None:
    """Another's pages are at the end, or a block in use."""
    pool = Pool(arena)
    pool.xmalloc(1000)
    arena.page_alloc_exact(1)
    pool.xmalloc(16 * PAGE)
    assert regions(pool) == [16, 17]
    while pool.stats().largest_free_bytes:
        pool.xmalloc(pool.stats().largest_free_bytes)
    assert regions(pool) == [16, 17]
    pool.xmalloc(1)
    assert regions(pool) == [16, 17, 16]
    pool.check()


def test_pages_are_fewer_where_the_arena_ends(arena: Arena) -> None:
    pool = Pool(arena)
    while pool.stats().largest_free_bytes or pool.stats().n_pages == 0:
        pool.xmalloc(max(pool.stats().largest_free_bytes, 1))
    arena.page_alloc_exact(1)
    arena.page_alloc_exact(arena.n_free_pages - 3)
    pool.xmalloc(1)
    assert (regions(pool), arena.n_free_pages) == ([16, 3], 0)
    pool.check()


@pytest.mark.parametrize("options", [{"grow_pages": 16}, {"join_regions": False}])
def test_regions_that_stay_as_they_are(arena: Arena, options: dict) -> None:
    pool = Pool(arena, **options)
    fill(pool, 150)
    stats = pool.stats()
    assert stats.n_pages == 16 * stats.n_regions


def scattered(arena: Arena) -> tuple[Pool, list[int]]:
    """A pool, and an arena that is full of runs of 8 pages."""
    pool = Pool(arena, grow_pages=8)
    runs = []
    while arena.longest_free_run >= 8:
        runs.append(arena.page_alloc_exact(8))
    while arena.n_free_pages:
        arena.page_alloc_exact(arena.longest_free_run)
    return pool, sorted(runs)


def neighbours(runs: list[int], n: int) -> list[int]:
    """Return ``n`` adjacent runs."""
    chosen = runs[3 : 3 + n]
    assert chosen[-1] - chosen[0] == (n - 1) * 8 * PAGE
    return chosen


def test_a_request_takes_no_more_pages_than_it_needs(arena: Arena) -> None:
    pool, runs = scattered(arena)
    for run in neighbours(runs, 2):
        arena.page_free(run)
    assert arena.longest_free_run == 16
    offset = pool.xmalloc(12 * PAGE)
    pool.check()
    assert pool.stats().n_pages == 13
    pool.view(offset)[:] = bytes(pool.usable_size(offset))
    pool.xfree(offset)
    pool.shrink()
    assert arena.n_free_pages == 16
    arena.check()


@pytest.mark.parametrize("n", [1, 2, 4, 6, 11])
def test_runs_side_by_side_serve_a_request_for_all_their_pages(
    arena: Arena, n: int
) -> None:
    """Up to the last byte that a region of all these pages has."""
    pool, runs = scattered(arena)
    for run in neighbours(runs, n):
        arena.page_free(run)
    assert (arena.frames()["state"] == FRAME_FREE).sum() == 1
    whole = 8 * n * PAGE - 24
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(whole + 1)
    offset = pool.xmalloc(whole)
    assert arena.n_free_pages == 0
    assert pool.stats().free_bytes == 0
    pool.view(offset)[:] = bytes(whole)
    pool.check()
    pool.xfree(offset)
    pool.shrink()
    assert arena.n_free_pages == 8 * n
    arena.check()


def state(arena: Arena, pool: Pool) -> tuple[object, ...]:
    """All that a request in vain has to leave as it was."""
    words = Words(arena)
    return (
        pool.stats(),
        words.word(words.control(pool) + fmt.RELEASE_BYTES),
        pool.walk().tobytes(),
        arena.frames().tobytes(),
        arena.n_free_pages,
    )


@pytest.mark.parametrize("n_pages", [12, 15, 22])
def test_a_request_that_is_in_vain_gives_the_runs_back(
    arena: Arena, n_pages: int
) -> None:
    """A block in use keeps the runs on its left and right apart."""
    pool, runs = scattered(arena)
    left, middle, right = neighbours(runs, 3)
    arena.page_free(middle)
    blocks = [pool.xmalloc(2 * PAGE) for _ in range(3)]
    for block in (blocks[0], blocks[2]):
        pool.xfree(block)
    arena.page_free(left)
    arena.page_free(right)
    # One of the runs is split: pieces of less than a region, too.
    page = arena.page_alloc(0)
    before = state(arena, pool)
    for _ in range(3):
        with pytest.raises(xmem.OutOfMemory):
            pool.xmalloc(n_pages * PAGE)
        assert state(arena, pool) == before
    pool.check()
    arena.check()
    arena.page_free(page)
    pool.xfree(blocks[1])
    assert pool.xmalloc(23 * PAGE)


def test_runs_join_what_the_pool_has(arena: Arena) -> None:
    pool, runs = scattered(arena)
    first, second, third = neighbours(runs, 3)
    arena.page_free(second)
    block = pool.xmalloc(5 * PAGE)
    arena.page_free(first)
    arena.page_free(third)
    pool.xfree(block)
    assert pool.xmalloc(20 * PAGE)
    pool.check()


def test_the_limit_holds_while_runs_are_joined(arena: Arena) -> None:
    pool, runs = scattered(arena)
    pool.destroy()
    pool = Pool(arena, grow_pages=8, max_pages=13)
    for run in neighbours(runs, 2):
        arena.page_free(run)
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(14 * PAGE)
    assert pool.stats().n_pages == 0
    try:
        pool.xmalloc(12 * PAGE)
    except xmem.OutOfMemory:
        assert pool.stats().n_pages == 0
    assert pool.stats().peak_pages <= 13
    pool.check()


def test_random_requests_leave_all_sound(seed: int) -> None:
    """Large blocks of all sizes in an arena that two pools keep full."""
    random = np.random.default_rng(seed)
    with Arena.anonymous(512 * PAGE, page_size=PAGE) as arena:
        pools = [Pool(arena), Pool(arena, grow_pages=3)]
        live: list[tuple[Pool, int, int, int]] = []
        n_refused = 0
        for step in range(4000):
            if random.integers(3) or not live:  # two requests for each free: it fills
                pool = pools[random.integers(2)]
                n = int(2 ** random.uniform(4, 18))
                try:
                    offset = pool.xmalloc(n)
                except xmem.OutOfMemory:
                    n_refused += 1
                    continue
                byte = int(random.integers(256))
                view = pool.view(offset)
                view[0] = view[n - 1] = byte
                del view
                live.append((pool, offset, n, byte))
            else:
                pool, offset, n, byte = live.pop(int(random.integers(len(live))))
                view = pool.view(offset)
                assert view[0] == view[n - 1] == byte
                del view
                pool.xfree(offset)
            if step % 50 == 0:
                arena.check()
                for pool in pools:
                    pool.check()
        assert n_refused > 20
        for pool, offset, _, _ in live:
            pool.xfree(offset)
        for pool in pools:
            pool.shrink()
            assert pool.total_size == 0
        arena.check()


@pytest.mark.parametrize(
    ("joins", "align"), [(True, 2 * PAGE), (False, 16), (False, 2 * PAGE)]
)
def test_a_call_that_gives_a_region_back_takes_no_pages(
    probe: Any, joins: bool, align: int
) -> None:
    """Giving pages back and taking some are the work of two calls."""
    with Arena.anonymous(256 * PAGE, page_size=PAGE) as arena:
        pool = Pool(arena, grow_pages=1, max_pages=3, join_regions=joins)
        pool.xmalloc(3000)
        apart = arena.page_alloc_exact(1)
        empty = pool.xmalloc(3000)
        arena.page_free(apart)
        pool.xfree(empty)
        assert pool.total_size == 2 * PAGE
        assert probe.counted_alloc(pool, 5000, align)[0] == 0
        assert pool.total_size == PAGE
        assert probe.counted_alloc(pool, 5000, align)[0] != 0
        assert pool.total_size == 3 * PAGE
        pool.check()


def test_a_heap_gives_regions_back_for_its_pages() -> None:
    with Arena.anonymous(256 * PAGE, page_size=PAGE) as arena:
        heap = xmem.Heap(arena, max_pages=4)
        heap.xfree(heap.xmalloc(100))
        run = heap.page_alloc_exact(4)
        heap.page_free(run)
        heap.check()
