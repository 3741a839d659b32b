# SPDX-License-Identifier: BSD-3-Clause
"""Pages ahead of time and pages back, counted in pool and arena."""

import pytest

import xmem


@pytest.mark.parametrize("joins", [False, True])
def test_reserved_pages_come_from_the_arena_and_go_back(small_arena, joins):
    pool = xmem.Pool(small_arena, join_regions=joins)
    free = small_arena.n_free_pages
    assert pool.reserve(0) == 0
    assert pool.reserve(10) == 10
    assert pool.total_size == 10 * 4096
    assert small_arena.n_free_pages == free - 10
    pool.check()
    assert pool.shrink() == 10
    assert (pool.total_size, small_arena.n_free_pages) == (0, free)
    small_arena.check()


def test_a_reserve_ends_at_limit_and_arena(small_arena):
    limited = xmem.Pool(small_arena, max_pages=10)
    assert limited.reserve(7) == 7
    assert limited.reserve(7) == 3
    assert limited.reserve(7) == 0
    pool = xmem.Pool(small_arena)
    free = small_arena.n_free_pages
    assert pool.reserve(2**64 - 1) == free
    assert small_arena.n_free_pages == 0
    small_arena.check()


@pytest.mark.parametrize("joins", [False, True])
def test_a_shrink_leaves_what_is_live(small_arena, joins):
    pool = xmem.Pool(small_arena, grow_pages=2, join_regions=joins)
    blocks = [pool.xmalloc(3000) for _ in range(40)]
    kept = blocks[::20]
    for block in kept:
        pool.view(block)[:4] = b"kept"
    for block in set(blocks) - set(kept):
        pool.xfree(block)
    held, free = pool.total_size, small_arena.n_free_pages
    returned = pool.shrink()
    assert pool.total_size == held - 4096 * returned
    assert small_arena.n_free_pages == free + returned
    assert pool.shrink() == 0
    assert all(bytes(pool.view(block, 4)) == b"kept" for block in kept)
    pool.check()
    small_arena.check()
