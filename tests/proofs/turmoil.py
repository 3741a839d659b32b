# SPDX-License-Identifier: BSD-3-Clause
"""Threads, signals, finalisers and forks at once.

Eight threads allocate, hand blocks to each other and free each other's. Every
block holds the number of its life, verified before it is freed. Meanwhile a
timer's signal handler and the finalisers of objects in cycles allocate and free
in the middle of whatever runs, and the process forks: each child works on
its copy of the arena for a while, checks it, and ends.
"""

import gc
import os
import random
import signal
import struct
import sys
import threading
from collections import deque
from typing import Any

import click

from xmem import Arena, OutOfMemory, Pool

from . import Refuted

PAGE = 4096
N_THREADS = 8
FORK_EVERY = 200_000  # operations
SIZES = (8, 8, 16, 24, 40, 64, 100, 100, 200, 500, 1500, 3500)
NUMBER = struct.Struct("<Q")


class Turmoil:
    """A pool that everybody uses."""

    def __init__(self, seed: int, **kind: Any) -> None:
        self.arena = Arena.anonymous(64 << 20, page_size=PAGE)
        self.pool = Pool(self.arena, **kind)
        self.seed = seed
        self.boxes: list[deque[tuple[int, int, int]]] = [
            deque() for _ in range(N_THREADS)
        ]
        self.wrong: list[str] = []
        self.n_done = [0] * N_THREADS
        self.n_signals = self.n_finalised = self.n_forks = 0
        self.births = iter(range(1, 1 << 62))

    def allocate(self, size: int) -> tuple[int, int, int]:
        """A new block: offset, size, number."""
        offset = self.pool.xmalloc(size)
        number = next(self.births)
        with self.pool.view(offset, size) as view:
            NUMBER.pack_into(view, 0, number)
            NUMBER.pack_into(view, size - 8, number)
        return offset, size, number

    def free(self, offset: int, size: int, number: int) -> None:
        """Verify a block and free it."""
        with self.pool.view(offset, size) as view:
            first = NUMBER.unpack_from(view, 0)[0]
            last = NUMBER.unpack_from(view, size - 8)[0]
        if first != number or last != number:
            self.wrong.append(f"block {offset:#x} held {first} and {last}")
        self.pool.xfree(offset)

    def work(self, me: int, n_ops: int) -> None:
        """One thread: half of what it makes goes to another."""
        rng = random.Random(self.seed * 100 + me)
        mine: list[tuple[int, int, int]] = []
        box = self.boxes[me]
        try:
            for _ in range(n_ops // 2):
                try:
                    block = self.allocate(rng.choice(SIZES))
                except OutOfMemory:
                    block = None
                if block is not None:
                    if rng.random() < 0.5:
                        self.boxes[rng.randrange(N_THREADS)].append(block)
                    else:
                        mine.append(block)
                if box:
                    self.free(*box.popleft())
                elif len(mine) > 300 or (mine and rng.random() < 0.5):
                    self.free(*mine.pop(rng.randrange(len(mine))))
                self.n_done[me] += 2
            for left in mine:
                self.free(*left)
        except BaseException as error:
            self.wrong.append(f"thread {me}: {error!r}")
            raise

    def on_signal(self, *_: Any) -> None:
        """Handle a signal by a block's whole life, and by garbage."""
        self.n_signals += 1
        self.free(*self.allocate(48))
        Dying(self)
        if self.n_signals % 50 == 0:
            gc.collect()

    def fork(self) -> None:
        """A child works on its copy, and says whether that was sound."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for _ in range(200):
                    self.free(*self.allocate(300))
                self.pool.check()
                status = 0 if not self.wrong else 2
            finally:
                os._exit(status)
        self.n_forks += 1
        if os.waitpid(pid, 0)[1] != 0:
            self.wrong.append("a forked child found its copy damaged")

    def run(self, n_ops: int) -> None:
        """Run all threads until ``n_ops`` operations have been done."""
        old = signal.signal(signal.SIGALRM, self.on_signal)
        threads = [
            threading.Thread(target=self.work, args=(i, n_ops // N_THREADS))
            for i in range(N_THREADS)
        ]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            next_fork = FORK_EVERY
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.01)
                if sum(self.n_done) >= next_fork:
                    next_fork += FORK_EVERY
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    self.fork()
                    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            sys.setswitchinterval(interval)
        for box in self.boxes:
            while box:
                self.free(*box.popleft())
        gc.collect()
        if self.wrong:
            raise Refuted("; ".join(self.wrong[:5]))
        self.pool.check()
        if self.pool.stats().live_blocks:
            raise Refuted(f"{self.pool.stats().live_blocks} blocks were lost")


class Dying:
    """Garbage in a cycle, with a block that its finaliser frees."""

    def __init__(self, turmoil: Turmoil) -> None:
        self.turmoil = turmoil
        self.block = turmoil.allocate(24)
        self.itself = self

    def __del__(self) -> None:
        """Free the block, wherever the collector came from."""
        self.turmoil.n_finalised += 1
        self.turmoil.free(*self.block)


def prove(n_ops: int, seed: int) -> Turmoil:
    """Half of the operations on a plain pool, half on a hardened one."""
    first = Turmoil(seed)
    first.run(n_ops // 2)
    second = Turmoil(seed + 1, hardened=True)
    second.run(n_ops // 2)
    for name in ("n_signals", "n_finalised", "n_forks"):
        setattr(second, name, getattr(second, name) + getattr(first, name))
    second.n_done.extend(first.n_done)
    return second


@click.command()
@click.option("--ops", default=10_000_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(ops: int, seed: int) -> None:
    """Threads, signals, finalisers and forks on one pool."""
    seen = prove(ops, seed)
    click.echo(
        f"turmoil: {sum(seen.n_done):,} operations of {N_THREADS} threads, "
        f"{seen.n_signals:,} signals, {seen.n_finalised:,} finalisers and "
        f"{seen.n_forks:,} forks in between; every block held its number"
    )


if __name__ == "__main__":
    main()
