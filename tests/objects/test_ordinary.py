# SPDX-License-Identifier: BSD-3-Clause
"""The word that says that a pool is ordinary: what clears it, and that it is obeyed.

Where it is set, xmalloc and xfree ask for nothing but the proof of the block. So each
test makes the pool ordinary first; then something rare happens, and the next verb has
to know.
"""

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import tracemalloc

import numpy as np
import pytest

import xmem
from xmem import Arena, Heap, Pool, numpy_memory
from xmem.base.errors import (
    ArenaClosed,
    BadArgument,
    DoubleFree,
    HeapCorruption,
    MismatchedFree,
    NotABlock,
    PoolDestroyed,
)

PAGE = 4096


def make_ordinary(pool):
    """Make two calls, after which the others need not look; returns a live block."""
    pool.xfree(pool.xmalloc(100))
    return pool.xmalloc(100)


@pytest.fixture
def arena():
    with Arena.anonymous(1 << 22, page_size=PAGE) as arena:
        yield arena


@pytest.fixture(params=["tlsf", "firstfit", "quick"])
def pool(request, arena):
    if request.param == "quick":
        return Pool(arena, quick=True)
    return Pool(arena, engine=request.param)


#: Verbs, given a pool and a live block.
CALLS = {
    "xmalloc": lambda pool, offset: pool.xmalloc(100),
    "xmalloc, aligned": lambda pool, offset: pool.xmalloc(100, 64),
    "xfree": lambda pool, offset: pool.xfree(offset),
    "xmalloc_many": lambda pool, offset: pool.xmalloc_many([100]),
    "xfree_many": lambda pool, offset: pool.xfree_many([offset]),
    "block": lambda pool, offset: pool.block(100),
    "empty": lambda pool, offset: pool.empty(100),
}


# The word --------------------------------------------------------------------------


def test_a_pool_is_ordinary_from_its_first_verb_on(pool, probe):
    assert not probe.ordinary(pool)
    offset = pool.xmalloc(100)
    assert probe.ordinary(pool)
    pool.xfree(offset)
    assert probe.ordinary(pool)


@pytest.mark.parametrize(
    "settings",
    [{"hardened": True}, {"hardened": ("poison",)}, {"get_mem": None}],
    ids=["hardened", "poison", "hooks"],
)
def test_some_pools_never_are(arena, probe, settings):
    if "get_mem" in settings:
        settings = {"get_mem": arena.page_alloc_exact, "put_mem": lambda *run: None}
    pool = Pool(arena, **settings)
    for n in (100, 3000):
        pool.xfree(pool.xmalloc(n))
        assert not probe.ordinary(pool)


def test_a_handle_that_was_never_made_is_not(probe):
    pool = Pool.__new__(Pool)
    assert not probe.ordinary(pool)
    for call in CALLS.values():
        with pytest.raises(BadArgument):
            call(pool, 64)


@pytest.mark.parametrize("event", ["busy", "sites", "close", "destroy"])
def test_what_clears_it(probe, event):
    arena = Arena.anonymous(1 << 20, page_size=PAGE)
    pool = Pool(arena)
    make_ordinary(pool)
    assert probe.ordinary(pool)
    if event == "busy":
        arena.check()
    elif event == "sites":
        xmem.trace_sites(xmem.trace_sites(True))
    elif event == "close":
        arena.close()
    else:
        pool.destroy(force=True)
    assert not probe.ordinary(pool)


def test_sites_keep_it_clear(probe, arena):
    pool = Pool(arena)
    offset = make_ordinary(pool)
    before = xmem.trace_sites(True)
    try:
        pool.xfree(offset)
        assert not probe.ordinary(pool)
    finally:
        xmem.trace_sites(before)
    pool.xfree(pool.xmalloc(1))
    assert probe.ordinary(pool)


# What it may not hide: the block ---------------------------------------------------


def test_integers_are_refused_all_the_same(pool):
    offset = make_ordinary(pool)
    other = Pool(pool.arena)
    theirs = make_ordinary(other)
    for wrong, error in (
        (offset + 16, NotABlock),
        (offset + 1, NotABlock),
        (0, NotABlock),
        (pool.arena.n_bytes, NotABlock),
        (2**64 - 1, NotABlock),
        (2**64, NotABlock),
        (-offset, NotABlock),
        (theirs, MismatchedFree),
    ):
        before = pool.walk().tolist(), other.walk().tolist()
        make_ordinary(pool)
        pool.xfree(make_ordinary(pool))
        with pytest.raises(error):
            pool.xfree(wrong)
        assert other.walk().tolist() == before[1]
    pool.xfree(offset)
    with pytest.raises(DoubleFree):
        pool.xfree(offset)
    pool.check()


def test_a_view_keeps_its_block_and_no_other(pool):
    offset, other = make_ordinary(pool), make_ordinary(pool)
    view = pool.view(offset)
    pool.xfree(other)
    with pytest.raises(BufferError):
        pool.xfree(offset)
    with pytest.raises(BufferError):
        pool.xfree_many([offset])
    view.release()
    del view
    pool.xfree(offset)


@pytest.mark.parametrize("make", ["block", "empty", "numpy_memory"])
def test_owned_memory_is_refused_while_it_is_owned(pool, make):
    plain = make_ordinary(pool)
    if make == "block":
        thing = pool.block(100)
        offset = thing.offset
    elif make == "empty":
        thing = pool.empty(100)
        offset = pool.block_of(thing).offset
    else:
        with numpy_memory(pool):
            thing = np.empty(100)
        offset = thing.__array_interface__["data"][0] - pool.arena.address(0)
    for _ in range(2):
        with pytest.raises(MismatchedFree):
            pool.xfree(offset)
        with pytest.raises(MismatchedFree):
            pool.xfree_many([plain, offset])
    pool.xfree(plain)
    before = pool.stats().live_blocks
    del thing
    gc.collect()
    assert pool.stats().live_blocks == before - 1
    with pytest.raises(DoubleFree):
        pool.xfree(offset)


def test_a_detached_block_is_free_to_go_with_its_last_view(pool):
    make_ordinary(pool)
    block = pool.block(100)
    view = memoryview(block)
    offset = block.detach()
    with pytest.raises(BufferError):
        pool.xfree(offset)
    view.release()
    pool.xfree(offset)


def test_a_collected_owner_waits_for_a_view_by_offset(pool):
    make_ordinary(pool)
    block = pool.block(100)
    offset, view = block.offset, pool.view(block.offset)
    live = pool.stats().live_blocks
    del block
    assert pool.stats().live_blocks == live
    with pytest.raises(BufferError):
        pool.xfree(offset)
    del view
    assert pool.stats().live_blocks == live - 1


# What it may not hide: the pool ----------------------------------------------------


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def test_a_closed_arena_is_not_touched(call):
    arena = Arena.anonymous(1 << 20, page_size=PAGE)
    pool = Pool(arena)
    offset = make_ordinary(pool)
    arena.close()
    with pytest.raises(ArenaClosed):
        call(pool, offset)


def test_a_pool_destroyed_by_another_handle_is_gone(arena, call):
    pool = Pool(arena, name="one")
    offset = make_ordinary(pool)
    twin = Pool.open(arena, "one")
    make_ordinary(twin)
    twin.destroy(force=True)
    heir = Pool(arena, name="one")
    assert heir.id == pool.id
    make_ordinary(heir)
    before = heir.walk().tolist()
    with pytest.raises(PoolDestroyed):
        call(pool, offset)
    assert heir.walk().tolist() == before


def test_objects_of_a_destroyed_pool_free_nothing_of_its_heir(arena):
    pool = Pool(arena, name="one")
    make_ordinary(pool)
    block = pool.block(100)
    pool.destroy(force=True)
    heir = Pool(arena, name="one")
    make_ordinary(heir)
    before = heir.walk().tolist()
    del block
    assert heir.walk().tolist() == before
    heir.check()


class Ends:
    """An integer whose conversion ends an arena or a pool."""

    def __init__(self, value, end):
        self.value, self.end = value, end

    def __index__(self):
        self.end()
        return self.value


@pytest.mark.parametrize(
    "verb",
    [
        lambda pool, offset, end: pool.xmalloc(Ends(100, end)),
        lambda pool, offset, end: pool.xmalloc(100, align=Ends(16, end)),
        lambda pool, offset, end: pool.xfree(Ends(offset, end)),
        lambda pool, offset, end: pool.empty(Ends(10, end)),
        lambda pool, offset, end: pool.xmalloc_many([Ends(10, end)]),
        lambda pool, offset, end: pool.xfree_many([Ends(offset, end)]),
    ],
    ids=["n", "align", "offset", "shape", "sizes", "offsets"],
)
@pytest.mark.parametrize("end", ["close", "destroy"])
def test_an_argument_that_ends_it(verb, end):
    arena = Arena.anonymous(1 << 20, page_size=PAGE)
    pool = Pool(arena)
    offset = make_ordinary(pool)
    ends = arena.close if end == "close" else (lambda: pool.destroy(force=True))
    with pytest.raises(ArenaClosed if end == "close" else PoolDestroyed):
        verb(pool, offset, ends)


def test_sites_are_recorded_from_the_next_call_on(pool):
    make_ordinary(pool)
    tracemalloc.start()
    before = xmem.trace_sites(True)
    try:
        offset = pool.xmalloc(12_345)
        many = pool.xmalloc_many([54_321])
        only = tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)

        def recorded():
            snapshot = tracemalloc.take_snapshot().filter_traces([only])
            return sorted(trace.size for trace in snapshot.traces)

        assert recorded() == [12_345, 54_321]
        pool.xfree(offset)
        assert recorded() == [54_321]
        pool.xfree_many(many)
        assert recorded() == []
    finally:
        xmem.trace_sites(before)
        tracemalloc.stop()


@pytest.mark.damages
def test_a_hardened_pool_looks_at_each_block():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, hardened=True)
        offset = make_ordinary(pool)
        block = pool.block(40)
        for end in (offset + 100, block.offset + 40):
            ctypes.c_uint8.from_address(arena.address(end)).value ^= 1
        with pytest.raises(HeapCorruption):
            pool.xfree(offset)
        with pytest.raises(HeapCorruption):
            block.release()
        pool.destroy(force=True)


def test_hooks_are_called_from_the_next_call_on(arena):
    pool = Pool(arena, name="one", join_regions=False)
    make_ordinary(pool)
    taken, given = [], []

    def get_mem(n_pages):
        taken.append(n_pages)
        return arena.page_alloc_exact(n_pages)

    def put_mem(offset, n_pages):
        given.append(n_pages)
        arena.page_free(offset)

    hooked = Pool.open(arena, "one", get_mem=get_mem, put_mem=put_mem)
    offsets = [hooked.xmalloc(3 * PAGE) for _ in range(20)]
    assert taken
    for offset in offsets:
        hooked.xfree(offset)
    assert given


# Threads and processes -------------------------------------------------------------


@pytest.mark.parametrize("verb", ["xmalloc", "xfree", "empty"])
def test_a_verb_waits_for_work_without_the_gil(verb):
    """Checks in one thread, verbs in the other: the checks find a heap at rest."""
    with Arena.anonymous(1 << 24, page_size=PAGE) as arena:
        pool = Pool(arena)
        for _ in range(2000):
            make_ordinary(pool)
        errors = []

        def check():
            try:
                for _ in range(30):
                    pool.check()
            except HeapCorruption as error:  # pragma: no cover
                errors.append(error)

        thread = threading.Thread(target=check)
        thread.start()
        blocks = []
        while thread.is_alive():
            if verb == "empty":
                pool.empty(100)
            elif verb == "xfree":
                pool.xfree(pool.xmalloc(100))
            elif len(blocks) < 10_000:
                blocks.append(pool.xmalloc(100))
            else:
                pool.xfree_many(blocks)
                blocks.clear()
        thread.join()
        assert not errors
        pool.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("kind", ["anonymous", "file"])
def test_a_child_looks_again(kind, tmp_path):
    script = """
        import os, sys, xmem
        path = sys.argv[1]
        arena = (
            xmem.Arena.create(path, 1 << 20) if path else xmem.Arena.anonymous(1 << 20)
        )
        pool = xmem.Pool(arena)
        pool.xfree(pool.xmalloc(100))
        offset = pool.xmalloc(100)
        calls = [
            lambda: pool.xmalloc(1), lambda: pool.xfree(offset),
            lambda: pool.empty(1), lambda: pool.xmalloc_many([1]),
        ]
        array = pool.empty(10)
        pid = os.fork()
        if pid == 0:
            refused = 0
            for call in calls:
                try:
                    call()
                except xmem.ArenaInUse:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (4 if path else 0)
        pool.xfree(offset)
        del array
        pool.check()
        assert pool.stats().live_blocks == 0
    """
    path = str(tmp_path / "arena") if kind == "file" else ""
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-W", "ignore::DeprecationWarning"),
            *("-c", textwrap.dedent(script), path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Arrays ----------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [Pool, lambda arena: Heap(arena, "merged")])
def test_an_array_s_block_is_made_once(arena, maker):
    maker = maker(arena)
    array = maker.empty(10)
    block = maker.block_of(array)
    assert block is array.base.block is maker.block_of(array[3:])
    assert len(block) == 80
    assert block.n_exports == 1
    with pytest.raises(BufferError):
        block.release()
    del array
    assert block.n_exports == 0
    block.release()
    assert maker.stats().live_blocks == 0


def test_numpy_frees_in_a_thread_of_its_own(pool):
    """The last reference is dropped by another thread; the block goes at once."""
    make_ordinary(pool)
    live = pool.stats().live_blocks
    with numpy_memory(pool):
        held = [np.empty(100) for _ in range(10)]
    assert pool.stats().live_blocks == live + 10
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pool.stats().live_blocks == live
    pool.check()
