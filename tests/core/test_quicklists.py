# SPDX-License-Identifier: BSD-3-Clause
"""The quick lists: freed blocks up to 4096 bytes wait to be used again."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

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
GREATEST = 4096 - 8  # bytes of the largest request that waits
SLACK = 16384  # bytes that may wait besides an eighth of the live bytes
GIVES = 2  # waiting blocks that a call above the limit gives back
DRAIN = 3  # and one that finds no room
#: Times that a request which is refused in the end has done so: 66 attempts, and 5 more
#: times before each of 32.
PATIENT = 66 + 5 * 32


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield arena


def waiting(pool: Pool) -> int:
    return pool.stats().waiting_blocks


def test_the_block_freed_last_is_the_next(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
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


@pytest.mark.parametrize("n", [0, 1, 24, 25, 1000, 1017, GREATEST])
def test_every_small_size_waits(arena: Arena, n: int) -> None:
    pool = Pool(arena, quick=True)
    offset = pool.xmalloc(n)
    pool.xfree(offset)
    assert waiting(pool) == 1
    assert pool.xmalloc(n) == offset


def test_what_does_not_wait(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    for n, align in ((GREATEST + 1, 16), (100, 64), (100, PAGE)):
        pool.xfree(pool.xmalloc(n, align=align))
        assert waiting(pool) == 0
    assert pool.stats().used_bytes == 0


def test_an_aligned_request_takes_nothing_that_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    pool.xfree(pool.xmalloc(100))
    assert pool.xmalloc(100, align=64) % 64 == 0
    assert waiting(pool) == 1


def test_a_request_that_no_pool_could_serve_frees_nothing_that_waits(
    probe, arena: Arena
) -> None:
    pool = Pool(arena, quick=True)
    for offset in [pool.xmalloc(100) for _ in range(6)]:
        pool.xfree(offset)
    before, walked = pool.stats(), pool.walk().tobytes()
    for align in (16, 64, PAGE):
        for n in (arena.n_bytes, 1 << 43, 1 << 60):
            assert probe.counted_alloc(pool, n, align)[0] == 0
    assert pool.stats() == before
    assert pool.walk().tobytes() == walked
    pool.check()


def live_bytes(pool: Pool) -> int:
    """Bytes in use by the engine but for what waits."""
    stats = pool.stats()
    return stats.used_bytes - stats.waiting_bytes


@pytest.mark.parametrize("kept", [0, 100_000])
def test_what_waits_stays_within_an_eighth_of_what_lives(
    arena: Arena, kept: int
) -> None:
    pool = Pool(arena, quick=True)
    if kept:
        pool.xmalloc(kept)
    blocks = [pool.xmalloc(1000) for _ in range(200)]
    for offset in blocks:
        before = pool.stats()
        pool.xfree(offset)
        after = pool.stats()
        if after.waiting_blocks > before.waiting_blocks:
            assert 8 * (after.waiting_bytes - SLACK) <= live_bytes(pool)
        else:
            # It would have been too much. Two others have left as well, or a region.
            least = 8 * (before.waiting_bytes + 1024 - SLACK)
            assert least > before.used_bytes - before.waiting_bytes - 1024
            gives = GIVES if after.n_regions == before.n_regions else 0
            assert after.waiting_blocks == before.waiting_blocks - gives
    assert 8 * (pool.stats().waiting_bytes - SLACK) <= live_bytes(pool)
    pool.check()


def overfull(arena: Arena) -> tuple[Pool, int]:
    """Return a pool in which 55 blocks wait, more than its limit admits.

    And a live block, which is too large to wait.
    """
    pool = Pool(arena, quick=True)
    large, other = pool.xmalloc(500_000), pool.xmalloc(5000)
    # A live block between any two: what leaves the lists merges with nothing.
    blocks = [pool.xmalloc(1000) for _ in range(2 * 55)]
    for offset in blocks[::2]:
        pool.xfree(offset)
    assert waiting(pool) == 55
    pool.xfree(large)
    return pool, other


def test_above_the_limit_each_free_gives_two_back(arena: Arena) -> None:
    pool, other = overfull(arena)
    left = 55 - GIVES  # the free of the large block itself
    assert waiting(pool) == left
    pool.xfree(other)
    assert waiting(pool) == left - GIVES
    while waiting(pool) > 16:
        left = waiting(pool)
        pool.xfree(pool.xmalloc(1000))  # served by the lists, and waits no more
        assert waiting(pool) in (left - 1 - GIVES, left)
        if waiting(pool) == left:
            break
    assert 8 * (pool.stats().waiting_bytes - SLACK) <= live_bytes(pool)
    pool.check()


@pytest.mark.parametrize(("n", "align"), [(200, 16), (1000, 64), (8000, 16)])
def test_above_the_limit_each_miss_gives_two_back(
    arena: Arena, n: int, align: int
) -> None:
    pool, _ = overfull(arena)
    left = waiting(pool)
    pool.xmalloc(n, align=align)
    assert waiting(pool) == left - GIVES
    pool.check()


def test_below_the_limit_a_miss_gives_nothing_back(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    pool.xfree(pool.xmalloc(1000))
    pool.xmalloc(200)
    assert waiting(pool) == 1


def test_the_largest_leave_first(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    sizes = [24, 1000, 72, 4088, 1016, 1032]
    blocks = {n: pool.xmalloc(n) for n in sizes}
    for offset in blocks.values():
        pool.xfree(offset)
    for left in range(len(sizes), 0, -1):
        waits = [row["capacity"] for row in pool.walk() if row["kind"] == 3]
        assert sorted(waits) == sorted(sizes)[:left]
        assert pool.drain(1) == 1
    assert pool.drain(1) == 0
    pool.check()


def test_drain_gives_as_many_as_it_is_told(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    for offset in [pool.xmalloc(100) for _ in range(50)]:
        pool.xfree(offset)
    assert pool.drain(0) == 0
    assert pool.drain(20) == 20
    assert waiting(pool) == 30
    assert pool.drain(1 << 60) == 30
    assert pool.stats().waiting_bytes == 0
    pool.check()


def test_drain_empties_a_quarantine(arena: Arena) -> None:
    pool = Pool(arena, hardened=["quarantine"])
    blocks = [pool.xmalloc(100) for _ in range(10)]
    for offset in blocks:
        pool.xfree(offset)
    stats = pool.stats()
    assert (stats.waiting_blocks, stats.waiting_bytes) == (10, 10 * 112)
    assert pool.drain(3) == 3
    kinds = {int(row["offset"]): int(row["kind"]) for row in pool.walk()}
    assert [kinds.get(offset) for offset in blocks[3:]] == [3] * 7
    assert not {3} & {kinds.get(offset) for offset in blocks[:3]}
    assert pool.drain(100) == 7
    pool.check()


def test_drain_gives_nothing_where_nothing_waits(arena: Arena) -> None:
    for options in ({}, {"engine": "firstfit"}):
        pool = Pool(arena, **options)
        pool.xfree(pool.xmalloc(100))
        assert pool.drain(10) == 0


def fill(pool: Pool, size: Callable[[int], int]) -> list[int]:
    """Allocate until a request finds no room; the i-th block has ``size(i)`` bytes."""
    blocks: list[int] = []
    while True:
        try:
            blocks.append(pool.xmalloc(size(len(blocks))))
        except xmem.OutOfMemory:
            return blocks


def test_after_a_peak_a_large_request_is_served_by_draining(arena: Arena) -> None:
    """Everything is freed, and half of the arena asked for."""
    pool = Pool(arena, quick=True)
    blocks = fill(pool, lambda i: 100 + 16 * (i % 60))
    for offset in blocks:
        pool.xfree(offset)
    assert pool.stats().live_blocks == 0
    # Some wait still: at most the slack, and what came below the limit before.
    n_waiting = waiting(pool)
    assert 0 < pool.stats().waiting_bytes <= SLACK
    half = arena.n_bytes // 2
    pool.drain(n_waiting)
    assert pool.xmalloc(half)
    pool.check()


@pytest.mark.parametrize("seed", range(30))
def test_after_a_peak_of_mixed_sizes_half_of_the_arena_is_served(seed: int) -> None:
    """What waits and the empty regions leave in one call, as often as need be."""
    source = random.Random(seed)
    sizes = [16, 100, 1000, 4000, 9000, 30000]
    with Arena.anonymous(4 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, quick=True)
        blocks = fill(pool, lambda _: source.choice(sizes))
        source.shuffle(blocks)
        for offset in blocks:
            pool.xfree(offset)
        assert pool.xmalloc(arena.n_bytes // 2)
        pool.check()


def test_what_shrink_could_give_is_told() -> None:
    """Where more regions are empty than leave in one call."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, grow_pages=1, join_regions=False)
        for _ in range(200):
            assert pool.reserve(1) == 1
        assert pool.stats().n_regions == 200
        with pytest.raises(xmem.OutOfMemory, match=r"may be wholly free: shrink\("):
            pool.xmalloc(arena.n_bytes - 20 * PAGE)
        pool.shrink()
        assert pool.xmalloc(arena.n_bytes - 20 * PAGE)


def full(arena: Arena, **options: int) -> tuple[Pool, list[int]]:
    """Return a pool in which a block of 1000 bytes finds no room any more."""
    pool = Pool(arena, quick=True, **options)
    return pool, fill(pool, lambda i: 1000)


def test_a_request_without_room_takes_what_waits(arena: Arena) -> None:
    pool, blocks = full(arena)
    n_waiting = 110
    for offset in blocks[:n_waiting]:
        pool.xfree(offset)
    assert waiting(pool) == n_waiting
    # A try frees DRAIN blocks of 1008 bytes, which merge.
    assert pool.xmalloc(DRAIN * 1008 - 500)
    assert waiting(pool) == n_waiting - DRAIN
    n_waiting = waiting(pool)
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(arena.n_bytes // 2)
    assert waiting(pool) == max(0, n_waiting - PATIENT * DRAIN)
    pool.check()


def test_what_still_waits_is_told() -> None:
    with Arena.anonymous(16 << 20, page_size=PAGE) as arena:
        pool, blocks = full(arena)
        for offset in blocks[:900]:
            pool.xfree(offset)
        assert waiting(pool) == 900
        left = 900 - PATIENT * DRAIN
        with pytest.raises(xmem.OutOfMemory) as caught:
            pool.xmalloc(arena.n_bytes // 2)
        stats = pool.stats()
        assert stats.waiting_blocks == left
        assert f"{left} freed blocks of {stats.waiting_bytes} bytes wait in" in str(
            caught.value
        )


def test_a_request_without_room_takes_a_waiting_block_in_which_it_fits(
    arena: Arena,
) -> None:
    pool = Pool(arena, quick=True, max_pages=4)
    assert pool.reserve(4) == 4
    blocks = [pool.xmalloc([1000, 400][i % 2]) for i in range(10)]
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


def test_a_request_for_whole_pages_takes_some_blocks_at_a_time(
    probe, arena: Arena
) -> None:
    """However small it is: no waiting block has their alignment."""
    pool, blocks = full(arena)
    for offset in blocks[:100]:
        pool.xfree(offset)
    assert probe.counted_alloc(pool, 100, PAGE)[0] == 0
    assert waiting(pool) == 100 - DRAIN
    assert pool.xmalloc(100, align=PAGE) % PAGE == 0
    pool.check()


@pytest.mark.parametrize("align", [512, 1024])
def test_the_block_that_an_aligned_request_takes_has_room_for_its_gap(
    probe, arena: Arena, align: int
) -> None:
    """Many smaller ones wait as well, each between live blocks."""
    pool = Pool(arena, quick=True)
    blocks = fill(pool, lambda i: [100, 24, 3000, 24][i % 4])
    fill(pool, lambda i: 1)
    for offset in blocks[0:400:4] + blocks[2:22:4]:
        pool.xfree(offset)
    assert waiting(pool) == 105
    payload, _ = probe.counted_alloc(pool, 100, align)
    assert payload
    assert payload % align == 0
    assert waiting(pool) == 104
    pool.check()


def test_a_reallocation_without_room_takes_what_waits(arena: Arena) -> None:
    pool, (first, *rest) = full(arena, max_pages=4)
    pool.view(first)[:3] = b"abc"
    for offset in rest:
        pool.xfree(offset)
    assert waiting(pool)
    moved = pool.xrealloc(first, 8000)
    assert bytes(pool.view(moved)[:3]) == b"abc"
    pool.check()


def test_shrink_gives_all_back(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
    for offset in [pool.xmalloc(n) for n in range(0, 500, 7)]:
        pool.xfree(offset)
    assert waiting(pool) > 50
    pool.shrink()
    stats = pool.stats()
    assert (stats.used_bytes, stats.n_pages, stats.waiting_blocks) == (0, 0, 0)


def test_walk_tells_what_waits(arena: Arena) -> None:
    pool = Pool(arena, quick=True)
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
        ({"quick": 16}, "quick must be True or False"),
        ({"quick": True, "hardened": True}, "hardened"),
        ({"quick": True, "engine": "firstfit"}, "tlsf"),
    ],
)
def test_what_cannot_be_meant(arena: Arena, options: dict, message: str) -> None:
    with pytest.raises((xmem.BadArgument, xmem.BadArgumentType), match=message):
        Pool(arena, **options)
    assert not arena.pools()


def test_found_again_with_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, name="p", quick=True)
        offset = pool.xmalloc(100)
        pool.xfree(offset)
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "p")
        assert (pool.quick, waiting(pool)) == (True, 1)
        assert pool.xmalloc(100) == offset


def test_random_use(seed: int) -> None:
    """Contents, counts and invariants under all verbs, in arenas that run full."""
    random = np.random.default_rng(seed)
    with Arena.anonymous(1 << 19, page_size=PAGE) as arena:
        pool = Pool(arena, quick=True)
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


#: Where the heads of the lists start, behind their bitmap, and that of 112 bytes.
HEADS, LIST = 32, 32 + 8 * 6

Spoil = Callable[[Words, Pool, int, int], tuple[int, int]]
SPOILT: dict[str, tuple[str, Spoil]] = {
    "a list's head": ("C7", lambda words, pool, at, block: (at + LIST, block + 16)),
    "a list without head": ("C7", lambda words, pool, at, block: (at + LIST, 0)),
    "a head on an empty list": (
        "C7",
        lambda words, pool, at, block: (at + HEADS, block),
    ),
    "a bit of an empty list": ("C7", lambda words, pool, at, block: (at, 1 << 6 | 2)),
    "no bit of a list": ("C7", lambda words, pool, at, block: (at, 0)),
    "the last bit": ("C7", lambda words, pool, at, block: (at + 24, 1 << 63)),
    "a link": ("C7", lambda words, pool, at, block: (block, block)),
    "a link to nowhere": ("C7", lambda words, pool, at, block: (block, 1 << 50)),
    "the bytes of all": (
        "C7",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK_HELD, 0),
    ),
    "the number of all": (
        "C7",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK_COUNT, 3),
    ),
    "what looks at them": (
        "C4",
        lambda words, pool, at, block: (words.control(pool) + fmt.QUICK_BELOW, 4090),
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
    pool = Pool(arena, quick=True)
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
    pool = Pool(arena, quick=True)
    first, second = pool.xmalloc(100), pool.xmalloc(100)
    pool.xfree(first)
    pool.xfree(second)
    words = Words(arena)
    control = words.control(pool)
    words.set(second, 0)  # the last of its list: the first block waits nowhere
    words.set(control + fmt.QUICK_COUNT, 1)
    words.set(control + fmt.QUICK_HELD, 112)
    with pytest.raises(HeapCorruption, match="C7"):
        pool.check()


def test_C7_what_only_looks_like_a_block_that_waits(arena: Arena) -> None:
    """In the place of one that waits a list holds a header written by a user.

    Numbers and bytes agree; that they are not the same blocks is seen all the same.
    """
    pool = Pool(arena, quick=True)
    first, second, live = (pool.xmalloc(n) for n in (100, 100, 500))
    pool.xfree(first)
    pool.xfree(second)
    words = Words(arena)
    fake = live + 64
    words.set(fake - 8, words.word(first - 8))
    words.set(fake, 0)
    words.set(second, fake)
    with pytest.raises(HeapCorruption, match="C7"):
        pool.check()


@pytest.mark.parametrize("number", [1 << 62, (1 << 64) - 1])
def test_C7_a_circle_ends(arena: Arena, number: int) -> None:
    pool = Pool(arena, quick=True)
    block = pool.xmalloc(100)
    pool.xfree(block)
    words = Words(arena)
    words.set(block, block)
    words.set(words.control(pool) + fmt.QUICK_COUNT, number)
    with pytest.raises(HeapCorruption, match="C7"):
        pool.check()


def test_a_pool_without_quick_lists_has_none_that_wait(arena: Arena) -> None:
    pool = Pool(arena)
    words = Words(arena)
    for word in (fmt.QUICK_COUNT, fmt.QUICK_HELD):
        words.set(words.control(pool) + word, 1)
        with pytest.raises(HeapCorruption, match="C7"):
            pool.check()
        words.set(words.control(pool) + word, 0)
    pool.check()


@pytest.mark.parametrize("n_waiting", [1, 40, 300])
def test_check_step_passes_over_what_waits(arena: Arena, n_waiting: int) -> None:
    pool = Pool(arena, quick=True)
    pool.xmalloc(600_000)
    blocks = [pool.xmalloc(100) for _ in range(1000)]
    for offset in blocks[100 : 100 + n_waiting]:
        pool.xfree(offset)
    assert waiting(pool) == n_waiting
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
    pool = Pool(arena, quick=True)
    offset = pool.xmalloc(100)
    n, _ = insn.cost(pool, "xfree", offset)
    assert n <= FREE
    pool.xfree(offset)
    n, _ = insn.cost(pool, "xmalloc", 100)
    assert n <= MALLOC


#: Instructions of calls that the quick lists serve.
FREE = 70
MALLOC = 57
#: Instructions that quick lists may add to a call that they do not serve.
ADDED = 80


@needs_stepping
@pytest.mark.release
@pytest.mark.parametrize("freed", [(), (1, 3)])
def test_a_free_that_does_not_wait_stays_in_bound(
    arena: Arena, freed: tuple[int, ...]
) -> None:
    cost = []
    for quick in (False, True):
        pool = Pool(arena, quick=quick, grow_pages=32)
        blocks = [pool.xmalloc(5000) for _ in range(5)]
        for i in freed:
            pool.xfree(blocks[i])
        cost.append(insn.cost(pool, "xfree", blocks[2])[0])
    assert cost[0] < cost[1] <= cost[0] + ADDED


@needs_stepping
@pytest.mark.release
@pytest.mark.parametrize("path", ["splitting the largest", "exact"])
def test_a_miss_stays_in_bound(path: str) -> None:
    scenario = next(s for s in SCENARIOS if (s.verb, s.name) == ("xmalloc", path))
    cost = []
    for quick in (False, True):
        pool, arguments = scenario.make(0, "tlsf", quick=quick)
        pool.drain(1 << 60)
        cost.append(insn.cost(pool, "xmalloc", *arguments)[0])
        pool.arena.close()
    assert cost[0] < cost[1] <= cost[0] + ADDED
