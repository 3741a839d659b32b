# SPDX-License-Identifier: BSD-3-Clause
"""A walk shows each block and each page run once, in order, and nothing else."""

import random

import pytest

import xmem


@pytest.mark.parametrize(
    "kind",
    [{"engine": "tlsf"}, {"engine": "firstfit"}, {"hardened": True}, {"quick": True}],
    ids=str,
)
def test_a_walk_shows_what_is_live(small_arena, kind, seed):
    source = random.Random(seed)
    pool, other = (xmem.Pool(small_arena, **kind) for _ in range(2))
    assert len(pool.walk()) == 0
    live = {}
    for _ in range(300):
        if live and source.random() < 0.45:
            pool.xfree(live.popitem()[0])
        else:
            align = source.choice([16, 16, 64, 4096])
            n_bytes = source.randrange(3000)
            live[pool.xmalloc(n_bytes, align)] = n_bytes
            other.xmalloc(50)
    rows = pool.walk()
    used = rows[rows["used"]]
    assert sorted(live) == used["offset"].tolist()
    assert rows["offset"].tolist() == sorted(rows["offset"].tolist())
    for row in used:
        offset = int(row["offset"])
        assert row["capacity"] == pool.usable_size(offset) >= live[offset]
        assert row["region"] * 4096 <= offset
        if pool.engine == "tlsf":
            assert row["kind"] == (offset % 4096 == 0)
    ends = rows["offset"] + rows["capacity"]
    assert (ends[:-1] <= rows["offset"][1:]).all()


def test_what_waits_is_shown_but_not_used(small_arena):
    pool = xmem.Pool(small_arena, quick=True)
    block = pool.xmalloc(100)
    pool.xfree(block)
    (row,) = [row for row in pool.walk() if row["offset"] == block]
    assert not row["used"]
    assert row["kind"] == 3


def test_pages_of_a_heap_are_shown_as_what_they_are(small_arena):
    heap = xmem.Heap(small_arena)
    run = heap.page_alloc(1)
    rows = [row for pool in heap.pools for row in pool.walk() if row["offset"] == run]
    (row,) = rows
    assert (row["kind"], row["used"], row["size"]) == (2, True, 2 * 4096)
