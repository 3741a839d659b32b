# SPDX-License-Identifier: BSD-3-Clause
"""Pools that are made, refused and destroyed: nothing is left of what is not."""

import pytest

import xmem


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"name": "x" * 41}, xmem.BadArgument),
        ({"name": "taken"}, xmem.BadArgument),
        ({"grow_pages": 1 << 30}, xmem.BadArgument),
        ({"engine": "firstfit", "grow_pages": 1 << 30}, xmem.BadArgument),
        ({"engine": "firstfit", "quick": 1}, xmem.BadArgument),
        ({"quick": 256}, xmem.BadArgument),
        ({"quick": 1, "hardened": True}, xmem.BadArgument),
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
