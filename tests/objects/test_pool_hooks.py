# SPDX-License-Identifier: BSD-3-Clause
"""The pool interface with the caller's own get_mem and put_mem."""

import sys

import numpy as np
import pytest
from support.heaps import PAGE, image

import xmem
from xmem import Arena, Pool
from xmem.arena import FRAME_RUN


class Source:
    """A source of regions that keeps accounts."""

    def __init__(self, arena):
        self.arena = arena
        self.out = {}
        self.calls = []

    def get_mem(self, n_pages):
        self.calls.append(("get", n_pages))
        offset = self.arena.page_alloc_exact(n_pages)
        self.out[offset] = n_pages
        return offset

    def put_mem(self, offset, n_pages):
        self.calls.append(("put", n_pages))
        assert self.out.pop(offset) == n_pages
        self.arena.page_free(offset)

    @property
    def hooks(self):
        return {"get_mem": self.get_mem, "put_mem": self.put_mem}

    @property
    def pages(self):
        return sum(self.out.values())


@pytest.fixture
def arena():
    with Arena.anonymous(2 << 20, page_size=PAGE) as made:
        yield made


@pytest.fixture
def source(arena):
    return Source(arena)


@pytest.fixture
def unraisable(monkeypatch):
    """What went to sys.unraisablehook."""
    seen = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value)
    )
    return seen


# Where regions come from --------------------------------------------------------


def test_every_region_is_requested(arena, source):
    pool = Pool(arena, grow_pages=2, join_regions=False, **source.hooks)
    assert source.calls == []
    first = pool.xmalloc(100)
    assert source.calls == [("get", 2)]
    pool.xmalloc(100)
    assert source.calls == [("get", 2)]
    large = pool.xmalloc(5 * PAGE)
    assert source.calls[1:] == [("get", 6)]
    region = next(iter(source.out))
    assert region < first < region + 2 * PAGE
    assert pool.total_size == source.pages * PAGE == 8 * PAGE
    pool.xfree(large)
    pool.check()


@pytest.mark.parametrize("joins", [True, False])
def test_totals_agree_with_the_source_after_every_operation(arena, joins, seed):
    source = Source(arena)
    pool = Pool(arena, grow_pages=2, join_regions=joins, **source.hooks)
    rng = np.random.default_rng(seed)
    live = []
    for i in range(800):
        draw = rng.random()
        if live and draw < 0.45:
            pool.xfree(live.pop(int(rng.integers(len(live)))))
        elif live and draw < 0.6:
            k = int(rng.integers(len(live)))
            live[k] = pool.xrealloc(live[k], int(rng.integers(9000)))
        elif draw < 0.62:
            pool.shrink()
        else:
            live.append(pool.xmalloc(int(rng.integers(9000))))
        assert pool.total_size == source.pages * PAGE
        used = pool.walk()
        assert pool.used_size == int(used["size"][used["used"]].sum())
        assert pool.stats().n_regions == len(source.out)
        if i % 50 == 0:
            pool.check()
    for offset in live:
        pool.xfree(offset)
    pool.shrink()
    assert (pool.total_size, source.out) == (0, {})
    assert {kind for kind, _ in source.calls} == {"get", "put"}


def test_a_limit_is_exact_with_hooks(arena, source):
    pool = Pool(arena, grow_pages=3, max_pages=7, join_regions=False, **source.hooks)
    # Four of these fit three pages, one fits the last.
    for _ in range(9):
        pool.xmalloc(3000)
    with pytest.raises(xmem.OutOfMemory, match="at most 7"):
        pool.xmalloc(3000)
    assert pool.total_size == 7 * PAGE
    assert [n for _, n in source.calls] == [3, 3, 1]


def test_reserve_asks_the_source(arena, source):
    pool = Pool(arena, max_pages=12, **source.hooks)
    assert pool.reserve(0) == 0
    assert pool.reserve(10) == 10
    assert source.calls == [("get", 10)]
    assert pool.reserve(10) == 2
    assert pool.reserve(10) == 0
    assert source.pages * PAGE == pool.total_size == 12 * PAGE
    pool.check()
    empty = Pool(arena, get_mem=lambda n_pages: None, put_mem=source.put_mem)
    assert empty.reserve(5) == 0


def test_a_source_may_give_more_than_was_requested(arena):
    given = []

    def generous(n_pages):
        given.append(arena.page_alloc_exact(n_pages + 3))
        return given[-1]

    pool = Pool(
        arena, grow_pages=1, get_mem=generous, put_mem=lambda o, n: arena.page_free(o)
    )
    pool.xmalloc(100)
    assert pool.total_size == 4 * PAGE
    pool.check()


def test_subclasses_may_be_the_source(arena):
    class Mine(Pool):
        def __init__(self, arena):
            self.taken = []
            super().__init__(arena, get_mem=self.take, put_mem=self.give)

        def take(self, n_pages):
            self.taken.append(self.arena.page_alloc_exact(n_pages))
            return self.taken[-1]

        def give(self, offset, n_pages):
            self.taken.remove(offset)
            self.arena.page_free(offset)

    pool = Mine(arena)
    offset = pool.xmalloc(100)
    assert len(pool.taken) == 1
    pool.xfree(offset)
    pool.shrink()
    assert pool.taken == []


# Wrong offsets from a hook ------------------------------------------------------


def wrong_returns(arena, pool, other):
    live = other.xmalloc(100)
    aligned = other.xmalloc(PAGE, align=2 * PAGE)
    freed = arena.page_alloc(2)
    arena.page_free(freed)
    small = arena.page_alloc(0)
    return {
        "text": ("8192", xmem.BadArgumentType),
        "fraction": (8192.0, xmem.BadArgumentType),
        "negative": (-PAGE, xmem.NotABlock),
        "huge": (1 << 70, xmem.NotABlock),
        "superblock": (0, xmem.InvalidFree),
        "outside": (arena.n_bytes, xmem.InvalidFree),
        "free pages": (freed, xmem.DoubleFree),
        "misaligned": (small + 16, xmem.InvalidFree),
        "too few pages": (small, xmem.BadArgument),
        "another pool's block": (live, xmem.InvalidFree),
        "another pool's run": (aligned, xmem.MismatchedFree),
        "another pool's region": (live & -PAGE, xmem.InvalidFree),
    }


def test_wrong_returns_are_refused_and_change_nothing(arena, source):
    given = [None]
    pool = Pool(arena, get_mem=lambda n: given[0], put_mem=source.put_mem)
    other = Pool(arena, name="other")
    for what, (value, error) in wrong_returns(arena, pool, other).items():
        given[0] = value
        before = image(arena)
        for ask in (lambda: pool.xmalloc(5000), lambda: pool.reserve(4)):
            with pytest.raises(error):
                ask()
            assert image(arena) == before, what
    pool.check()
    other.check()


def test_a_run_beyond_the_limit_is_refused(arena, source):
    given = []
    pool = Pool(
        arena, max_pages=8, grow_pages=1, get_mem=lambda n: given[-1], put_mem=print
    )
    # The limit admits what is asked for, but not what is given.
    for n_pages in (9, 64):
        given.append(arena.page_alloc_exact(n_pages))
        before = image(arena)
        for ask in (lambda: pool.xmalloc(5000), lambda: pool.reserve(4)):
            with pytest.raises(
                xmem.BadArgument, match=f"{n_pages} pages.* limit admits 8$"
            ):
                ask()
        assert image(arena) == before
    given.append(arena.page_alloc_exact(8))
    assert pool.xmalloc(5000)
    assert pool.total_size == 8 * PAGE
    pool.check()


def test_a_run_that_is_viewed_is_refused(arena, source):
    run = arena.page_alloc_exact(4)
    pool = Pool(arena, grow_pages=4, get_mem=lambda n: run, put_mem=source.put_mem)
    view = arena.view(run)
    part = view[8:9]
    before = image(arena)
    for held in (view, part):
        for ask in (lambda: pool.xmalloc(100), lambda: pool.reserve(1)):
            with pytest.raises(BufferError):
                ask()
        assert image(arena) == before
        held.release()
    assert pool.xmalloc(100) - run in range(4 * PAGE)


def test_what_get_mem_raises_comes_through(arena, source):
    pool = Pool(arena, grow_pages=1, **source.hooks)
    offset = pool.xmalloc(3000)
    pool.view(offset)[:4] = b"kept"

    def broken(n_pages):
        raise LookupError("no more")

    fragile = Pool.open(arena, pool.name, get_mem=broken, put_mem=source.put_mem)
    before = image(arena)
    for call in (
        lambda: fragile.xmalloc(3000),
        lambda: fragile.xzalloc(3000),
        lambda: fragile.xrealloc(offset, 8000),
        lambda: fragile.reserve(1),
    ):
        with pytest.raises(LookupError, match="no more"):
            call()
        assert image(arena) == before
    assert bytes(pool.view(offset, 4)) == b"kept"


def test_what_put_mem_raises_loses_nothing(arena, source, unraisable):
    """The verb has been carried out: its result must not be lost."""
    returned = []

    def broken(offset, n_pages):
        returned.append((offset, n_pages))
        raise LookupError("not now")

    pool = Pool(
        arena, grow_pages=1, join_regions=False, get_mem=source.get_mem, put_mem=broken
    )
    blocks = [pool.xmalloc(3000) for _ in range(4)]
    pool.view(blocks[0])[:4] = b"kept"
    pool.xfree(blocks[3])
    pool.xfree(blocks[2])
    assert len(returned) == len(unraisable) == 1
    moved = pool.xrealloc(blocks[0], 6000)
    assert bytes(pool.view(moved, 4)) == b"kept"
    assert len(returned) == 2
    pool.xfree(moved)
    pool.xfree(blocks[1])
    pool.shrink()
    assert {type(error) for error in unraisable} == {LookupError}
    assert pool.total_size == 0
    # The runs are the caller's: nothing is lost.
    frames = arena.frames()
    runs = frames[(frames["state"] == FRAME_RUN) & (frames["owner"] == 0)]
    assert sorted((int(r["page"]) * PAGE, int(r["n_pages"])) for r in runs) == sorted(
        returned
    )
    for offset, _ in returned:
        arena.page_free(offset)
    pool.check()


# Re-entrance --------------------------------------------------------------------


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("deed", ["xmalloc", "xfree", "shrink", "reserve", "check"])
def test_hooks_may_use_the_pool(arena, source, joins, deed):
    held = []
    busy = []

    def act(pool):
        if busy or len(held) > 30:
            return
        busy.append(1)
        if deed == "xmalloc":
            held.append(pool.xmalloc(700))
        elif deed == "xfree" and held:
            pool.xfree(held.pop())
        elif deed == "shrink":
            pool.shrink()
        elif deed == "reserve":
            pool.reserve(1)
            held.append(pool.xmalloc(1))
        else:
            pool.check()
        busy.pop()

    def get_mem(n_pages):
        act(pool)
        return source.get_mem(n_pages)

    def put_mem(offset, n_pages):
        source.put_mem(offset, n_pages)
        act(pool)

    pool = Pool(
        arena, grow_pages=1, join_regions=joins, get_mem=get_mem, put_mem=put_mem
    )
    blocks = [pool.xmalloc(3000) for _ in range(12)]
    held += [pool.xmalloc(20) for _ in range(4)]
    for offset in blocks[::2]:
        pool.xfree(offset)
    pool.shrink()
    for offset in blocks[1::2]:
        pool.xfree(offset)
    pool.shrink()
    pool.check()
    assert pool.total_size == source.pages * PAGE
    assert pool.stats().live_blocks == len(held)


# The end ------------------------------------------------------------------------


def test_destroy_reports_what_is_live(arena, source):
    pool = Pool(arena, name="mine", grow_pages=1, **source.hooks)
    live = sorted(pool.xmalloc(n) for n in (100, 200, 3000))
    pool.xfree(pool.xmalloc(50))
    with pytest.raises(xmem.PoolInUse, match="3 live blocks") as caught:
        pool.destroy()
    assert sorted(caught.value.live["offset"].tolist()) == live
    assert (caught.value.live["capacity"] >= 100).all()
    pool.check()
    assert sorted(pool.destroy(force=True)["offset"].tolist()) == live
    assert source.out == {}
    assert arena.pools() == {}
    arena.check()


def test_put_mem_that_raises_does_not_keep_a_pool_alive(arena, source, unraisable):
    def broken(offset, n_pages):
        raise LookupError(offset)

    pool = Pool(arena, grow_pages=1, get_mem=source.get_mem, put_mem=broken)
    pool.xfree(pool.xmalloc(100))
    pool.destroy()
    assert [error.args[0] for error in unraisable] == list(source.out)
    assert arena.pools() == {}
    for offset in source.out:
        arena.page_free(offset)
    arena.check()


def test_stale_handles_are_refused(arena, source):
    pool = Pool(arena, name="mine", **source.hooks)
    second = Pool.open(arena, "mine", **source.hooks)
    offset = pool.xmalloc(100)
    pool.destroy(force=True)
    again = Pool(arena, name="mine", **source.hooks)
    assert again.xmalloc(100) > 0
    before = image(arena)
    for handle in (pool, second):
        assert handle.closed
        for call in (
            lambda h=handle: h.xmalloc(1),
            lambda h=handle: h.xfree(offset),
            lambda h=handle: h.xrealloc(offset, 5),
            lambda h=handle: h.reserve(1),
            lambda h=handle: h.shrink(),
            lambda h=handle: h.destroy(force=True),
            lambda h=handle: h.total_size,
            lambda h=handle: h.check(),
        ):
            with pytest.raises(xmem.PoolDestroyed, match="'mine' has been destroyed"):
                call()
    assert image(arena) == before
