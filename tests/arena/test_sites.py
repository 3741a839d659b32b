# SPDX-License-Identifier: BSD-3-Clause
"""Arena memory in tracemalloc: where it was allocated, and counted once."""

import gc
import tracemalloc

import numpy as np
import pytest

import xmem
from xmem import Arena, Heap, Pool


@pytest.fixture(autouse=True)
def tracing():
    tracemalloc.start(5)
    assert xmem.trace_sites(True) is False
    yield
    xmem.trace_sites(False)
    tracemalloc.stop()


def arena_memory():
    """Bytes and number of what is recorded in our domain."""
    only = tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)
    traces = tracemalloc.take_snapshot().filter_traces([only]).traces
    return sum(trace.size for trace in traces), len(traces)


def make_one(pool):
    return pool.xmalloc(12_345)


def test_a_block_is_recorded_where_it_was_allocated():
    with Arena.anonymous(1 << 20) as arena:
        pool = Pool(arena)
        offset = make_one(pool)
        only = tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)
        snapshot = tracemalloc.take_snapshot().filter_traces([only])
        (site,) = snapshot.statistics("traceback")
        assert (site.size, site.count) == (12_345, 1)
        assert "make_one" in site.traceback.format()[-1] or any(
            "pool.xmalloc(12_345)" in line for line in site.traceback.format()
        )
        pool.xfree(offset)
        assert arena_memory() == (0, 0)


def test_resizing_keeps_one_record():
    with Arena.anonymous(1 << 20) as arena:
        pool = Pool(arena)
        offset = pool.xmalloc(100)
        pool.xmalloc(50)
        for n in (200, 5000, 10):
            offset = pool.xrealloc(offset, n)
            assert arena_memory() == (n + 50, 2)


def test_every_routine_of_a_heap_and_of_the_arena():
    with Arena.anonymous(1 << 20, page_size=4096) as arena:
        heap = Heap(arena, "subpage")
        block = heap.xmalloc(100)
        sub = heap.xmalloc_subpage(200)
        page = heap.page_alloc(1)
        run = arena.page_alloc_exact(3)
        owner = heap.block(300)
        copied = heap.xmemdup(b"1234567")
        assert arena_memory() == (100 + 200 + 8192 + 3 * 4096 + 300 + 7, 6)
        block = heap.xrealloc(block, 400)
        assert arena_memory() == (400 + 200 + 8192 + 3 * 4096 + 300 + 7, 6)
        heap.xfree(block)
        heap.xfree_subpage(sub)
        heap.page_free(page)
        arena.page_free(run)
        heap.XFREE(owner)
        heap.xfree(copied)
        assert arena_memory() == (0, 0)


@pytest.mark.parametrize("end", ["close", "destroy", "drop"])
def test_the_end_of_an_arena_or_pool_ends_its_records(end):
    arena = Arena.anonymous(1 << 20)
    pool = Pool(arena)
    for n in (10, 100, 9000):
        pool.xmalloc(n)
    pool.xmalloc(100, align=arena.page_size)
    if end != "destroy":
        arena.page_alloc(0)
    assert arena_memory()[1] == (4 if end == "destroy" else 5)
    if end == "close":
        arena.close()
    elif end == "destroy":
        pool.destroy(force=True)
    else:
        del arena, pool
        gc.collect()
    assert arena_memory() == (0, 0)


def test_nothing_is_counted_twice():
    """An array in the arena is arena memory, and no memory of Python's."""
    n_bytes = 1 << 22
    with Arena.anonymous(1 << 24) as arena:
        pool = Pool(arena)
        before = tracemalloc.get_traced_memory()[0]
        offset = pool.xmalloc(n_bytes)
        array = np.frombuffer(pool.view(offset), dtype=np.uint8)
        array[:] = 1
        grown = tracemalloc.get_traced_memory()[0] - before
        assert n_bytes <= grown < n_bytes + 10_000
        del array


def test_off_it_records_nothing():
    assert xmem.trace_sites(False) is True
    with Arena.anonymous(1 << 20) as arena:
        Pool(arena).xmalloc(100)
        assert arena_memory() == (0, 0)
    with pytest.raises(xmem.BadArgumentType):
        xmem.trace_sites(1)
