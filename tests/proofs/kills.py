# SPDX-License-Identifier: BSD-3-Clause
"""Sudden death: a process is killed at a random moment, and its arena is repaired.

A child works on two pools in a file, and keeps a journal in memory that it shares with
the parent: what is live, what it holds, and which block the call under way is about.
The parent kills it (SIGKILL) and opens the file as a later process would:

- a plain `Arena.open` succeeds, and the pool that was not in use opens;
- with ``repair=True`` everything is sound, and every block is there with its contents,
  except those that the call cut short was about; nothing else is live;
- the repaired pool is used on, and closes clean.

``proofs.stores`` looks at every moment of some calls. This looks at some moments of
many calls, with the interpreter, larger heaps and pools that grow and shrink.
"""

import contextlib
import mmap
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np

from xmem import Arena, Heap, HeapCorruption, OutOfMemory, Pool

from . import Refuted
from .bounds import hooks_of

PAGE = 4096
N_BYTES = 4 << 20
KINDS: dict[str, dict[str, Any]] = {
    "joined": {},
    "apart": {"join_regions": False, "grow_pages": 2},
    "quick": {"quick": True},
    "hardened": {"hardened": True},
    "quarantine": {"hardened": ["quarantine"], "join_regions": False},
    "legacy": {"engine": "firstfit"},
    "runs": {},
    "pages": {"grow_pages": 1},
    "hooked": {"hooks": True},
    "heap": {"interface": "merged"},
    "hardened heap": {"interface": "merged", "hardened": True},
    "heap of two pools": {"interface": "subpage"},
}
N_SLOTS = 1000
SLOT = np.dtype([("offset", "u8"), ("n_bytes", "u4"), ("seed", "u4")])
BUSY = 300  # slots that one call is about, at most


def content(seed: int, n_bytes: int) -> bytes:
    """Bytes that a seed stands for."""
    pattern = (seed * 2654435761 & (1 << 64) - 1 | 1).to_bytes(8, "little")
    return (pattern * (n_bytes // 8 + 1))[:n_bytes]


class Journal:
    """What is live, in memory that outlives its writer."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, N_SLOTS * SLOT.itemsize + 4 * (BUSY + 1))
        self.slots = np.frombuffer(memory, SLOT, N_SLOTS)
        self.head = np.frombuffer(memory, "u4", offset=N_SLOTS * SLOT.itemsize)

    @contextlib.contextmanager
    def about(self, slots: Any) -> Iterator[None]:
        """A call about these slots, which may be left in any state."""
        self.head[1 : len(slots) + 1] = slots
        self.head[0] = len(slots)
        yield
        self.head[0] = 0

    def busy(self) -> set[int]:
        """Slots of the call under way."""
        return set(self.head[1 : int(self.head[0]) + 1].tolist())


def new_pool(arena: Arena, name: str, kind: str) -> Pool | Heap:
    """Make a pool or a heap of a kind."""
    settings = dict(KINDS[kind])
    if "interface" in settings:
        return Heap(arena, settings.pop("interface"), name=name, **settings)
    if settings.pop("hooks", False):
        settings |= hooks_of(arena)
    return Pool(arena, name=name, **settings)


class Worker:
    """The process that is going to die."""

    def __init__(self, path: Path, journal: Journal, kind: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.journal = journal
        self.kind = kind
        self.arena = Arena.create(path, N_BYTES, page_size=PAGE, max_pools=8)
        self.pool = new_pool(self.arena, "it", kind)
        self.sizes = [1, 40, 100, 600, 1500, 3000, 4072, 9000]
        self.aligns = [16, 16, 16, 64, 1024]
        if kind == "runs":
            self.sizes, self.aligns = [100, 5000, 20000, 70000], [PAGE]

    def work(self) -> NoReturn:
        """Make calls until the end."""
        while True:
            draw = self.rng.random()
            slot = int(self.rng.integers(N_SLOTS))
            if draw < 0.6:
                self.many()
            elif draw < 0.62:
                self.pool.shrink()
            elif draw < 0.64:
                self.others()
            elif self.journal.slots[slot]["offset"] == 0:
                self.allocate(slot)
            elif draw < 0.85:
                self.resize(slot)
            else:
                self.free(slot)

    def note(self, slot: int, offset: int, n_bytes: int) -> None:
        """Fill a new block and write it down."""
        seed = int(self.rng.integers(1, 1 << 31))
        self.pool.view(offset, n_bytes)[:] = content(seed, n_bytes)
        self.journal.slots[slot] = (offset, n_bytes, seed)

    def allocate(self, slot: int) -> None:
        n_bytes = int(self.rng.choice(self.sizes))
        align = int(self.rng.choice(self.aligns))
        with self.journal.about([slot]), contextlib.suppress(OutOfMemory):
            self.note(slot, self.pool.xmalloc(n_bytes, align=align), n_bytes)

    def resize(self, slot: int) -> None:
        n_bytes = int(self.rng.choice(self.sizes))
        offset = int(self.journal.slots[slot]["offset"])
        with self.journal.about([slot]), contextlib.suppress(OutOfMemory):
            self.note(slot, self.pool.xrealloc(offset, n_bytes), n_bytes)

    def free(self, slot: int) -> None:
        with self.journal.about([slot]):
            self.pool.xfree(int(self.journal.slots[slot]["offset"]))
            self.journal.slots[slot] = (0, 0, 0)

    def many(self) -> None:
        """Many blocks, in one call if there is such a call.

        Most of the time is spent in the verbs.
        """
        journal = self.journal.slots
        slots = self.rng.permutation(N_SLOTS)[: int(self.rng.integers(1, BUSY))]
        if isinstance(self.pool, Heap):
            for slot in slots[:50].tolist():
                if journal["offset"][slot]:
                    self.free(slot)
                else:
                    self.allocate(slot)
            return
        held = slots[journal["offset"][slots] != 0]
        with self.journal.about(held):
            self.pool.xfree_many(journal["offset"][held])
            journal[held] = (0, 0, 0)
        slots = slots[journal["offset"][slots] == 0]
        sizes = self.rng.choice(self.sizes, len(slots)).astype("u8")
        align = int(self.rng.choice(self.aligns))
        with self.journal.about(slots), contextlib.suppress(OutOfMemory):
            journal["offset"][slots] = self.pool.xmalloc_many(sizes, align)

    def others(self) -> None:
        """Runs of the arena, and a pool that comes and goes."""
        with contextlib.suppress(OutOfMemory):
            self.arena.page_free(self.arena.page_alloc_exact(5))
            with contextlib.suppress(OutOfMemory):
                pool = new_pool(self.arena, "brief", self.kind)
                try:
                    for n in range(1, 4000, 400):
                        pool.xmalloc(n)
                finally:
                    pool.destroy(force=True)


def kill_one(path: Path, kind: str, seed: int, after: float) -> Journal:
    """Leave the file of a worker that is killed ``after`` seconds of work."""
    journal = Journal()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            worker = Worker(path, journal, kind, seed)
            still = Pool(worker.arena, name="still")
            for slot in range(8):
                offset = still.xmalloc(1000)
                still.view(offset, 1000)[:] = content(slot, 1000)
                os.write(writer, offset.to_bytes(8, "little"))
            worker.work()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        still = [int.from_bytes(pipe.read(8), "little") for _ in range(8)]
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise Refuted(f"the worker ended by itself: status {status}")
    check_still(path, still)
    return journal


def check_still(path: Path, still: list[int]) -> None:
    """Open the file without a repair: the pool at rest is whole."""
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "still")
        for slot, offset in enumerate(still):
            if bytes(pool.view(offset, 1000)) != content(slot, 1000):
                raise Refuted(f"a block of the pool at rest, {offset:#x}, has changed")
        pool.xfree(pool.xmalloc(500))
        pool.check()
        try:
            Pool.open(arena, "it")
        except HeapCorruption as error:
            if "repair=True" not in str(error):
                raise Refuted(f"the refusal names no way out: {error}") from None


def check_repaired(path: Path, journal: Journal, kind: str, seed: int) -> str:
    """Repair the file and compare it with the journal; what was found."""
    busy = journal.busy()
    with Arena.open(path, repair=True) as arena:
        found = "sound"
        for repair in arena.repairs:
            if not repair.is_sound:
                raise Refuted(str(repair))
            if repair.pool == "it":
                found = repair.found[:2]
        arena.check()
        pool = Pool.open(arena, "it")
        live = {int(row["offset"]) for row in pool.walk() if row["used"]}
        for slot, (offset, n_bytes, start) in enumerate(journal.slots.tolist()):
            if slot in busy or offset == 0:
                continue
            if offset not in live:
                raise Refuted(f"the block at {offset:#x} was lost")
            if bytes(pool.view(offset, n_bytes)) != content(start, n_bytes):
                raise Refuted(f"the contents of {offset:#x} were lost")
            live.remove(offset)
        if len(live) > len(busy) + 1:
            raise Refuted(f"{len(live)} blocks of nobody, {len(busy)} were busy")
        use_on(pool, seed)
        if "interface" in KINDS[kind]:
            Heap.open(arena, "it").check()
        for name in arena.pools():
            Pool.open(arena, name).destroy(force=True)
        arena.check()
        if any(row["state"] != 1 and row["owner"] for row in arena.frames()):
            raise Refuted("pages were left over")
    Arena.open(path).close()
    return found


def use_on(pool: Pool, seed: int) -> None:
    """Use a repaired pool, checking as it goes."""
    rng = np.random.default_rng(seed)
    mine: list[int] = []
    for i in range(200):
        if mine and rng.random() < 0.5:
            pool.xfree(mine.pop(int(rng.integers(len(mine)))))
        else:
            with contextlib.suppress(OutOfMemory):
                mine.append(pool.xmalloc(int(rng.integers(3000))))
        if i % 40 == 0:
            pool.check()
    pool.shrink()
    pool.check()


def prove(n_kills: int, seed: int, kinds: list[str] | None = None) -> Counter[str]:
    """Kill this many workers of each kind.

    Returns
    -------
    Counter
        Files by kind of pool and by the invariant that was broken, or ``sound``.
    """
    found: Counter[str] = Counter()
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds or KINDS:
            for i in range(n_kills):
                path = Path(folder) / f"{kind}-{i}"
                start = int(rng.integers(1 << 31))
                try:
                    journal = kill_one(path, kind, start, rng.uniform(0.005, 0.1))
                    broken = check_repaired(path, journal, kind, start)
                except (Refuted, HeapCorruption) as why:
                    raise Refuted(f"{kind}, seed {seed}, kill {i}: {why}") from None
                found[f"{kind}: {broken}"] += 1
                path.unlink()
    return found


@click.command()
@click.option("--kills", default=50, show_default=True, help="Of each kind of pool.")
@click.option("--seed", default=1, show_default=True)
def main(kills: int, seed: int) -> None:
    """Kill processes; print what their files were repaired of."""
    found = prove(kills, seed)
    for what, n in sorted(found.items()):
        click.echo(f"{n:8,}  {what}")
    click.echo(
        f"kills: {found.total():,} processes, of {len(KINDS)} kinds of pool; every "
        "file was opened and repaired, and no block was lost"
    )


if __name__ == "__main__":
    main()
