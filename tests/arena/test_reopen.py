# SPDX-License-Identifier: BSD-3-Clause
"""An arena outlives its process: written in one, read and freed in the next.

Each step is a process of its own that maps the file at an address where no
step before it had it: the addresses used so far are occupied first.
"""

import ctypes
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scene import CHILD_ENV

from xmem import Arena, BadArgument, Pool

ENGINES = ("tlsf", "firstfit")
N_BYTES = 8 << 20
PROT_NONE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE = 0, 2, 0x20, 0x100000


def occupy(address: int, n_bytes: int) -> None:
    """Take a range of addresses, so that no arena can be mapped there."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    ]
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    libc.mmap(address, n_bytes, PROT_NONE, flags, -1, 0)


def content(key: str, n_bytes: int) -> bytes:
    """Bytes that only this key gives."""
    return hashlib.shake_128(key.encode()).digest(n_bytes)


def digest(held: memoryview | bytes) -> str:
    return hashlib.sha256(held).hexdigest()


# Steps, each run in a process of its own -------------------------------------


def write(arena: Arena, seed: int) -> dict[str, Any]:
    """Pools of both engines with blocks of many sizes and alignments, and runs."""
    rng = np.random.default_rng(seed)
    note: dict[str, Any] = {"pools": {}, "runs": []}
    settings: dict[str, dict[str, Any]] = {
        "joined": {"engine": "tlsf", "grow_pages": 4},
        "single pages": {"engine": "tlsf", "grow_pages": 1, "join_regions": False},
        "limited": {"engine": "tlsf", "max_pages": 200},
        "legacy \u20ac": {"engine": "firstfit", "max_pages": 400},
    }
    for name, keywords in settings.items():
        pool = Pool(arena, name=name, **keywords)
        blocks = []
        for i in range(150):
            n = int(rng.choice([0, 1, 15, 16, 100, 500, 1000, 3000, 5000]))
            align = int(rng.choice([16, 16, 16, 64, 256, 2048, 4096]))
            offset = pool.xmalloc(n, align=align)
            room = pool.usable_size(offset)
            pool.view(offset)[:] = content(f"{name}-{i}", room)
            blocks.append([offset, i, align])
        rng.shuffle(blocks)
        for offset, _, _ in blocks[100:]:
            pool.xfree(int(offset))
        pool.check()
        note["pools"][name] = {
            "engine": pool.engine,
            "grow_pages": pool.grow_pages,
            "max_pages": pool.max_pages,
            "join_regions": pool.join_regions,
            "id": pool.id,
            "walk": digest(pool.walk().tobytes()),
            "stats": list(pool.stats()),
            "blocks": [
                [offset, i, align, digest(pool.view(offset))]
                for offset, i, align in blocks[:100]
            ],
        }
    for n_pages in (1, 2, 3, 5, 8):
        run = arena.page_alloc_exact(n_pages)
        arena.view(run)[:] = content(f"run-{n_pages}", n_pages * arena.page_size)
        note["runs"].append([run, n_pages, digest(arena.view(run))])
    gone = Pool(arena, name="gone")
    gone.xmalloc(100)
    gone.destroy(force=True)
    arena.root = note["pools"]["joined"]["blocks"][0][0]
    note["root"] = arena.root
    note["frames"] = digest(arena.frames().tobytes())
    note["page_size"] = arena.page_size
    note["n_free_pages"] = arena.n_free_pages
    return note


def verify(arena: Arena, note: dict[str, Any]) -> dict[str, Pool]:
    """All is there as the note says; answers the pools."""
    assert arena.page_size == note["page_size"]
    assert arena.n_free_pages == note["n_free_pages"]
    assert arena.root == note["root"]
    assert digest(arena.frames().tobytes()) == note["frames"]
    assert {name: pool["id"] for name, pool in arena.pools().items()} == {
        name: pool["id"] for name, pool in note["pools"].items()
    }
    pools = {}
    for name, noted in note["pools"].items():
        pools[name] = pool = Pool.open(arena, name)
        assert pool.name == name
        for key in ("engine", "grow_pages", "max_pages", "join_regions", "id"):
            assert getattr(pool, key) == noted[key]
        assert list(pool.stats()) == noted["stats"]
        assert digest(pool.walk().tobytes()) == noted["walk"]
        for offset, i, align, held in noted["blocks"]:
            view = pool.view(offset)
            assert digest(view) == held == digest(content(f"{name}-{i}", len(view)))
            assert offset % align == 0
            assert arena.address(offset) % align == 0
    for run, n_pages, held in note["runs"]:
        assert arena.run_pages(run) == n_pages
        assert digest(arena.view(run)) == held
    try:
        Pool.open(arena, "gone")
    except BadArgument:
        pass
    else:
        raise AssertionError("a destroyed pool was found")
    return pools


def change(arena: Arena, note: dict[str, Any]) -> dict[str, Any]:
    """Free some, resize some, allocate some; contents and alignment are kept."""
    pools = verify(arena, note)
    for name, pool in pools.items():
        noted = note["pools"][name]
        kept = []
        for offset, i, align, _ in noted["blocks"]:
            if i % 3 == 0:
                pool.xfree(offset)
                continue
            old = bytes(pool.view(offset))
            n_bytes = len(old) * 2 if i % 3 == 1 else len(old) // 2
            moved = pool.xrealloc(offset, n_bytes)
            shared = min(n_bytes, len(old))
            assert bytes(pool.view(moved, shared)) == old[:shared]
            assert arena.address(moved) % align == 0
            room = pool.usable_size(moved)
            pool.view(moved)[:] = content(f"{name}-{i}", room)
            kept.append([moved, i, align, digest(pool.view(moved))])
        for i in range(1000, 1040):
            offset = pool.xmalloc(i)
            pool.view(offset)[:] = content(f"{name}-{i}", pool.usable_size(offset))
            kept.append([offset, i, 16, digest(pool.view(offset))])
        pool.check()
        noted["blocks"] = kept
    run, _, _ = note["runs"].pop(2)
    arena.page_free(run)
    note["root"] = arena.root = note["pools"]["limited"]["blocks"][-1][0]
    for name, pool in pools.items():
        note["pools"][name]["walk"] = digest(pool.walk().tobytes())
        note["pools"][name]["stats"] = list(pool.stats())
    note["frames"] = digest(arena.frames().tobytes())
    note["n_free_pages"] = arena.n_free_pages
    return note


def free(arena: Arena, note: dict[str, Any]) -> dict[str, Any]:
    """Free everything; the arena is as empty as a new one."""
    for name, pool in verify(arena, note).items():
        for offset, *_ in note["pools"][name]["blocks"]:
            pool.xfree(offset)
        pool.shrink()
        assert pool.stats().live_blocks == 0
        pool.check()
        pool.destroy()
    for run, *_ in note["runs"]:
        arena.page_free(run)
    assert arena.pools() == {}
    assert arena.n_free_pages == arena.n_pages - arena.first_page
    arena.check()
    return {}


def step(name: str, path: str, note_path: str, page_size: int, seed: int) -> None:
    """Run one step on the file, away from all addresses that it had before."""
    notes = Path(note_path)
    note = json.loads(notes.read_text()) if notes.exists() else {"addresses": []}
    addresses = note["addresses"]
    for address in addresses:
        occupy(address, N_BYTES)
    if name == "write":
        arena = Arena.create(path, N_BYTES, page_size=page_size)
        note = write(arena, seed)
    else:
        arena = Arena.open(path)
        done = {"verify": verify, "change": change, "free": free}[name](arena, note)
        note = note if name == "verify" else done
    note["addresses"] = [*addresses, arena.address(0)]
    assert arena.address(0) not in addresses
    arena.close()
    notes.write_text(json.dumps(note))


# Tests -----------------------------------------------------------------------


def run_step(name: str, folder: Path, page_size: int, seed: int) -> None:
    arguments = (name, str(folder / "arena"), str(folder / "note"), page_size, seed)
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-W", "error", "-c"),
            f"import test_reopen; test_reopen.step(*{arguments!r})",
        ],
        env=CHILD_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{name}: {done.stderr}"


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
