# SPDX-License-Identifier: BSD-3-Clause
"""The quick lists: freed small blocks wait to be used again, in bounded lists."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words

import xmem
from xmem import Arena, HeapCorruption, Pool
from xmem.measure import insn
from xmem.measure.scenarios import SCENARIOS

pytestmark = pytest.mark.damages

PAGE = 4096
GREATEST = 1024 - 8  # bytes of the largest request that waits


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield arena


def waiting(pool: Pool) -> int:
    return pool.stats().waiting_blocks


def test_the_block_freed_last_is_the_next(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    first, second, between = (pool.xmalloc(100) for _ in range(3))
    pool.xfree(first)
    pool.xfree(second)
    assert pool.stats().live_blocks == 1
    assert waiting(pool) == 2
    pool.check()
    assert pool.xmalloc(97) == second
    assert pool.xmalloc(104) == first
    assert waiting(pool) == 0
    assert pool.xmalloc(100) not in (first, second, between)
    pool.check()


@pytest.mark.parametrize("n", [0, 1, 24, 25, 1000, GREATEST])
def test_every_small_size_waits(arena: Arena, n: int) -> None:
    pool = Pool(arena, quick=1)
    offset = pool.xmalloc(n)
    pool.xfree(offset)
    assert waiting(pool) == 1
    assert pool.xmalloc(n) == offset


def test_what_does_not_wait(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    for n, align in ((GREATEST + 1, 16), (100, 64), (100, PAGE)):
        pool.xfree(pool.xmalloc(n, align=align))
        assert waiting(pool) == 0
    assert pool.stats().used_bytes == 0


def test_an_aligned_request_takes_nothing_that_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    pool.xfree(pool.xmalloc(100))
    assert pool.xmalloc(100, align=64) % 64 == 0
    assert waiting(pool) == 1


def test_a_request_that_no_pool_could_serve_frees_nothing_that_waits(
    probe, arena: Arena
) -> None:
    pool = Pool(arena, quick=8)
    for offset in [pool.xmalloc(100) for _ in range(6)]:
        pool.xfree(offset)
    before, walked = pool.stats(), pool.walk().tobytes()
    for align in (16, 64, PAGE):
        for n in (arena.n_bytes, 1 << 43, 1 << 60):
            assert probe.counted_alloc(pool, n, align)[0] == 0
    assert pool.stats() == before
    assert pool.walk().tobytes() == walked
    pool.check()


def test_blocks_and_bytes_are_limited(arena: Arena) -> None:
    pool = Pool(arena, quick=3, quick_bytes=1000)
    assert (pool.quick, pool.quick_bytes) == (3, 1000)
    assert Pool(arena, quick=3).quick_bytes == 65536
    many = [pool.xmalloc(40) for _ in range(5)]
    for offset in many:
        pool.xfree(offset)
    assert waiting(pool) == 3
    large = [pool.xmalloc(500) for _ in range(3)]
    for offset in large:
        pool.xfree(offset)
    assert waiting(pool) == 4
    pool.check()
    assert pool.stats().used_bytes == 3 * 48 + 512


def test_what_waits_cannot_be_freed_again(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    offset = pool.xmalloc(100)
    pool.xfree(offset)
    for call in (pool.xfree, pool.usable_size, pool.view):
        with pytest.raises(xmem.InvalidFree):
            call(offset)
    with pytest.raises(xmem.InvalidFree):
        pool.xrealloc(offset, 10)
    pool.check()


def test_a_request_without_room_takes_what_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=255, quick_bytes=1 << 20)
    n_blocks = 0
    blocks = []
    while True:
        try:
            blocks.append(pool.xmalloc(1000))
        except xmem.OutOfMemory:
            break
    n_blocks = len(blocks)
    for offset in blocks[:192]:
        pool.xfree(offset)
    assert waiting(pool) == 192
    # Each try frees 4 blocks of 1008 bytes, which merge: two make room for 5000 bytes.
    assert pool.xmalloc(5000)
    assert waiting(pool) == 184
    with pytest.raises(
        xmem.OutOfMemory, match="52 freed blocks wait in the quick lists"
    ):
        pool.xmalloc(1 << 19)
    # The first try, and 32 more.
    assert waiting(pool) == 184 - 33 * 4
    assert pool.stats().live_blocks == n_blocks - 192 + 1
    pool.check()


def test_a_request_without_room_takes_a_waiting_block_in_which_it_fits(
    arena: Arena,
) -> None:
    pool = Pool(arena, quick=255, quick_bytes=1 << 20, max_pages=4)
    blocks = [pool.xmalloc([1000, 400][i % 2]) for i in range(20)]
    while pool.stats().largest_free_bytes >= 300:
        pool.xmalloc(pool.stats().largest_free_bytes)
    for offset in blocks:
        pool.xfree(offset)
    n_waiting = waiting(pool)
    # The least of those in which it fits, and no other.
    assert pool.xmalloc(300) in blocks[1::2]
    assert waiting(pool) == n_waiting - 1
    assert pool.xmalloc(600) in blocks[::2]
    assert waiting(pool) == n_waiting - 2
    pool.check()


def test_a_reallocation_without_room_takes_what_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=255, quick_bytes=1 << 20, max_pages=4)
    first = pool.xmalloc(1000)
    pool.view(first)[:3] = b"abc"
    rest = []
    while True:
        try:
            rest.append(pool.xmalloc(1000))
        except xmem.OutOfMemory:
            break
    for offset in rest:
        pool.xfree(offset)
    moved = pool.xrealloc(first, 8000)
    assert bytes(pool.view(moved)[:3]) == b"abc"
    pool.check()


def test_shrink_gives_all_back(arena: Arena) -> None:
    pool = Pool(arena, quick=16)
    for offset in [pool.xmalloc(n) for n in range(0, 1000, 7)]:
        pool.xfree(offset)
    assert waiting(pool) > 130
    pool.shrink()
    stats = pool.stats()
    assert (stats.used_bytes, stats.n_pages, stats.waiting_blocks) == (0, 0, 0)


def test_walk_tells_what_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    held, freed = pool.xmalloc(50), pool.xmalloc(60)
    pool.xfree(freed)
    rows = {int(row["offset"]): row for row in pool.walk()}
    assert rows[held]["used"]
    assert rows[held]["kind"] == 0
    assert not rows[freed]["used"]
    assert rows[freed]["kind"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quick": 256}, "at most 255"),
        ({"quick": -1}, "quick"),
        ({"quick": 1, "hardened": True}, "hardened"),
        ({"quick": 1, "engine": "firstfit"}, "tlsf"),
        ({"quick": 1, "quick_bytes": -1}, "quick_bytes"),
    ],
)
def test_what_cannot_be_meant(arena: Arena, options: dict, message: str) -> None:
    with pytest.raises(xmem.BadArgument, match=message):
        Pool(arena, **options)
    assert not arena.pools()


def test_found_again_with_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, name="p", quick=4, quick_bytes=5000)
        offset = pool.xmalloc(100)
        pool.xfree(offset)
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "p")
        assert (pool.quick, pool.quick_bytes, waiting(pool)) == (4, 5000, 1)
        assert pool.xmalloc(100) == offset


def test_random_use(seed: int) -> None:
    """Contents, counts and invariants under all verbs, in arenas that run full."""
    random = np.random.default_rng(seed)
    with Arena.anonymous(1 << 19, page_size=PAGE) as arena:
        pool = Pool(arena, quick=int(random.integers(1, 20)), quick_bytes=20_000)
        live: dict[int, tuple[int, int]] = {}
        n_refused = 0
        for step in range(12_000):
            verb = random.integers(10)
            n = int(random.choice([20, 200, 900, 3000])) + int(random.integers(16))
            fill = int(random.integers(256))
            if verb < 5 or not live:
                try:
                    offset = pool.xmalloc(n, align=int(random.choice([16, 16, 16, 64])))
                except xmem.OutOfMemory:
                    n_refused += 1
                    continue
            else:
                offset = int(random.choice(list(live)))
                size, old = live.pop(offset)
                assert set(pool.view(offset)[:size]) <= {old}
                if verb < 9:
                    pool.xfree(offset)
                    continue
                try:
                    moved = pool.xrealloc(offset, n)
                except xmem.OutOfMemory:
                    live[offset] = (size, old)
                    continue
                assert set(pool.view(moved)[: min(size, n)]) <= {old}
                offset = moved
            assert offset not in live
            pool.view(offset)[:n] = bytes([fill]) * n
            live[offset] = (n, fill)
            if step % 100 == 0:
                pool.check()
                assert pool.stats().live_blocks == len(live)
        pool.check()
        assert n_refused
        for offset in live:
            pool.xfree(offset)
        pool.shrink()
        assert pool.total_size == 0


SPOILT: dict[str, tuple[str, Callable[[Words, Pool, int, int], tuple[int, int]]]] = {
    "a list's head": (
        "C7",
        lambda words, pool, at, block: (at + 16 * 7, block + 16),
    ),
    "a head on an empty list": ("C7", lambda words, pool, at, block: (at, block)),
    "a list's number": ("C7", lambda words, pool, at, block: (at + 16 * 7 + 8, 1)),
    "too great a number": (
        "C7",
        lambda words, pool, at, block: (at + 16 * 7 + 8, 200),
    ),
    "a link": ("C7", lambda words, pool, at, block: (block, block)),
    "a link to nowhere": ("C7", lambda words, pool, at, block: (block, 1 << 50)),
    "the bytes of all": (
        "C7",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK_HELD, 0),
    ),
    "the blocks of a list": (
        "C4",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK_BLOCKS, 256),
    ),
    "its place": (
        "C4",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK, at + 8),
    ),
    "no quick lists any more": (
        "C4",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK, 0),
    ),
    "the short path": (
        "C4",
        lambda words, pool, at, block: (words.control(pool) + fmt.SHORT_LIMIT, 1),
    ),
    "a size": ("C7", lambda words, pool, at, block: (block - 8, 48 << 20)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_C7_what_is_spoilt_is_found(arena: Arena, name: str) -> None:
    pool = Pool(arena, quick=4)
    blocks = [pool.xmalloc(100) for _ in range(4)]
    pool.xfree(blocks[0])
    pool.xfree(blocks[2])
    pool.check()
    words = Words(arena)
    at = words.word(words.control(pool) + fmt.QUICK)
    invariant, spoil = SPOILT[name]
    place, value = spoil(words, pool, at, blocks[2])
    old = words.word(place)
    assert old != value
    words.set(place, value)
    with pytest.raises(HeapCorruption) as caught:
        pool.check()
    assert caught.value.invariant == invariant
    words.set(place, old)
    pool.check()


def test_C7_a_block_that_waits_nowhere(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    first, second = pool.xmalloc(100), pool.xmalloc(100)
    pool.xfree(first)
    pool.xfree(second)
    words = Words(arena)
    control = words.control(pool)
    at = words.word(control + fmt.QUICK) + 16 * 7
    words.set(second, 0)  # the last of its list: the first block waits nowhere
    words.set(at + 8, 1)
    words.set(control + fmt.QUICK_HELD, 112)
    with pytest.raises(HeapCorruption, match="V1"):
        pool.check()


def test_check_step_passes_over_what_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=255, quick_bytes=1 << 19)
    blocks = [pool.xmalloc(100) for _ in range(1000)]
    for offset in blocks[100:300]:
        pool.xfree(offset)
    for n in (1, 7, 5000):
        while not pool.check_step(n):
            pass


# In bound --------------------------------------------------------------------

needs_stepping = pytest.mark.skipif(
    not insn.is_available(), reason="instructions cannot be counted here"
)


@needs_stepping
@pytest.mark.release
def test_a_block_that_waits_costs_little(arena: Arena) -> None:
    pool = Pool(arena, quick=4)
    offset = pool.xmalloc(100)
    n, _ = insn.cost(pool, "xfree", offset)
    assert n <= FREE
    pool.xfree(offset)
    n, _ = insn.cost(pool, "xmalloc", 100)
    assert n <= MALLOC


#: Instructions of calls that the quick lists serves.
FREE = 70
MALLOC = 50
#: Instructions that quick lists may add to a call that it does not serve.
ADDED = 60


@needs_stepping
@pytest.mark.release
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("xfree", "both"),
        ("xfree", "isolated"),
        ("xmalloc", "splitting the largest"),
        ("xmalloc", "exact"),
    ],
)
def test_the_worst_stays_in_bound(verb: Literal["xmalloc", "xfree"], path: str) -> None:
    scenario = next(s for s in SCENARIOS if (s.verb, s.name) == (verb, path))
    cost = []
    for quick in (0, 1):
        pool, arguments = scenario.make(10, "tlsf", quick=quick, quick_bytes=0)
        cost.append(insn.cost(pool, verb, *arguments)[0])
        pool.arena.close()
    assert cost[0] < cost[1] <= cost[0] + ADDED
