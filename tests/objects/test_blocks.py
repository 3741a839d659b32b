# SPDX-License-Identifier: BSD-3-Clause
"""Blocks that objects own: views, ends of every kind, and who may free what."""

import copy
import ctypes
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Hashable

import numpy as np
import pytest

import xmem
from xmem import (
    Allocator,
    Arena,
    ArenaClosed,
    BadArgument,
    BadArgumentType,
    Block,
    DoubleFree,
    Heap,
    HeapCorruption,
    MismatchedFree,
    OutOfMemory,
    Pool,
    PoolDestroyed,
    SizeLimitError,
)

pytestmark = pytest.mark.damages

MAKERS = {
    "tlsf": lambda arena: Pool(arena),
    "firstfit": lambda arena: Pool(arena, engine="firstfit"),
    "hardened": lambda arena: Pool(arena, hardened=True),
    "quick": lambda arena: Pool(arena, quick=True),
    "strict": lambda arena: Heap(arena, "strict"),
    "subpage": lambda arena: Heap(arena, "subpage"),
    "merged": lambda arena: Heap(arena, "merged"),
}


@pytest.fixture
def arena():
    return Arena.anonymous(8 << 20, page_size=4096)


@pytest.fixture(params=MAKERS)
def maker(arena, request):
    """Pools and heaps of every kind; nothing is left of what the test made."""
    allocator = MAKERS[request.param](arena)
    yield allocator
    gc.collect()
    if not arena.closed and not allocator.closed:
        allocator.check()
        assert allocator.stats().live_blocks == 0


@pytest.fixture
def pool(arena):
    return Pool(arena)


def used(pool):
    return pool.stats().live_blocks


# The object ------------------------------------------------------------------


def test_it_owns_its_memory(maker):
    block = maker.block(100)
    assert block.allocator is maker
    assert isinstance(maker, Allocator)
    assert len(block) == 100
    assert block
    assert maker.usable_size(block.offset) >= 100
    assert maker.stats().live_blocks == 1
    offset = block.offset
    del block
    assert maker.stats().live_blocks == 0
    if not (isinstance(maker, Pool) and (maker.hardening or maker.quick)):
        with pytest.raises(DoubleFree):
            maker.xfree(offset)


def test_release_is_once_and_for_all(maker):
    block = maker.block(10)
    block.release()
    block.release()
    assert not block
    assert (len(block), block.offset) == (0, 0)
    assert repr(block) == "<xmem.Block, released>"
    for use in (block.view, block.detach, lambda: block.resize(5), block.__enter__):
        with pytest.raises(BadArgument, match="released"):
            use()
    assert maker.stats().live_blocks == 0


def test_repr_tells_size_and_offset(maker):
    block = maker.block(77)
    assert repr(block) == f"<xmem.Block of 77 bytes at {block.offset:#x}>"


def test_it_is_a_context_manager(maker):
    with maker.block(10) as block:
        assert block
    assert not block
    with pytest.raises(KeyError), maker.block(10) as block:
        raise KeyError
    assert not block
    with maker.block(10) as block:
        block.release()


def test_empty_blocks_are_blocks(maker):
    block = maker.block(0)
    assert block
    assert len(block) == 0
    assert bytes(block) == b""
    assert block == b""


@pytest.mark.parametrize("align", [16, 64, 1024, 4096, 65536])
def test_alignment(pool, align):
    block = pool.block(100, align=align)
    assert pool.arena.address(block.offset) % align == 0
    assert np.frombuffer(block, "u1").ctypes.data % align == 0


def test_what_the_pool_refuses_is_refused(maker):
    for wrong, error in ((-1, BadArgument), ("5", BadArgumentType)):
        with pytest.raises(error):
            maker.block(wrong)
        with pytest.raises(error):
            maker.block(5, align=wrong)
    with pytest.raises((OutOfMemory, SizeLimitError)):
        maker.block(1 << 40)
    with pytest.raises((OutOfMemory, SizeLimitError)):
        maker.block(2**64 - 1)
    assert maker.stats().live_blocks == 0


def test_it_is_neither_made_nor_copied_by_hand(pool):
    block = pool.block(10)
    for wrong in (
        Block,
        Allocator,
        lambda: copy.copy(block),
        lambda: copy.deepcopy(block),
        lambda: pickle.dumps(block),
    ):
        with pytest.raises(BadArgumentType):
            wrong()


def test_what_was_never_initialised_is_refused():
    block, allocator = Block.__new__(Block), Allocator.__new__(Allocator)
    assert not block
    assert block.allocator is None
    block.release()
    assert block != b""
    for use in (block.view, block.detach, lambda: block.resize(1)):
        with pytest.raises(BadArgument, match="never initialised"):
            use()
    for use in (
        lambda: allocator.block(1),
        lambda: allocator.empty(1),
        lambda: allocator.from_offset(16, 1),
        lambda: allocator.block_of(np.zeros(1)),
        lambda: Pool.__new__(Pool).block(1),
        lambda: Heap.__new__(Heap).empty(1),
    ):
        with pytest.raises(BadArgument, match="never initialised"):
            use()


# The buffer protocol ---------------------------------------------------------


def test_its_bytes_are_writable_by_every_way(maker):
    block = maker.block(16)
    view = memoryview(block)
    assert (view.readonly, view.nbytes, view.format) == (False, 16, "B")
    view[:] = bytes(range(16))
    assert bytes(block) == bytes(range(16))
    block.view()[0] = 99
    assert bytes(maker.view(block.offset, 1)) == b"c"
    np.frombuffer(block, "<u4")[1] = 0x41424344
    assert bytes(block)[4:8] == b"DCBA"
    assert io.BytesIO(b"0123456789").readinto(block) == 10
    assert bytes(block)[:10] == b"0123456789"


def test_comparison_is_of_contents(pool):
    one, two = pool.block(3), pool.block(3)
    one.view()[:] = b"abc"
    two.view()[:] = b"abd"
    assert one == one
    assert one == b"abc"
    assert b"abc" == one  # noqa: SIM300
    assert one != two
    assert one < two
    assert one <= two
    assert two > one
    assert two >= b"abd"
    assert one < b"abcd"
    assert one > b"ab"
    assert one != "abc"
    assert one != 5
    assert one == np.frombuffer(b"abc", "u1")
    with pytest.raises(TypeError):
        _ = one < 5
    assert not isinstance(one, Hashable)
    two.release()
    assert one != two
    assert two == two
    assert two <= two
    assert two >= two
    assert not two < two


def test_comparing_leaves_no_view(pool):
    one, two = pool.block(3), pool.block(3)
    assert (one == two) in (True, False)
    one.release()
    two.release()


@pytest.mark.parametrize(
    "look",
    [
        memoryview,
        lambda block: memoryview(block)[3:5],
        lambda block: memoryview(block).cast("H"),
        lambda block: np.frombuffer(block, "u1"),
        lambda block: np.frombuffer(block, "u1")[::2].reshape(5, 2),
        lambda block: block.view(),
    ],
)
def test_a_view_keeps_everything_as_it_is(maker, look):
    block = maker.block(20)
    view = look(block)
    assert block.n_exports == 1
    for act in (
        block.release,
        lambda: block.resize(10),
        lambda: block.resize(10_000),
        lambda: maker.destroy(force=True),
        maker.arena.close,
        lambda: block.__exit__(None, None, None),
    ):
        with pytest.raises(BufferError):
            act()
    assert len(block) == 20
    del view
    assert block.n_exports == 0
    block.release()


def test_a_view_outlives_the_name_of_the_block(pool):
    view = memoryview(pool.block(20))
    view[:3] = b"abc"
    gc.collect()
    others = [pool.block(20) for _ in range(50)]
    for other in others:
        other.view()[:] = bytes(20)
    assert bytes(view[:3]) == b"abc"
    assert used(pool) == 51
    del view
    assert used(pool) == 50


# Resizing --------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 19, 20, 21, 100, 1000, 3900])
def test_resize_keeps_what_fits(maker, n):
    block, fence = maker.block(20), maker.block(20)
    block.view()[:] = bytes(range(20))
    fence.view()[:] = b"f" * 20
    block.resize(n)
    assert len(block) == n
    assert bytes(block)[:20] == bytes(range(20))[:n]
    assert bytes(fence) == b"f" * 20
    with pytest.raises(MismatchedFree):
        maker.xfree(block.offset)
    block.release()


def test_a_resize_that_fails_changes_nothing(maker):
    block = maker.block(20)
    block.view()[:] = bytes(range(20))
    before = block.offset
    for wrong, error in (
        (1 << 40, (OutOfMemory, SizeLimitError)),
        (2**64 - 1, (OutOfMemory, SizeLimitError)),
        (-1, BadArgument),
        (None, BadArgumentType),
    ):
        with pytest.raises(error):
            block.resize(wrong)
    assert (block.offset, bytes(block)) == (before, bytes(range(20)))


def test_a_block_that_moves_leaves_its_old_place_to_others(pool):
    block, fence = pool.block(20), pool.block(20)
    block.view()[:] = b"b" * 20
    fence.view()[:] = b"f" * 20
    before = block.offset
    block.resize(5000)
    assert block.offset != before
    offset = pool.xmalloc(20)
    assert offset == before
    pool.view(offset)[:] = b"x" * pool.usable_size(offset)
    pool.xfree(offset)
    assert bytes(block.view())[:20] == b"b" * 20
    assert bytes(fence.view()) == b"f" * 20


# Whose it is -----------------------------------------------------------------


def test_no_verb_frees_or_moves_what_an_object_owns(maker):
    block = maker.block(20)
    array = maker.empty(4)
    acts = [maker.xfree, lambda offset: maker.xrealloc(offset, 500)]
    if isinstance(maker, Pool):
        acts.append(lambda offset: maker.xfree_many([offset]))
    else:
        acts.append(lambda offset: maker.xrealloc_array(offset, 5, 100))
        if maker.interface == "merged":
            acts.append(maker.xfree_subpage)
    for act in acts:
        with pytest.raises(MismatchedFree, match="owns"):
            act(block.offset)
        with pytest.raises((MismatchedFree, BufferError)):
            act(maker.block_of(array).offset)
    assert maker.stats().live_blocks == 2


def test_another_handle_of_the_pool_does_not_either(arena, pool):
    block = pool.block(20)
    again = Pool.open(arena, pool.name)
    with pytest.raises(MismatchedFree):
        again.xfree(block.offset)
    memory = memoryview(block)
    with pytest.raises(BufferError):
        again.destroy(force=True)
    memory.release()
    again.destroy(force=True)
    assert "gone" in repr(block)


def test_offset_that_was_owned_is_free_again(pool):
    block = pool.block(20)
    offset = block.offset
    block.release()
    assert pool.xmalloc(20) == offset
    pool.xfree(offset)


def test_a_view_by_offset_outlives_the_owner(pool):
    block = pool.block(20)
    block.view()[:3] = b"abc"
    offset = block.offset
    views = [pool.view(offset), pool.view(offset)]
    with pytest.raises(BufferError):
        block.release()
    with pytest.raises(BufferError):
        block.resize(100)
    del block
    assert used(pool) == 1
    others = [pool.xmalloc(20) for _ in range(20)]
    assert offset not in others
    views.pop().release()
    assert bytes(views[0][:3]) == b"abc"
    assert used(pool) == 21
    views.pop().release()
    assert used(pool) == 20
    assert pool.xmalloc(20) == offset


def test_XFREE_clears_the_block_of_a_heap(arena):
    heap, other = Heap(arena, "merged"), Heap(arena, "strict")
    block = heap.block(100)
    with pytest.raises(MismatchedFree):
        other.XFREE(block)
    heap.XFREE(block)
    heap.XFREE(block)
    assert not block
    assert heap.stats().live_blocks == 0


# Giving it up ----------------------------------------------------------------


def test_detached_memory_outlives_the_object(maker):
    block = maker.block(20)
    block.view()[:3] = b"abc"
    offset = block.detach()
    assert not block
    assert "detached" in repr(block)
    for use in (block.view, block.detach, block.release, lambda b=block: b.resize(1)):
        with pytest.raises(BadArgument, match="detached"):
            use()
    del block, use
    gc.collect()
    assert bytes(maker.view(offset, 3)) == b"abc"
    maker.xfree(offset)


def test_detached_memory_stays_while_it_is_viewed(maker):
    array = maker.array([1, 2, 3])
    offset = maker.block_of(array).detach()
    with pytest.raises(BufferError):
        maker.xfree(offset)
    with pytest.raises(BufferError):
        maker.destroy(force=True)
    with pytest.raises(BufferError):
        maker.arena.close()
    assert array.tolist() == [1, 2, 3]
    del array
    maker.xfree(offset)


def test_detached_memory_waits_for_its_own_views_alone(maker):
    other = maker.array([7])
    array = maker.array([1, 2, 3])
    look = memoryview(maker.block_of(array))
    offset = maker.block_of(array).detach()
    del array
    with pytest.raises(BufferError):
        maker.xfree(offset)
    look.release()
    maker.xfree(offset)
    assert other.tolist() == [7]


# Ends ------------------------------------------------------------------------


def test_the_end_of_the_arena_is_the_end_of_its_blocks(maker):
    block, other = maker.block(10), maker.block(10)
    maker.arena.close()
    assert "gone" in repr(block)
    with pytest.raises(ArenaClosed):
        memoryview(block)
    with pytest.raises(ArenaClosed):
        block.resize(5)
    assert block != b""
    block.release()
    assert not block
    del other


def test_the_end_of_the_pool_is_the_end_of_its_blocks(arena, maker):
    block, other = maker.block(10), maker.block(10)
    offset = block.offset
    maker.destroy(force=True)
    with pytest.raises(PoolDestroyed):
        memoryview(block)
    heir = Pool(arena, grow_pages=1)
    theirs = [heir.xmalloc(10) for _ in range(500)]
    del other
    block.release()
    assert heir.stats().live_blocks == 500
    if offset in theirs:
        heir.xfree(offset)
    heir.check()


def test_a_block_of_a_pool_that_is_gone_leaves_its_heir_alone(arena, monkeypatch):
    """What is collected late may lie where another object owns memory now."""
    caught = []
    monkeypatch.setattr("sys.unraisablehook", caught.append)
    pool = Pool(arena)
    block = pool.block(10)
    pool.destroy(force=True)
    heir = Pool(arena)
    theirs = heir.block(10)
    assert theirs.offset == block.offset
    del block
    assert not caught
    with pytest.raises(xmem.MismatchedFree, match="an object owns"):
        heir.xfree(theirs.offset)
    theirs.release()
    heir.check()
    assert used(heir) == 0


def test_blocks_in_cycles_are_collected(maker):
    class Holder:
        pass

    for _ in range(20):
        holder = Holder()
        holder.me = holder
        holder.block = maker.block(100)
        holder.view = memoryview(holder.block)
        holder.array = maker.empty(10)
    del holder
    gc.collect()
    assert maker.stats().live_blocks == 0


@pytest.mark.parametrize("first", ["pool", "block", "hooks"])
def test_a_cycle_through_the_pool_itself_is_collected(first):
    """Whichever the collector clears first, the others need it until they are gone.

    (Not through an array: NumPy hides from the collector what its arrays hold.)
    """

    class Hooks:
        __slots__ = ("arena", "kept")

        def get_mem(self, n_pages):
            return self.arena.page_alloc_exact(n_pages)

        def put_mem(self, offset, n_pages):
            self.arena.page_free(offset)

    for _ in range(50):
        hooks = Hooks()
        hooks.arena = Arena.anonymous(1 << 20)
        gc.collect()  # what is older is cleared first
        pool = Pool(hooks.arena, get_mem=hooks.get_mem, put_mem=hooks.put_mem)
        parts = {
            "pool": lambda pool=pool: pool,
            "block": lambda pool=pool: [pool.block(100), pool.block(5).view()],
            "hooks": lambda hooks=hooks: hooks,
        }
        hooks.kept = [parts.pop(first)(), *(make() for make in parts.values())]
        hooks.kept.append(hooks.kept)
        hooks.kept.append(Heap(hooks.arena, "merged").block(10))
        del hooks, pool, parts
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Block]


def test_a_block_does_not_keep_others_alive(pool):
    reference = weakref.ref(pool.arena.__class__)
    assert reference() is Arena
    block = pool.block(10)
    assert gc.is_tracked(block)
    assert pool in gc.get_referents(block)


def test_finalisers_free_in_the_middle_of_everything(pool):
    """The collector runs where it likes, and with it the ends of blocks."""

    class Node:
        def __init__(self):
            self.me = self
            self.block = pool.block(40)

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for i in range(3000):
            Node()
            kept = pool.xmalloc(i % 300)
            if i % 100 == 0:
                pool.walk()
                pool.stats()
            pool.xfree(kept)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    pool.check()
    assert used(pool) == 0


def test_blocks_dropped_while_another_thread_checks_are_freed_later(arena):
    """Their ends do not wait; after the check nothing of them is left."""
    pool = Pool(arena)
    blocks = [pool.block(24) for _ in range(4000)]
    arrays = [pool.empty(3) for _ in range(200)]
    stop = threading.Event()
    faults = []

    def check():
        try:
            while not stop.is_set():
                pool.check()
        except BaseException as error:
            faults.append(error)

    checker = threading.Thread(target=check)
    checker.start()
    try:
        while blocks:
            del blocks[-100:]
            del arrays[-5:]
            pool.xfree(pool.xmalloc(5))
    finally:
        stop.set()
        checker.join()
    assert not faults
    pool.check()
    assert used(pool) == 0


def test_threads_make_and_drop_each_others(arena):
    pool = Pool(arena)
    box, faults = [], []

    def work(number):
        try:
            for i in range(2000):
                block = pool.block(8 + (i % 50))
                block.view()[:8] = number.to_bytes(8, "little")
                box.append(block)
                if len(box) > 50:
                    other = box.pop(0)
                    assert bytes(other)[1:8] == bytes(7)
                    if i % 3 == 0:
                        other.release()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    box.clear()
    pool.check()
    assert used(pool) == 0


def test_threads_end_one_block_while_a_third_checks(arena):
    """Both wait for the check; what the first has done is seen by the second."""
    pool = Pool(arena)
    fill = [pool.xmalloc(24) for _ in range(3000)]
    stop, faults = threading.Event(), []
    checker = threading.Thread(
        target=lambda: [pool.check() for _ in iter(stop.is_set, True)]
    )

    def act(deed):
        try:
            deed()
        except BadArgument as error:
            if "released" not in str(error):
                faults.append(error)
        except BaseException as error:
            faults.append(error)

    checker.start()
    try:
        for _ in range(60):
            block, heir = pool.block(40), None
            deeds = [lambda b=block: b.resize(900), block.release, block.release]
            threads = [threading.Thread(target=act, args=(deed,)) for deed in deeds]
            for thread in threads:
                thread.start()
            heir = pool.block(40)
            heir.view()[:] = b"h" * 40
            for thread in threads:
                thread.join()
            assert not block
            assert bytes(heir) == b"h" * 40
            heir.release()
    finally:
        stop.set()
        checker.join()
    assert not faults
    pool.xfree_many(fill)
    pool.check()
    assert used(pool) == 0


# Hooks and damage ------------------------------------------------------------


def test_a_block_under_a_hook_that_releases_it(arena):
    """get_mem runs in the middle of a resize and may do its worst."""
    deeds = []

    def get_mem(n_pages):
        for deed in deeds:
            with pytest.raises((BufferError, BadArgument)):
                deed()
        return arena.page_alloc_exact(n_pages)

    pool = Pool(
        arena,
        grow_pages=1,
        get_mem=get_mem,
        put_mem=lambda offset, n_pages: arena.page_free(offset),
    )
    block = pool.block(100)
    block.view()[:3] = b"abc"
    deeds += [block.release, lambda: block.resize(5), lambda: pool.destroy(force=True)]
    block.resize(9000)
    assert bytes(block)[:3] == b"abc"
    deeds.clear()
    block.release()
    assert used(pool) == 0
    pool.shrink()
    assert pool.total_size == 0


def test_a_detach_in_the_middle_of_a_resize_is_refused(arena):
    blocks = []

    def get_mem(n_pages):
        for block in blocks:
            block.detach()
        return arena.page_alloc_exact(n_pages)

    pool = Pool(arena, grow_pages=1, get_mem=get_mem, put_mem=lambda *run: None)
    block = pool.block(100)
    offset = block.offset
    blocks.append(block)
    with pytest.raises(BufferError):
        block.resize(9000)
    assert block.offset == offset
    pool.xfree(offset)
    pool.check()


def test_what_a_finaliser_of_put_mem_raises_is_unraisable(arena, monkeypatch):
    caught = []
    monkeypatch.setattr("sys.unraisablehook", caught.append)

    def put_mem(offset, n_pages):
        raise ValueError("mine")

    pool = Pool(arena, grow_pages=1, get_mem=arena.page_alloc_exact, put_mem=put_mem)
    blocks = [pool.block(3000) for _ in range(5)]
    del blocks
    assert caught
    assert all(args.exc_type is ValueError for args in caught)
    assert used(pool) == 0


def test_a_damaged_block_is_not_released(arena, monkeypatch):
    caught = []
    monkeypatch.setattr("sys.unraisablehook", caught.append)
    pool = Pool(arena, hardened=True)
    block, dropped = pool.block(20), pool.block(20)
    for one in (block, dropped):
        ctypes.c_uint8.from_address(arena.address(one.offset) + 20).value ^= 0xFF
    with pytest.raises(HeapCorruption):
        block.release()
    assert block
    with pytest.raises(HeapCorruption):
        block.resize(50)
    assert len(block) == 20
    del dropped, one
    assert [args.exc_type for args in caught] == [HeapCorruption]
    block.detach()


# Files and forks -------------------------------------------------------------


def test_a_block_in_a_file_is_freed_but_a_detached_one_stays(tmp_path):
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20) as arena:
        pool = Pool(arena, name="p")
        pool.block(100)
        kept = pool.block(100)
        kept.view()[:4] = b"kept"
        arena.root = kept.detach()
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "p")
        assert pool.stats().live_blocks == 1
        assert bytes(pool.view(arena.root, 4)) == b"kept"
        pool.xfree(arena.root)


def test_what_is_alive_at_close_stays_in_the_file(tmp_path):
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20) as arena:
        block = Pool(arena, name="p").block(100)
        offset = block.offset
    del block
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "p")
        assert pool.usable_size(offset) >= 100
        pool.xfree(offset)


def test_the_default_pool_has_blocks():
    with xmem.default_pool().block(10) as block:
        assert len(block) == 10
