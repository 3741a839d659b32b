# SPDX-License-Identifier: BSD-3-Clause
"""Paths, as bits, of calls on heaps made for them."""

import pytest

import xmem
from xmem.measure.codes import PATH_LEFT, PATH_MOVED
from xmem.measure.counts import path_name

XMALLOC, XFREE, XREALLOC = range(3)


@pytest.fixture
def pool(small_arena):
    pool = xmem.Pool(small_arena, grow_pages=1, join_regions=False)
    pool.reserve(1)
    return pool


def name(probe, pool, verb, payload=0, value=0):
    """The name of the path that a call takes, and what the call returned."""
    result, path = probe.path_of(pool, verb, payload, value)
    pool.check()
    return path_name(verb, path), result


def test_paths_of_xfree_are_its_neighbours(probe, pool):
    a, b, c, d, e, f = (pool.xmalloc(100) for _ in range(6))
    assert name(probe, pool, XFREE, b)[0] == "isolated"
    assert name(probe, pool, XFREE, c)[0] == "left"
    assert name(probe, pool, XFREE, a)[0] == "right"
    assert name(probe, pool, XFREE, e)[0] == "isolated"
    assert name(probe, pool, XFREE, d)[0] == "both"
    assert pool.usable_size(f) >= 100


def test_paths_of_xmalloc(probe, pool):
    a, _ = pool.xmalloc(100), pool.xmalloc(100)
    pool.xfree(a)
    assert name(probe, pool, XMALLOC, value=100) == ("exact", a)
    assert name(probe, pool, XMALLOC, value=200)[0] == "split"
    assert name(probe, pool, XMALLOC, value=3900)[0].endswith(", grown")
    assert name(probe, pool, XMALLOC, value=1 << 40) == ("failed", 0)


def test_paths_of_xrealloc(probe, pool):
    a, _ = pool.xmalloc(100), pool.xmalloc(100)
    assert name(probe, pool, XREALLOC, a, 50) == ("in place", a)
    path, moved = name(probe, pool, XREALLOC, a, 1000)
    assert path == "moved"
    assert moved != a


def test_a_page_run_is_one_before_and_after(probe, pool):
    run = pool.xmalloc(5000, 4096)
    assert "run" in name(probe, pool, XFREE, run)[0]


def test_a_page_run_is_one_when_it_is_resized(probe, pool):
    run = pool.xmalloc(5000, 4096)
    assert name(probe, pool, XREALLOC, run, 100) == ("run, region returned", run)
    assert name(probe, pool, XREALLOC, run, 4096) == ("run", run)


def test_only_a_resize_moves(probe, pool):
    """No other call has the bit, whose name only a resize shows."""
    a, b, _ = pool.xmalloc(100), pool.xmalloc(100), pool.xmalloc(100)
    assert probe.path_of(pool, XFREE, a, 0) == (1, 0)
    assert probe.path_of(pool, XFREE, b, 0) == (1, PATH_LEFT)
    assert probe.path_of(pool, XMALLOC, 0, 212) == (a, 0)
    moved, path = probe.path_of(pool, XREALLOC, a, 500)
    assert (moved != a, path) == (True, PATH_MOVED)
