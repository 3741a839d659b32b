# SPDX-License-Identifier: BSD-3-Clause
"""What an arena takes from the system: sparse mappings and files, and trim."""

import gc
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from xmem import Arena, Pool

SYSTEM_PAGE = mmap.PAGESIZE


def blocks_of(path: Path) -> int:
    """Bytes that a file occupies."""
    return os.stat(path).st_blocks * 512


def test_large_arena_is_sparse_and_usable(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, 64 << 30) as arena:
        assert arena.n_bytes == os.stat(path).st_size == 64 << 30
        assert blocks_of(path) < 1 << 20
        pool = Pool(arena, name="kept")
        block = pool.xmalloc(3 << 30)
        view = pool.view(block)
        assert view.nbytes >= 3 << 30
        view[0] = view[1 << 30] = view[-1] = 7
        view.release()
        last = arena.page_alloc(arena.largest_free_order)
        arena.view(last)[-1] = 9
        arena.root = last
        assert blocks_of(path) < 4 << 20
    with Arena.open(path, verify=False) as arena:
        pool = Pool.open(arena, "kept", verify=False)
        assert pool.view(block)[1 << 30] == 7
        assert arena.view(arena.root)[-1] == 9
        pool.xfree(block)
        arena.page_free(arena.root)
    assert blocks_of(path) < 4 << 20


def test_large_anonymous_arena_takes_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * SYSTEM_PAGE

    before = resident()
    with Arena.anonymous(64 << 30) as arena:
        pool = Pool(arena)
        offset = pool.xmalloc(1 << 34)
        pool.view(offset)[1 << 33] = 1
        pool.xfree(offset)
        assert resident() - before < 8 << 20


def test_trim_gives_memory_back(make: Callable[..., Arena]) -> None:
    arena = make(32 << 20)

    def held() -> int:
        if arena.path is not None:
            return blocks_of(Path(arena.path))
        return int(Path("/proc/self/statm").read_text().split()[1]) * SYSTEM_PAGE

    kept = arena.page_alloc(0)
    arena.view(kept)[:] = b"k" * arena.page_size
    pool = Pool(arena)
    block = pool.xmalloc(1000)
    pool.view(block)[:1000] = b"b" * 1000
    run = arena.page_alloc(12)
    n_bytes = arena.page_size << 12
    arena.view(run)[:] = b"x" * n_bytes
    arena.sync()
    full = held()
    arena.page_free(run)
    arena.sync()
    assert held() > full - n_bytes // 2
    given = arena.trim()
    assert given == arena.n_free_pages * arena.page_size
    assert held() < full - n_bytes // 2
    assert bytes(arena.view(kept)) == b"k" * arena.page_size
    assert bytes(pool.view(block, 1000)) == b"b" * 1000
    arena.check()
    pool.check()
    again = arena.page_alloc(12)
    assert again == run
    assert not any(arena.view(again))
    gc.collect()
    arena.close()


def test_trim_takes_what_pools_hold_for_later(make: Callable[..., Arena]) -> None:
    """Blocks that wait and empty regions; not those of other owners."""
    with make(4 << 20, page_size=SYSTEM_PAGE) as arena:
        quick = Pool(arena, name="quick", quick=True)
        hardened = Pool(arena, name="hardened", hardened=True)
        reserved = Pool(arena, name="reserved", reserve=8, quick=True)
        hooked = Pool(
            arena,
            name="hooked",
            get_mem=arena.page_alloc_exact,
            put_mem=lambda *_: None,
        )
        pools = [quick, hardened, reserved, hooked]
        for pool in pools:
            blocks = [pool.xmalloc(1000 + i) for i in range(200)]
            for block in blocks[1:]:
                pool.xfree(block)
        held = {pool.name: pool.stats() for pool in pools}
        for name in ("quick", "hardened", "reserved"):
            assert held[name].waiting_blocks > 0
        given = arena.trim()
        assert given == arena.n_free_pages * arena.page_size
        left = {pool.name: pool.stats() for pool in pools}
        assert not any(stats.waiting_blocks for stats in left.values())
        for name in ("quick", "hardened"):
            assert left[name].n_pages < held[name].n_pages
            assert left[name].live_blocks == 1
        assert left["reserved"].region_pages == held["reserved"].region_pages
        assert left["hooked"].region_pages == held["hooked"].region_pages
        arena.check()
        for pool in pools:
            pool.check()


def test_trim_of_pages_smaller_than_the_system_s(make: Callable[..., Arena]) -> None:
    """Only whole pages of the system go back, and never one that is in use."""
    with make(1 << 20, page_size=4096) as arena:
        runs = [arena.page_alloc(0) for _ in range(64)]
        for i, run in enumerate(runs):
            arena.view(run)[:] = bytes([i]) * 4096
        for run in runs[::3]:
            arena.page_free(run)
        given = arena.trim()
        assert given % SYSTEM_PAGE == 0
        assert given <= arena.n_free_pages * 4096
        for i, run in enumerate(runs):
            if i % 3:
                assert bytes(arena.view(run)) == bytes([i]) * 4096
        arena.check()


def test_trim_of_a_full_arena_gives_nothing(make: Callable[..., Arena]) -> None:
    with make(1 << 20, page_size=4096) as arena:
        while arena.n_free_pages:
            arena.page_alloc(arena.largest_free_order)
        assert arena.largest_free_order == -1
        assert arena.trim() == 0
