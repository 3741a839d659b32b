# SPDX-License-Identifier: BSD-3-Clause
"""The lock of a shared arena, who lives, and undoing what the dead left half done."""

import ctypes
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from proofs.shared_pools import PAGE, SharedPool
from proofs.soak_kill import Soak

from xmem import Arena, HeapCorruption, Pool

#: Slots: the first that joins has the first.
MINE, OTHER = 0, 1

pytestmark = pytest.mark.no_asan  # processes are forked and killed


@pytest.fixture
def soak(tmp_path, shared_module):
    """An arena with a shared pool, in which this process has joined."""
    made = Soak(tmp_path, shared_module, {})
    yield made
    made.close()


@pytest.fixture
def other(soak):
    """A process in another slot: it does what it is told, and stays until killed."""
    started = []

    def start(*deeds):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                mine = SharedPool(soak.path, soak.at)
                mine.writing = writing
                assert mine.shared.my_slot == OTHER
                for deed in deeds:
                    deed(mine)
                os.write(writing, b"x")
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        started.append(pid)
        assert os.read(reading, 1) == b"x"
        os.close(reading)
        os.close(writing)
        return SimpleNamespace(pid=pid, kill=lambda: kill(pid))

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        started.remove(pid)

    yield start
    for pid in list(started):
        kill(pid)


def lock(mine):
    assert mine.shared.lock() == mine.at.TAKEN


def test_verbs_of_a_shared_pool(soak):
    shared = soak.shared
    block, wall = shared.alloc(100), shared.alloc(20)
    assert soak.live() == {block, wall}
    assert shared.resize(block, 104) == block
    moved = shared.resize(block, 9000)
    assert moved != block
    run = shared.alloc(3 * PAGE, PAGE)
    assert run % PAGE == 0
    assert soak.live() == {moved, wall}  # a run has no start bit
    assert not shared.free(block)
    assert shared.free(moved)
    assert not shared.free(moved)
    assert shared.free(run)
    assert not shared.free(run)
    assert soak.live() == {wall}
    slot = shared.slot(MINE)
    assert slot["n_begun"] == slot["n_done"]
    assert shared.lock() == soak.at.TAKEN
    assert shared.check() is None
    shared.unlock()


def test_a_python_pool_behind_a_door_uses_the_routes(soak):
    block = soak.pool.xmalloc(100)
    assert soak.shared.slot(MINE)["answer"] == block
    assert soak.pool.usable_size(block) >= 100
    soak.pool.xfree(block)
    assert soak.shared.slot(MINE)["subject"] == block
    assert soak.live() == set()


def test_a_full_pool_refuses_and_says_no_wrong_cause(soak):
    assert soak.shared.alloc(1 << 30) == 0
    assert soak.shared.cause() == soak.at.TAKEN
    held = []
    while block := soak.shared.alloc(5000):
        held.append(block)
    assert soak.shared.resize(held[0], 50_000) == 0
    assert all(soak.shared.free(block) for block in held)


def test_waiting_ends_when_its_time_is_over(soak, other):
    other(lock)
    soak.shared.set_timeout(20_000_000)
    began = time.monotonic()
    assert soak.shared.lock() == soak.at.BUSY
    assert time.monotonic() - began >= 0.02
    assert soak.shared.alloc(10) == 0
    assert soak.shared.cause() == soak.at.BUSY
    assert soak.shared.owner() == OTHER


def test_the_lock_of_a_dead_owner_is_taken_over(soak, other):
    process = other(lock)
    process.kill()
    assert soak.shared.lock() == soak.at.TAKEN
    assert soak.shared.owner() == MINE
    assert soak.shared.figures()[:2] == (1, 0)
    soak.shared.unlock()


def test_a_stopped_owner_is_alive(soak, other):
    process = other(lock)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    soak.shared.set_timeout(10_000_000)
    assert soak.shared.lock() == soak.at.BUSY
    process.kill()
    assert soak.shared.lock() == soak.at.TAKEN


def test_a_process_is_alive_until_it_is_killed(soak, other):
    assert soak.shared.is_alive(OTHER) == 0
    process = other()
    assert soak.shared.is_alive(OTHER) == 1
    assert not soak.shared.could_join(OTHER)
    process.kill()
    assert soak.shared.is_alive(OTHER) == 0


def test_closing_descriptors_does_not_make_a_process_look_dead(soak, other):
    def close_all(mine):
        # Opening and closing the file once more would release a POSIX lock.
        os.close(os.open(mine.path, os.O_RDWR))
        os.closerange(3, mine.writing)
        os.closerange(mine.writing + 1, 200)

    other(close_all)
    assert soak.shared.is_alive(OTHER) == 1


def test_a_child_does_not_keep_its_dead_parent_alive(soak, other):
    def fork(_mine):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)

    process = other(fork)
    process.kill()
    assert soak.shared.is_alive(OTHER) == 0


def test_a_process_that_has_become_another_program_is_dead(soak):
    pid = os.fork()
    if pid == 0:
        SharedPool(soak.path, soak.at)
        os.execvp("sleep", ["sleep", "5"])
    deadline = time.monotonic() + 4
    command = Path(f"/proc/{pid}/comm")
    while command.read_text() != "sleep\n" or soak.shared.is_alive(OTHER):
        assert time.monotonic() < deadline
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# Transactions of the program's own -------------------------------------------------


def word(soak, offset):
    return int.from_bytes(soak.contents(offset, 8), "little")


def test_a_transaction_is_undone_as_a_whole(soak, other):
    """A block and the word that names it, and what was written into the block."""
    table, gone = soak.shared.alloc(64), soak.shared.alloc(500)
    assert soak.shared.begin()
    soak.shared.put(table, gone)
    soak.shared.commit()
    live = soak.live()

    def half(mine):
        assert mine.shared.begin()
        block = mine.shared.alloc(500)
        ctypes.memset(mine.base + block, 0xFF, 500)
        mine.shared.put(table + 8, block)
        assert mine.shared.free(gone)
        mine.shared.put(table, 0)

    other(half).kill()
    assert soak.shared.lock() == soak.at.TAKEN
    assert soak.shared.check() is None
    soak.shared.unlock()
    assert soak.live() == live
    assert (word(soak, table), word(soak, table + 8)) == (gone, 0)
    assert soak.shared.figures()[:2] == (1, 1)
    # All of the free memory can be used.
    held = []
    while block := soak.shared.alloc(500):
        ctypes.memset(soak.base + block, 0xAA, 500)
        held.append(block)
    soak.pool.check()
    assert all(soak.shared.free(block) for block in held)


def test_a_transaction_that_is_committed_stays(soak, other):
    table = soak.shared.alloc(64)

    def whole(mine):
        assert mine.shared.begin()
        mine.shared.put(table, mine.shared.alloc(500))
        mine.shared.commit()

    other(whole).kill()
    assert word(soak, table) in soak.live()
    soak.pool.check()


def test_nothing_changes_a_shared_pool_past_the_journal(soak):
    block = soak.shared.alloc(100)
    before = soak.contents(0, soak.arena.n_bytes)
    assert soak.shared.create_past_the_journal()
    assert soak.shared.change_past_the_journal() == 0
    assert soak.contents(0, soak.arena.n_bytes) == before
    assert soak.shared.free(block)


def damage(soak, end, *entries):
    """Write a journal into the arena."""
    at = soak.area + soak.at.JOURNAL_AT
    words = [end, 0, *(word for entry in entries for word in entry)]
    for i, word in enumerate(words):
        place = soak.base + at + 8 * i
        ctypes.c_uint64.from_address(place).value = word % (1 << 64)
    return at


@pytest.mark.parametrize(
    "journal",
    [
        lambda at, _area: (16 + 8, (0, 0)),
        lambda at, _area: (8,),
        lambda at, _area: (16 + 16 * 1025,),
        lambda at, _area: (32, (1, 0)),
        lambda at, _area: (32, (-at, 0)),
        lambda at, _area: (32, (1 << 40, 0)),
        lambda at, _area: (32, (0, 0)),
        lambda at, area: (32, (area - at, 0)),
    ],
    ids=[
        "half an entry",
        "no start",
        "too long",
        "not aligned",
        "the superblock",
        "outside",
        "the journal itself",
        "the lock",
    ],
)
def test_J1_a_damaged_journal_is_not_obeyed(soak, other, journal):
    process = other(lock)
    at = soak.area + soak.at.JOURNAL_AT
    damage(soak, *journal(at, soak.area))
    behind = soak.area + soak.at.AREA_BYTES
    before = soak.contents(behind, 8 * PAGE)
    head = soak.contents(0, 1024)
    process.kill()
    assert soak.shared.lock() == soak.at.DAMAGED
    assert soak.shared.lock() == soak.at.DAMAGED
    assert soak.shared.alloc(10) == 0
    assert soak.shared.cause() == soak.at.DAMAGED
    after = soak.contents(behind, 8 * PAGE)
    assert (after, soak.contents(0, 1024)) == (before, head)


def test_J1_a_damaged_journal_is_discarded_by_a_repair(soak, other, tmp_path):
    """Nobody opens the arena with it; the repair rebuilds what lists and counts say."""
    held = [soak.shared.alloc(300) for _ in range(20)]
    process = other(lock)
    damage(soak, 32, (1, 0))
    process.kill()
    assert soak.shared.lock() == soak.at.DAMAGED
    with pytest.raises(HeapCorruption, match="J1"):
        soak.pool.xmalloc(10)
    soak.arena.close()
    for shared in (True, False):
        with pytest.raises(HeapCorruption, match="J1"):
            Arena.open(soak.path, shared=shared)
    with Arena.open(soak.path, repair=True) as arena:
        pool = Pool.open(arena, "it")
        for block in held:
            pool.xfree(block)
        pool.check()
        arena.check()
