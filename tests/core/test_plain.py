# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of a pool without hardening, called in C one by one."""

import random

import pytest

import xmem

ENGINES = ("tlsf", "firstfit")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alignment", [1, 16, 32, 2048, 4096, 16384])
def test_a_block_of_each_alignment(probe, small_arena, engine, alignment):
    pool = xmem.Pool(small_arena, engine=engine)
    for n_bytes in (0, 1, 100, 4000, 9000):
        payload = probe.core_alloc(pool, n_bytes, alignment)
        assert payload
        assert payload % alignment == 0
        assert probe.core_owns(pool, payload)
        capacity, kept = probe.core_block(pool, payload)
        assert capacity >= n_bytes
        assert kept >= alignment
        pool.check()
        probe.core_free(pool, payload)
        assert not probe.core_owns(pool, payload)
        pool.check()
    assert pool.used_size == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_requests_that_no_arena_serves(probe, small_arena, engine):
    pool = xmem.Pool(small_arena, engine=engine)
    for n_bytes, alignment in ((1 << 20, 16), (2**64 - 1, 16), (16, 1 << 40)):
        assert probe.core_alloc(pool, n_bytes, alignment) == 0
    payload = probe.core_alloc(pool, 100)
    assert probe.core_resize(pool, payload, 2**64 - 1) == 0
    assert probe.core_owns(pool, payload)
    pool.check()


@pytest.mark.parametrize("engine", ENGINES)
def test_another_pool_s_block_is_not_owned(probe, small_arena, engine):
    pool, other = (xmem.Pool(small_arena, engine=engine) for _ in range(2))
    live = set()
    for n_bytes in (10, 3000, 9000):
        payload = probe.core_alloc(pool, n_bytes)
        assert probe.core_owns(pool, payload)
        assert not probe.core_owns(other, payload)
        live.add(payload)
        for at in range(payload - 64, payload + 64):
            assert probe.core_owns(pool, at) == (at in live)


@pytest.mark.parametrize("hardened", [False, True])
def test_a_run_stays_where_it_is_while_its_pages_hold_it(small_arena, hardened):
    pool = xmem.Pool(small_arena, hardened=hardened)
    run = pool.xmalloc(4 * 4096, align=4096)
    behind = pool.xmalloc(4096, align=4096)
    for n_bytes in (4 * 4096, 3 * 4096 + 1, 3 * 4096, 4097, 4096, 1, 4096, 0):
        assert pool.xrealloc(run, n_bytes) == run
        n_pages = max(-(-n_bytes // 4096), 1)
        (row,) = (row for row in pool.walk() if row["offset"] == run)
        assert row["size"] == n_pages * 4096
        pool.check()
    assert pool.xrealloc(run, 5 * 4096) != run
    pool.xfree(behind)
    pool.check()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resize_keeps_contents_and_alignment(probe, small_arena, engine, seed):
    source = random.Random(seed)
    pool = xmem.Pool(small_arena, engine=engine)
    for alignment in (16, 256, 4096):
        held = source.randbytes(100)
        payload = probe.core_alloc(pool, 100, alignment)
        pool.view(payload)[:100] = held
        for n_bytes in [source.randrange(100, 12000) for _ in range(20)]:
            neighbour = probe.core_alloc(pool, 50)
            payload = probe.core_resize(pool, payload, n_bytes)
            assert payload % alignment == 0
            assert probe.core_block(pool, payload)[0] >= n_bytes
            assert bytes(pool.view(payload)[:100]) == held
            probe.core_free(pool, neighbour)
            pool.check()
        probe.core_free(pool, payload)
    assert pool.used_size == 0
