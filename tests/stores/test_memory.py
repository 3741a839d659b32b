# SPDX-License-Identifier: BSD-3-Clause
"""Where stores keep bytes: by which routine, and what a recorder writes down."""

import pytest

import xmem
from xmem.measure.replay import replay
from xmem.measure.trace import OP_FREE, OP_MALLOC
from xmem.stores.memory import Memory, Recorder

PAGE = 4096
INTERFACES = ("strict", "array", "subpage", "legacy", "merged")


@pytest.fixture
def arena():
    with xmem.Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield arena


def heaps(arena):
    """A pool of each engine and a heap of each interface."""
    yield xmem.Pool(arena)
    yield xmem.Pool(arena, engine="firstfit")
    for interface in INTERFACES:
        yield xmem.Heap(arena, interface)


def test_bytes_of_every_length_come_back(arena):
    for heap in heaps(arena):
        memory = Memory(heap)
        lengths = [1, 100, memory.small_max, min(memory.small_max + 1, PAGE), PAGE]
        kept = [(memory.put(bytes([n % 251]) * n), n) for n in lengths]
        assert memory.n_pages == heap.stats().n_pages > 0
        for offset, n in kept:
            assert memory.get(offset, n) == bytes([n % 251]) * n
        memory.write(kept[1][0], b"y" * 100)
        assert memory.get(kept[1][0], 100) == b"y" * 100
        for offset, n in kept:
            memory.free(offset, n)
        assert heap.stats().live_blocks == 0
        heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_what_is_larger_than_a_routine_serves_takes_one_page(arena, interface):
    memory = Memory(xmem.Heap(arena, interface))
    assert memory.small_max < PAGE
    free = arena.n_free_pages
    offset = memory.put(bytes(memory.small_max + 1))
    assert offset % PAGE == 0
    assert arena.n_free_pages == free - 1
    memory.free(offset, memory.small_max + 1)
    assert arena.n_free_pages == free


def test_the_legacy_routine_serves_what_takes_one_page(arena):
    heap = xmem.Heap(arena, "legacy")
    memory = Memory(heap)
    taken = []
    for n_bytes in (memory.small_max, memory.small_max + 1):
        free = arena.n_free_pages
        offset = heap.xmalloc(n_bytes)
        taken.append(free - arena.n_free_pages)
        heap.xfree(offset)
    assert taken == [1, 2]


def test_a_memory_is_made_once(arena):
    memory = Memory(xmem.Pool(arena))
    assert Memory.of(memory) is memory
    assert Memory.of(memory.heap).heap is memory.heap
    with pytest.raises(xmem.BadArgumentType, match="not Arena"):
        Memory(arena)


def test_a_recorder_keeps_the_calls_as_a_trace(arena):
    recorder = Recorder(xmem.Pool(arena))
    first = recorder.put(b"a" * 100)
    second = recorder.put(b"b" * 3000)
    recorder.free(first, 100)
    third = recorder.put(b"c")
    recorder.free(second, 3000)
    recorder.free(third, 1)
    trace = recorder.trace()
    assert trace[["op", "id", "size"]].tolist() == [
        (OP_MALLOC, 0, 100),
        (OP_MALLOC, 1, 3000),
        (OP_FREE, 0, 0),
        (OP_MALLOC, 2, 1),
        (OP_FREE, 1, 0),
        (OP_FREE, 2, 0),
    ]
    result = replay(trace, repeats=1, verify=True)
    assert (result.failed, result.stats.live_blocks) == (0, 0)
