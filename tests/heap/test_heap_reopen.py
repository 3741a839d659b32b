# SPDX-License-Identifier: BSD-3-Clause
"""Heaps of every interface, made in one process and used in another."""

import json
import subprocess
import sys

import pytest
from support.apart import CHILD_ENV
from support.heaps import INTERFACES, PAGE, WITH_SUBPAGE, image

import xmem
from xmem import Arena, Heap, Pool

MAKE = """
import json, sys
import xmem
path, interface = sys.argv[1:]
arena = xmem.Arena.create(path, 4 << 20, page_size=4096)
hold = xmem.Arena.anonymous(64 << 20)  # so that addresses differ
heap = xmem.Heap(arena, interface, name="kept", grow_pages=2, max_pages=200)
made = {"xfree": [], "xfree_subpage": [], "page_free": []}
for i in range(60):
    made["xfree"].append(heap.xmalloc(i * 50, align=1 << i % 9))
    if interface != "legacy":
        made["xfree_subpage"].append(heap.xmalloc_subpage(i * 30))
    if i % 6 == 0:
        made["page_free"].append(heap.page_alloc_exact(1 + i // 12))
if interface != "strict":
    made["xfree"] += [heap.xmalloc_array(n, 4096) for n in (1, 3, 7)]
for offset in made["xfree"][::5]:
    heap.xfree(offset)
del made["xfree"][::5]
sizes = {}
for offsets in made.values():
    for offset in offsets:
        view = heap.view(offset)
        sizes[offset] = len(view)
        view[:] = bytes((offset + i) & 255 for i in range(len(view)))
        view.release()
heap.check()
json.dump({
    "made": made, "sizes": sizes, "stats": repr(heap.stats()),
    "address": arena.address(0), "pools": sorted(arena.pools()),
}, sys.stdout)
arena.close()
"""


@pytest.fixture(params=INTERFACES)
def interface(request):
    return request.param


@pytest.fixture
def made(interface, arena_path):
    """A file with a heap, made in a process that has ended; what is in it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAKE, str(arena_path), interface],
        env=CHILD_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_heap_is_found_again_with_all_that_it_holds(interface, arena_path, made):
    with Arena.open(arena_path) as arena:
        assert arena.address(0) != made["address"]
        assert sorted(arena.pools()) == made["pools"]
        heap = Heap.open(arena, "kept")
        assert heap.interface == interface
        assert heap.name == "kept"
        assert repr(heap.stats()) == made["stats"]
        assert {pool.max_pages for pool in heap.pools} == {200}
        heap.check()
        for offset, n in made["sizes"].items():
            view = heap.view(int(offset))
            assert len(view) == heap.usable_size(int(offset)) == n
            assert bytes(view) == bytes((int(offset) + i) & 255 for i in range(n))
            view.release()


def test_its_memory_goes_back_by_the_routine_it_came_from(interface, arena_path, made):
    with Arena.open(arena_path) as arena:
        heap = Heap.open(arena, "kept")
        if interface == "subpage":
            before = image(arena)
            for wrong, right in [("xfree", "xfree_subpage"), ("page_free", "xfree")]:
                with pytest.raises(xmem.MismatchedFree, match=right):
                    getattr(heap, wrong)(made["made"][right][3])
            assert image(arena) == before
        if interface in ("strict", "array"):
            with pytest.raises(xmem.MismatchedFree, match="page_free"):
                heap.xfree(made["made"]["page_free"][0])
        for routine, offsets in made["made"].items():
            for i, offset in enumerate(offsets):
                getattr(heap, routine)(offset)
                with pytest.raises(xmem.InvalidFree):
                    getattr(heap, routine)(offset)
                if i % 20 == 0:
                    heap.check()
        assert heap.stats().live_blocks == 0
        heap.shrink()
        assert sum(pool.total_size for pool in heap.pools) == 0
        heap.check()


def test_it_goes_on_being_used_and_is_found_a_third_time(interface, arena_path, made):
    with Arena.open(arena_path) as arena:
        heap = Heap.open(arena, "kept", verify=False)
        first = heap.xmalloc(100)
        heap.view(first)[:5] = b"later"
        if interface in WITH_SUBPAGE:
            heap.xmalloc_subpage(100)
        moved = heap.xrealloc(made["made"]["xfree"][-4], 3000)
        stats = heap.stats()
    with Arena.open(arena_path) as arena:
        heap = Heap.open(arena, "kept")
        assert heap.stats() == stats
        assert bytes(heap.view(first, 5)) == b"later"
        assert heap.usable_size(moved) >= 3000
        heap.destroy(force=True)
        assert arena.pools() == {}
        arena.check()


def test_limits_are_remembered(interface, arena_path, made):
    with Arena.open(arena_path) as arena:
        heap = Heap.open(arena, "kept")
        if interface in ("strict", "array"):
            with pytest.raises(xmem.SizeLimitError, match="page_alloc"):
                heap.xmalloc(heap.XMALLOC_MAX + 1)
        if interface == "legacy":
            with pytest.raises(xmem.NotInInterface):
                heap.xmalloc_subpage(1)
        while heap.pools[0].total_size < 200 * PAGE:
            heap.page_alloc(0)
        with pytest.raises(xmem.OutOfMemory, match="at most 200"):
            heap.page_alloc(0)
        heap.check()


def test_what_is_no_heap_is_not_opened_as_one(arena_path):
    with Arena.create(arena_path, 2 << 20, page_size=PAGE) as arena:
        Pool(arena, name="pool")
        Heap(arena, "subpage", name="both")
        Heap(arena, "merged", name="one")
    with Arena.open(arena_path) as arena:
        before = image(arena)
        for name in ("pool", "both.subpage"):
            with pytest.raises(xmem.BadArgument, match="is a pool, not a heap"):
                Heap.open(arena, name)
        for name in ("none", "both.sub", "ONE"):
            with pytest.raises(xmem.BadArgument, match="no pool named"):
                Heap.open(arena, name)
        for name in (None, 3, b"one"):
            with pytest.raises(xmem.BadArgumentType):
                Heap.open(arena, name)
        with pytest.raises(xmem.BadArgumentType):
            Heap.open(None, "one")
        assert image(arena) == before
        assert Heap.open(arena, "both").interface == "subpage"
        assert Heap.open(arena, "one").interface == "merged"


def test_a_heap_without_its_second_pool_is_no_heap(arena_path):
    with Arena.create(arena_path, 2 << 20, page_size=PAGE) as arena:
        heap = Heap(arena, "subpage", name="both")
        heap.pools[1].destroy()
        with pytest.raises(xmem.PoolDestroyed):
            heap.xmalloc_subpage(1)
    with Arena.open(arena_path) as arena:
        with pytest.raises(xmem.BadArgument, match=r"'both\.subpage'"):
            Heap.open(arena, "both")
        Pool.open(arena, "both").check()
        for engine in ("tlsf", "firstfit"):
            other = Pool(arena, name="both.subpage", engine=engine)
            with pytest.raises(xmem.BadArgument, match="no part of the heap"):
                Heap.open(arena, "both")
            other.destroy()


def test_two_handles_are_one_heap(arena_path):
    with Arena.create(arena_path, 2 << 20, page_size=PAGE) as arena:
        first = Heap(arena, "subpage", name="both")
        second = Heap.open(arena, "both")
        block = first.block(100)
        offset = first.xmalloc_subpage(50)
        second.xfree_subpage(offset)
        with pytest.raises(xmem.DoubleFree):
            first.xfree_subpage(offset)
        second.XFREE(block)
        assert not block
        assert first.stats() == second.stats()
        second.destroy()
        assert first.closed
        with pytest.raises(xmem.PoolDestroyed):
            first.xmalloc(1)
