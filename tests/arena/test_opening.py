# SPDX-License-Identifier: BSD-3-Clause
"""What opening verifies: the page frames once, each pool when it is opened."""

from pathlib import Path

import pytest
from support.damage import ORDER_BITMAP, Words, damaged

from xmem import Arena, Heap, HeapCorruption, Pool

pytestmark = pytest.mark.damages
NAMES = ("first", "second", "third")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of an arena with three pools and a heap."""
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20, page_size=4096) as arena:
        for name in NAMES:
            pool = Pool(arena, name=name)
            pool.xfree(pool.xmalloc(100))
            pool.xmalloc(3000)
        Heap(arena, "subpage", name="heap").xmalloc(100)
    return path


def break_orders(words: Words) -> None:
    """Break P5, which concerns no pool: a list is empty that has its bit."""
    words.flip(ORDER_BITMAP, 1 << 32)


def test_opening_pools_checks_the_frames_once(path: Path) -> None:
    with Arena.open(path) as arena, damaged(arena) as words:
        break_orders(words)
        for name in NAMES:
            Pool.open(arena, name)
        Heap.open(arena, "heap")
        with pytest.raises(HeapCorruption, match="P5"):
            arena.check()
        with pytest.raises(HeapCorruption, match="P5"):
            Pool.open(arena, NAMES[0]).check()


def test_the_first_pool_checks_the_frames_of_an_unverified_arena(path: Path) -> None:
    with Arena.open(path, verify=False) as arena:
        with damaged(arena) as words:
            break_orders(words)
            Pool.open(arena, NAMES[0], verify=False)
            for name in (*NAMES, NAMES[0]):
                with pytest.raises(HeapCorruption, match="P5"):
                    Pool.open(arena, name)
        Pool.open(arena, NAMES[0])
        with damaged(arena) as words:
            break_orders(words)
            Pool.open(arena, NAMES[1])


def test_checking_the_arena_is_enough(path: Path) -> None:
    with Arena.open(path, verify=False) as arena:
        arena.check()
        with damaged(arena) as words:
            break_orders(words)
            Pool.open(arena, NAMES[0])


@pytest.mark.parametrize("made", ["anonymous", "create"])
def test_frames_made_here_need_no_check(tmp_path: Path, made: str) -> None:
    where = (tmp_path / "new",) if made == "create" else ()
    with getattr(Arena, made)(*where, 1 << 20, page_size=4096) as arena:
        Pool(arena, name="pool")
        with damaged(arena) as words:
            break_orders(words)
            Pool.open(arena, "pool")


@pytest.mark.parametrize("n_pages", [0, 3, 1 << 20, (1 << 32) - 1])
def test_a_head_damaged_since_then_is_found(path: Path, n_pages: int) -> None:
    """A walk from run to run would not end, or leave the table."""
    with Arena.open(path) as arena:
        free = next(row for row in arena.frames() if row["state"] == 1)
        with damaged(arena) as words:
            record = words.frame(int(free["page"]))
            words.set(record, words.word(record) & 0xFFFFFFFF | n_pages << 32)
            for name in NAMES:
                with pytest.raises(HeapCorruption, match=r"P[13]"):
                    Pool.open(arena, name)


def test_a_damaged_pool_is_found_by_its_own_opening(path: Path) -> None:
    with Arena.open(path) as arena:
        first = Pool.open(arena, NAMES[0])
        with damaged(arena) as words:
            control = words.control(first)
            words.set(control, words.word(control) ^ 1)
            with pytest.raises(HeapCorruption, match="C4"):
                Pool.open(arena, NAMES[0])
            Pool.open(arena, NAMES[1])
