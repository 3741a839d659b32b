# SPDX-License-Identifier: BSD-3-Clause
"""The life of an arena in steps, each for a process of its own.

Each step maps the file at an address where no step before it had it: the addresses
used so far are occupied first.
"""

import ctypes
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from xmem import Arena, BadArgument, Pool

ENGINES = ("tlsf", "firstfit")
N_BYTES = 32 << 20
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
    """Check that everything is there as the note says; return the pools."""
    assert arena.page_size == note["page_size"]
    assert arena.n_free_pages == note["n_free_pages"]
    assert arena.root == note["root"]
    assert digest(arena.frames().tobytes()) == note["frames"]
    assert {name: pool["id"] for name, pool in arena.pools().items()} == {
        name: pool["id"] for name, pool in note["pools"].items()
    }
    pools = {}
    for name, expected in note["pools"].items():
        pools[name] = pool = Pool.open(arena, name)
        assert pool.name == name
        for key in ("engine", "grow_pages", "max_pages", "join_regions", "id"):
            assert getattr(pool, key) == expected[key]
        assert list(pool.stats()) == expected["stats"]
        assert digest(pool.walk().tobytes()) == expected["walk"]
        for offset, i, align, held in expected["blocks"]:
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
        expected = note["pools"][name]
        kept = []
        for offset, i, align, _ in expected["blocks"]:
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
        expected["blocks"] = kept
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
