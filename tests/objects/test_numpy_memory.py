# SPDX-License-Identifier: BSD-3-Clause
"""NumPy's data in a pool (NEP 49): every allocation, wherever it is freed."""

import asyncio
import contextlib
import contextvars
import copy
import ctypes
import gc
import itertools
import os
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xmem
from xmem import Arena, BadArgument, Heap, Pool, numpy_memory

try:
    from numpy._core.multiarray import _ARRAY_API, get_handler_name
except ImportError:  # NumPy 1
    from numpy.core.multiarray import _ARRAY_API, get_handler_name

MAKERS = {
    "tlsf": lambda arena: Pool(arena),
    "firstfit": lambda arena: Pool(arena, engine="firstfit"),
    "hardened": lambda arena: Pool(arena, hardened=True),
    "quick": lambda arena: Pool(arena, quick=True),
    "merged": lambda arena: Heap(arena, "merged"),
}


@pytest.fixture
def arena():
    return Arena.anonymous(16 << 20, page_size=4096)


@pytest.fixture(params=MAKERS)
def maker(arena, request):
    """Pools and heaps of every kind; nothing is left of what the test made."""
    allocator = MAKERS[request.param](arena)
    yield allocator
    gc.collect()
    allocator.check()
    assert allocator.stats().live_blocks == 0


@pytest.fixture
def pool(arena):
    return Pool(arena)


def live(allocator):
    return allocator.stats().live_blocks


def words_in_force():
    """Context, malloc, calloc, realloc, free of NumPy's handler (NEP 49)."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(_ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    # PyDataMem_GetHandler; its capsule has a name of 127 bytes, a version, a context.
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object)(table[305])()
    handler = pointer(capsule, b"mem_handler")
    return ctypes.cast(handler + 128, ctypes.POINTER(ctypes.c_void_p))[:5]


def handler_in_force():
    """Context and calloc of NumPy's handler, in C."""
    words = words_in_force()
    calloc = ctypes.CFUNCTYPE(
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
    )
    return words[0], calloc(words[2])


# Where data comes from and goes to -------------------------------------------


def test_data_comes_from_the_pool_inside_and_only_there(maker):
    before = np.zeros(100)
    with numpy_memory(maker):
        assert get_handler_name() == "xmem"
        inside = np.zeros(100)
        assert live(maker) == 1
    after = np.zeros(100)
    assert get_handler_name() == "default_allocator"
    assert [get_handler_name(a) for a in (before, inside, after)] == [
        "default_allocator",
        "xmem",
        "default_allocator",
    ]
    assert inside.flags.owndata
    assert inside.sum() == 0
    inside[:] = 7
    del inside
    assert live(maker) == 0


def test_all_of_numpy_is_concerned(maker):
    with numpy_memory(maker):
        made = [
            np.arange(50.0),
            np.ones((5, 5)).T.copy(),
            np.array([1, 2, 3]),
            np.sort(np.arange(30)[::-1]),
            np.arange(10)[[1, 5, 2]],
            np.arange(20).reshape(4, 5).sum(axis=0),
            np.concatenate([np.zeros(3), np.ones(4)]),
            np.full((3, 3), 2) @ np.full((3, 3), 3),
            np.array(["a", "bc"]),
            np.array([object(), None]),
            np.fromiter(range(100), int),
            np.add.outer(np.arange(3), np.arange(4)),
        ]
    assert all(get_handler_name(array) == "xmem" for array in made)
    assert live(maker) == len(made)
    assert made[3].tolist() == list(range(30))
    assert made[7].tolist() == [[18] * 3] * 3
    del made


def test_alignment_is_kept(maker):
    for align in (16, 64, 1024):
        with numpy_memory(maker, align=align):
            for n in (1, 3, 100, 1000):
                array = np.empty(n)
                assert array.ctypes.data % align == 0
                array.resize(2 * n, refcheck=False)
                assert array.ctypes.data % align == 0
        del array


def test_arrays_grow_and_shrink_in_place(maker):
    with numpy_memory(maker):
        array = np.arange(10)
        for n in (100, 5000, 20_000, 300, 7, 0, 50):
            array.resize(n, refcheck=False)
            assert array[: min(n, 7)].tolist() == list(range(min(n, 7))) or n == 50
            assert live(maker) == 1
            maker.check()
    array.resize(400, refcheck=False)
    assert get_handler_name(array) == "xmem"
    del array


def test_zeros_are_zeros_where_others_were(pool):
    with numpy_memory(pool):
        for _ in range(5):
            np.full(1000, 255, "u1")
            assert not np.zeros(1000, "u1").any()


# Contexts --------------------------------------------------------------------


def test_managers_nest_and_are_used_again(arena):
    one, two = Pool(arena), Pool(arena)
    outer, inner = numpy_memory(one), numpy_memory(two)
    with outer:
        a = np.zeros(10)
        with inner, outer, inner:
            b = np.zeros(10)
        c = np.zeros(10)
    with outer:
        d = np.zeros(10)
    assert (live(one), live(two)) == (3, 1)
    del a, b, c, d
    assert (live(one), live(two)) == (0, 0)


def test_an_exception_leaves_it(pool):
    with pytest.raises(KeyError), numpy_memory(pool):
        raise KeyError
    assert get_handler_name() == "default_allocator"


def test_other_threads_and_contexts_go_on_as_before(pool):
    names = []

    def look():
        names.append(get_handler_name(np.zeros(10)))

    with numpy_memory(pool):
        thread = threading.Thread(target=look, **_empty_context())
        thread.start()
        thread.join()
        look()
        contextvars.copy_context().run(look)
        contextvars.Context().run(look)
    assert names == ["default_allocator", "xmem", "xmem", "default_allocator"]


def _empty_context():
    """Arguments that give a thread a context of its own, where it has none anyway."""
    if getattr(sys.flags, "thread_inherit_context", False):
        return {"context": contextvars.Context()}
    return {}


def test_tasks_have_each_their_own(arena):
    pools = [Pool(arena) for _ in range(4)]

    async def work(pool):
        with numpy_memory(pool):
            arrays = []
            for i in range(20):
                arrays.append(np.full(10, i))
                await asyncio.sleep(0)
            assert live(pool) == 20
            return arrays

    async def main():
        return await asyncio.gather(*map(work, pools))

    kept = asyncio.run(main())
    assert [live(pool) for pool in pools] == [20] * 4
    del kept
    gc.collect()
    assert [live(pool) for pool in pools] == [0] * 4


def test_tasks_share_one_manager(arena):
    """Each task leaves it to what was in force where that task entered it."""
    one, two = Pool(arena, name="one"), Pool(arena, name="two")
    first, second = numpy_memory(one), numpy_memory(two)
    seen = []

    def look(where):
        kept = np.zeros(10)
        seen.append((where, live(one), live(two)))
        del kept

    async def outer(inside, left, done):
        with first:
            with second:
                inside.set()
                await left.wait()
                look("in second")
            look("in first")
        look("outside")
        done.set()

    async def inner(inside, left, done):
        await inside.wait()
        with second:
            left.set()
            await done.wait()
            look("in second")
        look("outside")

    async def main():
        events = [asyncio.Event() for _ in range(3)]
        await asyncio.gather(outer(*events), inner(*events))

    asyncio.run(main())
    look("outside")
    right = {"in first": (1, 0), "in second": (0, 1), "outside": (0, 0)}
    assert len(seen) == 6
    assert [(where, *right[where]) for where, *_ in seen] == seen


def test_threads_share_one_manager(arena):
    one, two = Pool(arena, name="one"), Pool(arena, name="two")
    shared = numpy_memory(one)
    entered, both, left = threading.Event(), threading.Event(), threading.Event()
    names = {}

    def first():
        with shared:
            entered.set()
            both.wait()
        names["first"] = get_handler_name(np.zeros(10))
        left.set()

    def second():
        entered.wait()
        with numpy_memory(two):
            with shared:
                both.set()
                left.wait()
            kept = np.zeros(10)
            names["second"] = live(one), live(two)
            del kept

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"first": "default_allocator", "second": (0, 1)}


def test_one_manager_is_nested_in_itself_in_many_tasks(pool):
    manager = numpy_memory(pool)

    async def work(depth):
        """Handlers seen on the way in and out, each task's children started inside."""
        seen = [get_handler_name(np.empty(5))]
        if depth:
            with manager, manager:
                await asyncio.sleep(0)
                for below in await asyncio.gather(work(depth - 1), work(depth - 1)):
                    assert set(below) == {"xmem"}
                seen.append(get_handler_name(np.empty(5)))
        await asyncio.sleep(0)
        seen.append(get_handler_name(np.empty(5)))
        return seen

    async def main():
        return await asyncio.gather(*(work(3) for _ in range(3)))

    assert (
        asyncio.run(main()) == [["default_allocator", "xmem", "default_allocator"]] * 3
    )
    assert get_handler_name(np.empty(5)) == "default_allocator"
    assert live(pool) == 0


def test_it_is_left_where_it_was_entered(pool):
    manager = numpy_memory(pool)
    with pytest.raises(BadArgument, match="not been entered"):
        manager.__exit__(None, None, None)
    with manager:
        elsewhere = contextvars.Context()
        with pytest.raises(BadArgument, match="not been entered"):
            elsewhere.run(manager.__exit__, None, None, None)
        assert elsewhere.run(get_handler_name) == "default_allocator"
        assert get_handler_name(np.zeros(5)) == "xmem"
        inherited = contextvars.copy_context()
        with pytest.raises(BadArgument, match="entered in another context"):
            inherited.run(manager.__exit__, None, None, None)
        assert inherited.run(get_handler_name) == "xmem"
        assert get_handler_name(np.zeros(5)) == "xmem"
    assert get_handler_name(np.zeros(5)) == "default_allocator"
    with pytest.raises(BadArgument, match="not been entered"):
        manager.__exit__(None, None, None)
    with pytest.raises(BadArgument, match="entered in another context"):
        inherited.run(manager.__exit__, None, None, None)


def test_another_task_cannot_end_a_generator_that_is_inside(pool):
    """Its end would leave the manager in that task, and in force where it began."""
    manager = numpy_memory(pool)

    async def inside():
        with manager:
            yield

    async def main():
        generator = inside()
        await anext(generator)

        async def close():
            with pytest.raises(BadArgument, match="entered in another context"):
                await generator.aclose()

        await asyncio.create_task(close())
        assert get_handler_name(np.empty(5)) == "xmem"
        manager.__exit__(None, None, None)
        assert get_handler_name(np.empty(5)) == "default_allocator"

    asyncio.run(main())


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_managers_are_left_in_any_order(arena, order):
    """As by generators: what was entered last, of what is left, is in force."""
    pools = [Pool(arena) for _ in range(3)]
    three = [numpy_memory(pool) for pool in pools]
    managers = [*three, three[1]]
    entered = []

    def in_force():
        kept = np.empty(10)
        counts = [live(pool) for pool in pools]
        del kept
        return counts.index(1) if any(counts) else None

    for manager in managers:
        manager.__enter__()
        entered.append(manager)
    for place in order:
        manager = managers[place]
        assert in_force() == three.index(entered[-1])
        manager.__exit__(None, None, None)
        del entered[len(entered) - 1 - entered[::-1].index(manager)]
    assert in_force() is None
    assert get_handler_name() == "default_allocator"


def test_any_thread_frees(pool):
    box = []
    with numpy_memory(pool):
        box += [np.full(100, i) for i in range(200)]
    threads = [
        threading.Thread(target=lambda: [box.pop() for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live(pool) == 0
    pool.check()


def test_arrays_dropped_while_another_thread_checks(arena):
    pool = Pool(arena)
    with numpy_memory(pool):
        arrays = [np.zeros(8) for _ in range(3000)]
    stop = threading.Event()
    checker = threading.Thread(
        target=lambda: [pool.check() for _ in iter(stop.is_set, True)]
    )
    checker.start()
    try:
        with numpy_memory(pool):
            while arrays:
                del arrays[-50:]
                np.arange(5.0).sum()
    finally:
        stop.set()
        checker.join()
    assert live(pool) == 0
    pool.check()


@pytest.mark.parametrize("kind", [ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE])
def test_it_does_not_matter_who_holds_the_gil(pool, kind):
    """NumPy may call without it, as ctypes does with the first kind, or with it."""
    word, size = ctypes.c_void_p, ctypes.c_size_t
    manager = numpy_memory(pool)  # which has the handler
    with manager:
        context, malloc, _, _, free = words_in_force()
    take = kind(word, word, size)(malloc)
    give = kind(None, word, word, size)(free)

    def work():
        for n in range(1, 1000):
            held = [take(context, n) for _ in range(3)]
            assert len(set(held)) == 3
            for at in held:
                ctypes.memset(at, 1, n)
                give(context, at, n)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert take(context, 1 << 40) is None
    give(context, None, 0)
    del manager
    assert live(pool) == 0
    pool.check()


# No room ---------------------------------------------------------------------


def test_a_full_pool_is_a_memory_error(maker):
    with numpy_memory(maker):
        with pytest.raises(MemoryError):
            np.empty(1 << 30)
        with pytest.raises(MemoryError):
            np.zeros(1 << 30)
        kept = []
        with pytest.raises(MemoryError):
            kept.extend(np.full(20_000, 1.0) for _ in range(1000))
        array = kept.pop(0)
        with pytest.raises(MemoryError):
            array.resize(4 << 20, refcheck=False)
        assert array.sum() == 20_000
    del kept, array
    gc.collect()


def test_or_it_falls_back(maker):
    with numpy_memory(maker, fallback=True) as manager:
        assert manager.fallback
        large = np.zeros(4 << 20, "f8")
        assert live(maker) == 0
        assert not large.any()
        large.resize(8 << 20, refcheck=False)
        large.resize(10, refcheck=False)
        small = np.arange(10)
        assert live(maker) == 1
        small.resize(4 << 20, refcheck=False)
        assert live(maker) == 0
        assert small[:10].tolist() == list(range(10))
        kept = [np.full(20_000, i, "f8") for i in range(200)]
        assert 0 < live(maker) < 200
        assert all(array[-1] == i for i, array in enumerate(kept))
    del large, small, kept
    assert live(maker) == 0


def test_a_shrink_that_falls_back_copies_what_fits(maker):
    """Data that a view keeps from being resized leaves the arena, and shrinks."""
    with numpy_memory(maker, fallback=True):
        array = np.arange(3 << 18, dtype="u8")
    view = maker.view(array.ctypes.data - maker.arena.address(0))
    # Six MiB written into ten words would leave the process's heap.
    array.resize(10, refcheck=False)
    assert array.tolist() == list(range(10))
    view.release()
    assert live(maker) == 0


def test_a_manager_is_initialised_once(pool, arena):
    manager = numpy_memory(pool)
    other = Pool(arena)
    with pytest.raises(BadArgument, match="twice"):
        manager.__init__(other)
    assert manager.allocator is pool
    with manager:
        array = np.ones(10)
    assert (live(pool), live(other)) == (1, 0)
    del array


def test_a_product_that_overflows_is_no_memory(pool):
    manager = numpy_memory(pool)  # which has the handler
    with manager:
        context, zeroed = handler_in_force()
    for count, size in ((1 << 63, 2), ((1 << 61) + 1, 8), (2, (1 << 63) + 8)):
        assert zeroed(context, count, size) is None
        assert zeroed(context, size, count) is None
    assert live(pool) == 0


def test_what_falls_back_outlives_the_arena():
    arena = Arena.anonymous(1 << 20)
    with numpy_memory(Pool(arena), fallback=True):
        large = np.full(1 << 20, 5.0)
    arena.close()
    assert large.sum() == 5 << 20
    large.resize(10, refcheck=False)
    del large


# What holds what -------------------------------------------------------------


def test_nothing_is_closed_under_an_array(maker):
    with numpy_memory(maker):
        array = np.arange(10)
    for act in (maker.arena.close, lambda: maker.destroy(force=True)):
        with pytest.raises(BufferError):
            act()
    (row,) = [row for row in walk(maker) if row["used"]]
    for act in (maker.xfree, lambda offset: maker.xrealloc(offset, 500)):
        with pytest.raises(xmem.MismatchedFree):
            act(int(row["offset"]))
    assert array.tolist() == list(range(10))
    del array


def walk(allocator):
    pools = allocator.pools if isinstance(allocator, Heap) else (allocator,)
    return np.concatenate([pool.walk() for pool in pools])


def test_an_array_keeps_everything_that_it_needs():
    with numpy_memory(Pool(Arena.anonymous(1 << 20))):
        array = np.arange(1000)
    gc.collect()
    assert array.sum() == 499_500
    array.resize(5, refcheck=False)
    assert array.tolist() == [0, 1, 2, 3, 4]


def test_figures_of_the_pool_itself_are_right_inside(maker):
    """Tables that a pool's methods return are not in that pool."""
    with numpy_memory(maker):
        kept = [np.zeros(n) for n in range(50)]
        for _ in range(3):
            rows = walk(maker) if isinstance(maker, Heap) else maker.walk()
            assert rows["used"].sum() >= 50
            assert maker.arena.frames()["n_pages"].sum() > 0
            maker.check()
            if isinstance(maker, Pool):
                offsets = maker.xmalloc_many([10, 20, 30])
                maker.xfree_many(offsets)
                del offsets
        del rows
        with pytest.raises(xmem.PoolInUse):
            maker.destroy()
        with pytest.raises(BufferError):
            maker.destroy(force=True)
        del kept


def test_a_pool_is_destroyed_inside_its_own_context(arena):
    pool = Pool(arena)
    offset = pool.xmalloc(100)
    with numpy_memory(pool):
        (row,) = pool.destroy(force=True)
        assert row["offset"] == offset
    assert np.zeros(10).sum() == 0


def test_a_pool_that_is_gone_is_reported(arena, monkeypatch):
    caught = []
    monkeypatch.setattr("sys.unraisablehook", caught.append)
    pool = Pool(arena)
    with numpy_memory(pool):
        pool.destroy()
        with pytest.raises(MemoryError):
            np.zeros(10)
    assert [args.exc_type for args in caught] == [xmem.PoolDestroyed]


def test_a_view_by_offset_outlives_the_array(pool):
    with numpy_memory(pool):
        array = np.full(4, 7, "u1")
    (row,) = [row for row in pool.walk() if row["used"]]
    view = pool.view(int(row["offset"]), 4)
    del array
    assert bytes(view) == b"\7\7\7\7"
    assert live(pool) == 1
    del view
    assert live(pool) == 0


def test_hooks_serve_numpy_too(arena):
    taken = []

    def get_mem(n_pages):
        taken.append(n_pages)
        return arena.page_alloc_exact(n_pages)

    pool = Pool(arena, get_mem=get_mem, put_mem=lambda at, n: arena.page_free(at))
    with numpy_memory(pool):
        arrays = [np.full(1000, i) for i in range(100)]
    assert taken
    assert all(array[5] == i for i, array in enumerate(arrays))
    del arrays
    assert live(pool) == 0


def test_an_exception_on_its_way_survives_the_end_of_an_array(pool):
    """The locals of a frame that raises are dropped while it propagates."""

    def fails():
        with numpy_memory(pool):
            array = np.zeros(100)
            return array["wrong"]

    for _ in range(20):
        with pytest.raises(IndexError):
            fails()
    gc.collect()
    assert live(pool) == 0


def test_it_has_a_domain_of_tracemalloc(pool):
    before = xmem.trace_sites(True)
    tracemalloc.start(5)
    try:
        with numpy_memory(pool):
            array = np.zeros(1234, "u1")
        only = tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)
        traces = tracemalloc.take_snapshot().filter_traces([only]).traces
        assert [trace.size for trace in traces] == [1234]
        assert any(frame.filename == __file__ for frame in traces[0].traceback)
        del array, traces
        left = tracemalloc.take_snapshot().filter_traces([only]).traces
        assert len(left) == 0
    finally:
        tracemalloc.stop()
        xmem.trace_sites(before)


def test_a_child_frees_its_copies(pool):
    if not hasattr(os, "fork"):
        pytest.skip("the system has no fork")
    code = """
import os, sys, numpy as np, xmem
path = sys.argv[1] if len(sys.argv) > 1 else None
arena = xmem.Arena.create(path, 1 << 20) if path else xmem.Arena.anonymous(1 << 20)
pool = xmem.Pool(arena, name="p")
manager = xmem.numpy_memory(pool, fallback=True)
with manager:
    array, other = np.arange(100), np.arange(50)
block = pool.block(10)
pid = os.fork()
if pid == 0:
    assert array.sum() == 4950
    del array, block
    try:
        with manager:
            more = np.ones(10)
    except xmem.ArenaInUse:
        os._exit(0 if path else 1)  # the file is the parent's, see docs
    assert pool.stats().live_blocks == 2
    pool.check()
    os._exit(0 if more.sum() == 10 and not path else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert pool.stats().live_blocks == 3
del array, other, block
pool.check()
assert pool.stats().live_blocks == 0
arena.close()
"""
    for path in ([], [str(Path(os.environ.get("TMPDIR", "/tmp")) / f"x{os.getpid()}")]):
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", code, *path],
            capture_output=True,
            text=True,
        )
        if path:
            os.unlink(path[0])
        assert done.returncode == 0, done.stderr


# Object arrays where another process sees the pages ---------------------------

#: Ways to an array of objects, each from a list of them.
OBJECT_ARRAYS = {
    "empty": lambda objects: np.empty(len(objects), object),
    "zeros": lambda objects: np.zeros(len(objects), object),
    "full": lambda objects: np.full(len(objects), objects[0], object),
    "array": np.array,
    "fromiter": lambda objects: np.fromiter(iter(objects), object),
    "fromiter of a count": lambda objects: np.fromiter(objects, object, len(objects)),
    "astype": lambda objects: np.arange(len(objects)).astype(object),
    "resize": lambda objects: resized(np.array(objects), 5000),
    "resize of nothing": lambda objects: resized(np.empty(0, object), 500),
    "numpy.resize": lambda objects: np.resize(np.array(objects), 5000),
    "copy": lambda objects: copy.copy(np.array(objects)),
    "deepcopy": lambda objects: copy.deepcopy(np.array(objects)),
    "sort": lambda objects: np.sort(np.array([5, 3, 8] * 40, object)),
    "concatenate": lambda objects: np.concatenate([np.array(objects)] * 2),
    "take": lambda objects: np.array(objects)[np.arange(50)],
    "transposed": lambda objects: np.array(objects[:60]).reshape(6, 10).T.copy(),
    "ufunc": lambda objects: np.frompyfunc(lambda x: x, 1, 1)(np.array(objects)),
    "scalar": lambda objects: np.array(objects[0], object),
    "where": lambda objects: np.where([True] * len(objects), np.array(objects), None),
    "structure": lambda objects: np.empty(9, [("a", "O"), ("b", "i4")]),
    "structure, astype": lambda objects: np.empty(9, [("a", "i4")]).astype(
        [("a", "O")]
    ),
    "loadtxt": lambda objects: np.loadtxt(["a 1", "b 2"] * 50, dtype=object),
}


def resized(array, n):
    array.resize(n, refcheck=False)
    return array


class Thing:
    """An object to point to."""


@pytest.fixture
def shared_arena(tmp_path):
    with Arena.create(tmp_path / "arena", 16 << 20, page_size=4096) as arena:
        yield arena
        gc.collect()


def is_inside(arena, array):
    start = arena.address(0)
    return start <= array.ctypes.data < start + arena.n_bytes


@pytest.mark.parametrize("way", OBJECT_ARRAYS)
def test_no_references_lie_in_a_shared_arena(shared_arena, way):
    pool = Pool(shared_arena)
    objects = [Thing() for _ in range(300)]
    for fallback in (False, True):
        with numpy_memory(pool, fallback=fallback):
            array = OBJECT_ARRAYS[way](objects)
            assert array.dtype.hasobject
            assert not is_inside(shared_arena, array)
        if array.flags.owndata:
            array = resized(array, 7000)
            assert not is_inside(shared_arena, array)
        del array
    assert live(pool) == 0
    pool.check()


def test_the_exceptions_are_those_that_the_docs_name(shared_arena):
    """Where NumPy puts references into memory that it has not requested zeroed."""
    pool = Pool(shared_arena)
    pickled = pickle.dumps(np.array([1, None, "a"] * 20, object))
    with numpy_memory(pool):
        array = pickle.loads(pickled)
    assert is_inside(shared_arena, array)
    assert live(pool) == 1
    del array

    seen = []

    class Ordered(Thing):
        def __init__(self, n):
            self.n = n

        def __lt__(self, other):
            inside = ctypes.string_at(shared_arena.address(0), 1 << 20)
            seen.append(id(self).to_bytes(8, sys.byteorder) in inside)
            return self.n < other.n

    things = np.array([Ordered(n % 7) for n in range(60)]).reshape(6, 10)
    whole = np.ascontiguousarray(things.T)
    calls = [
        (lambda: np.sort(things, axis=0), True),
        (lambda: np.partition(things, 3, axis=0), True),
        (lambda: np.sort(whole, axis=1), False),
        (lambda: np.partition(whole, 3, axis=1), False),
    ]
    for call, has_buffer in calls:
        seen.clear()
        with numpy_memory(pool):
            result = call()
        assert not is_inside(shared_arena, result)
        assert seen
        assert any(seen) is has_buffer
        assert live(pool) == 0
        del result


@pytest.mark.parametrize("way", OBJECT_ARRAYS)
def test_a_private_arena_holds_references(maker, way):
    with numpy_memory(maker):
        array = OBJECT_ARRAYS[way]([Thing() for _ in range(300)])
        assert is_inside(maker.arena, array)
    del array


def test_plain_data_lies_in_a_shared_arena_unless_numpy_asks_for_zeros(shared_arena):
    pool = Pool(shared_arena)
    with numpy_memory(pool):
        inside = [
            np.empty(100),
            np.arange(100),
            np.full(100, 7),
            np.arange(50.0) + 1,
            np.sort(np.arange(30)[::-1]),
            pool.zeros(100),
        ]
        outside = [np.zeros(100), np.zeros((3, 3), "u1"), np.zeros(0)]
        with pytest.raises(MemoryError):
            np.empty(1 << 30, "u1")
        large = np.zeros(1 << 30, "u1")  # the pool's limit is not asked
        with pytest.raises(MemoryError):
            np.zeros(1 << 62, "u1")
    assert all(is_inside(shared_arena, array) for array in inside)
    assert not any(is_inside(shared_arena, array) for array in outside)
    assert not any(array.any() for array in (*outside, large[:: 1 << 20]))
    assert live(pool) == len(inside)
    del inside, outside, large
    assert live(pool) == 0


FORKS = {
    "the child reads": """
a[:] = [Thing() for _ in range(1000)]
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(read, 1)
    kinds = {type(x) for x in a}
    del a
    os._exit(0 if kinds == {Thing} else 1)
a[:] = [Thing() for _ in range(1000)]
del a
with xmem.numpy_memory(pool):
    b = np.full(1000, 0x4141414141414141, dtype=np.int64)
os.write(write, b"x")
""",
    "the child writes": """
a[:] = [object() for _ in range(1000)]
before = [id(x) for x in a]
pid = os.fork()
if pid == 0:
    a[:] = [("child", i) for i in range(1000)]
    os._exit(0)
""",
}


@pytest.mark.parametrize("way", ["empty", "fromiter", "astype", "resize"])
@pytest.mark.parametrize("deed", FORKS)
def test_a_child_has_references_of_its_own(deed, way, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("the system has no fork")
    made = {
        "empty": "np.empty(1000, object)",
        "fromiter": "np.fromiter((object() for _ in range(1000)), object)",
        "astype": "np.arange(1000.0).astype(object)",
        "resize": "np.array([object()] * 10)",
    }[way]
    code = f"""
import os, sys, numpy as np, xmem
arena = xmem.Arena.create(sys.argv[1], 4 << 20)
pool = xmem.Pool(arena)
class Thing: pass
with xmem.numpy_memory(pool):
    a = {made}
    a.resize(1000, refcheck=False)
{FORKS[deed]}
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
if {deed == "the child writes"}:
    junk = [bytearray(100) for _ in range(10000)]
    assert [id(x) for x in a] == before
    a[:] = 0
    del a
pool.check()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", code, str(tmp_path / "arena")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Random programs -------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_program_computes_the_same(data):
    """Sequences of NumPy calls, with their data in a pool and without."""
    calls = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["new", "copy", "add", "sort", "take", "resize", "drop", "cat"]
                ),
                st.integers(0, 400),
                st.integers(0, 9),
            ),
            max_size=40,
        )
    )

    def run():
        kept = [np.arange(5)]
        for verb, n, which in calls:
            array = kept[which % len(kept)]
            if verb == "new":
                kept.append(np.arange(n))
            elif verb == "copy":
                kept.append(array.copy())
            elif verb == "add":
                kept.append(array + n)
            elif verb == "sort":
                kept.append(np.sort(-array))
            elif verb == "take" and array.size:
                kept.append(array[np.arange(n) % array.size])
            elif verb == "resize":
                mine = array.copy()
                mine.resize(n, refcheck=False)
                kept.append(mine)
            elif verb == "drop" and len(kept) > 1:
                del kept[which % len(kept)]
            elif verb == "cat" and array.size < 10_000:
                kept.append(np.concatenate([array, array[:n]]))
        return kept

    pool = Pool(Arena.anonymous(64 << 20))
    with numpy_memory(pool, fallback=True):
        ours = run()
    theirs = run()
    pool.check()
    assert all(map(np.array_equal, ours, theirs))
    del ours
    assert live(pool) == 0


# NumPy's own tests -----------------------------------------------------------

EVERYTHING = os.environ.get("XMEM_TEST_PROFILE") == "soak"
NUMPYS = (
    "test_multiarray",
    "test_indexing",
    "test_item_selection",
    "test_shape_base",
    "test_numeric",
)
#: Of them where time is short; XMEM_TEST_PROFILE=soak runs all, some 16 thousand.
CHOSEN = (
    "Creation or TestMethods or Resize or Stats or Fancy or Assign or Attributes or "
    "ZeroSized or Construction or indexing or item_selection or shape_base or numeric"
)


@pytest.mark.programs
@pytest.mark.no_asan  # NumPy is not built for it, and it takes minutes
@pytest.mark.parametrize("kind", ["plain", "hardened"])
def test_numpys_own_tests_pass(kind, tmp_path):
    """Creation, copies, reductions, sorting, fancy indexing, growth in place."""
    version = int(np.__version__.split(".")[0])
    core = "numpy._core" if version > 1 else "numpy.core"
    modules = NUMPYS if kind == "plain" else NUMPYS[1:4]
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-P",
                "-m",
                "pytest",
                "-q",
                "-p",
                "support.numpy_under_xmem",
            ),
            *("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)),
            *([] if EVERYTHING else ["-k", CHOSEN]),
            *("--pyargs", *(f"{core}.tests.{module}" for module in modules)),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            ).rstrip(os.pathsep),
            "NPY_AVAILABLE_MEM": "1 MB",
            "NUMPY_UNDER_XMEM": kind,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    n_passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    n_inside = int(re.search(r"under xmem: (\d+) tests", done.stdout)[1])
    least = 300 if kind == "hardened" else 10_000 if EVERYTHING else 2000
    assert n_passed > least
    assert n_inside >= n_passed


def test_the_alignment_is_one_the_arena_keeps(pool):
    numpy_memory(pool, align=pool.arena.max_align)
    with pytest.raises(BadArgument, match="at most"):
        numpy_memory(pool, align=2 * pool.arena.max_align)


def test_the_file_of_an_arena_may_have_any_descriptor(tmp_path):
    """A program without a standard input gets 0, and shares its arena all the same."""
    code = """
import os, sys
os.close(0)
import numpy
import xmem
with xmem.Arena.create(sys.argv[1], 1 << 20, page_size=4096) as arena:
    assert os.path.samestat(os.stat(sys.argv[1]), os.fstat(0))
    pool = xmem.Pool(arena)
    with xmem.numpy_memory(pool):
        array = numpy.array([None] * 100)
        assert pool.stats().live_blocks == 0
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path / "arena"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_manager_that_was_not_entered_is_not_in_force(pool):
    """Not where memory is short, alone or inside another."""
    faults = pytest.importorskip("_testcapi")
    outer, inner = numpy_memory(pool), numpy_memory(pool)
    failed = 0
    for n, around in itertools.product(range(30), [outer, contextlib.nullcontext()]):
        with around:
            before = get_handler_name()
            is_entered = False
            faults.set_nomemory(n, n + 1)
            try:
                inner.__enter__()
                is_entered = True
            except MemoryError:
                failed += 1
            finally:
                faults.remove_mem_hooks()
            if is_entered:
                inner.__exit__(None, None, None)
            assert get_handler_name() == before
        assert get_handler_name() == "default_allocator"
        with pytest.raises(BadArgument, match="not been entered"):
            inner.__exit__(None, None, None)
    assert failed
