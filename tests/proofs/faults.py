# SPDX-License-Identifier: BSD-3-Clause
"""The n-th page allocation fails, for every n; the n-th system call fails.

*Pages*: a trace is replayed once to see which of its operations obtain pages. Then
it is replayed again for each of these, and at that operation alone the arena has no
free page: the request is refused or served otherwise, nothing else changes,
and the rest of the trace runs as if nothing had happened.

*System calls*: in a process with a library in front of the system's, the n-th of
mmap, ftruncate, posix_fallocate, flock, msync and madvise fails, for every n
that a call makes. The call raises, leaves no file, no descriptor and no lock
behind, and works when it is made again.
"""

import errno
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from xmem import Arena, OutOfMemory, Pool
from xmem.measure.replay import load
from xmem.measure.trace import OP_FREE, OP_MEMALIGN, OP_REALLOC

from . import Refuted

PAGE = 4096
KINDS: list[dict[str, Any]] = [
    {"engine": "tlsf"},
    {"engine": "tlsf", "grow_pages": 1},
    {"engine": "tlsf", "grow_pages": 4, "join_regions": False},
    {"engine": "tlsf", "grow_pages": 4, "hardened": True},
    {"engine": "firstfit"},
]
TRACE = Path(__file__).parents[2] / "xmem" / "data" / "redis.npz"


# Pages -----------------------------------------------------------------------


class Replay:
    """A trace on a pool, object by object, each filled with its number."""

    def __init__(self, ops: Any, kind: dict[str, Any]) -> None:
        self.arena = Arena.anonymous(64 << 20, page_size=PAGE)
        self.pool = Pool(self.arena, **kind)
        self.ops = ops
        self.live: dict[int, tuple[int, int]] = {}  # id: offset, bytes

    def operate(self, i: int) -> None:
        """Make one operation; OutOfMemory where it is refused."""
        op, align_log2, _, name, size = self.ops[i].tolist()
        if op == OP_FREE:
            if name in self.live:
                self.verify(name)
                self.pool.xfree(self.live.pop(name)[0])
            return
        if op == OP_REALLOC:
            if name not in self.live:
                return
            self.verify(name)
            offset = self.pool.xrealloc(self.live[name][0], size)
        else:
            align = 1 << align_log2 if op == OP_MEMALIGN else 16
            offset = self.pool.xmalloc(size, align)
        self.live[name] = offset, size
        with self.pool.view(offset, size) as view:
            view[:] = bytes([name & 0xFF]) * size

    def verify(self, name: int) -> None:
        offset, size = self.live[name]
        with self.pool.view(offset, size) as view:
            if bytes(view) != bytes([name & 0xFF]) * size:
                raise Refuted(f"object {name} at {offset:#x} has changed")

    def without_pages(self, i: int) -> bool:
        """Make an operation while no page is free; whether it was refused."""
        taken = []
        while self.arena.largest_free_order >= 0:
            taken.append(self.arena.page_alloc(self.arena.largest_free_order))
        before = dict(self.live)
        try:
            self.operate(i)
            refused = False
        except OutOfMemory:
            refused = True
            if self.live != before:
                raise Refuted(f"operation {i} was refused, but changed") from None
        self.pool.check()
        for run in taken:
            self.arena.page_free(run)
        return refused

    def finish(self) -> None:
        for name in [*self.live]:
            self.verify(name)
            self.pool.xfree(self.live.pop(name)[0])
        self.pool.check()
        self.pool.destroy()
        self.arena.check()


def growing(ops: Any, kind: dict[str, Any]) -> list[int]:
    """The operations of a trace that obtain pages."""
    replay = Replay(ops, kind)
    found = []
    for i in range(len(ops)):
        before = replay.pool.total_size
        replay.operate(i)
        if replay.pool.total_size > before:
            found.append(i)
    replay.finish()
    return found


def prove_pages(n_ops: int) -> tuple[int, int]:
    """Return how often a page allocation failed, and how often the request did."""
    ops = load(TRACE)[:n_ops]
    ops = ops[ops["size"] < 100_000]
    n_failed = n_refused = 0
    for kind in KINDS:
        for i in growing(ops, kind):
            replay = Replay(ops, kind)
            for k in range(len(ops)):
                if k == i:
                    n_failed += 1
                    n_refused += replay.without_pages(k)
                else:
                    replay.operate(k)
            replay.finish()
    return n_failed, n_refused


# System calls ----------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

static long n_seen, n_fatal;
static int number;

void shim_arm(long nth, int error) { n_seen = 0; n_fatal = nth; number = error; }
long shim_disarm(void) { n_fatal = -1; return n_seen; }

static int strikes(void) { return n_fatal >= 0 && ++n_seen == n_fatal; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if (strikes()) { errno = number; return (void *)-1; }
    return NEXT(mmap)(at, n, prot, flags, fd, offset);
}
void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    return mmap(at, n, prot, flags, fd, offset);
}
int ftruncate(int fd, off_t n)
{
    if (strikes()) { errno = number; return -1; }
    return NEXT(ftruncate)(fd, n);
}
int ftruncate64(int fd, off_t n) { return ftruncate(fd, n); }
int posix_fallocate(int fd, off_t at, off_t n)
{
    if (strikes()) return number;
    return NEXT(posix_fallocate)(fd, at, n);
}
int posix_fallocate64(int fd, off_t at, off_t n) { return posix_fallocate(fd, at, n); }
int flock(int fd, int how)
{
    if (strikes()) { errno = number; return -1; }
    return NEXT(flock)(fd, how);
}
int msync(void *at, size_t n, int flags)
{
    if (strikes()) { errno = number; return -1; }
    return NEXT(msync)(at, n, flags);
}
int madvise(void *at, size_t n, int advice)
{
    if (strikes()) { errno = number; return -1; }
    return NEXT(madvise)(at, n, advice);
}
"""


def scenes(folder: Path) -> dict[str, Callable[[], Callable[[], object]]]:
    """Calls that make system calls: each prepares, and returns what to run."""

    def anonymous() -> Callable[[], object]:
        return lambda: Arena.anonymous(1 << 20).close()

    def create(preallocate: bool) -> Callable[[], object]:
        path = folder / "new"
        path.unlink(missing_ok=True)
        return lambda: Arena.create(path, 1 << 20, preallocate=preallocate).close()

    def stored() -> Path:
        path = folder / "old"
        path.unlink(missing_ok=True)
        with Arena.create(path, 1 << 20) as arena:
            pool = Pool(arena, name="kept")
            arena.root = pool.xmalloc(3000)
            with pool.view(arena.root) as view:
                view[:5] = b"hello"
        return path

    def opened() -> Callable[[], object]:
        path = stored()
        return lambda: Arena.open(path).close()

    def synced() -> Callable[[], object]:
        arena = Arena.open(stored())
        return arena.sync

    def trimmed() -> Callable[[], object]:
        arena = Arena.open(stored())
        return arena.trim

    return {
        "anonymous": anonymous,
        "create": lambda: create(False),
        "preallocate": lambda: create(True),
        "open": opened,
        "sync": synced,
        "trim": trimmed,
    }


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def strike_all() -> int:
    """In a process with the shim: fail each system call of each scene in turn."""
    import ctypes
    import gc

    shim = ctypes.CDLL(None)
    n_cases = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, prepare in scenes(Path(folder)).items():
            call = prepare()
            shim.shim_arm(ctypes.c_long(1 << 40), 0)
            call()
            n_calls = shim.shim_disarm()
            for number in (errno.ENOMEM, errno.ENOSPC):
                for nth in range(1, n_calls + 1):
                    del call
                    gc.collect()
                    call = prepare()
                    before = n_descriptors()
                    shim.shim_arm(ctypes.c_long(nth), number)
                    try:
                        call()
                        raised = None
                    except (OSError, MemoryError) as error:
                        raised = str(error)
                    shim.shim_disarm()
                    gc.collect()
                    n_cases += 1
                    what = f"{name}, system call {nth} fails with {number}: {raised}"
                    if n_descriptors() != before:
                        raise Refuted(f"{what}; a descriptor is left")
                    new = Path(folder) / "new"
                    if raised is not None and new.exists():
                        # Created, and not closed in peace: it must open.
                        Arena.open(new).close()
                        new.unlink()
                    call()
            if n_calls == 0:
                raise Refuted(f"{name} made no system call: is the shim there?")
            del call
            gc.collect()
            if name in ("open", "sync", "trim"):
                with Arena.open(Path(folder) / "old") as arena:
                    pool = Pool.open(arena, "kept")
                    pool.check()
                    if bytes(pool.view(arena.root, 5)) != b"hello":
                        raise Refuted(f"{name}: the contents are lost")
    return n_cases


def prove_calls() -> int:
    """Return how many system calls were made to fail."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "shim.c"
        library = Path(folder) / "shim.so"
        source.write_text(SHIM)
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        subprocess.run(
            [*compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"],
            check=True,
        )
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-c"),
                "from proofs.faults import strike_all; print(strike_all())",
            ],
            env=os.environ
            | {
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "LD_PRELOAD": str(library),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise Refuted(f"{done.returncode}: {done.stderr}")
    return int(np.int64(done.stdout))


@click.command()
@click.option("--ops", default=4000, show_default=True, help="Of the trace.")
def main(ops: int) -> None:
    """Let page allocations and system calls fail, each in turn."""
    n_failed, n_refused = prove_pages(ops)
    click.echo(
        f"faults: {n_failed:,} page allocations failed, {n_refused:,} requests with "
        f"them, over {len(KINDS)} kinds of pool"
    )
    click.echo(
        f"faults: {prove_calls():,} system calls failed; nothing was left behind"
    )


if __name__ == "__main__":
    main()
