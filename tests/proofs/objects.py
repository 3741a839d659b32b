# SPDX-License-Identifier: BSD-3-Clause
"""Blocks, arrays, views, ends of every kind, threads and the collector at once.

Threads make, fill, look at, resize, release, detach, drop and hand to each other
blocks and arrays, alone and under `numpy_memory`, of pools and heaps of every kind;
pools are destroyed and arenas closed under them; another thread checks. Each object
holds its number from its first byte to its last, which is verified before it ends.
At the end nothing is left: used bytes are those of the beginning.
"""

import contextlib
import gc
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from xmem import (
    Allocator,
    Arena,
    BadArgument,
    Block,
    Heap,
    OutOfMemory,
    Pool,
    PoolInUse,
    SizeLimitError,
    XmemError,
    numpy_memory,
)

from . import Refuted

N_THREADS = 4
N_KEPT = 60
PAGE = 4096
SIZES = (0, 1, 8, 17, 40, 64, 100, 200, 500, 900, 1500, 3900)
KINDS: tuple[Callable[[Arena], Allocator], ...] = (
    lambda arena: Pool(arena),
    lambda arena: Pool(arena, grow_pages=1),
    lambda arena: Pool(arena, engine="firstfit"),
    lambda arena: Pool(arena, hardened=True),
    lambda arena: Pool(arena, quick=True),
    lambda arena: Heap(arena, "array"),
    lambda arena: Heap(arena, "merged"),
)


def bytes_of(thing: Any) -> np.ndarray[Any, Any]:
    """Memory of an object, whatever it is."""
    if isinstance(thing, np.ndarray):
        return thing.reshape(-1).view("u1")
    return np.frombuffer(thing, "u1")


class Worker(threading.Thread):
    """One thread and what it keeps."""

    def __init__(self, round_: "Round", seed: int) -> None:
        super().__init__()
        self.round = round_
        self.chosen = random.Random(seed)
        self.kept: list[tuple[Any, int]] = []
        self.seen: Counter[str] = Counter()
        self.deeds = [
            *[self.make] * 6,
            *[self.end] * 4,
            *[self.view, self.resize, self.exchange, self.misuse, self.cycle],
            *[self.compute, self.detach, self.collect, self.by_offset],
        ]

    def run(self) -> None:
        """Do this and that until the round is over."""
        try:
            while not self.round.over.is_set():
                deed = self.chosen.choice(self.deeds)
                with contextlib.suppress(OutOfMemory, MemoryError, SizeLimitError):
                    deed()
                    self.seen[deed.__name__] += 1
        except BaseException as error:
            self.round.faults.append(error)
            self.round.over.set()
        try:
            while self.kept:
                self.verify(*self.kept.pop())
        except BaseException as error:
            self.round.faults.append(error)

    def keep(self, thing: Any) -> None:
        """Fill an object with its number and keep it."""
        number = self.chosen.randrange(1, 256)
        bytes_of(thing)[:] = number
        self.kept.append((thing, number))
        if len(self.kept) > N_KEPT:
            self.end()

    def verify(self, thing: Any, number: int) -> None:
        """See that an object is what it was."""
        if isinstance(thing, Block) and not thing:
            return
        if (bytes_of(thing) != number).any():
            raise Refuted(f"{thing!r} does not hold {number} any more")

    def take(self) -> tuple[Any, int] | None:
        """Take something that is kept, verified."""
        if not self.kept:
            return None
        found = self.kept.pop(self.chosen.randrange(len(self.kept)))
        self.verify(*found)
        return found

    def make(self) -> None:
        """Make a block or an array."""
        allocator = self.round.allocator
        size = self.chosen.choice(SIZES)
        match self.chosen.randrange(6):
            case 0 | 1:
                thing: Any = allocator.block(size)
            case 2:
                thing = allocator.empty(
                    size, "u1", align=self.chosen.choice([1, 16, 64])
                )
            case 3:
                thing = allocator.zeros((size // 8, 2), "f4")
                if thing.any():
                    raise Refuted("zeros are not zero")
            case 4:
                thing = allocator.copy_of(np.arange(size // 4, dtype="u4")[::-1])
                if thing.size and (thing[0], thing[-1]) != (thing.size - 1, 0):
                    raise Refuted("a copy is no copy")
            case _:
                with self.round.manager:
                    thing = np.zeros(size, "u1")
        self.keep(thing)

    def end(self) -> None:
        """Release, drop or leave."""
        found = self.take()
        if found is None:
            return
        thing, _ = found
        if isinstance(thing, Block) and self.chosen.random() < 0.6:
            with contextlib.suppress(BufferError):
                thing.release()

    def view(self) -> None:
        """Keep a view in place of what it looks at."""
        found = self.take()
        if found is None:
            return
        thing, number = found
        memory = bytes_of(thing)
        with contextlib.suppress(ValueError):
            memory = memory[self.chosen.randrange(1 + len(memory)) :]
        self.kept.append((memory, number))

    def resize(self) -> None:
        """Resize a block that nobody looks at."""
        found = self.take()
        if found is None:
            return
        thing, number = found
        if isinstance(thing, Block) and thing:
            size = self.chosen.choice(SIZES)
            before = len(thing)
            try:
                thing.resize(size)
            except (BufferError, OutOfMemory, SizeLimitError):
                size = before
            self.verify_start(thing, number, min(before, size))
            bytes_of(thing)[:] = number
        self.kept.append((thing, number))

    @staticmethod
    def verify_start(block: Block, number: int, n_bytes: int) -> None:
        """See that the first bytes are what they were."""
        if (bytes_of(block)[:n_bytes] != number).any():
            raise Refuted(f"{block!r} lost its contents in a resize")

    def exchange(self) -> None:
        """Hand something to another thread, or take what one has left."""
        box = self.round.box
        if self.chosen.random() < 0.5 and self.kept:
            found = self.take()
            if found is not None:
                box.append(found)
        else:
            with contextlib.suppress(IndexError):
                found = box.pop()
                self.verify(*found)
                self.kept.append(found)

    def misuse(self) -> None:
        """Do with something what is refused."""
        if not self.kept:
            return
        thing, number = self.kept[-1]
        allocator: Any = self.round.allocator
        offset = None
        if isinstance(thing, Block):
            offset = thing.offset
        elif isinstance(thing, np.ndarray):
            with contextlib.suppress(BadArgument):
                offset = allocator.block_of(thing).offset
        for act in (
            lambda: allocator.xfree(offset),
            lambda: allocator.xrealloc(offset, 5000),
            lambda: allocator.xfree((offset or 0) + 16),
        ):
            if offset:
                try:
                    act()
                except (XmemError, BufferError):
                    continue
                raise Refuted(f"what an object owns was freed by its offset: {thing!r}")
        if isinstance(thing, np.ndarray) and thing.size:
            for act in (allocator.arena.close, lambda: allocator.destroy(force=True)):
                try:
                    act()
                except BufferError:
                    continue
                raise Refuted("something was closed under an array")
        self.verify(thing, number)

    def cycle(self) -> None:
        """Leave something in a cycle for the collector."""
        found = self.take()
        if found is not None:
            cycle: list[Any] = [found]
            cycle.append(cycle)

    def compute(self) -> None:
        """Let NumPy work in the pool."""
        with self.round.manager:
            array = np.arange(self.chosen.randrange(300))
            total = (np.sort(array[::-1]) * 2).sum()
        if total != array.size * (array.size - 1):
            raise Refuted("arithmetic in the pool is wrong")

    def detach(self) -> None:
        """Give a block up, and free it by its offset."""
        found = self.take()
        if found is None:
            return
        thing, _ = found
        if isinstance(thing, Block) and thing:
            offset = thing.detach()
            del thing, found
            for _ in range(100_000):
                try:
                    self.round.allocator.xfree(offset)  # type: ignore[attr-defined]
                    return
                except BufferError:
                    time.sleep(0)  # somebody's view of it
                    gc.collect()

    def collect(self) -> None:
        """Run the collector."""
        if self.chosen.random() < 0.05:
            gc.collect()

    def by_offset(self) -> None:
        """Look at a block by its offset, beyond its owner's end."""
        found = self.take()
        if found is None:
            return
        thing, number = found
        if isinstance(thing, Block) and thing:
            array = self.round.allocator.from_offset(thing.offset, len(thing), "u1")
            del thing, found
            self.kept.append((array, number))


class Round:
    """One arena and its allocator, until something ends it."""

    def __init__(self, kind: int, seed: int, path: str | None = None) -> None:
        self.chosen = random.Random(seed)
        self.arena = (
            Arena.anonymous(16 << 20, page_size=PAGE)
            if path is None
            else Arena.create(path, 16 << 20, page_size=PAGE)
        )
        self.allocator = KINDS[kind](self.arena)
        self.allocator.block(1)  # what is made once
        self.start = self.used()
        self.manager = numpy_memory(self.allocator, fallback=seed % 2 == 0)
        self.over = threading.Event()
        self.box: list[tuple[Any, int]] = []
        self.faults: list[BaseException] = []
        self.workers = [Worker(self, seed * 100 + i) for i in range(N_THREADS)]

    def used(self) -> int:
        """Bytes in use, but for what waits in a quarantine or quick lists."""
        stats: Any = self.allocator.stats()  # type: ignore[attr-defined]
        return int(stats.live_blocks)

    def run(self, seconds: float) -> Counter[str]:
        """Work and check at the same time; return what was done."""
        end = time.monotonic() + seconds
        for worker in self.workers:
            worker.start()
        while time.monotonic() < end and not self.over.is_set():
            self.allocator.check()  # type: ignore[attr-defined]
            time.sleep(0.002)
        self.over.set()
        for worker in self.workers:
            worker.join()
        if self.faults:
            raise self.faults[0]
        seen = sum((worker.seen for worker in self.workers), Counter[str]())
        self.workers.clear()
        self.end()
        return seen

    def end(self) -> None:
        """Nothing is left, whichever way it ends."""
        allocator: Any = self.allocator
        kept = [allocator.block(100) for _ in range(10)]
        array = allocator.zeros(10)
        way = self.chosen.randrange(3)
        try:
            (self.arena.close, allocator.destroy, self.arena.close)[way]()
        except (BufferError, PoolInUse):
            pass
        else:
            raise Refuted("something was closed under an array")
        self.box.clear()
        del array
        gc.collect()
        allocator.check()
        if way == 0:
            del kept
            if self.used() != self.start:
                raise Refuted(f"{self.used() - self.start} blocks were lost")
        elif way == 1:
            allocator.destroy(force=True)
            del kept
        self.arena.close()


def prove(seconds: float, seed: int) -> Counter[str]:
    """Rounds of half a second, each with another kind; what was done."""
    seen: Counter[str] = Counter()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    thresholds = gc.get_threshold()
    gc.set_threshold(50, 5, 5)
    end = time.monotonic() + seconds
    number = 0
    try:
        while number < len(KINDS) or time.monotonic() < end:
            part = min(0.5, seconds / len(KINDS))
            seen += Round(number % len(KINDS), seed + number).run(part)
            number += 1
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
    seen["rounds"] = number
    return seen


@click.command()
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(seconds: float, seed: int) -> None:
    """Blocks, arrays, views, threads and the collector on pools of every kind."""
    seen = prove(seconds, seed)
    n_rounds = seen.pop("rounds")
    parts = ", ".join(f"{name} {count:,}" for name, count in sorted(seen.items()))
    click.echo(
        f"objects: {seen.total():,} operations of {N_THREADS} threads in {n_rounds:,} "
        f"rounds ({parts}); everything held its number, and nothing was left"
    )


if __name__ == "__main__":
    main()
