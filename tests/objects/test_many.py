# SPDX-License-Identifier: BSD-3-Clause
"""Many blocks in one call: all of them, or none."""

import random

import numpy as np
import pytest
from support.damage import Words

import xmem
from xmem import Arena, Pool

pytestmark = pytest.mark.damages

PAGE = 4096


@pytest.fixture(params=["tlsf", "firstfit", "hardened"])
def pool(request):
    with Arena.anonymous(1 << 22, page_size=PAGE) as arena:
        if request.param == "hardened":
            yield Pool(arena, hardened=True)
        else:
            yield Pool(arena, engine=request.param)


def state(pool):
    """All that a refused call must leave as it was."""
    return pool.walk().tolist(), pool.stats(), pool.arena.frames().tolist()


def test_blocks_of_each_size_in_order(pool):
    sizes = [1, 100, 0, 5000, 24, 600] * 20
    offsets = pool.xmalloc_many(sizes)
    assert offsets.dtype == np.uint64
    assert offsets.shape == (len(sizes),)
    assert len(set(offsets.tolist())) == len(sizes)
    for i, (offset, size) in enumerate(zip(offsets.tolist(), sizes, strict=True)):
        assert pool.usable_size(offset) >= size
        pool.view(offset)[:size] = bytes([i]) * size
    for i, (offset, size) in enumerate(zip(offsets.tolist(), sizes, strict=True)):
        assert bytes(pool.view(offset)[:size]) == bytes([i]) * size
    pool.check()
    source = random.Random(3)
    source.shuffle(shuffled := offsets.tolist())
    pool.xfree_many(shuffled)
    assert pool.stats().live_blocks == 0
    pool.check()


@pytest.mark.parametrize("align", [16, 64, 2048, PAGE])
def test_alignment_is_that_of_all(pool, align):
    offsets = pool.xmalloc_many([100] * 8, align=align)
    assert (offsets % align == 0).all()
    pool.xfree_many(offsets)
    assert pool.stats().live_blocks == 0


@pytest.mark.parametrize(
    "sizes",
    [
        np.array([8, 16], np.uint8),
        np.array([8, 16], np.int32),
        (8, 16),
        [np.int64(8), 16],
        np.arange(64, dtype=np.uint64)[8:17:8],
    ],
)
def test_arrays_of_integers_of_any_kind(pool, sizes):
    offsets = pool.xmalloc_many(sizes)
    assert len(offsets) == 2
    pool.xfree_many(list(map(int, offsets)))


def test_nothing_is_nothing(pool):
    before = state(pool)
    assert pool.xmalloc_many([]).tolist() == []
    pool.xfree_many([])
    pool.xfree_many(np.empty(0))
    assert state(pool) == before


def test_nothing_is_refused_too_when_the_pool_is_gone(pool):
    pool.destroy()
    for call in (pool.xmalloc_many, pool.xfree_many):
        with pytest.raises(xmem.PoolDestroyed):
            call([])


def test_what_has_no_room_takes_none(pool):
    kept = pool.xmalloc_many([100, 200])
    used = pool.used_size
    with pytest.raises(xmem.OutOfMemory, match="xmalloc_many"):
        pool.xmalloc_many([1000] * 100 + [1 << 30])
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc_many([3000] * 5000)
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc_many([8, 2**64 - 1])
    assert pool.used_size == used or pool.hardening
    pool.check()
    pool.xfree_many(kept)
    assert pool.stats().live_blocks == 0


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ([8, -1], (xmem.BadArgument, xmem.NotABlock)),
        (np.array([8, -1]), (xmem.BadArgument, xmem.NotABlock)),
        (np.array([[1, 2]]), xmem.BadArgument),
        (5, xmem.BadArgumentType),
        ([8, 1.5], xmem.BadArgumentType),
        (np.array([1.5]), xmem.BadArgumentType),
        (np.array([True]), xmem.BadArgumentType),
        (np.array([1], dtype=object), xmem.BadArgumentType),
        (["1"], xmem.BadArgumentType),
        ([None], xmem.BadArgumentType),
        ([[1], [2, 3]], xmem.BadArgumentType),
        ([8, 2**64], (xmem.OutOfMemory, xmem.NotABlock)),
    ],
)
def test_wrong_arguments_are_refused(pool, sizes, error):
    before = state(pool)
    with pytest.raises(error):
        pool.xmalloc_many(sizes)
    with pytest.raises(error):
        pool.xfree_many(sizes)
    assert state(pool) == before


def test_no_block_is_freed_when_one_is_none(pool):
    offsets = pool.xmalloc_many([100] * 10).tolist()
    gone = offsets.pop(4)
    pool.xfree(gone)
    with Arena.anonymous(1 << 20) as elsewhere:
        other = Pool(elsewhere).xmalloc(5)
    for wrong, error in (
        (gone, xmem.DoubleFree),
        (offsets[0] + 16, xmem.NotABlock),
        (offsets[0] + 3, xmem.NotABlock),
        (2**63, xmem.NotABlock),
        (0, xmem.NotABlock),
        (other + 5, xmem.InvalidFree),
    ):
        before = state(pool)
        for where in (0, 5, 9):
            with pytest.raises(error):
                pool.xfree_many([*offsets[:where], wrong, *offsets[where:]])
            assert state(pool) == before
    with pytest.raises(xmem.InvalidFree):
        pool.xfree_many([0, *offsets])
    view = pool.view(offsets[3])
    before = state(pool)
    with pytest.raises(BufferError):
        pool.xfree_many(offsets)
    assert state(pool) == before
    view.release()
    pool.xfree_many(offsets)
    assert pool.stats().live_blocks == 0


@pytest.mark.parametrize("align", [16, PAGE])
def test_a_block_that_stands_twice_is_refused(pool, align):
    offsets = pool.xmalloc_many([100] * 6, align=align).tolist()
    for i in range(6):
        before = state(pool)
        with pytest.raises(xmem.DoubleFree, match="occurs twice"):
            pool.xfree_many([*offsets, offsets[i]])
        with pytest.raises(xmem.DoubleFree, match="occurs twice"):
            pool.xfree_many([offsets[i], *offsets])
        assert state(pool) == before
    pool.check()
    pool.xfree_many(offsets)
    assert pool.stats().live_blocks == 0


def test_hooks_are_called_for_each_block():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        taken = []

        def get_mem(n_pages):
            if len(taken) == 3:
                return None
            taken.append(arena.page_alloc_exact(n_pages))
            return taken[-1]

        pool = Pool(arena, get_mem=get_mem, put_mem=lambda *_: None, grow_pages=1)
        offsets = pool.xmalloc_many([1000] * 6)
        with pytest.raises(xmem.OutOfMemory):
            pool.xmalloc_many([1000] * 50)
        assert pool.stats().live_blocks == 6
        pool.xfree_many(offsets)
        assert pool.stats().live_blocks == 0
        pool.check()


def test_a_damaged_block_of_a_hardened_pool_keeps_all_of_them():
    with Arena.anonymous(1 << 20) as arena:
        pool = Pool(arena, hardened=True)
        offsets = pool.xmalloc_many([24] * 5).tolist()
        Words(arena).flip(offsets[2] + 24, 0xFF)
        with pytest.raises(xmem.HeapCorruption):
            pool.xfree_many(offsets)
        Words(arena).flip(offsets[2] + 24, 0xFF)
        assert pool.stats().live_blocks == 5
        pool.xfree_many(offsets)
        assert pool.stats().live_blocks == 0


def test_a_closed_arena_and_a_destroyed_pool_are_refused():
    with Arena.anonymous(1 << 20) as arena:
        pool = Pool(arena, name="gone")
        pool.destroy()
        with pytest.raises(xmem.PoolDestroyed):
            pool.xmalloc_many([1])
        with pytest.raises(xmem.PoolDestroyed):
            pool.xfree_many([16])
        pool = Pool(arena)
    with pytest.raises(xmem.ArenaClosed):
        pool.xmalloc_many([1])
    with pytest.raises(xmem.ArenaClosed):
        pool.xfree_many([16])
