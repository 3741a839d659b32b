# SPDX-License-Identifier: BSD-3-Clause
"""A block that is damaged in the quarantine is lost, and nothing else is."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words

import xmem
from xmem import Arena, Heap, HeapCorruption, Pool
from xmem.pool import HARDENING

pytestmark = pytest.mark.damages

PAGE = 4096
RING = 16
LOST = 4  # kind of a row of `Pool.walk`
HARDENED = [
    True,
    ["poison", "quarantine"],
    ["canaries", "quarantine"],
    ["checksums", "quarantine", "safe_links"],
]
#: What a stray write may hit of a waiting block of 100 bytes: place and bytes.
PLACES = {"payload": (0, 8), "end": (100, 20), "header": (-8, 8), "all": (-8, 112)}
#: Where a block without poison, or without a trailer, does not notice it.
UNSEEN = {("canaries", "payload"), ("checksums", "payload"), ("poison", "end")}


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.anonymous(2 << 20, page_size=PAGE) as made:
        yield made


def lose(arena: Arena, pool: Pool, hurt: int, place: str = "payload") -> None:
    """Damage a block in quarantine, and free others until it has left."""
    start, n_bytes = PLACES[place]
    ctypes.memset(arena.address(hurt + start), 0x41, n_bytes)
    others = [pool.xmalloc(100) for _ in range(RING)]
    reports = []
    for other in others:
        try:
            pool.xfree(other)
        except HeapCorruption as error:
            reports.append(error.offset)
    assert reports == [hurt - 8]
    with pytest.raises(xmem.DoubleFree):
        pool.xfree(others[-1])


def cases() -> list[tuple[object, str]]:
    return [
        (flags, place)
        for flags in HARDENED
        for place in PLACES
        if flags is True or (flags[0], place) not in UNSEEN
    ]


def works(pool: Pool, seed: int) -> None:
    """Use a pool at random, checking as it goes."""
    rng = np.random.default_rng(seed)
    live: list[int] = []
    for i in range(600):
        if live and rng.random() < 0.45:
            pool.xfree(live.pop(int(rng.integers(len(live)))))
        elif live and rng.random() < 0.2:
            at = int(rng.integers(len(live)))
            live[at] = pool.xrealloc(live[at], int(rng.integers(3000)))
        else:
            live.append(pool.xmalloc(int(rng.choice([20, 90, 100, 104, 500, 3000]))))
        if i % 50 == 0:
            pool.check()
            while not pool.check_step(20):
                pass
    for offset in live:
        pool.xfree(offset)


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize(("flags", "place"), cases(), ids=str)
@pytest.mark.parametrize("neighbours", ["live", "free"])
def test_the_rest_of_the_pool_works_on(
    arena_path: Path, flags: object, place: str, joins: bool, neighbours: str, seed: int
) -> None:
    with Arena.create(arena_path, 2 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, name="p", hardened=flags, join_regions=joins)
        left, hurt, right, last = (pool.xmalloc(100) for _ in range(4))
        pool.xfree(hurt)
        if neighbours == "free":
            pool.xfree(left)
            pool.xfree(right)
            for _ in range(RING - 3):
                pool.xfree(pool.xmalloc(100))
        lose(arena, pool, hurt, place)
        if neighbours == "live":
            assert pool.usable_size(left) >= 100
            pool.view(left)[:5] = b"still"
            left = pool.xrealloc(left, 5000)
            assert bytes(pool.view(left, 5)) == b"still"
            pool.xfree(left)
            pool.xfree(right)
        stats = pool.stats()
        assert (stats.lost_blocks, stats.live_blocks) == (1, 1)
        assert stats.waiting_blocks <= RING
        walked = pool.walk()
        (lost,) = walked[walked["kind"] == LOST]
        assert lost["offset"] == hurt
        assert not lost["used"]
        for call in (pool.xfree, pool.usable_size, pool.view):
            with pytest.raises(xmem.DoubleFree):
                call(hurt)
        works(pool, seed)
        pool.shrink()
        pool.check()
    with Arena.open(arena_path) as arena:
        pool = Pool.open(arena, "p")
        assert pool.stats().lost_blocks == 1
        works(pool, seed + 1)
        pool.xfree(last)
        assert pool.stats().live_blocks == 0
        assert hurt not in [pool.xmalloc(100) for _ in range(40)]
        pool.destroy(force=True)
        arena.check()
        Pool(arena, hardened=flags).destroy()


def test_a_pool_whose_only_block_is_lost_is_destroyed_without_force(
    arena: Arena,
) -> None:
    before = arena.n_free_pages
    pool = Pool(arena, hardened=True)
    hurt = pool.xmalloc(100)
    pool.xfree(hurt)
    lose(arena, pool, hurt)
    assert pool.stats().live_blocks == 0
    assert len(pool.destroy()) == 0
    assert arena.n_free_pages == before


def test_several_lost_blocks_side_by_side(arena: Arena, seed: int) -> None:
    pool = Pool(arena, hardened=True)
    blocks = [pool.xmalloc(100) for _ in range(3 * RING)]
    for i, offset in enumerate(blocks[1:6]):
        pool.xfree(offset)
        ctypes.memset(arena.address(offset) - 8, 0x41 + i, 100)
    n_reports = 0
    for offset in blocks[6 : 6 + RING + 4]:
        try:
            pool.xfree(offset)
        except HeapCorruption:
            n_reports += 1
    assert n_reports == 5
    assert pool.stats().lost_blocks == 5
    pool.xfree(blocks[0])
    works(pool, seed)


# Calls that would have succeeded -------------------------------------------------


def ask_until_full(pool: Pool) -> tuple[list[int], list[tuple[str, int]]]:
    """The blocks of 1000 bytes that the pool has room for, and the damage reported."""
    blocks: list[int] = []
    reports: list[tuple[str, int]] = []
    while True:
        try:
            blocks.append(pool.xmalloc(1000))
        except HeapCorruption as error:
            reports.append((error.invariant, error.offset))
        except xmem.OutOfMemory:
            return blocks, reports


@pytest.fixture
def full(arena: Arena) -> tuple[Pool, list[int]]:
    """A pool without room, of whose blocks 16 wait, one of them damaged."""
    pool = Pool(arena, hardened=True, max_pages=16)
    blocks, reports = ask_until_full(pool)
    assert reports == []
    for offset in blocks[:RING]:
        pool.xfree(offset)
    ctypes.memset(arena.address(blocks[0]), 0x41, 8)
    return pool, blocks


def test_a_request_that_ends_the_quarantine_reports_damage(
    full: tuple[Pool, list[int]],
) -> None:
    pool, blocks = full
    served, reports = ask_until_full(pool)
    assert reports == [("H3", blocks[0] - 8)]
    assert set(served) == set(blocks[:RING]) - {blocks[0]}
    assert pool.stats().lost_blocks == 1
    for offset in (*served, *blocks[RING:]):
        pool.xfree(offset)
    assert pool.stats().live_blocks == 0


@pytest.mark.parametrize(
    "request_of",
    [
        lambda pool, block: pool.xmalloc_many([1000, 1000]),
        lambda pool, block: pool.xzalloc(1000),
        lambda pool, block: pool.xrealloc(block, 3000),
        lambda pool, block: pool.xmalloc(1000, align=512),
    ],
    ids=["xmalloc_many", "xzalloc", "xrealloc", "aligned"],
)
def test_so_does_each_verb_and_changes_nothing(
    full: tuple[Pool, list[int]], request_of: Callable[[Pool, int], object]
) -> None:
    pool, blocks = full
    block = blocks[-1]
    pool.view(block, 4)[:] = b"kept"
    with pytest.raises(HeapCorruption, match="H3"):
        request_of(pool, block)
    stats = pool.stats()
    assert (stats.lost_blocks, stats.live_blocks) == (1, len(blocks) - RING)
    assert bytes(pool.view(block, 4)) == b"kept"
    request_of(pool, block)
    pool.check()


@pytest.mark.parametrize("size", [50_000, 3 * PAGE, 101])
@pytest.mark.parametrize("align", [16, 64, PAGE])
def test_xrealloc_that_moves_reports_what_leaves_the_quarantine(
    arena: Arena, size: int, align: int
) -> None:
    """The block that is moved takes the slot of the damaged one."""
    pool = Pool(arena, hardened=True)
    blocks = [pool.xmalloc(100) for _ in range(RING + 2)]
    moving, wall = blocks[RING:]
    for offset in blocks[:RING]:
        pool.xfree(offset)
    ctypes.memset(arena.address(blocks[0]), 0x41, 8)
    pool.view(moving, 100)[:] = b"m" * 100
    if size == 101 and align == 16:
        size = 4000
    with pytest.raises(HeapCorruption, match="H3") as caught:
        pool.xrealloc(moving, size, align=align)
    assert caught.value.offset == blocks[0] - 8
    assert bytes(pool.view(moving, 100)) == b"m" * 100
    stats = pool.stats()
    assert (stats.lost_blocks, stats.live_blocks) == (1, 2)
    moved = pool.xrealloc(moving, size, align=align)
    assert bytes(pool.view(moved, 100)) == b"m" * 100
    for offset in (moved, wall):
        pool.xfree(offset)
    pool.check()


def test_a_heap_reports_it_when_a_block_becomes_whole_pages(arena: Arena) -> None:
    heap = Heap(arena, "merged", hardened=True)
    blocks = [heap.xmalloc(100) for _ in range(RING + 1)]
    for offset in blocks[:RING]:
        heap.xfree(offset)
    ctypes.memset(arena.address(blocks[0]), 0x41, 8)
    with pytest.raises(HeapCorruption, match="H3"):
        heap.xrealloc(blocks[RING], 5 * PAGE)
    moved = heap.xrealloc(blocks[RING], 5 * PAGE)
    assert moved % PAGE == 0
    heap.check()
    assert heap.stats().pools[0].lost_blocks == 1


def test_shrink_and_xfree_many_report_it(arena: Arena) -> None:
    for give in (lambda pool, last: pool.shrink(), lambda pool, last: pool.xfree(last)):
        pool = Pool(arena, hardened=True)
        blocks = [pool.xmalloc(100) for _ in range(RING + 1)]
        pool.xfree_many(blocks[:RING])
        ctypes.memset(arena.address(blocks[0]), 0x41, 8)
        with pytest.raises(HeapCorruption, match="H3"):
            give(pool, blocks[RING])
        assert pool.stats().lost_blocks == 1
        pool.destroy(force=True)


# The checker ----------------------------------------------------------------------


def test_what_is_no_lost_block_is_not_taken_for_one(arena: Arena) -> None:
    """The tag 0 alone, where one bit of a tag was cleared."""
    pool = Pool(arena, hardened=True)
    live, waiting, freed = (pool.xmalloc(5000) for _ in range(3))
    pool.xmalloc(10)
    assert pool.id == 1
    small = pool.xmalloc(100)
    pool.xfree(small)
    pool.xfree(freed)
    words = Words(arena)
    for offset in (live, waiting, small, freed):
        words.flip(offset - 8, fmt.TAG)
        with pytest.raises(HeapCorruption, match="B7"):
            pool.check()
        words.repair()
    pool.check()


def test_C6_counts_lost_blocks(arena: Arena) -> None:
    pool = Pool(arena, hardened=True)
    hurt = pool.xmalloc(100)
    pool.xfree(hurt)
    lose(arena, pool, hurt)
    words = Words(arena)
    for n_lost in (0, 2):
        words.set(words.control(pool) + fmt.N_LOST, n_lost)
        with pytest.raises(HeapCorruption, match="C6"):
            pool.check()
        words.repair()
    pool.check()


@pytest.mark.parametrize("flag", sorted(set(HARDENING) - {"quarantine"}))
def test_no_block_is_lost_without_a_quarantine(arena: Arena, flag: str) -> None:
    pool = Pool(arena, hardened=[flag])
    offset = pool.xmalloc(100)
    pool.xmalloc(100)
    words = Words(arena)
    words.flip(offset - 8, fmt.TAG)
    words.flip_start(offset)
    with pytest.raises(HeapCorruption, match="B7"):
        pool.check()
    words.repair()
