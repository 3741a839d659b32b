# SPDX-License-Identifier: BSD-3-Clause
"""Searches of the start bitmap, compared with a walk of the pool."""

import random

import pytest

import xmem


@pytest.fixture
def pool(small_arena, seed):
    source = random.Random(seed)
    pool = xmem.Pool(small_arena)
    blocks = [pool.xmalloc(source.choice([1, 40, 600, 9000])) for _ in range(120)]
    for offset in source.sample(blocks, 50):
        pool.xfree(offset)
    return pool


def live(pool):
    return [int(row["offset"]) for row in pool.walk() if row["used"]]


def test_neighbours_of_every_grain(probe, pool):
    found = live(pool)
    first = pool.arena.first_page * pool.arena.page_size
    for offset in range(first, pool.arena.n_bytes - 16, 16):
        is_start, before, after = probe.starts(pool, offset)
        assert is_start == (offset in found)
        assert before == max((at for at in found if at < offset), default=0)
        assert after == min((at for at in found if at > offset), default=0)


def test_a_search_ends_after_its_words(probe, pool):
    n_bytes = pool.arena.n_bytes
    last = live(pool)[-1]
    assert probe.start_search(pool, last, n_bytes, 1) == last
    assert probe.start_search(pool, last + 16, n_bytes, 1 << 20) == n_bytes
    # A word of bits stands for 1024 bytes.
    assert probe.start_search(pool, last + 16, n_bytes, 2) == (
        (last + 16) // 1024 * 1024 + 2048
    )
    assert probe.start_search(pool, n_bytes, n_bytes, 1) == n_bytes
