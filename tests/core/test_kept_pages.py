# SPDX-License-Identifier: BSD-3-Clause
"""Pools that are told their size: they obtain pages at creation, and keep them (C4)."""

import random

import pytest
from support.damage import KEPT_PAGES, Words

import xmem.base.errors
from xmem import Arena, BadArgument, HeapCorruption, OutOfMemory, Pool
from xmem.data import demo_trace_path
from xmem.measure.peers import Peer, measure
from xmem.measure.replay import load, replay

PAGE = 4096
FRAMES = 1024


@pytest.fixture
def arena():
    with Arena.anonymous(FRAMES * PAGE, page_size=PAGE) as arena:
        yield arena


def test_a_pool_has_its_pages_at_once(arena):
    pool = Pool(arena, reserve=500)
    assert pool.stats().region_pages == pool.total_size // PAGE == 500
    pool.check()


@pytest.mark.parametrize("settings", [{}, {"quick": True}, {"hardened": True}])
def test_no_call_obtains_or_gives_back_pages(arena, settings, seed):
    """A churn that leaves regions of an ordinary pool empty again and again."""
    source = random.Random(seed)
    changes = {}
    for reserve in (0, 700):
        pool = Pool(arena, reserve=reserve, **settings)
        live = []
        sizes = set()
        for step in range(4000):
            if live and (step // 500) % 2:
                pool.xfree(live.pop(source.randrange(len(live))))
            elif len(live) < 450:
                live.append(pool.xmalloc(source.randrange(1, 6000)))
            sizes.add(pool.stats().region_pages)
        changes[reserve] = len(sizes)
        pool.check()
        pool.destroy()
    assert changes[0] > 3
    assert changes[700] == 1


@pytest.mark.parametrize("join_regions", [True, False])
def test_regions_above_the_reserve_leave_as_ever(arena, join_regions):
    pool = Pool(arena, reserve=32, grow_pages=16, join_regions=join_regions)
    blocks = [pool.xmalloc(3000) for _ in range(200)]
    assert pool.stats().region_pages > 32 + 48
    for block in blocks:
        pool.xfree(block)
    held = pool.stats().region_pages
    assert 32 <= held <= 32 + 16 * 2
    pool.check()
    blocks = [pool.xmalloc(3000) for _ in range(200)]
    for block in reversed(blocks):
        pool.xfree(block)
    assert pool.stats().region_pages >= 32


@pytest.mark.parametrize("reserved_left", [False, True])
def test_a_region_to_keep_does_not_hide_those_behind_it(arena, reserved_left):
    """They merge with it into one free block, at its left or at its right."""
    wall = arena.page_alloc_exact(512 if reserved_left else 1)
    first = arena.page_alloc_exact(256)
    if not reserved_left:
        rest = arena.page_alloc_exact(240)
        arena.page_free(first)
    else:
        arena.page_free(first)
    pool = Pool(arena, reserve=200, grow_pages=16)
    if not reserved_left:
        arena.page_free(rest)
    blocks = []
    while pool.stats().region_pages < 200 + 5 * 16:
        blocks.append(pool.xmalloc(3000))
    for _ in range(3):
        for block in blocks:
            pool.xfree(block)
        assert pool.stats().region_pages <= 200 + 2 * 16
        blocks = [pool.xmalloc(3000) for _ in blocks]
    pool.check()
    arena.page_free(wall)


def test_shrink_gives_all_back(arena):
    pool = Pool(arena, reserve=300)
    block = pool.xmalloc(100)
    pool.shrink()
    assert pool.stats().region_pages == 300, "the block is in the only region"
    pool.xfree(block)
    assert pool.stats().region_pages == 300
    pool.shrink()
    assert pool.stats().region_pages == 0
    pool.check()
    block = pool.xmalloc(100)
    pool.xfree(block)
    pool.check()


def test_a_request_without_room_gets_a_region_that_was_reserved(arena):
    """A run of whole pages, which no region can serve."""
    pool = Pool(arena, reserve=900, grow_pages=1)
    run = pool.xmalloc(200 * PAGE, align=PAGE)
    assert pool.stats().region_pages < 900
    pool.xfree(run)
    pool.check()


def test_what_cannot_be_reserved_leaves_nothing_behind(arena):
    free = arena.n_free_pages
    with pytest.raises(OutOfMemory, match="2000 pages cannot be reserved"):
        Pool(arena, name="large", reserve=2000)
    assert arena.n_free_pages == free
    assert arena.pools() == {}
    Pool(arena, name="large", reserve=free // 2).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reserve": 10, "max_pages": 9}, "reserve=10 is more than max_pages=9"),
        ({"reserve": 1, "engine": "firstfit"}, "only the tlsf engine"),
        ({"reserve": -1}, "reserve"),
    ],
)
def test_what_is_refused(arena, settings, message):
    free = arena.n_free_pages
    with pytest.raises(BadArgument, match=message):
        Pool(arena, **settings)
    assert arena.n_free_pages == free
    with pytest.raises(TypeError, match="reserve"):
        Pool(arena, reserve=1.5)


def test_regions_of_the_callers_functions_are_reserved_too(arena):
    given = []

    def get(n_pages):
        given.append(n_pages)
        return arena.page_alloc_exact(n_pages)

    def put(offset, n_pages):
        given.append(-n_pages)
        arena.page_free(offset)

    pool = Pool(arena, reserve=64, get_mem=get, put_mem=put)
    assert given == [64]
    pool.xfree(pool.xmalloc(60 * PAGE))
    assert given == [64]
    pool.destroy()


@pytest.mark.parametrize("ends", ["pool", "arena"])
@pytest.mark.parametrize("gives", [False, True])
def test_a_function_that_ends_what_asks_it(ends, gives):
    """Nothing is written to pages that are no longer the pool's."""
    arena = Arena.anonymous(FRAMES * PAGE, page_size=PAGE)
    taken = []

    def get(n_pages):
        run = arena.page_alloc_exact(n_pages)
        if ends == "arena":
            arena.close()
        else:
            Pool.open(arena, "asking").destroy()
            taken.append(arena.page_alloc_exact(arena.n_free_pages // 2))
            arena.view(taken[0])[:] = bytes(arena.run_pages(taken[0]) * PAGE)
        return run if gives else None

    with pytest.raises(xmem.base.errors.XmemError):
        Pool(arena, name="asking", reserve=64, get_mem=get, put_mem=lambda *_: None)
    if ends == "pool":
        assert not any(bytes(arena.view(taken[0])))
        assert arena.pools() == {}
        arena.check()


def test_a_subclass_does_not_change_what_is_reserved(arena):
    class Other(Pool):
        def reserve(self, n_pages, /):
            return n_pages

        def destroy(self, *, force=False):
            raise RuntimeError("not now")

    def get(_n_pages):
        return None

    with pytest.raises(OutOfMemory):
        Other(arena, reserve=64, get_mem=get, put_mem=lambda *_: None)
    with pytest.raises(OutOfMemory):
        Other(arena, reserve=FRAMES)
    assert arena.pools() == {}
    pool = Other(arena, reserve=64)
    assert pool.stats().region_pages == pool.kept_pages == 64


def test_functions_that_give_nothing_leave_no_pool(arena):
    with pytest.raises(OutOfMemory):
        Pool(arena, reserve=64, get_mem=lambda _n: None, put_mem=lambda *_: None)
    assert arena.pools() == {}

    def fail(_n_pages):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        Pool(arena, reserve=64, get_mem=fail, put_mem=lambda *_: None)
    assert arena.pools() == {}


def test_the_reserve_outlives_the_process(tmp_path):
    path = tmp_path / "arena"
    with Arena.create(path, FRAMES * PAGE, page_size=PAGE) as arena:
        Pool(arena, name="kept", reserve=200)
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "kept")
        pool.xfree(pool.xmalloc(150 * PAGE))
        assert pool.stats().region_pages == 200


@pytest.mark.damages
def test_C4_no_more_is_kept_than_there_is(arena):
    words = Words(arena)
    for settings, most in (
        ({"reserve": 10}, FRAMES),
        ({"reserve": 10, "max_pages": 20}, 20),
        ({"engine": "firstfit"}, 0),
    ):
        pool = Pool(arena, **settings)
        words.set(words.control(pool) + KEPT_PAGES, most)
        pool.check()
        words.set(words.control(pool) + KEPT_PAGES, most + 1)
        with pytest.raises(HeapCorruption) as caught:
            pool.check()
        assert caught.value.invariant == "C4"
        words.repair()
        pool.check()


def test_peers_and_replays_can_reserve():
    ops = load(demo_trace_path())[:20_000]
    for quick in (False, True):
        assert replay(ops, quick=quick, reserved=True, repeats=1).failed == 0
    with pytest.raises(BadArgument, match="give no interface"):
        replay(ops, interface="strict", reserved=True)
    assert measure(Peer.engine(reserved=True), ops, repeats=1).failed == 0
    assert replay(ops, max_pages=2000, reserved=True, repeats=1).failed == 0
    limited = Peer.engine(reserved=True, max_pages=2000)
    assert measure(limited, ops, repeats=1).failed == 0
    with pytest.raises(BadArgument, match="only the tlsf engine"):
        Peer.engine("firstfit", reserved=True)
