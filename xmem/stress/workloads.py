# SPDX-License-Identifier: BSD-3-Clause
"""Workloads: a target and what generates operations for it.

Targets are a pool, a heap of any interface, or page frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from xmem.measure.trace import OP_FREE, OP_REALLOC
from xmem.stress.generator import MAX_IDS, OpGenerator
from xmem.stress.loads import FRAME_LOADS, LOADS, table
from xmem.stress.target import HeapTarget

__all__ = ["Generator", "HeapWorkload", "Ops", "Target", "Workload", "renumbered"]

Ops = npt.NDArray[np.void]


class Generator(Protocol):
    """Generates operations."""

    def make(self, n_ops: int) -> Ops:
        """Generate the next operations."""


class Target(Protocol):
    """Carries out operations, as `xmem.stress.target.HeapTarget` does."""

    def execute(
        self, thread: int, ops: Ops, turns: npt.NDArray[np.uint64] | None = None
    ) -> int:
        """Carry out operations; return the first that found a fault, or -1."""

    def check(self) -> int:
        """Verify everything; return the number of objects that have changed."""

    def stats(self) -> dict[str, int]:
        """Return what has been counted so far."""

    def fragmentation(self) -> float:
        """Return the fragmentation of the free memory."""


class Workload(Protocol):
    """A target and what generates operations for it; can be sent to a process."""

    threads: int
    options: Sequence[str]

    def generator(self, seed: int) -> Generator:
        """Return what generates the operations of a thread."""

    def target(self, n_objects: int | None = None) -> Target:
        """Return a new target."""

    def renumbered(self, ops: Ops) -> Ops:
        """Return operations with ids as they are written to a file."""


@dataclass
class HeapWorkload:
    """A load on a pool, a heap or page frames.

    Attributes
    ----------
    kind : {"pool", "heap", "frames"}
    settings : dict
        Parameters of the `Pool` or `Heap`.
    load : str
        A name in `LOADS`, or in `FRAME_LOADS` for page frames.
    arena_bytes : int
    threads : int
    page_size : int, optional
    options : sequence of str
        Command-line options that make the same workload.
    """

    kind: Literal["pool", "heap", "frames"]
    settings: dict[str, Any]
    load: str
    arena_bytes: int
    threads: int = 1
    page_size: int | None = None
    options: Sequence[str] = field(default_factory=tuple)

    def generator(self, seed: int) -> Generator:
        """Return what generates the operations of a thread."""
        loads = FRAME_LOADS if self.kind == "frames" else LOADS
        sizes, lifetimes = table(loads[self.load], seed)
        return OpGenerator(sizes, lifetimes, seed, frames=self.kind == "frames")

    def target(self, n_objects: int | None = None) -> Target:
        """Return a new target."""
        return HeapTarget(
            self.kind,
            self.settings,
            self.arena_bytes,
            threads=self.threads,
            n_objects=MAX_IDS if n_objects is None else n_objects,
            page_size=self.page_size,
        )

    def renumbered(self, ops: Ops) -> Ops:
        """Return operations with the ids of a trace."""
        return renumbered(ops)


def renumbered(ops: Ops) -> Ops:
    """Return operations whose ids are never used again, as in a trace.

    Frees and reallocations of objects that do not exist are left out.
    """
    trace_ids: dict[tuple[int, int], int] = {}
    keep = np.ones(len(ops), dtype=bool)
    renamed = ops.copy()
    n_ids = 0
    threads, ids = ops["thread"].tolist(), ops["id"].tolist()
    for i, kind in enumerate(ops["op"].tolist()):
        key = threads[i], ids[i]
        if kind not in (OP_FREE, OP_REALLOC):
            trace_ids[key] = n_ids
            n_ids += 1
        if key not in trace_ids:
            keep[i] = False
            continue
        renamed["id"][i] = trace_ids[key]
        if kind == OP_FREE:
            del trace_ids[key]
    return renamed[keep]
