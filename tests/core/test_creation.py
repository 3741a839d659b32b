# SPDX-License-Identifier: BSD-3-Clause
"""Pools that are made, refused and destroyed: nothing is left of what is not."""

import ctypes

import pytest

import xmem


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"name": "x" * 41}, xmem.BadArgument),
        ({"name": "taken"}, xmem.BadArgument),
        ({"grow_pages": 1 << 30}, xmem.BadArgument),
        ({"engine": "firstfit", "grow_pages": 1 << 30}, xmem.BadArgument),
        ({"engine": "firstfit", "quick": True}, xmem.BadArgument),
        ({"quick": True, "hardened": True}, xmem.BadArgument),
        ({"engine": "firstfit", "hardened": True}, xmem.BadArgument),
    ],
)
def test_a_refused_pool_leaves_nothing(small_arena, settings, error):
    xmem.Pool(small_arena, name="taken")
    before = (small_arena.frames().tolist(), small_arena.pools())
    with pytest.raises(error):
        xmem.Pool(small_arena, **settings)
    assert (small_arena.frames().tolist(), small_arena.pools()) == before


def test_a_pool_without_pages_for_its_control_block(small_arena):
    while small_arena.largest_free_order >= 0:
        small_arena.page_alloc(small_arena.largest_free_order)
    with pytest.raises(xmem.OutOfMemory):
        xmem.Pool(small_arena)
    assert small_arena.pools() == {}
    small_arena.check()


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "firstfit"},
        {"engine": "tlsf"},
        {"engine": "tlsf", "quick": True},
        {"engine": "tlsf", "hardened": True},
    ],
    ids=str,
)
def test_a_new_pool_is_sound_whatever_its_pages_held(small_arena, settings):
    """Pages of the arena are not cleared between their users."""
    n_pages = small_arena.n_free_pages
    held = [small_arena.page_alloc(0) for _ in range(n_pages)]
    for offset in held:
        ctypes.memset(small_arena.address(offset), 0xA5, 4096)
    for offset in held:
        small_arena.page_free(offset)
    pool = xmem.Pool(small_arena, **settings)
    pool.check()
    blocks = [pool.xmalloc(n) for n in (10, 300, 3000)]
    pool.check()
    for offset in blocks:
        pool.xfree(offset)
    pool.check()
    pool.destroy()
    assert small_arena.n_free_pages == n_pages
    small_arena.check()


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_destroying_an_empty_pool_gives_all_its_pages_back(small_arena, engine):
    start = small_arena.n_free_pages
    pool = xmem.Pool(small_arena, engine=engine)
    blocks = [pool.xmalloc(n) for n in (10, 3000, 9000)]
    for offset in blocks:
        pool.xfree(offset)
    assert len(pool.destroy()) == 0
    assert small_arena.n_free_pages == start
    assert pool.closed
