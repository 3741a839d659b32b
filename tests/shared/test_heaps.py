# SPDX-License-Identifier: BSD-3-Clause
"""Heaps in arenas that several processes have open."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.processes import N_BYTES, PAGE, in_child

import xmem
from xmem import Arena, Heap, Pool

INTERFACES = ["strict", "array", "merged"]

pytestmark = pytest.mark.no_asan  # processes are forked


@pytest.mark.parametrize("interface", INTERFACES)
def test_two_processes_use_one_heap(arena: Arena, path: Path, interface: str) -> None:
    heap = Heap(arena, interface, name="it")
    block = heap.xmalloc(100)
    heap.view(block, 5)[:] = b"hello"
    run = heap.page_alloc(1)
    own = heap.page_alloc_exact(3)

    def elsewhere() -> None:
        with Arena.open(path) as mine:
            theirs = Heap.open(mine, "it")
            assert theirs.interface == interface
            assert bytes(theirs.view(block, 5)) == b"hello"
            assert theirs.usable_size(run) == 2 * PAGE
            theirs.page_free(run)
            with pytest.raises(xmem.InvalidFree):
                theirs.page_free(run)
            moved = theirs.xrealloc(block, 2000)
            theirs.view(moved, 2000)[5:7] = b"!!"
            mine.root = moved

    assert in_child(elsewhere) == 0
    assert bytes(heap.view(arena.root, 7)) == b"hello!!"
    heap.xfree(arena.root)
    with pytest.raises(xmem.InvalidFree):
        heap.xfree(arena.root)
    heap.page_free(own)
    assert heap.stats().live_blocks == 0
    heap.check()
    heap.destroy()
    arena.check()
    assert arena.pools() == {}


def test_the_interface_decides_what_frees(arena: Arena) -> None:
    strict = Heap(arena, "strict")
    pages = strict.page_alloc()
    with pytest.raises(xmem.MismatchedFree, match="page_free"):
        strict.xfree(pages)
    block = strict.xmalloc(100)
    with pytest.raises(xmem.MismatchedFree, match="xfree"):
        strict.page_free(block)
    strict.xfree_subpage(block)
    strict.page_free(pages)
    merged = Heap(arena, "merged")
    merged.xfree(merged.page_alloc())
    block = merged.xmalloc(3 * PAGE)
    with pytest.raises(xmem.MismatchedFree, match="xfree"):
        merged.page_free(block)
    merged.xfree(block)
    arena.check()
    assert merged.stats().live_blocks == strict.stats().live_blocks == 0


def test_limits_are_those_of_the_interface(arena: Arena) -> None:
    strict, array = Heap(arena, "strict"), Heap(arena, "array")
    for call in (
        lambda: strict.xmalloc(PAGE),
        lambda: strict.xmalloc_array(2, PAGE),
        lambda: array.xmalloc(PAGE),
    ):
        with pytest.raises(xmem.SizeLimitError, match="page_alloc"):
            call()
    block = strict.xmalloc(10)
    with pytest.raises(xmem.SizeLimitError):
        strict.xrealloc(block, PAGE)
    assert strict.usable_size(block) >= 10
    for call in (
        lambda: array.xmalloc_array(1, 1 << 40),
        lambda: array.page_alloc(30),
        lambda: array.page_alloc_exact(1 << 40),
    ):
        with pytest.raises(xmem.OutOfMemory):
            call()


@pytest.mark.parametrize("interface", ["legacy", "subpage"])
def test_the_legacy_engine_is_not_shared(arena: Arena, interface: str) -> None:
    with pytest.raises(xmem.BadArgument, match="without bound"):
        Heap(arena, interface)
    with pytest.raises(xmem.BadArgument, match="journal"):
        Heap(arena, hardened=True)
    assert arena.pools() == {}
    Pool(arena, name="it")
    with pytest.raises(xmem.BadArgument, match="a pool, not a heap"):
        Heap.open(arena, "it")
    with pytest.raises(xmem.BadArgument, match="named 'it'"):
        Heap(arena, name="it")
    assert arena.slots()[0].verb == "create"
    arena.check()


def test_a_heap_that_another_has_destroyed(arena: Arena, path: Path) -> None:
    with Arena.open(path) as second:
        mine, theirs = Heap(arena, name="it"), Heap.open(second, "it")
        block, run = mine.xmalloc(100), mine.page_alloc()
        theirs.destroy(force=True)
        again = Heap(second, name="it")
        for call in (
            lambda: mine.xmalloc(10),
            lambda: mine.xfree(block),
            lambda: mine.xrealloc(block, 10),
            lambda: mine.usable_size(block),
            lambda: mine.page_free(run),
            mine.page_alloc,
            mine.stats,
        ):
            with pytest.raises(xmem.PoolDestroyed):
                call()
        again.xfree(again.xmalloc(10))
        arena.check()


def test_objects_own_memory_of_a_shared_heap(arena: Arena) -> None:
    heap = Heap(arena, "merged")
    block = heap.block(100)
    block.resize(3 * PAGE)
    with memoryview(block), pytest.raises(BufferError):
        block.release()
    with pytest.raises(xmem.MismatchedFree, match="owns"):
        heap.xfree(block.offset)
    array = heap.zeros(1000, np.int64)
    array[:] = 7
    kept = array[5:6]
    del array
    assert kept[0] == 7
    del kept, block
    assert heap.stats().live_blocks == 0


class Twin:
    """A heap of an arena of its own and one of a shared arena, used alike."""

    def __init__(self, heaps: list[Heap]) -> None:
        self.heaps = heaps
        self.live: list[tuple[list[int], str, int]] = []

    def both(self, verb: str, *arguments: list[int]) -> list[int] | None:
        """Call a verb of both; the offsets, or None if both refuse alike."""
        found: list[int] = []
        refused: list[type] = []
        for i, heap in enumerate(self.heaps):
            try:
                found.append(getattr(heap, verb)(*(one[i] for one in arguments)))
            except xmem.XmemError as error:
                refused.append(type(error))
        assert not refused or (not found and refused[0] is refused[1]), (
            verb,
            arguments,
            refused,
        )
        return found or None

    def same_contents(self, offsets: list[int], n_bytes: int) -> None:
        held = [
            bytes(heap.view(offset, n_bytes))
            for heap, offset in zip(self.heaps, offsets, strict=True)
        ]
        assert held[0] == held[1]

    def fill(self, offsets: list[int], n_bytes: int, with_byte: int) -> None:
        for heap, offset in zip(self.heaps, offsets, strict=True):
            heap.view(offset, n_bytes)[:] = bytes([with_byte]) * n_bytes


@pytest.mark.random
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_shared_heap_does_what_any_heap_does(
    arena: Arena, interface: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with Arena.anonymous(N_BYTES, page_size=PAGE) as alone:
        twin = Twin([Heap(one, interface) for one in (alone, arena)])
        for _ in range(1500):
            size = int(rng.choice([0, 8, 100, 900, 2500, 4000, 4064, 5000, 20_000]))
            draw = rng.random()
            if twin.live and (draw < 0.3 or len(twin.live) > 30):
                offsets, free, n_bytes = twin.live.pop(
                    int(rng.integers(len(twin.live)))
                )
                twin.same_contents(offsets, n_bytes)
                verb = str(rng.choice(["xfree", "page_free", free]))
                if twin.both(verb, offsets) is None:
                    twin.live.append((offsets, free, n_bytes))
            elif twin.live and draw < 0.5:
                i = int(rng.integers(len(twin.live)))
                offsets, free, n_bytes = twin.live[i]
                align = int(rng.choice([16, 16, 64, PAGE]))
                again: list[list[int]] = [[size, size], [align, align]]
                verb = "xrealloc"
                if rng.random() < 0.5:
                    verb = "xrealloc_array"
                    again.insert(1, [1, 1])
                moved = twin.both(verb, offsets, *again)
                if moved is not None:
                    twin.same_contents(moved, min(size, n_bytes))
                    twin.fill(moved, size, int(rng.integers(256)))
                    twin.live[i] = (moved, free, size)
            elif draw < 0.7:
                run = twin.both("page_alloc", [int(rng.integers(3))] * 2)
                if run is not None:
                    twin.live.append((run, "page_free", 0))
            else:
                verb = str(rng.choice(["xmalloc", "xmalloc_subpage", "xzalloc"]))
                block = twin.both(verb, [size] * 2)
                if block is not None:
                    twin.fill(block, size, int(rng.integers(256)))
                    twin.live.append((block, "xfree", size))
        for heap in twin.heaps:
            heap.check()
        mine, theirs = (heap.stats() for heap in twin.heaps)
        assert mine.live_blocks == theirs.live_blocks
        assert mine.run_pages == theirs.run_pages
        for offsets, free, _ in twin.live:
            assert twin.both(free, offsets) is not None
        assert twin.heaps[1].stats().live_blocks == 0
        with contextlib.closing(arena):
            arena.check()


def test_a_heap_that_an_argument_makes_meanwhile(arena: Arena) -> None:
    heap = Heap.__new__(Heap)

    class Flags:
        def __iter__(self) -> Iterator[str]:
            Heap.__init__(heap, arena, name="first")
            return iter(())

    with pytest.raises(xmem.BadArgument, match="initialised twice"):
        Heap.__init__(heap, arena, name="second", hardened=Flags())
    assert list(arena.pools()) == ["first"]
    heap.xfree(heap.xmalloc(10))
    arena.check()
