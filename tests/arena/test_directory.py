# SPDX-License-Identifier: BSD-3-Clause
"""The pool directory: pools by name and number, and how many there may be."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.damage import ENTRY_STATE, damaged
from support.steps import N_BYTES

from xmem import Arena, BadArgument, OutOfMemory, Pool


@pytest.mark.parametrize("max_pools", [1, 2, 47, 48, 49, 1000])
def test_max_pools(make: Callable[..., Arena], max_pools: int) -> None:
    with make(1 << 25, page_size=4096, max_pools=max_pools) as arena:
        pools = [Pool(arena, engine="firstfit") for _ in range(max_pools)]
        with pytest.raises(OutOfMemory, match=str(max_pools)):
            Pool(arena)
        assert len(arena.pools()) == max_pools
        assert pools[-1].id == max_pools
        blocks = [pool.xmalloc(10) for pool in pools[:3]]
        for pool, block in zip(pools, blocks, strict=False):
            pool.xfree(block)
        arena.check()


def test_pools_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    names = ["a", "b" * 40, "\u20ac" * 13, "with space", "pool-2", "\x01", "A"]
    with Arena.create(path, N_BYTES) as arena:
        made = {name: Pool(arena, name=name) for name in names}
        unnamed = Pool(arena)
        blocks = {name: pool.xmalloc(100) for name, pool in made.items()}
        default = unnamed.name
        ids = {name: pool.id for name, pool in made.items()}
    with Arena.open(path) as arena:
        assert list(arena.pools()) == [*names, default]
        for name in names:
            pool = Pool.open(arena, name)
            assert (pool.name, pool.id) == (name, ids[name])
            pool.xfree(blocks[name])
        for name in ("", "b" * 39, "b" * 41, "\u20ac", "pool-1", "none"):
            with pytest.raises(BadArgument):
                Pool.open(arena, name)
        with pytest.raises(BadArgument, match=r"the arena has: .*with space"):
            Pool.open(arena, "none")


def test_number_and_name_of_a_destroyed_pool_are_free(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, N_BYTES) as arena:
        for name in "abc":
            Pool(arena, name=name)
        Pool.open(arena, "b").destroy()
    with Arena.open(path) as arena:
        assert list(arena.pools()) == ["a", "c"]
        assert Pool(arena, name="b", engine="firstfit").id == 2
    with Arena.open(path) as arena:
        assert arena.pools()["b"] == {"engine": "firstfit", "id": 2}


@pytest.mark.damages
def test_the_directory_ends_with_its_last_entry(make: Callable[..., Arena]) -> None:
    """What lies behind it is the frame table, whatever that looks like."""
    with make(1 << 20, page_size=4096, max_pools=3) as arena:
        made = [Pool(arena).name for _ in range(3)]
        with damaged(arena) as words:
            ready = words.half(words.entry(3) + ENTRY_STATE)
            words.set_half(words.entry(4) + ENTRY_STATE, ready)
            assert list(arena.pools()) == made
        arena.check()
