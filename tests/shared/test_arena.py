# SPDX-License-Identifier: BSD-3-Clause
"""Arenas that several processes have open: made, found, opened together, left."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import N_BYTES, PAGE, in_child

import xmem
from xmem import Arena, Pool
from xmem.arena import vm

pytestmark = pytest.mark.no_asan  # processes are forked and killed


@contextlib.contextmanager
def other(deed: Callable[[], object]) -> Iterator[int]:
    """Have a process that has done something and stays; yields its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            held = deed()  # as long as the process lives
            os.write(writing, b"x")
            while held is not errno:
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# Made and found -------------------------------------------------------------------


def test_two_processes_use_one_pool(arena: Arena, path: Path) -> None:
    pool = Pool(arena, name="data")
    block = pool.xmalloc(100)
    pool.view(block, 5)[:] = b"hello"
    arena.root = block

    def elsewhere() -> None:
        with Arena.open(path) as mine:
            assert mine.shared
            theirs = Pool.open(mine, "data")
            assert bytes(theirs.view(mine.root, 5)) == b"hello"
            theirs.view(mine.root, 5)[:] = b"world"
            mine.root = theirs.xmalloc(2000)
            theirs.view(mine.root, 4)[:] = b"more"

    assert in_child(elsewhere) == 0
    assert bytes(pool.view(block, 5)) == b"world"
    assert bytes(pool.view(arena.root, 4)) == b"more"
    pool.xfree(arena.root)
    pool.xfree(block)
    assert pool.stats().live_blocks == 0
    arena.check()


def test_a_name_that_exists_is_an_arena_that_is_complete(path: Path) -> None:
    """Whoever finds the name can open it at once."""
    pid = os.fork()
    if pid == 0:
        held = Arena.create(path, 64 << 20, shared=True)
        signal.pause()
        del held
    try:
        while not path.exists():
            pass
        with Arena.open(path) as arena:
            assert arena.n_bytes == 64 << 20
            assert len(arena.slots()) == 2
    finally:
        kill(pid)


def test_what_exists_is_not_replaced(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Arena.create(path, N_BYTES, shared=True)
    assert path.read_bytes() == b"mine"
    assert os.listdir(path.parent) == ["arena"]


def test_where_files_cannot_be_unnamed_nothing_is_left_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(name: object, flags: int, *more: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no such files here")
        return real(name, flags, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    with Arena.create(path, N_BYTES, shared=True) as arena:
        assert os.listdir(path.parent) == ["arena"]
        with Arena.open(path) as again:
            assert len(again.slots()) == 2
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(FileExistsError):
            Arena.create(path, N_BYTES, shared=True)
        monkeypatch.setattr(vm, "file_refuse_remote", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Arena.create(path.with_name("b"), N_BYTES, shared=True)
        assert os.listdir(path.parent) == ["arena"]
        arena.check()


def test_a_file_system_without_room_is_refused_when_the_arena_is_made(
    path: Path,
) -> None:
    """And not by a SIGBUS when a page is touched."""

    def tight() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        with pytest.raises(OSError, match="File too large"):
            Arena.create(path, N_BYTES, shared=True)
        assert os.listdir(path.parent) == []

    assert in_child(tight) == 0


def test_space_is_reserved_unless_it_is_not_wanted(path: Path) -> None:
    with Arena.create(path, 8 << 20, shared=True):
        assert path.stat().st_blocks * 512 >= 8 << 20
    sparse = path.with_name("sparse")
    with Arena.create(sparse, 8 << 20, shared=True, preallocate=False):
        assert sparse.stat().st_blocks * 512 < 4 << 20


def test_other_machines_file_systems_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Arena.create(path, N_BYTES, shared=True)
    made.close()
    kinds = subprocess.run(
        ["stat", "-f", "-c", "%t", path.parent],
        check=True,
        capture_output=True,
        text=True,
    )
    monkeypatch.setitem(vm.REMOTE, int(kinds.stdout, 16), "a test")
    message = r"is on a test: .* a file system of this machine, such as /dev/shm"
    with pytest.raises(OSError, match=message):
        Arena.create(path.with_name("new"), N_BYTES, shared=True)
    with pytest.raises(OSError, match=message):
        Arena.open(path)
    assert os.listdir(path.parent) == ["arena"]
    Arena.open(path, shared=False).close()


def test_of_processes_that_start_together_one_makes_the_arena(path: Path) -> None:
    go, went = os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.read(go, 1)
                arena = Arena.open_or_create(path, N_BYTES)
                pool = Pool.open_or_create(arena, "it", quick=True)
                pool.xmalloc(100)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.write(went, b"x" * 8)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "it")
        assert pool.quick
        assert pool.stats().live_blocks == 8
        assert [s.is_alive for s in arena.slots()].count(True) == 1


def test_an_arena_in_memory_lives_as_long_as_a_process_has_it() -> None:
    with Arena.memfd(N_BYTES) as arena:
        assert repr(arena).startswith("<xmem.Arena in memory, ")
        pool = Pool(arena, name="it")
        block = pool.xmalloc(10)
        link = f"/proc/{os.getpid()}/fd/{arena.fileno()}"
        code = (
            "import sys, xmem; a = xmem.Arena.open(sys.argv[1]);"
            "xmem.Pool.open(a, 'it').xfree(int(sys.argv[2]))"
        )
        subprocess.run([sys.executable, "-P", "-c", code, link, str(block)], check=True)
        with pytest.raises(xmem.DoubleFree):
            pool.xfree(block)
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fileno(), PAGE)


# Together and alone ---------------------------------------------------------------


def test_alone_and_together_exclude_each_other(arena: Arena, path: Path) -> None:
    with pytest.raises(xmem.ArenaInUse):
        Arena.open(path, shared=False)
    with pytest.raises(xmem.ArenaInUse, match="repair it alone"):
        Arena.open(path, repair=True)
    Pool(arena, name="it").xmalloc(10)
    arena.close()
    with Arena.open(path, shared=False) as alone:
        assert not alone.shared
        with pytest.raises(xmem.ArenaInUse, match="open alone"):
            Arena.open(path, lock_timeout=0.01)
        Pool.open(alone, "it").xmalloc(10)
        with pytest.raises(xmem.BadArgument, match="not shared"):
            alone.slots()
    with Arena.open(path) as arena:
        assert Pool.open(arena, "it").stats().live_blocks == 2


def test_an_arena_that_was_not_made_for_it_is_not_shared(path: Path) -> None:
    Arena.create(path, N_BYTES).close()
    with pytest.raises(xmem.BadArgument, match="not created with shared=True"):
        Arena.open(path, shared=True)
    with Arena.open(path) as arena:
        assert not arena.shared
        with pytest.raises(xmem.BadArgument, match="not shared"):
            arena.reap()


def test_the_last_one_out_seals_it(path: Path) -> None:
    first = Arena.create(path, N_BYTES, shared=True)
    second = Arena.open(path)
    first.close()
    ready, clean = 0x22D3, 0x443C
    assert int.from_bytes(path.read_bytes()[120:128], "little") == ready
    second.close()
    assert int.from_bytes(path.read_bytes()[120:128], "little") == clean
    damaged = bytearray(path.read_bytes())
    damaged[130] ^= 1  # the root
    path.write_bytes(damaged)
    with pytest.raises(xmem.ArenaFormatError, match="checksum"):
        Arena.open(path)


def test_a_copy_is_verified_before_it_is_used(arena: Arena, path: Path) -> None:
    """Of an arena in use; where it is the same file, nothing is verified again."""
    pool = Pool(arena, name="it")
    blocks = [pool.xmalloc(100) for _ in range(3)]
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    with Arena.open(copy) as other_one:
        assert Pool.open(other_one, "it").stats().live_blocks == 3
        # Whose processes do not live there.
        assert [slot.is_alive for slot in other_one.slots()] == [True]
    shutil.copy(path, copy)
    held = bytearray(copy.read_bytes())
    held[blocks[1] - 8] ^= 0x20  # a header
    copy.write_bytes(held)
    with pytest.raises(xmem.ArenaFormatError, match="is a copy, or the machine"):
        Arena.open(copy)
    # Without being asked to verify.
    with pytest.raises(xmem.ArenaFormatError, match="is a copy, or the machine"):
        Arena.open(copy, verify=False)


def test_no_more_processes_than_there_are_slots(arena: Arena, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(61):
            stack.enter_context(Arena.open(path))
        assert len(arena.slots()) == 62
        with pytest.raises(xmem.TooManyProcesses, match="62 processes"):
            Arena.open(path)
    assert len(arena.slots()) == 1


# Who is killed --------------------------------------------------------------------


def test_what_a_killed_process_left_is_named(arena: Arena, path: Path) -> None:
    pool = Pool(arena, name="it")
    seen = np.frombuffer(pool.view(pool.xmalloc(8), 8), np.uint64)

    def allocate() -> object:
        mine = Arena.open(path)
        theirs = Pool.open(mine, "it")
        where = np.frombuffer(theirs.view(int(arena_root), 8), np.uint64)
        where[0] = theirs.xmalloc(1000)
        return mine

    arena_root = pool.walk()["offset"][0]
    with other(allocate) as pid:
        me, it = arena.slots()
        assert (me.pid, me.is_alive) == (os.getpid(), True)
        assert (it.pid, it.is_alive, it.left) == (pid, True, ())
        assert arena.reap() == ()
        kill(pid)
        _, it = arena.slots()
        assert not it.is_alive
        assert not it.is_cut_short
        assert (it.verb, it.subject, it.pool_id) == ("alloc", 1000, pool.id)
        assert it.left == (int(seen[0]),)
        assert arena.reap() == (it,)
        assert [slot.pid for slot in arena.slots()] == [os.getpid()]
        pool.xfree(it.left[0])


def test_the_slots_of_the_dead_are_taken_last(arena: Arena, path: Path) -> None:
    with other(lambda: Arena.open(path)) as pid:
        kill(pid)
        with Arena.open(path) as second:
            assert [slot.slot for slot in second.slots()] == [0, 1, 2]
            assert [slot.is_alive for slot in second.slots()] == [True, False, True]


def owner_of_lock(path: Path, shared_module: Any) -> Callable[[], object]:
    """Return what makes a process the owner of the lock of an arena with a pool."""

    def hold() -> object:
        mine = Arena.open(path)
        held = shared_module.Shared(mine, Pool.open(mine, "it"))
        held.lock()
        return held

    return hold


def test_a_stopped_owner_is_named(arena: Arena, path: Path, shared_module: Any) -> None:
    pool = Pool(arena, name="it")
    block = pool.xmalloc(10)

    with other(owner_of_lock(path, shared_module)) as pid:
        arena.lock_timeout = 0.02
        message = rf"process {pid} \(slot 1\) has held its lock for longer"
        for call in (
            lambda: pool.xmalloc(10),
            lambda: pool.xfree(block),
            lambda: pool.xrealloc(block, 5000),
            lambda: pool.view(block),
            lambda: pool.xmalloc_many([1, 2]),
            lambda: pool.xfree_many([block]),
            lambda: Pool(arena),
            lambda: Pool.open(arena, "it"),
            lambda: arena.page_alloc(0),
            pool.stats,
            pool.check,
            pool.shrink,
            arena.check,
            arena.frames,
            arena.slots,
        ):
            with pytest.raises(xmem.ArenaBusy, match=message):
                call()
        kill(pid)
        arena.lock_timeout = 10
        pool.xfree(block)
        pool.check()


def test_a_finaliser_does_not_wait(
    arena: Arena, path: Path, shared_module: Any
) -> None:
    """What it would free is freed by the next call that gets the lock."""
    pool = Pool(arena, name="it")
    block = pool.block(100)

    with other(owner_of_lock(path, shared_module)) as pid:
        del block
        kill(pid)
    assert pool.stats().live_blocks in (0, 1)
    pool.xfree(pool.xmalloc(10))
    assert pool.stats().live_blocks == 0


def test_a_child_of_a_fork_has_not_joined(arena: Arena, path: Path) -> None:
    pool = Pool(arena, name="it")
    block = pool.xmalloc(10)

    def child() -> None:
        with pytest.raises(xmem.ArenaInUse):
            pool.xmalloc(10)
        with pytest.raises(xmem.ArenaInUse):
            arena.slots()
        arena.close()
        with Arena.open(path) as mine:
            Pool.open(mine, "it").xfree(block)

    assert in_child(child) == 0
    assert pool.stats().live_blocks == 0
    assert len(arena.slots()) == 1


def test_a_snapshot_is_a_complete_arena(arena: Arena, path: Path) -> None:
    """While others have the arena open; what is there is replaced."""
    pool = Pool(arena, name="it")
    block = pool.xmalloc(100)
    pool.view(block, 3)[:] = b"old"
    copy = path.with_name("copy")
    copy.write_bytes(b"something else")
    with Arena.open(path):
        arena.snapshot(copy)
    pool.view(block, 3)[:] = b"new"
    with Arena.open(copy) as kept:
        assert len(kept.slots()) == 1
        theirs = Pool.open(kept, "it")
        assert bytes(theirs.view(block, 3)) == b"old"
        theirs.xfree(block)
        kept.check()
    assert sorted(os.listdir(path.parent)) == ["arena", "copy"]
    assert bytes(pool.view(block, 3)) == b"new"
    with pytest.raises(FileNotFoundError):
        arena.snapshot(path.parent / "none" / "copy")
    with Arena.anonymous(N_BYTES) as alone, pytest.raises(OSError, match="no file"):
        alone.snapshot(copy)


def test_a_snapshot_that_fails_leaves_nothing(
    arena: Arena, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all of it, where the name has been given and the disk fails then."""
    copy = path.with_name("copy")
    real, outcomes = os.fsync, []

    def failing(fd: int) -> None:
        if outcomes and not outcomes.pop(0):
            raise OSError(errno.EIO, "the disk")
        real(fd)

    monkeypatch.setattr(os, "fsync", failing)
    for succeeds, left in (([False], ["arena"]), ([True, False], ["arena", "copy"])):
        outcomes[:] = succeeds
        with pytest.raises(OSError, match="the disk"):
            arena.snapshot(copy)
        assert sorted(os.listdir(path.parent)) == left
    Arena.open(copy).close()
    n_open = len(os.listdir("/proc/self/fd"))
    arena.snapshot(copy)
    assert len(os.listdir("/proc/self/fd")) == n_open


# What is not shared ---------------------------------------------------------------


def test_what_cannot_be_in_a_shared_arena_is_refused(arena: Arena, path: Path) -> None:
    for make, why in (
        (lambda: Pool(arena, engine="firstfit"), "without bound"),
        (lambda: Pool(arena, hardened=True), "journal"),
        (lambda: Pool(arena, get_mem=print, put_mem=print), "one process"),
        (arena.trim, "keeps its pages"),
    ):
        with pytest.raises(xmem.BadArgument, match=why):
            make()
    assert arena.pools() == {}
    Pool(arena, name="it")
    with pytest.raises(xmem.BadArgument, match="get_mem"):
        Pool.open(arena, "it", get_mem=print, put_mem=print)


def test_a_pool_that_another_has_destroyed(arena: Arena, path: Path) -> None:
    with Arena.open(path) as second:
        mine, theirs = Pool(arena, name="it"), Pool.open(second, "it")
        block = mine.xmalloc(100)
        with pytest.raises(xmem.PoolInUse):
            theirs.destroy()
        assert len(theirs.destroy(force=True)) == 1
        again = Pool(second, name="it")
        for call in (
            lambda: mine.xmalloc(10),
            lambda: mine.xfree(block),
            mine.stats,
            lambda: mine.xmalloc_many([1]),
        ):
            with pytest.raises(xmem.PoolDestroyed):
                call()
        again.xmalloc(10)
        again.check()
        arena.check()


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e12])
def test_times_that_cannot_be_meant(path: Path, seconds: float) -> None:
    with pytest.raises(xmem.BadArgument, match="lock_timeout must be"):
        Arena.create(path, N_BYTES, shared=True, lock_timeout=seconds)
    assert not path.exists()


def test_only_a_run_of_the_arena_s_own_is_given_back(
    arena: Arena, shared_module: Any
) -> None:
    """At C level, where an offset may be any integer."""
    pool = Pool(arena)
    shared = shared_module.Shared(arena, pool)
    own, pools = arena.page_alloc(1), pool.xmalloc(2 * PAGE, align=PAGE)
    for offset in (
        0,
        1,
        PAGE,
        own + 8,
        own + PAGE,
        pools,
        N_BYTES,
        1 << 60,
        2**64 - PAGE,
    ):
        assert not shared.give(offset)
    assert shared.give(own)
    assert not shared.give(own)
    arena.check()
