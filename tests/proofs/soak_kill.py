# SPDX-License-Identifier: BSD-3-Clause
"""Processes of a shared pool, killed at any instruction: ``make soak-kill``.

Workers allocate, resize and free blocks of one pool, and write down which they have in
a table of their own. The parent kills them at random moments, a third of the time the
one that owns the lock just then, and starts others in their place.

After each kill the parent takes the lock as any other process would, which undoes what
was half done. Then the heap is sound, every block in the dead worker's table is live
with its contents, and what is live and in no table is what the dead worker's slot
names. The parent frees both. At the end the blocks that are live are those in the
tables of the workers that live.
"""

import ctypes
import mmap
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
from support.builds import Builds

from . import Refuted
from .headers import Snapshot
from .shared_pools import SOURCE, SharedPool

N_WORKERS = 8
N_BLOCKS = 64
N_PAGES = 192
MOST_BYTES = 3000
NOBODY = -1
#: Verbs, as slots name them.
FREE, RESIZE = 2, 3
#: In a table: the contents of the block are complete.
FILLED = 1


def pattern(offset: int, n_bytes: int) -> bytes:
    """Return what is in a block: every 8 bytes name it."""
    return (offset.to_bytes(8, "little") * (n_bytes // 8 + 1))[:n_bytes]


class Worker(SharedPool):
    """What a worker does until it is killed; it never returns."""

    def __init__(self, soak: "Soak", i: int, seed: int) -> None:
        super().__init__(soak.path, soak.at)
        self.table = soak.tables[i]
        self.draw = random.Random(seed)
        soak.slots[i] = self.shared.my_slot

    def run(self) -> None:
        shared = self.shared
        while True:
            k = self.draw.randrange(N_BLOCKS)
            held = int(self.table[k, 0])
            if held == 0:
                self.keep(k, shared.alloc(n := self.draw.randrange(8, MOST_BYTES)), n)
            elif self.draw.random() < 0.2:
                n = self.draw.randrange(8, MOST_BYTES)
                self.table[k, 1] = min(n, int(self.table[k, 1]))
                moved = shared.resize(held & ~FILLED, n)
                if moved:
                    self.keep(k, moved, n)
            else:
                n = int(self.table[k, 1])
                if self.contents(held & ~FILLED, n) != pattern(held & ~FILLED, n):
                    os._exit(4)
                if not shared.free(held & ~FILLED):
                    os._exit(3)
                self.table[k, 0] = 0

    def keep(self, k: int, offset: int, n_bytes: int) -> None:
        """Write a block down, then its contents, then that these are complete."""
        if offset == 0:
            return
        self.table[k, 0] = offset
        self.table[k, 1] = n_bytes
        held = pattern(offset, n_bytes)
        ctypes.memmove(self.base + offset, held, n_bytes)
        self.table[k, 0] = offset | FILLED


class Soak(SharedPool):
    """The arena, its workers, and what was seen."""

    def __init__(self, folder: Path, shared: Any, kind: dict[str, Any]) -> None:
        super().__init__(folder / "arena", shared, kind, N_PAGES)
        shape = (N_WORKERS, N_BLOCKS, 2)
        memory = mmap.mmap(-1, int(np.prod(shape)) * 8)
        self.tables: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64).reshape(
            shape
        )
        # The slot of each worker, as it says; NOBODY before.
        self.slots: npt.NDArray[np.int64] = np.frombuffer(
            mmap.mmap(-1, N_WORKERS * 8), np.int64
        )
        self.pids = [0] * N_WORKERS
        self.n_kills = 0
        self.n_aimed = 0
        self.n_named = 0
        self.figures = (0, 0, 0)  # of the lock, at the end

    def require(self, offset: int, n_bytes: int, who: str) -> None:
        if self.contents(offset, n_bytes) != pattern(offset, n_bytes):
            raise Refuted(f"{who}: the contents of {offset:#x} have changed")

    def start(self, i: int, seed: int) -> None:
        """Fork a worker with an empty table."""
        self.tables[i] = 0
        self.slots[i] = NOBODY
        pid = os.fork()
        if pid == 0:
            try:
                Worker(self, i, seed).run()
            except BaseException:
                traceback.print_exc()
                os._exit(5)
        self.pids[i] = pid

    def aim(self, draw: random.Random) -> int:
        """Return the worker to be killed: a third of the time the lock's owner."""
        if draw.random() < 1 / 3:
            for i in draw.choices(range(N_WORKERS), k=100):
                # Stopped wherever it is: in the section, if it owns the lock now.
                os.kill(self.pids[i], signal.SIGSTOP)
                _, status = os.waitpid(self.pids[i], os.WUNTRACED)
                if not os.WIFSTOPPED(status):
                    raise Refuted(f"a worker ended by itself: {status:#x}")
                if self.shared.owner() == self.slots[i]:
                    self.n_aimed += 1
                    return i
                os.kill(self.pids[i], signal.SIGCONT)
        time.sleep(draw.random() * 0.001)
        return draw.randrange(N_WORKERS)

    def kill(self, i: int) -> None:
        """Kill a worker, and look at what it leaves."""
        os.kill(self.pids[i], signal.SIGKILL)
        _, status = os.waitpid(self.pids[i], 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise Refuted(f"a worker ended by itself: {status:#x}")
        self.n_kills += 1
        if (result := self.shared.lock()) != self.at.TAKEN:
            raise Refuted(
                f"the lock was not to be had ({result}): slot {self.shared.owner()} "
                f"owns it, slot {self.slots[i]} died"
            )
        broken = self.shared.check()
        slot = self.left(i)
        live = self.live()
        self.arena.reap()
        self.shared.unlock()
        if broken is not None:
            raise Refuted(f"not sound after {self.n_kills} kills: {broken}")
        self.bury(i, slot, live)

    def left(self, i: int) -> dict[str, int]:
        """Return what a dead worker's slot says; it may have died before it had one."""
        if self.slots[i] == NOBODY:
            return {}
        return cast(dict[str, int], self.shared.slot(int(self.slots[i])))

    def live(self) -> set[int]:
        """Payloads of the pool that are live, by headers and start bits."""
        now = Snapshot(self.arena)
        return {
            block.start
            for block in now.pool(self.pool.id, "tlsf")
            if block.used and now.start(block.start)
        }

    def bury(self, i: int, slot: dict[str, int], live: set[int]) -> None:
        """Prove that a dead worker's blocks are there, and free them.

        Its slot names the only ones that may be live and not in its table, or in its
        table and not live.
        """
        named = {slot["answer"], slot["moved"]} - {0, 1} if slot else set()
        gone = self.gone(slot) if slot else 0
        table = {
            int(row[0]) & ~FILLED: (int(row[0]) & FILLED, int(row[1]))
            for row in self.tables[i]
            if row[0]
        }
        for offset, (is_filled, n_bytes) in table.items():
            if offset == gone:
                continue
            if offset not in live:
                raise Refuted(f"the live block {offset:#x} was lost: {slot}")
            if is_filled:
                self.require(offset, n_bytes, f"after {self.n_kills} kills")
        for offset in ((table.keys() - {gone}) | named) & live:
            if offset not in table:
                self.n_named += 1
            if not self.shared.free(offset):
                raise Refuted(f"{offset:#x} cannot be freed")

    def gone(self, slot: dict[str, int]) -> int:
        """Return the block that the dead worker's last verb has freed, or 0.

        Another worker may have it by now.
        """
        is_done = slot["n_begun"] == slot["n_done"] and slot["moved"] == 0
        if not is_done or slot["answer"] in (0, slot["subject"]):
            return 0
        return slot["subject"] if slot["verb"] in (FREE, RESIZE) else 0

    def end(self) -> int:
        """Stop all workers in a place where they have nothing under way; count."""
        for i in range(N_WORKERS):
            self.kill(i)
        left = self.live()
        if left:
            raise Refuted(f"{len(left)} blocks are nobody's")
        return len(left)


def prove(n_kills: int, seed: int, shared: Any, kind: dict[str, Any]) -> Soak:
    """Kill this many workers of a pool of a kind."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), shared, kind)
        try:
            for i in range(N_WORKERS):
                soak.start(i, draw.randrange(1 << 30))
            while soak.n_kills < n_kills:
                i = soak.aim(draw)
                soak.kill(i)
                soak.start(i, draw.randrange(1 << 30))
            soak.end()
            soak.figures = soak.shared.figures()
        finally:
            for pid in soak.pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
            soak.close()
        return soak


@click.command()
@click.option("--kills", default=50_000, show_default=True, help="Of each kind.")
@click.option("--seed", default=1, show_default=True)
def main(kills: int, seed: int) -> None:
    """Kill the processes of a shared pool; print how often, and what was undone."""
    with tempfile.TemporaryDirectory() as folder:
        shared = Builds(Path(folder)).module(SOURCE)
        for kind in ({}, {"quick": True}):
            soak = prove(kills, seed, shared, kind)
            takeovers, undone, longest = soak.figures
            click.echo(
                f"soak-kill: {kind}: {soak.n_kills:,} kills, {soak.n_aimed:,} of the "
                f"lock's owner; {takeovers:,} takeovers, {undone:,} with stores to "
                f"undo; {soak.n_named:,} blocks named by slots; longest wait "
                f"{longest / 1e6:.1f} ms; nothing lost, nothing left"
            )


if __name__ == "__main__":
    main()
