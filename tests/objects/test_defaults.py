# SPDX-License-Identifier: BSD-3-Clause
"""The default pool: made once, on first use, of the configured size."""

import os
import subprocess
import sys

import pytest

import xmem


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def output(code: str, **environment: str) -> str:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_verbs() -> None:
    pool = xmem.default_pool()
    before = pool.stats().live_blocks
    offset = xmem.xmalloc(100, align=64)
    assert offset % 64 == 0
    xmem.view(offset)[:5] = b"bytes"
    offset = xmem.xrealloc(offset, 5000)
    assert bytes(xmem.view(offset, 5)) == b"bytes"
    assert xmem.usable_size(offset) >= 5000
    zeros = xmem.xzalloc(30)
    assert bytes(xmem.view(zeros, 30)) == bytes(30)
    assert pool.stats().live_blocks == before + 2
    for block in (offset, zeros):
        xmem.xfree(block)
    with pytest.raises(xmem.InvalidFree):
        xmem.xfree(zeros)
    assert pool.stats().live_blocks == before
    pool.check()


def test_nothing_is_made_before_the_first_use() -> None:
    code = "import xmem.defaults as d; print(d._pool)"
    assert output(code) == "None"


@pytest.mark.parametrize(
    ("setting", "n_bytes"),
    [("1048576", 1 << 20), ("4M", 4 << 20), ("1g", 1 << 30), ("2MiB", 2 << 20)],
)
def test_the_environment_says_how_large(setting: str, n_bytes: int) -> None:
    code = "import xmem; print(xmem.default_pool().arena.n_bytes)"
    assert output(code, XMEM_ARENA_BYTES=setting) == str(n_bytes)


@pytest.mark.parametrize("setting", ["", "lots", "-1", "0", "4 000", "9999999T"])
def test_an_environment_that_cannot_be_meant(setting: str) -> None:
    done = run("import xmem; xmem.xmalloc(1)", XMEM_ARENA_BYTES=setting)
    assert done.returncode == 1
    assert "xmem.base.errors.BadArgument" in done.stderr


def test_what_is_configured_comes_first() -> None:
    code = (
        "import xmem; xmem.configure(2 << 20); xmem.configure(3 << 20); "
        "xmem.xmalloc(1); print(xmem.default_pool().arena.n_bytes)"
    )
    assert output(code, XMEM_ARENA_BYTES="4M") == str(3 << 20)


def test_what_is_in_use_cannot_be_configured() -> None:
    xmem.default_pool()
    with pytest.raises(xmem.BadArgument, match="in use"):
        xmem.configure(1 << 20)


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (0, xmem.BadArgument),
        (-1, xmem.BadArgument),
        (1 << 45, xmem.BadArgument),
        ("1M", xmem.BadArgumentType),
        (1.5, xmem.BadArgumentType),
        (None, xmem.BadArgumentType),
    ],
)
def test_sizes_that_cannot_be_meant(size: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        xmem.configure(size)


def test_threads_make_one() -> None:
    code = """
import threading, xmem
pools = []
barrier = threading.Barrier(8)
def work():
    barrier.wait()
    pools.append(xmem.default_pool())
    xmem.xfree(xmem.xmalloc(10))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len({id(pool) for pool in pools}), len(pools))
"""
    assert output(code) == "1 8"


def test_what_is_imported() -> None:
    """Importing the library does not import the slow modules."""
    code = (
        "import sys, numpy; before = set(sys.modules); import xmem; "
        "print(*sorted(set(sys.modules) - before))"
    )
    modules = output(code).split()
    heavy = {"click", "rich", "matplotlib", "multiprocessing", "asyncio", "hdrh", "lz4"}
    assert not heavy & {module.split(".")[0] for module in modules}
    assert len(modules) < 60
