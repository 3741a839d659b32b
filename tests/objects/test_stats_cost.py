# SPDX-License-Identifier: BSD-3-Clause
"""The figures of a pool take time in proportion to the pool, not to the arena."""

import resource
from collections.abc import Callable

import pytest
from support.damage import N_FREE_PAGES, damaged

from xmem import Arena, Heap, HeapCorruption, Pool
from xmem.stats import PoolStats

MOST_FAULTS = 64


def faults_of(call: Callable[[], object]) -> int:
    """Pages that the process touches for the first time during a call."""
    call_it = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - call_it


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_stats_touch_no_tables_of_free_pages(tmp_path, engine: str) -> None:
    """Those of a file: the tables of 64 GiB have 700 MiB, in steps of 64 KiB."""
    with Arena.create(tmp_path / "arena", 64 << 30, page_size=4096) as arena:
        pool = Pool(arena, engine=engine)
        blocks = [pool.xmalloc(100 * i) for i in range(50)]
        runs = [arena.page_alloc(20) for _ in range(4)]
        assert faults_of(pool.stats) <= MOST_FAULTS
        stats = pool.stats()
        assert stats.live_blocks == len(blocks)
        assert isinstance(stats, PoolStats)
        del runs


def test_stats_of_a_heap_touch_no_tables_of_free_pages(tmp_path) -> None:
    with Arena.create(tmp_path / "arena", 64 << 30, page_size=4096) as arena:
        heap = Heap(arena, "subpage")
        heap.xmalloc(100)
        heap.xmalloc_subpage(100)
        assert faults_of(heap.stats) <= MOST_FAULTS
        assert heap.stats().live_blocks == 2


@pytest.mark.damages
@pytest.mark.parametrize(
    ("n_pages", "is_seen"), [(1 << 14, True), (1 + (1 << 14), False)]
)
def test_stats_verify_all_tables_of_a_small_arena_alone(
    n_pages: int, is_seen: bool
) -> None:
    with Arena.anonymous(n_pages * 4096, page_size=4096) as arena:
        assert arena.n_pages == n_pages
        pool = Pool(arena)
        pool.xmalloc(100)
        with damaged(arena) as words:
            words.flip(N_FREE_PAGES, 1 << 20)
            with pytest.raises(HeapCorruption):
                pool.check()
            if is_seen:
                with pytest.raises(HeapCorruption):
                    pool.stats()
            else:
                assert pool.stats().live_blocks == 1
