# SPDX-License-Identifier: BSD-3-Clause
"""Store order: whichever instruction is the last, headers and frames are sound.

A child makes a call instruction by instruction on an arena in a file. After
each instruction the parent walks the arena by headers and frame table alone:
every live block except the one that the call is about is there, in use, with its
contents and its start bit. A recovery after a sudden death needs that.

And it does recover: after each store the file is copied, and the copy opened with
``repair=True``. Everything in it is then sound, each live block is there, and nothing
is live besides but what the call is about.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from xmem import Arena, OutOfMemory, Pool
from xmem.measure.insn import Steps

from . import Refuted
from .headers import LINE, Seen, Snapshot

PAGE = 4096
KINDS: list[dict[str, Any]] = [
    {"engine": "tlsf"},
    {"engine": "tlsf", "quick": True},
    {"engine": "tlsf", "grow_pages": 1},
    {"engine": "tlsf", "grow_pages": 2, "quick": True},
    {"engine": "tlsf", "grow_pages": 3},
    {"engine": "tlsf", "grow_pages": 2, "join_regions": False},
    {"engine": "tlsf", "grow_pages": 2, "hardened": True},
    {"engine": "firstfit"},
]
SIZES = [0, 1, 24, 25, 40, 200, 600, 1500, 3000, 4000, 4072, 5000, 9000]
ALIGNS = [16, 16, 16, 64, 2048, PAGE]


class Scene:
    """A pool in a small arena in a file, and what is live in it."""

    def __init__(self, path: Path, kind: dict[str, Any], seed: int) -> None:
        self.arena = Arena.create(path, 30 * PAGE, page_size=PAGE, max_pools=3)
        self.pool = Pool(self.arena, name="it", **kind)
        self.copy = path.with_name("copy")
        self.seen = b""
        self.rng = np.random.default_rng(seed)
        self.live: dict[int, bytes] = {}
        self.runs: dict[int, bytes] = {}
        self.n_filled = 0
        self.n_instructions = 0
        self.n_repairs = 0
        self.n_calls: Counter[str] = Counter()

    def fill(self, view: memoryview) -> bytes:
        """Write a pattern of its own into memory; return it."""
        self.n_filled += 1
        held = self.rng.bytes(len(view))
        view[:] = held
        view.release()
        return held

    def look(self, operand: int | None) -> None:
        """Refute a moment in which a block is not where it was."""
        now = Snapshot(self.arena)
        seen = now.pool(self.pool.id, self.pool.engine)
        used = [block for block in seen if block.used]
        for offset, held in (*self.live.items(), *self.runs.items()):
            if offset == operand:
                continue
            if now.bytes[offset : offset + len(held)] != held:
                raise Refuted(f"the contents of {offset:#x} have changed")
            if offset in self.live and not self.is_among(used, offset, len(held)):
                raise Refuted(f"the block at {offset:#x} is not in the walk")
            if offset in self.live and not (now.start(offset) or offset % PAGE == 0):
                raise Refuted(f"the block at {offset:#x} has no start bit")
        starts = {run[0] * PAGE: run for run in now.runs()}
        for offset, held in self.runs.items():
            if offset != operand and starts[offset][3] * PAGE != len(held):
                raise Refuted(f"the run at {offset:#x} has {starts[offset][3]} pages")
        if now.bytes != self.seen:
            self.seen = now.bytes
            self.recover(operand)

    def recover(self, operand: int | None) -> None:
        """Refute a file, as a process would leave it now, that cannot be repaired."""
        self.copy.write_bytes(self.seen)
        self.n_repairs += 1
        with Arena.open(self.copy, repair=True) as arena:
            broken = [str(repair) for repair in arena.repairs if not repair.is_sound]
            if broken:
                raise Refuted(f"not repaired: {broken}")
            pool = Pool.open(arena, "it")
            live = {int(row["offset"]) for row in pool.walk() if row["used"]}
            kept = self.live.keys() - {operand}
            if not kept <= live:
                raise Refuted(f"the repair lost {kept - live}")
            if len(live - kept) > 2:
                raise Refuted(f"the repair found {live - kept}")
            for offset in kept:
                held = self.live[offset]
                if bytes(pool.view(offset, len(held))) != held:
                    raise Refuted(f"the repair changed the contents of {offset:#x}")
            for offset in self.runs.keys() - {operand}:
                if bytes(arena.view(offset)) != self.runs[offset]:
                    raise Refuted(f"the repair changed the run at {offset:#x}")

    def is_among(self, used: list[Seen], offset: int, n_bytes: int) -> bool:
        """Whether a live block of ``n_bytes`` bytes is in a walk."""
        if self.pool.engine == "tlsf":
            return any(b.start == offset and b.end >= offset + n_bytes for b in used)
        return any(
            (b.start + LINE <= offset and offset + n_bytes <= b.end)
            or (b.start == offset - offset % PAGE and b.end >= offset + n_bytes)
            for b in used
        )

    def step(self, verb: str, *args: int, operand: int | None = None) -> int:
        """Make a call by steps and look after each; return its value."""
        self.look(operand)
        steps = Steps(self.pool, verb, *args)
        for _ in steps:
            self.look(operand)
        self.n_instructions += steps.n_instructions
        self.n_calls[f"{verb}: {steps.path}"] += 1
        assert steps.value is not None
        return steps.value

    def draw(self, table: dict[int, bytes]) -> int:
        return list(table)[int(self.rng.integers(len(table)))]

    def call(self) -> None:
        """One random call, by steps."""
        draw = self.rng.random()
        size = int(self.rng.choice(SIZES))
        if self.live and draw < 0.4:
            offset = self.draw(self.live)
            self.step("xfree", offset, operand=offset)
            del self.live[offset]
        elif self.live and draw < 0.6:
            offset = self.draw(self.live)
            kept = self.live[offset][:size]
            moved = self.step("xrealloc", offset, size, operand=offset)
            if moved:
                del self.live[offset]
                view = self.pool.view(moved)
                if bytes(view[: len(kept)]) != kept:
                    raise Refuted(f"xrealloc lost contents of {offset:#x}")
                self.live[moved] = self.fill(view)
        elif draw < 0.9:
            offset = self.step("xmalloc", size, int(self.rng.choice(ALIGNS)))
            if offset:
                self.live[offset] = self.fill(self.pool.view(offset))
        elif self.runs and draw < 0.95:
            offset = self.draw(self.runs)
            self.step("page_free", offset, operand=offset)
            del self.runs[offset]
        else:
            offset = self.step("page_alloc", int(self.rng.integers(1, 5)))
            if offset:
                self.runs[offset] = self.fill(self.arena.view(offset))

    def hurry(self, n_calls: int) -> None:
        """Some random calls at full speed, so that many heaps are seen."""
        for _ in range(n_calls):
            if self.live and self.rng.random() < 0.52:
                offset = self.draw(self.live)
                self.pool.xfree(offset)
                del self.live[offset]
                continue
            try:
                offset = self.pool.xmalloc(int(self.rng.choice(SIZES)))
            except OutOfMemory:
                continue
            self.live[offset] = self.fill(self.pool.view(offset))


def prove(n_calls: int, seed: int) -> tuple[int, Counter[str]]:
    """Make this many calls of each kind by steps.

    Returns
    -------
    n_instructions : int
        Moments looked at.
    paths : Counter
        Calls made, by verb and path.
    """
    n_instructions = 0
    paths: Counter[str] = Counter()
    for i, kind in enumerate(KINDS):
        with tempfile.TemporaryDirectory() as folder:
            scene = Scene(Path(folder) / "arena", kind, seed + i)
            for _ in range(n_calls):
                try:
                    scene.call()
                except Refuted as why:
                    raise Refuted(
                        f"{kind}, seed {seed + i}, call {scene.n_calls.total()}: {why}"
                    ) from None
                scene.hurry(3)
            scene.pool.check()
            scene.arena.check()
            n_instructions += scene.n_instructions
            paths.update(scene.n_calls)
            scene.arena.close()
    return n_instructions, paths


@click.command()
@click.option("--calls", default=1000, show_default=True, help="Of each kind of pool.")
@click.option("--seed", default=1, show_default=True)
def main(calls: int, seed: int) -> None:
    """Single-step calls; print how many moments were looked at."""
    n_instructions, paths = prove(calls, seed)
    for path, n in sorted(paths.items()):
        click.echo(f"{n:8,}  {path}")
    click.echo(
        f"stores: {n_instructions:,} instructions of {paths.total():,} calls on "
        f"{len(KINDS)} kinds of pool; the arena was sound after each"
    )


if __name__ == "__main__":
    main()
