# SPDX-License-Identifier: BSD-3-Clause
"""Views: writable memory that stays while anything made from a view is alive."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
from support.scene import ENGINES

from xmem import Arena, Pool


@pytest.mark.parametrize("engine", [None, *ENGINES])
def test_view_is_writable_memory(
    make: Callable[..., Arena], engine: str | None
) -> None:
    with make(1 << 20) as arena:
        owner: Arena | Pool
        if engine is None:
            owner = arena
            offset = arena.page_alloc_exact(3)
            room = 3 * arena.page_size
        else:
            owner = Pool(arena, engine=engine)
            offset = owner.xmalloc(1000)
            room = owner.usable_size(offset)
            assert room >= 1000
        view = owner.view(offset)
        assert isinstance(view, memoryview)
        assert (view.nbytes, view.format, view.readonly) == (room, "B", False)
        assert view.c_contiguous
        view[:5] = b"hello"
        view[-1] = 0x55
        short = owner.view(offset, 5)
        assert bytes(short) == b"hello"
        assert len(owner.view(offset, 0)) == 0
        assert len(owner.view(offset, room)) == room
        np.frombuffer(view, np.uint8)[1:3] = 0x41
        assert bytes(short) == b"hAAlo"
        view.release()
        short.release()


#: Ways to hold on to memory, and how to let go of each.
HOLDERS: dict[str, Callable[[memoryview], object]] = {
    "view": lambda view: view,
    "slice": lambda view: view[10:20],
    "empty slice": lambda view: view[5:5],
    "cast": lambda view: view.cast("I"),
    "read-only": lambda view: view.toreadonly(),
    "memoryview of it": memoryview,
    "memoryview of its object": lambda view: memoryview(view.obj),
    "its object": lambda view: view.obj,
    "array": lambda view: np.frombuffer(view, np.uint8),
    "slice of an array": lambda view: np.frombuffer(view, np.uint8)[3:9],
    "reshaped array": lambda view: np.frombuffer(view, np.uint32).reshape(4, -1),
    "in a cycle": lambda view: [view],
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("engine", [None, *ENGINES])
def test_held_memory_stays(
    make: Callable[..., Arena], engine: str | None, holder: str
) -> None:
    """While anything made from a view lives: no free, no resize, no close."""
    arena = make(1 << 20)
    owner: Arena | Pool = arena if engine is None else Pool(arena, engine=engine)
    if isinstance(owner, Arena):
        offset, spare = owner.page_alloc(0), owner.page_alloc(0)
        refused = [lambda: owner.page_free(offset)]
        free = owner.page_free
    else:
        offset, spare = owner.xmalloc(512), owner.xmalloc(512)
        refused = [
            lambda: owner.xfree(offset),
            lambda: owner.xrealloc(offset, 1),
            lambda: owner.xrealloc(offset, 512),
            lambda: owner.xrealloc(offset, 5000),
            lambda: owner.destroy(force=True),
        ]
        free = owner.xfree
    view = owner.view(offset, 512)
    held = HOLDERS[holder](view)
    if held is not view:
        del view
    if holder == "in a cycle":
        held.append(held)
    for call in (*refused, arena.close, lambda: arena.__exit__(None, None, None)):
        with pytest.raises(BufferError, match=r"alive.*release"):
            call()
    assert not arena.closed
    free(spare)  # the view of one block says nothing of another
    arena.check()
    if held is not None:
        held = view = None
    gc.collect()
    free(offset)
    arena.close()
    assert arena.closed


def test_two_views_of_one_block(make: Callable[..., Arena]) -> None:
    arena = make(1 << 20)
    pool = Pool(arena)
    block = pool.xmalloc(100)
    first, second = pool.view(block), pool.view(block, 10)
    for view in (first, second):
        with pytest.raises(BufferError):
            pool.xfree(block)
        view.release()
    pool.xfree(block)
    arena.close()


def test_refused_view_holds_nothing(make: Callable[..., Arena]) -> None:
    arena = make(1 << 20)
    pool = Pool(arena)
    block = pool.xmalloc(100)
    run = arena.page_alloc(0)
    for call in (
        lambda: pool.view(block, 10**6),
        lambda: pool.view(block + 16),
        lambda: arena.view(run, 10**6),
        lambda: arena.view(run + 1),
    ):
        with pytest.raises(ValueError, match="0x"):
            call()
    pool.xfree(block)
    arena.page_free(run)
    arena.close()


@pytest.mark.parametrize("max_pools", [1, 2, 504, 505, 506, 1000])
@pytest.mark.parametrize("arena_bytes", [1 << 20, (1 << 20) + 4096, 1 << 30])
def test_there_is_room_for_the_counts_of_all_pools(
    probe, arena_bytes: int, max_pools: int
) -> None:
    """Pools are numbered from 1. Behind the counts memory is somebody else's."""
    mapped, counts = probe.holds_room(arena_bytes, max_pools)
    assert counts >= arena_bytes // 128
    assert mapped >= counts + 8 * (max_pools + 1)
