# SPDX-License-Identifier: BSD-3-Clause
"""What operations run on: a pool, a heap of any interface, page frames."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from xmem.stress.load import Load, Subject
from xmem.stress.loads import FRAME_LOADS, LOADS, table

__all__ = ["HeapTrial", "Maker", "Ops", "Trial", "Tried", "renumbered"]

Ops = npt.NDArray[np.void]
FREE = 1
REALLOC = 2


class Maker(Protocol):
    """Makes operations up."""

    def make(self, n_ops: int) -> Ops:
        """Make up the next operations."""


class Tried(Protocol):
    """Carries operations out, as `xmem.stress.load.Subject` does."""

    def run(
        self, thread: int, ops: Ops, turns: npt.NDArray[np.uint64] | None = None
    ) -> int:
        """Carry operations out; the first that found a fault, or -1."""

    def check(self) -> int:
        """Verify everything; objects that are not what they were."""

    def seen(self) -> dict[str, int]:
        """Return what has been seen so far."""

    def fragmentation(self) -> float:
        """Of the memory that is free."""


class Trial(Protocol):
    """What is tried, and how; can be sent to another process."""

    threads: int

    def maker(self, seed: int) -> Maker:
        """Return what makes a thread's operations up."""

    def subject(self, n_objects: int | None = None) -> Tried:
        """Return a fresh one."""

    def options(self) -> list[str]:
        """Return the command line's options that make the same trial."""

    def renumbered(self, ops: Ops) -> Ops:
        """Return operations as they are written to a file."""


@dataclass
class HeapTrial:
    """A pool, a heap or page frames under a load.

    Attributes
    ----------
    kind : {"pool", "heap", "frames"}
    settings : dict
        Of the `Pool` or `Heap`.
    load : str
        A name in `LOADS`, of frames in `FRAME_LOADS`.
    arena_bytes : int
    threads : int
    page_size : int, optional
    given : list of str
        Options of the command line that made this.
    """

    kind: Literal["pool", "heap", "frames"]
    settings: dict[str, Any]
    load: str
    arena_bytes: int
    threads: int = 1
    page_size: int | None = None
    given: Sequence[str] = field(default_factory=tuple)

    def maker(self, seed: int) -> Maker:
        """Return what makes a thread's operations up."""
        loads = FRAME_LOADS if self.kind == "frames" else LOADS
        sizes, lifetimes = table(loads[self.load], seed)
        return Load(sizes, lifetimes, seed, frames=self.kind == "frames")

    def subject(self, n_objects: int | None = None) -> Tried:
        """Return a fresh one."""
        return Subject(
            self.kind,
            self.settings,
            self.arena_bytes,
            threads=self.threads,
            n_objects=1 << 16 if n_objects is None else n_objects,
            page_size=self.page_size,
        )

    def options(self) -> list[str]:
        """Return the command line's options that make the same trial."""
        return list(self.given)

    def renumbered(self, ops: Ops) -> Ops:
        """Return operations as a trace has them."""
        return renumbered(ops)


def renumbered(ops: Ops) -> Ops:
    """Return operations whose objects' numbers are never used again.

    As a trace has them. Frees and reallocations of objects that are not there are
    left out.
    """
    names: dict[tuple[int, int], int] = {}
    keep = np.ones(len(ops), dtype=bool)
    fresh = ops.copy()
    n_names = 0
    threads, numbers = ops["thread"].tolist(), ops["id"].tolist()
    for i, kind in enumerate(ops["op"].tolist()):
        key = threads[i], numbers[i]
        if kind not in (FREE, REALLOC):
            names[key] = n_names
            n_names += 1
        if key not in names:
            keep[i] = False
            continue
        fresh["id"][i] = names[key]
        if kind == FREE:
            del names[key]
    return fresh[keep]
