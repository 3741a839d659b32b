# SPDX-License-Identifier: BSD-3-Clause
"""An arena outlives its process: written in one, read and freed in the next.

Each step is a process of its own that maps the file at an address where no
step before it had it: the addresses used so far are occupied first.
"""

import json
from pathlib import Path

import pytest
from support.apart import apart
from support.scene import ENGINES
from support.steps import N_BYTES, content, occupy, step

from xmem import Arena, Pool

# Tests -----------------------------------------------------------------------


def run_step(name: str, folder: Path, page_size: int, seed: int) -> None:
    note = str(folder / "note")
    errors = apart(step, name, str(folder / "arena"), note, page_size, seed)
    assert errors == "", name


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_from_process_to_process(tmp_path: Path, page_size: int, seed: int) -> None:
    """Written in one, changed in the next, and freed in the last."""
    steps = ["write", "verify", "change", "verify", "free"]
    for name in steps:
        run_step(name, tmp_path, page_size, seed)
    addresses = json.loads((tmp_path / "note").read_text())["addresses"]
    assert len(set(addresses)) == len(steps)


def test_the_steps_notice_a_changed_byte(tmp_path: Path, seed: int) -> None:
    run_step("write", tmp_path, 4096, seed)
    note = json.loads((tmp_path / "note").read_text())
    offset = note["pools"]["limited"]["blocks"][7][0]
    with (tmp_path / "arena").open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(AssertionError, match="verify"):
        run_step("verify", tmp_path, 4096, seed)


@pytest.mark.parametrize("engine", ENGINES)
def test_at_another_address_in_one_process(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, N_BYTES) as arena:
        pool = Pool(arena, name="kept", engine=engine)
        blocks = {pool.xmalloc(n): n for n in range(0, 6000, 150)}
        for block, n in blocks.items():
            pool.view(block, n)[:] = content(str(n), n)
        addresses = [arena.address(0)]
    for _ in range(5):
        occupy(addresses[-1], N_BYTES)
        with Arena.open(path) as arena:
            assert arena.address(0) not in addresses
            addresses.append(arena.address(0))
            pool = Pool.open(arena, "kept")
            for block, n in blocks.items():
                assert bytes(pool.view(block, n)) == content(str(n), n)
            pool.xfree(pool.xmalloc(100))


@pytest.mark.parametrize("engine", ENGINES)
def test_file_is_the_same_bytes_after_opening(tmp_path: Path, engine: str) -> None:
    """Opening, looking and closing change nothing."""
    path = tmp_path / "arena"
    with Arena.create(path, N_BYTES) as arena:
        pool = Pool(arena, name="kept", engine=engine)
        for n in range(100):
            pool.xmalloc(n)
    before = path.read_bytes()
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "kept")
        pool.stats()
        pool.check()
        arena.frames()
        arena.pools()
    assert path.read_bytes() == before


def test_copied_file_is_the_same_arena(tmp_path: Path) -> None:
    path, copy = tmp_path / "arena", tmp_path / "copy"
    with Arena.create(path, N_BYTES) as arena:
        pool = Pool(arena, name="kept")
        block = pool.xmalloc(100)
        pool.view(block, 5)[:] = b"first"
    copy.write_bytes(path.read_bytes())
    with Arena.open(path) as one, Arena.open(copy) as two:
        Pool.open(two, "kept").view(block, 5)[:] = b"other"
        assert bytes(Pool.open(one, "kept").view(block, 5)) == b"first"
    moved = tmp_path / "moved"
    copy.rename(moved)
    with Arena.open(moved) as arena:
        assert bytes(Pool.open(arena, "kept").view(block, 5)) == b"other"


def test_two_handles_of_one_pool(tmp_path: Path) -> None:
    with Arena.create(tmp_path / "arena", N_BYTES) as arena:
        one = Pool(arena, name="kept")
        two = Pool.open(arena, "kept")
        block = one.xmalloc(100)
        two.view(block, 2)[:] = b"ok"
        assert bytes(one.view(block, 2)) == b"ok"
        two.xfree(block)
        with pytest.raises(ValueError, match="free"):
            one.xfree(block)
        one.destroy()
        assert two.closed


def test_unverified_opening_finds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, N_BYTES) as arena:
        pool = Pool(arena, name="kept")
        block = pool.xzalloc(1000)
        arena.root = block
    with Arena.open(path, verify=False) as arena:
        pool = Pool.open(arena, "kept", verify=False)
        assert not any(pool.view(arena.root, 1000))
        pool.xfree(arena.root)
        pool.check()


def test_page_size_is_the_arena_s_own(tmp_path: Path) -> None:
    """Kept in the file, whatever the system's is where it is opened."""
    for page_size in (4096, 8192, 1 << 16, 1 << 21):
        path = tmp_path / str(page_size)
        with Arena.create(path, 1 << 25, page_size=page_size) as arena:
            run = arena.page_alloc(1)
            arena.view(run)[-1] = 9
        with Arena.open(path) as arena:
            assert arena.page_size == page_size
            view = arena.view(run)
            assert view.nbytes == 2 * page_size
            assert view[-1] == 9
            view.release()
            arena.page_free(run)
            arena.trim()
            arena.check()
