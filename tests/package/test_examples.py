# SPDX-License-Identifier: BSD-3-Clause
"""The downstream packages of docs/examples, built against the wheel and used."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.builds import CLEAN, ROOT, Builds, run

EXAMPLES = ROOT / "docs" / "examples"

pytestmark = [
    pytest.mark.skipif(not EXAMPLES.exists(), reason="the sources are not here"),
    pytest.mark.programs,
    pytest.mark.no_asan,  # they would have to be built for it as well
]


@pytest.fixture(scope="session")
def site(builds: Builds, installed: Path) -> str:
    """Folders with the two packages and the installed wheel, for PYTHONPATH."""

    def make(folder: Path) -> None:
        for example in ("cython_table", "c_queue"):
            tree = folder / example
            tree.mkdir()
            for path in (EXAMPLES / example).iterdir():
                if path.suffix in (".toml", ".pyx", ".c", ".py"):
                    (tree / path.name).write_bytes(path.read_bytes())
            run(
                *(sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps"),
                *("--no-build-isolation", "--no-index", "--wheel-dir", folder, tree),
                cwd=folder,
                PYTHONPATH=str(installed),
            )
        for made in folder.glob("*.whl"):
            with zipfile.ZipFile(made) as archive:
                archive.extractall(folder / "site")

    return f"{builds.once('examples', make) / 'site'}:{installed}"


def used(site: str, code: str, *arguments: object) -> str:
    """Output of a program that uses them."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code, *map(str, arguments)],
        timeout=120,
        env=CLEAN | {"PYTHONPATH": site},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TABLE = """
import operator, random, sys, threading
import numpy as np
import xmem
from arena_table import Table
assert xmem.__file__.startswith(sys.argv[1].split(":")[1])

pool = xmem.Pool(xmem.Arena.anonymous(64 << 20))
table, model, rng = Table(pool), {}, random.Random(7)
for _ in range(30_000):
    key = rng.randrange(2000) * 0x9E3779B97F4A7C15 % 2**64
    if rng.random() < 0.6:
        table[key] = model[key] = rng.randrange(-100, 100)
    elif key in model:
        assert table[key] == model.pop(key)
        del table[key]
    else:
        for act in (lambda: table[key], lambda: operator.delitem(table, key)):
            try:
                act()
            except KeyError:
                pass
            else:
                raise AssertionError
    assert len(table) == len(model)
assert all(table[key] == value for key, value in model.items())
pool.check()
table.clear()

# Without the GIL, while others use the pool from Python.
keys = np.random.default_rng(3).integers(0, 5000, 400_000).astype(np.uint64)
stop = threading.Event()
def churn():
    while not stop.is_set():
        block = pool.block(100)
        del block
        pool.xfree(pool.xmalloc(50))
others = [threading.Thread(target=churn) for _ in range(3)]
for thread in others:
    thread.start()
counters = [threading.Thread(target=table.count, args=(part,))
            for part in np.array_split(keys, 40)]
for thread in counters:
    thread.start()
for thread in counters:
    thread.join()
stop.set()
for thread in others:
    thread.join()
values, counts = np.unique(keys, return_counts=True)
assert [table[key] for key in values.tolist()] == counts.tolist()
pool.check()

# No room, and wrong offsets.
small = xmem.Pool(xmem.Arena.anonymous(1 << 20), max_pages=4)
full = Table(small)
try:
    full.count(np.arange(100_000, dtype=np.uint64))
except MemoryError:
    assert 100 < len(full) < 100_000
else:
    raise AssertionError
small.check()
full.destroy()
assert small.stats().live_blocks == 0
try:
    len(full)
except xmem.DoubleFree:
    pass
else:
    raise AssertionError
for wrong in (0, 5, 1 << 40):
    try:
        Table(pool, wrong)
    except xmem.NotABlock:
        pass
    else:
        raise AssertionError
table.destroy()
assert pool.stats().live_blocks == 0

# Found again in a file.
with xmem.Arena.create("table.arena", 4 << 20) as arena:
    pool = xmem.Pool(arena, name="table")
    table = Table(pool)
    for i in range(1000):
        table[i] = -i
    arena.root = table.offset
with xmem.Arena.open("table.arena") as arena:
    table = Table(xmem.Pool.open(arena, "table"), arena.root)
    assert len(table) == 1000 and table[999] == -999
"""


def test_a_hash_table_in_cython(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used(site, TABLE, site)


QUEUE = """
import gc, random, threading
from collections import deque
import xmem
from arena_queue import Queue, copy_of, freed, resized

arena = xmem.Arena.anonymous(8 << 20)
pool = xmem.Pool(arena)
queue, model, rng = Queue(pool), deque(), random.Random(5)
for _ in range(20_000):
    if rng.random() < 0.55:
        data = rng.randbytes(rng.randrange(200))
        queue.push(data)
        model.append(data)
    elif model:
        assert queue.pop() == model.popleft()
    assert len(queue) == len(model)
pool.check()
assert pool.stats().live_blocks == len(model)
for act in (arena.close, lambda: pool.destroy(force=True)):
    try:
        act()
    except BufferError:
        pass
    else:
        raise AssertionError("a borrowed pool stays")

# Threads.
done = []
def work(number):
    mine = Queue(pool)
    for i in range(3000):
        mine.push(b"%d" % i)
        if i % 2:
            done.append(mine.pop())
threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
for thread in threads:
    thread.start()
for _ in range(20):
    pool.check()
for thread in threads:
    thread.join()
assert len(done) == 6 * 1500
del queue
gc.collect()
assert pool.stats().live_blocks == 0
pool.check()

# Wrong calls are refused.
def refused(error, act):
    try:
        act()
    except error:
        return
    raise AssertionError(error)
small = xmem.Pool(arena, max_pages=2)
full = Queue(small)
refused(MemoryError, lambda: [full.push(bytes(500)) for _ in range(100)])
assert full.pop() == bytes(500)
del full
small.destroy()
refused(xmem.BadArgumentType, lambda: Queue(None))
refused(TypeError, lambda: Queue(pool).push(5))
refused(IndexError, lambda: Queue(pool).pop())
refused(ValueError, lambda: Queue.__new__(Queue).pop())
refused(xmem.BadArgument, lambda: Queue(xmem.Pool(
    arena, get_mem=arena.page_alloc_exact, put_mem=lambda *run: None)))
refused(xmem.PoolDestroyed, lambda: Queue(small))

# By offset, checked.
offset = copy_of(pool, b"abc")
assert bytes(pool.view(offset, 3)) == b"abc"
offset = resized(pool, offset, 5000)
assert bytes(pool.view(offset, 3)) == b"abc"
view = pool.view(offset)
refused(BufferError, lambda: freed(pool, offset))
view.release()
freed(pool, offset)
refused(xmem.DoubleFree, lambda: freed(pool, offset))
block = pool.block(10)
refused(xmem.MismatchedFree, lambda: freed(pool, block.offset))
refused(xmem.OutOfMemory, lambda: resized(pool, copy_of(pool, b"x"), 1 << 40))
refused(xmem.BadArgumentType, lambda: copy_of(arena, b"x"))
pool.check()
"""


def test_a_queue_in_c(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used(site, QUEUE)


def test_a_module_of_another_version_is_refused(site, tmp_path):
    """A module compiled for a later interface does not run on this one."""
    header = next(Path(part) for part in site.split(":")) and Path(site.split(":")[1])
    text = (header / "xmem" / "xmem.h").read_text()
    assert "#define XMEM_API_VERSION 1" in text
    tree = tmp_path / "later"
    tree.mkdir()
    (tree / "xmem.h").write_text(
        text.replace("#define XMEM_API_VERSION 1", "#define XMEM_API_VERSION 2")
    )
    for name in ("arena_queue.c", "pyproject.toml"):
        (tree / name).write_bytes((EXAMPLES / "c_queue" / name).read_bytes())
    (tree / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        "setup(py_modules=[], ext_modules=[\n"
        "    Extension('arena_queue', ['arena_queue.c'], include_dirs=['.'])])\n"
    )
    run(
        *(sys.executable, "setup.py", "-q", "build_ext", "--inplace"),
        cwd=tree,
        PYTHONPATH=site.split(":")[1],
    )
    code = (
        "try:\n    import arena_queue\nexcept ImportError as error:\n"
        "    assert 'version 2' in str(error), error\nelse:\n    raise AssertionError"
    )
    used(f"{tree}:{site.split(':')[1]}", code)
