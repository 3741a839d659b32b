# SPDX-License-Identifier: BSD-3-Clause
"""The work of a verb is bounded: counted, not timed.

A probe counts the calls of the core's functions, which shows loops. Between the same
neighbours an xfree of TLSF does the same work with a hundred live blocks as with
tens of thousands. Whatever the neighbours, a verb does no more than a constant. The
work of the legacy engine, counted the same way, climbs.
"""

import random

import pytest
from support.models import make_arena

import xmem

# What a verb may do to free lists and headers. Growing adds a region, joins it to its
# neighbours and carves a block, of which an aligned request writes four headers; or it
# gives an empty region back. Freeing may cut a region out, or replace the empty one in
# hand.
MOST = {
    "alloc": {"insert": 5, "remove": 5, "find": 5, "header": 15},
    "free": {"insert": 2, "remove": 3, "find": 2, "header": 6},
}
WITHOUT_PAGES = {
    "alloc": {"insert": 1, "remove": 1, "find": 1, "header": 2},
    "free": {"insert": 1, "remove": 2, "find": 1, "header": 1},
}
MOST_CALLS = 450


def fill(pool, n_blocks, source):
    """Many live blocks with as many holes of all sizes between them."""
    blocks = [pool.xmalloc(source.randrange(1, 400)) for _ in range(2 * n_blocks)]
    for block in blocks[::2]:
        pool.xfree(block)
    return blocks[1::2]


def neighbours(pool, scenario):
    """The block to free in a known surrounding, and what keeps it there."""
    pool.reserve(64)
    a, b, c, d, e = (pool.xmalloc(3000) for _ in range(5))
    if scenario in ("left", "sandwiched"):
        pool.xfree(b)
    if scenario in ("right", "sandwiched"):
        pool.xfree(d)
    return c, (a, e)


@pytest.mark.parametrize("scenario", ["isolated", "left", "right", "sandwiched"])
def test_xfree_does_the_same_with_any_number_of_live_blocks(probe, scenario, seed):
    counts = []
    for n_blocks in (100, 1000, 30000):
        with make_arena(8192) as arena:
            pool = xmem.Pool(arena)
            fill(pool, n_blocks, random.Random(seed))
            target, _ = neighbours(pool, scenario)
            counts.append(probe.counted_free(pool, target))
            pool.check()
    calls = [count.pop("calls") for count in counts]
    assert counts[0] == counts[1] == counts[2]
    # A list that runs empty clears a bit in one bitmap or in both.
    assert max(calls) - min(calls) <= 6
    assert max(calls) < 100
    removals = {"isolated": 0, "left": 1, "right": 1, "sandwiched": 2}
    assert counts[0]["remove"] == removals[scenario]
    # Where there is no remainder, what merges becomes it and is not listed.
    assert counts[0]["insert"] + counts[0]["aside"] == 1


def bounded(counts, most):
    assert counts["calls"] <= MOST_CALLS, counts
    for name, limit in most.items():
        assert counts[name] <= limit, counts


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("grow_pages", [1, 3, 16])
def test_every_verb_of_tlsf_is_bounded(probe, joins, grow_pages, seed):
    source = random.Random(seed)
    with make_arena(4096) as arena:
        pool = xmem.Pool(arena, grow_pages=grow_pages, join_regions=joins)
        live = fill(pool, 5000, source)
        for step in range(20000):
            roll = source.random()
            n_bytes = source.choice([20, 300, 3000, 30000])
            n_bytes = source.randrange(n_bytes)
            k = source.randrange(len(live))
            if roll < (0.4 if step % 10000 < 5000 else 0.6):
                counts = probe.counted_free(pool, live[k])
                live[k] = live[-1]
                live.pop()
                verb = "free"
            elif roll < 0.7:
                moved, counts = probe.counted_resize(pool, live[k], n_bytes)
                live[k] = moved or live[k]
                both = {
                    name: limit + MOST["free"][name]
                    for name, limit in MOST["alloc"].items()
                }
                bounded(counts, both)
                continue
            else:
                align = source.choice([16, 16, 64, 1024])
                payload, counts = probe.counted_alloc(pool, n_bytes, align)
                if payload:
                    live.append(payload)
                verb = "alloc"
                if align > 16 or not payload:
                    bounded(counts, MOST[verb])
                    continue
            with_pages = counts["frames_take"] or counts["frames_put"]
            bounded(counts, (MOST if with_pages else WITHOUT_PAGES)[verb])
        pool.check()


def in_vain(probe, arena, pool):
    """What a request does for which pages enough are free, but not side by side."""
    payload, counts = probe.counted_alloc(pool, 1000 * 4096)
    assert payload == 0
    pool.check()
    arena.check()
    return {name: counts[name] for name in (*MOST["alloc"], "calls")}


def fragmented():
    """An arena whose free pages are runs of 512 at most, with others between them."""
    arena = make_arena(4096)
    while arena.largest_free_order >= 9:
        arena.page_alloc(9)
    for run in arena.frames():
        if run["n_pages"] == 512 and run["page"] // 512 % 2:
            arena.page_free(int(run["page"]) * 4096)
    assert arena.largest_free_order == 9
    return arena


def scattered(arena, pool, n_regions):
    """Give a pool empty regions of 8 pages, no two of them side by side."""
    for _ in range(n_regions):
        assert pool.reserve(8) == 8
        arena.page_alloc(3)


@pytest.mark.parametrize("joins", [True, False])
def test_a_request_in_vain_gives_few_of_many_empty_regions_back(probe, joins):
    """Its work does not grow with their number; nor do more of them leave."""
    found = []
    for n_regions in (12, 60):
        with fragmented() as arena:
            pool = xmem.Pool(arena, join_regions=joins)
            pool.xmalloc(1000)
            scattered(arena, pool, n_regions)
            held = pool.stats().n_regions
            counts = in_vain(probe, arena, pool)
            found.append((held - pool.stats().n_regions, counts))
    (few, of_few), (many, of_many) = found
    assert few == many < 12
    for name in MOST["alloc"]:
        # What is next to the runs that are looked at may differ.
        assert of_many[name] <= 2 * of_few[name], (name, found)
    assert of_many["calls"] <= 2 * of_few["calls"], found


@pytest.mark.parametrize("joins", [True, False])
def test_a_request_in_vain_looks_at_few_of_many_lists(probe, joins):
    """Free blocks as large as a region, each on a list of its own, and none is one."""
    found = []
    for n_lists in (12, 24):
        with fragmented() as arena:
            pool = xmem.Pool(arena, join_regions=joins)
            pool.reserve(1)
            pool.xmalloc(4072)
            assert pool.reserve(256) == 256
            sizes = [4096 + 600 * i for i in range(n_lists)]
            blocks = [(pool.xmalloc(n), pool.xmalloc(16)) for n in sizes]
            rest = pool.stats().largest_free_bytes
            pool.xmalloc(rest)
            for block, _ in blocks:
                pool.xfree(block)
            found.append(in_vain(probe, arena, pool))
    assert found[0] == found[1]


def test_the_legacy_engine_climbs(probe):
    """The count sees a loop: the whole list is walked by each xfree."""
    calls = []
    for n_free in (10, 100, 1000):
        with make_arena(2048) as arena:
            pool = xmem.Pool(arena, engine="firstfit")
            blocks = [pool.xmalloc(3000) for _ in range(n_free + 1)]
            assert pool.stats().free_blocks == n_free + 1
            counts = probe.counted_free(pool, blocks[0])
            calls.append(counts["calls"])
            assert counts["unlink"] == 1
    assert calls[0] > 10
    assert calls[1] > 100
    assert calls[2] > 1000


def test_page_frames_are_bounded_by_the_orders(probe, seed):
    source = random.Random(seed)
    with make_arena(4096) as arena:
        orders = arena.max_order + 1
        runs = []
        for step in range(4000):
            if runs and source.random() < (0.4 if step % 2000 < 1000 else 0.6):
                offset = runs.pop(source.randrange(len(runs)))
                counts = probe.counted_page_free(arena, offset)
                assert counts["frames_put"] == 1
            else:
                n_pages = source.choice([1, 1, 2, 3, 7, 8, 31, 100])
                offset, counts = probe.counted_page_alloc(arena, n_pages)
                assert counts["frames_take"] == (offset != 0)
                if offset:
                    runs.append(offset)
            # One stretch appears or grows, one shrinks or goes: a path each.
            assert counts["stretches_raise"] <= 1
            assert counts["stretches_lower"] <= 1
            assert counts["calls"] <= 10 * orders + 100
        arena.check()


def test_one_page_costs_the_same_however_many_runs_there_are(probe):
    counts = []
    for n_runs in (8, 1500):
        with make_arena(4096) as arena:
            runs = [arena.page_alloc(0) for _ in range(2 * n_runs)]
            for run in runs[::2]:
                arena.page_free(run)
            offset, taken = probe.counted_page_alloc(arena, 1)
            counts.append((taken, probe.counted_page_free(arena, offset)))
            arena.check()
    assert counts[0] == counts[1]
