# SPDX-License-Identifier: BSD-3-Clause
"""The checker in slices finds what the whole checker finds, between any other calls."""

import ctypes

import numpy as np
import pytest
from support.damage import damaged

import xmem
from xmem import Arena, HeapCorruption, Pool

pytestmark = pytest.mark.damages

PAGE = 4096
KINDS = [
    {"engine": "tlsf"},
    {"engine": "tlsf", "join_regions": False, "grow_pages": 1},
    {"engine": "tlsf", "hardened": True},
    {"engine": "firstfit"},
]


@pytest.fixture
def arena():
    with Arena.anonymous(4 << 20, page_size=PAGE) as made:
        yield made


def filled(arena, kind, n=300, seed=1):
    """A pool with live and free blocks, and what is live."""
    pool = Pool(arena, **kind)
    rng = np.random.default_rng(seed)
    live = [pool.xmalloc(int(n)) for n in rng.choice([0, 20, 100, 700, 3000, 9000], n)]
    for offset in live[::3]:
        pool.xfree(offset)
    del live[::3]
    return pool, live


def rounds(pool, n_blocks, limit=100_000):
    """Calls until a round ends."""
    for i in range(limit):
        if pool.check_step(n_blocks):
            return i + 1
    raise AssertionError("a round without end")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_round_ends_and_the_next_begins(arena, kind):
    pool, live = filled(arena, kind)
    n_calls = {n: [rounds(pool, n) for _ in range(3)] for n in (1, 7, 100, 10**6)}
    for calls in n_calls.values():
        assert len(set(calls)) == 1
    assert n_calls[1][0] > n_calls[7][0] > n_calls[100][0] >= n_calls[10**6][0]
    assert n_calls[10**6][0] <= 2
    assert n_calls[1][0] >= len(live) / 20


def test_an_empty_pool_has_a_short_round(arena):
    assert rounds(Pool(arena), 1000) <= 2


@pytest.mark.parametrize("n_blocks", [1, 5, 1000])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_damage_of_any_header_is_found_within_a_round(arena, kind, n_blocks):
    pool, live = filled(arena, kind, 60)
    memory = (ctypes.c_ubyte * arena.n_bytes).from_address(arena.address(0))
    walked = pool.walk()
    headers = (walked["offset"] + walked["capacity"] - walked["size"])[
        walked["kind"] != 1
    ]
    if "hardened" in kind:
        headers = walked["offset"][walked["kind"] == 0] - 8
    bits = [(3, 1), (5, 4)]  # of the size
    for header in headers.tolist():
        for byte, bit in bits:
            memory[header + byte] ^= 1 << bit
            with pytest.raises(HeapCorruption):
                rounds(pool, n_blocks)
            place = None
            with pytest.raises(HeapCorruption) as caught:
                pool.check_step(n_blocks)  # it stays where it is
            place = caught.value.offset
            assert place is not None
            memory[header + byte] ^= 1 << bit
        rounds(pool, n_blocks)
    assert live


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_slices_between_all_other_calls_accuse_nobody(arena, kind, seed):
    rng = np.random.default_rng(seed)
    pool = Pool(arena, **kind)
    live = []
    ended = 0
    for _ in range(6000):
        draw = rng.random()
        if live and draw < 0.48:
            pool.xfree(live.pop(int(rng.integers(len(live)))))
        elif live and draw < 0.6:
            i = int(rng.integers(len(live)))
            live[i] = pool.xrealloc(live[i], int(rng.choice([0, 40, 900, 5000])))
        elif draw < 0.61:
            pool.shrink()
        elif len(live) < 200:
            align = int(rng.choice([16, 16, 256, PAGE]))
            live.append(pool.xmalloc(int(rng.choice([1, 30, 500, 4000])), align=align))
        ended += pool.check_step(int(rng.integers(1, 40)))
    assert ended > 10
    pool.check()


def test_a_slice_is_short_whatever_the_pool_holds(arena):
    """Not a block more than asked for, but for the way to the next live one."""
    for n in (10, 1000):
        pool, _ = filled(arena, {"engine": "tlsf"}, n)
        assert rounds(pool, 1) > n / 4
        pool.destroy(force=True)


def test_damage_behind_the_place_waits_for_the_next_round(arena):
    pool, live = filled(arena, {"engine": "tlsf"}, 60)
    memory = (ctypes.c_ubyte * arena.n_bytes).from_address(arena.address(0))
    first = min(offset for offset in live if offset % PAGE)
    pool.check_step(20)  # well behind the first block, and before the end
    memory[first - 3] ^= 1
    try:
        while not pool.check_step(5):
            pass
    except HeapCorruption:
        pytest.fail("the place has been passed")
    with pytest.raises(HeapCorruption):
        rounds(pool, 5)
    memory[first - 3] ^= 1


def test_a_page_that_is_in_no_run_is_found(arena):
    """P1: the run in front does not reach as far."""
    pool = Pool(arena)
    pool.xmalloc(100)
    pages = [arena.page_alloc(0) for _ in range(8)]
    front = next(at for at in pages if at % (2 * PAGE) == 0 and at + PAGE in pages)
    with damaged(arena) as words:
        words.set(words.frame((front + PAGE) // PAGE), 0)
        with pytest.raises(HeapCorruption) as caught:
            rounds(pool, 10, limit=1000)
        assert caught.value.invariant == "P1"
        assert caught.value.offset == front + PAGE
    rounds(pool, 10)


def test_damage_of_the_frame_table_is_reported_as_by_the_whole_checker(arena):
    pool, _ = filled(arena, {"engine": "tlsf"}, 10)
    with damaged(arena) as words:
        words.set(words.frame(arena.first_page), 0)
        with pytest.raises(HeapCorruption) as whole:
            pool.check()
        with pytest.raises(HeapCorruption) as slices:
            rounds(pool, 5)
    assert str(slices.value) == str(whole.value)
    pool.check()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, xmem.BadArgument),
        (-1, xmem.BadArgument),
        (1.5, xmem.BadArgumentType),
        (None, xmem.BadArgumentType),
    ],
)
def test_wrong_amounts(arena, value, error):
    pool = Pool(arena)
    with pytest.raises(error, match="n_blocks"):
        pool.check_step(value)


def test_a_pool_that_is_gone(arena):
    pool = Pool(arena)
    pool.destroy()
    with pytest.raises(xmem.PoolDestroyed):
        pool.check_step(1)
