# SPDX-License-Identifier: BSD-3-Clause
"""The figures of a pool take time in proportion to the pool, not to the arena."""

import resource
from collections.abc import Callable

import pytest

from xmem import Arena, Heap, Pool
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
