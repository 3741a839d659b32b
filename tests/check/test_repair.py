# SPDX-License-Identifier: BSD-3-Clause
"""`Arena.open` of files that a process left half done, made by hand.

``proofs.stores`` and ``proofs.kills`` make such files by the thousand.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support.damage as fmt
from support.damage import Words

import xmem
from xmem import Arena, Heap, HeapCorruption, Pool
from xmem.arena import FRAME_CONTROL, FRAME_PENDING, FRAME_REGION, FRAME_RUN
from xmem.check.repairs import examine_arena

pytestmark = pytest.mark.damages

PAGE = 4096
KINDS: dict[str, dict[str, Any]] = {
    "tlsf": {},
    "apart": {"join_regions": False},
    "quick": {"quick": True},
    "hardened": {"hardened": True},
    "legacy": {"engine": "firstfit"},
}


class Left:
    """An arena that is going to be left as it is, with two pools."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.arena = Arena.create(path, 1 << 20, page_size=PAGE)
        self.pool = Pool(self.arena, name="it", **KINDS[kind])
        self.other = Pool(self.arena, name="other")
        self.kept = self.other.xmalloc(100)
        self.blocks = [self.pool.xmalloc(n) for n in (100, 200, 300, 400, 500, 600)]
        for n, offset in enumerate(self.blocks):
            self.pool.view(offset)[:1] = bytes([n])
        self.run = self.arena.page_alloc(1)
        self.words = Words(self.arena)

    def leave(self) -> Path:
        """The file as a process that dies now would leave it."""
        path = self.path.with_suffix(".left")
        shutil.copy(self.path, path)
        return path

    def live(self, arena: Arena) -> set[int]:
        walked = Pool.open(arena, "it").walk()
        return set(walked["offset"][walked["used"]].tolist())


@pytest.fixture(params=KINDS)
def left(request: pytest.FixtureRequest, arena_path: Path) -> Left:
    return Left(arena_path, request.param)


def refused(path: Path) -> str:
    """The pool stays shut and says how to repair it; everything else opens."""
    with Arena.open(path) as arena:
        with pytest.raises(HeapCorruption, match="repair=True") as caught:
            Pool.open(arena, "it")
        other = Pool.open(arena, "other")
        other.xfree(other.xmalloc(5000))
        other.check()
        arena.check()
    return caught.value.invariant


# Blocks ---------------------------------------------------------------------------


def test_a_block_in_use_without_a_start_bit_is_given_back(left: Left) -> None:
    left.words.flip_start(left.blocks[2])
    path = left.leave()
    # With quick lists it looks like one that waits, but is on none of them.
    assert refused(path) == ("C7" if left.pool.quick else "V1")
    with Arena.open(path, repair=True) as arena:
        (repair,) = arena.repairs
        assert repair.pool == "it"
        assert repair.is_sound
        assert "1 block given back" in repair.done
        assert left.live(arena) == {*left.blocks} - {left.blocks[2]}
        pool = Pool.open(arena, "it")
        for n, offset in enumerate(left.blocks):
            if n != 2:
                assert pool.view(offset)[0] == n
                pool.xfree(offset)
        pool.check()
        assert pool.stats().live_blocks == 0
    with Arena.open(path) as arena:
        assert arena.repairs == ()


@pytest.mark.parametrize("where", ["inside a block", "free", "no page of the pool"])
def test_a_start_bit_on_anything_else_is_cleared(left: Left, where: str) -> None:
    if where == "free":
        left.pool.xfree(left.blocks[3])
        left.pool.shrink()
    left.words.flip_start(
        {
            "inside a block": left.blocks[3] + 64,
            "free": left.blocks[3],
            "no page of the pool": left.run + 64,
        }[where]
    )
    path = left.leave()
    assert refused_or_stray(path, where) == "V1"
    with Arena.open(path, repair=True) as arena:
        (repair,) = arena.repairs
        assert repair.is_sound
        assert (repair.pool is None) == (where == "no page of the pool")
        expected = {*left.blocks} - ({left.blocks[3]} if where == "free" else set())
        assert left.live(arena) == expected


def refused_or_stray(path: Path, where: str) -> str:
    if where != "no page of the pool":
        return refused(path)
    with Arena.open(path) as arena, pytest.raises(HeapCorruption) as caught:
        Pool.open(arena, "it")
    return caught.value.invariant


def test_waiting_blocks_are_given_back_where_a_pool_is_repaired(left: Left) -> None:
    waits = left.pool.quick or "quarantine" in left.pool.hardening
    left.pool.xfree(left.blocks[1])
    left.pool.xfree(left.blocks[4])
    assert left.pool.stats().waiting_blocks == (2 if waits else 0)
    with Arena.open(left.leave(), repair=True) as arena:
        assert arena.repairs == ()
        assert Pool.open(arena, "it").stats().waiting_blocks == (2 if waits else 0)
    left.words.flip_start(left.blocks[2])
    with Arena.open(left.leave(), repair=True) as arena:
        assert f"{3 if waits else 1} block" in arena.repairs[0].done
        stats = Pool.open(arena, "it").stats()
        assert (stats.live_blocks, stats.waiting_blocks) == (3, 0)


def spoiled_caches(left: Left) -> dict[str, Callable[[], None]]:
    """What is no truth: each word may hold anything."""
    words, control = left.words, left.words.control(left.pool)
    legacy = left.pool.engine == "firstfit"
    names = ["POOL_PAGES", "REGION_PAGES", "RUN_PAGES", "N_REGIONS", "N_RUNS", "SPARE"]
    names += ["HEAD", "N_FREE", "LEGACY_N_USED"] if legacy else ["UPPER", "TLSF_N_USED"]
    return {
        name: lambda name=name: words.set(control + getattr(fmt, name), 0x4141)
        for name in names
    }


def test_every_cache_is_written_anew(left: Left) -> None:
    left.pool.xfree(left.blocks[1])
    for spoil in spoiled_caches(left).values():
        spoil()
        path = left.leave()
        refused(path)
        with Arena.open(path, repair=True) as arena:
            assert [(r.pool, r.is_sound) for r in arena.repairs] == [("it", True)]
            assert left.live(arena) == {*left.blocks} - {left.blocks[1]}
        left.words.repair()


def test_a_pool_whose_headers_are_damaged_is_left_as_it_is(left: Left) -> None:
    header = left.blocks[2] - (64 if left.pool.engine == "firstfit" else 8)
    left.words.flip(header, fmt.SIZE << 10)
    path = left.leave()
    before = path.read_bytes()
    refused(path)
    with Arena.open(path, repair=True) as arena:
        (repair,) = arena.repairs
        assert not repair.is_sound
        assert str(repair).endswith("not repaired")
        with pytest.raises(HeapCorruption):
            Pool.open(arena, "it")
        Pool.open(arena, "other").check()
    start = left.blocks[0] // PAGE * PAGE
    assert path.read_bytes()[start : start + PAGE] == before[start : start + PAGE]


def test_a_sound_arena_is_not_changed(left: Left) -> None:
    left.pool.xfree(left.blocks[1])
    left.arena.close()
    before = left.path.read_bytes()
    with Arena.open(left.path, repair=True) as arena:
        assert arena.repairs == ()
    assert left.path.read_bytes() == before


# Hardened blocks --------------------------------------------------------------------


@pytest.fixture
def hardened(arena_path: Path) -> Left:
    return Left(arena_path, "hardened")


@pytest.mark.parametrize("place", [-8, 0, 200])
def test_a_block_damaged_in_the_quarantine_is_lost(hardened: Left, place: int) -> None:
    hurt = hardened.blocks[1]
    hardened.pool.xfree(hurt)
    hardened.words.set(hurt + place, 0x4141414141414141)
    with Arena.open(hardened.leave(), repair=True) as arena:
        (repair,) = arena.repairs
        assert "1 block found damaged in the quarantine" in repair.done
        pool = Pool.open(arena, "it")
        assert pool.stats().lost_blocks == 1
        with pytest.raises(xmem.DoubleFree):
            pool.xfree(hurt)
        for offset in {*hardened.blocks} - {hurt}:
            pool.xfree(offset)
        pool.check()


def test_a_lost_block_stays_lost(hardened: Left) -> None:
    hurt = hardened.blocks[1]
    hardened.pool.xfree(hurt)
    hardened.words.set(hurt, 0)
    with pytest.raises(HeapCorruption):
        hardened.pool.shrink()
    hardened.words.flip_start(hardened.blocks[2])
    with Arena.open(hardened.leave(), repair=True) as arena:
        assert "given back" in arena.repairs[0].done
        assert Pool.open(arena, "it").stats().lost_blocks == 1


def test_one_broken_seal_is_written_anew_and_two_are_damage(hardened: Left) -> None:
    first, second = hardened.blocks[1], hardened.blocks[3]
    hardened.words.flip(first + 200, 1)
    with Arena.open(hardened.leave(), repair=True) as arena:
        (repair,) = arena.repairs
        assert f"the block at {first:#x} sealed anew" in repair.done
        assert hardened.live(arena) == {*hardened.blocks}
        assert Pool.open(arena, "it").usable_size(first) >= 200
    hardened.words.flip(second + 400, 1)
    with Arena.open(hardened.leave(), repair=True) as arena:
        (repair,) = arena.repairs
        assert repair.found.startswith("H1")
        assert not repair.is_sound


def test_broken_poison_is_told(hardened: Left) -> None:
    free = hardened.blocks[1]
    hardened.pool.xfree(free)
    hardened.pool.shrink()
    hardened.words.flip(free + 40, 1)
    with Arena.open(hardened.leave(), repair=True) as arena:
        (repair,) = arena.repairs
        assert repair.found.startswith("H2")
        assert "1 marks of broken poison dropped" in repair.done


# Page frames -------------------------------------------------------------------------


def test_caches_of_the_frames_are_made_whole_by_a_plain_open(
    left: Left,
) -> None:
    left.words.set(fmt.N_FREE_PAGES, 7)
    left.words.set(fmt.TOP, 7)
    left.words.set(fmt.ORDER_BITMAP, 0)
    for order in range(33):
        left.words.set_half(left.words.head(order), 7)
    caches = left.words.word(fmt.RUNHEADS)
    left.words.write(caches, b"\xa5" * (left.words.tables_end() - caches))
    n_free = sum(int(r["n_pages"]) for r in left.arena.frames() if r["state"] == 1)
    with Arena.open(left.leave()) as arena:
        assert arena.n_free_pages == n_free
        (repair,) = arena.repairs
        assert (repair.pool, repair.is_sound) == (None, True)
        assert left.live(arena) == {*left.blocks}
        arena.page_free(left.run)


@pytest.mark.parametrize("how", ["pending", "unfinished", "destroyed"])
def test_pages_of_nobody_are_freed(left: Left, how: str) -> None:
    before = left.arena.n_free_pages
    words = left.words
    if how == "pending":
        page = left.arena.page_alloc_exact(3) // PAGE
        words.set(words.frame(page), fmt.frame_word(FRAME_PENDING, 2, 1, 3))
    else:
        made = Pool(left.arena, name="third")
        made.xmalloc(3000)
        words.set_half(
            words.entry(made.id) + fmt.ENTRY_STATE, 1 if how == "unfinished" else 0
        )
    with Arena.open(left.leave()) as arena:
        assert arena.n_free_pages == before
        assert "pages of nobody" in arena.repairs[0].found
        again = Pool(arena, name="third")
        again.xmalloc(100)
        again.check()
        Pool.open(arena, "it").check()
        assert {int(r["state"]) for r in arena.frames()} <= {
            *(1, FRAME_CONTROL, FRAME_REGION, FRAME_RUN),
        }


def test_a_run_inside_a_run_is_damage(left: Left) -> None:
    page = left.run // PAGE
    inside = left.words.frame(page + 1)
    left.words.set(inside, fmt.frame_word(FRAME_RUN, 0, 0, 1))
    path = left.leave()
    before = path.read_bytes()
    for repair in (False, True):
        with pytest.raises(HeapCorruption, match="P1"):
            Arena.open(path, repair=repair)
        assert path.read_bytes() == before


def test_an_unverified_opening_leaves_what_it_has_not_seen(left: Left) -> None:
    """Closed, it is still the file of a process that died."""
    left.words.set(fmt.N_FREE_PAGES, 7)
    path = left.leave()
    before = path.read_bytes()
    with Arena.open(path, verify=False) as arena:
        assert [str(found)[:18] for found in examine_arena(arena)] == [
            "page frames: P6 at"
        ]
    assert path.read_bytes() == before
    with Arena.open(path) as arena:
        assert len(arena.repairs) == 1


def test_heaps_are_repaired_too(arena_path: Path) -> None:
    with Arena.create(arena_path, 1 << 20, page_size=PAGE) as arena:
        heap = Heap(arena, "subpage", name="heap")
        large, small = heap.xmalloc(5000), heap.xmalloc_subpage(50)
        run = heap.page_alloc(1)
        words = Words(arena)
        for pool in heap.pools:
            words.add(words.control(pool) + fmt.N_REGIONS, 1)
        left = arena_path.with_suffix(".left")
        shutil.copy(arena_path, left)
        words.repair()
    with Arena.open(left, repair=True) as arena:
        assert len(arena.repairs) == 2
        heap = Heap.open(arena, "heap")
        heap.xfree(large)
        heap.xfree_subpage(small)
        heap.page_free(run)
        heap.check()
        heap.destroy()


@pytest.mark.parametrize("wrong", [None, 2, "yes"])
def test_repair_is_a_truth_value(arena_path: Path, wrong: object) -> None:
    Arena.create(arena_path, 1 << 20).close()
    with pytest.raises(xmem.BadArgumentType, match="repair"):
        Arena.open(arena_path, repair=wrong)
