# SPDX-License-Identifier: BSD-3-Clause
"""The cache lines of an arena that a call touches.

A call takes as long as the lines that it misses, however few its instructions are. They
are counted exactly: the call is single-stepped (`xmem.measure.insn`), Capstone decodes
each instruction, and the registers in front of it give the addresses of its operands.
Stack and code are left out, which are the caller's and every call's.

For Linux on x86-64. Needs the extra ``lines``.
"""

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem.arena import FRAME_CONTROL, Arena
from xmem.measure.codes import VERB_OF_OP
from xmem.measure.counts import verb_number
from xmem.measure.insn import pool_for, states, trace_states
from xmem.pool import Pool

__all__ = ["KINDS", "LINE_BYTES", "Lines", "call_lines", "trace_lines"]

LINE_BYTES = 64
#: Where a line lies: in blocks, their headers and links; in the pool's control block,
#: its bins and bitmaps; in the arena's tables, the start bits and the frame table.
KINDS = ("blocks", "control", "tables")

LONGEST = 15  # bytes of an instruction
MASK = (1 << 64) - 1
#: As they stand in a state of `xmem.measure.insn.states`.
REGISTERS = (
    *("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP"),
    *(f"R{n}" for n in range(8, 16)),
    "RIP",
)
PC = REGISTERS.index("RIP")

State = tuple[int, ...]
Operand = tuple[int | None, int | None, int, int, int]


class Decoder:
    """What instructions of this process touch; each is decoded once."""

    def __init__(self) -> None:
        import capstone
        from capstone import x86

        self.engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.engine.detail = True
        self.memory = x86.X86_OP_MEM
        self.registers = {
            getattr(x86, f"X86_REG_{name}"): i for i, name in enumerate(REGISTERS)
        }
        #: Of threads: not the arena.
        self.segments = {x86.X86_REG_FS, x86.X86_REG_GS}
        #: Instructions with an operand that is an address and not what lies there.
        self.no_access = {x86.X86_INS_LEA, x86.X86_INS_NOP}
        self.known: dict[int, list[Operand]] = {}

    def operands(self, pc: int) -> list[Operand]:
        """Return base, index, scale, displacement and bytes of what is in memory."""
        if pc not in self.known:
            code = ctypes.string_at(pc, LONGEST)
            self.known[pc] = self.decoded(next(self.engine.disasm(code, pc, 1)))
        return self.known[pc]

    def decoded(self, instruction: Any) -> list[Operand]:
        """Return the operands in memory of an instruction, without those of threads."""
        found: list[Operand] = []
        if instruction.id in self.no_access:
            return found
        for operand in instruction.operands:
            if operand.type != self.memory or operand.mem.segment in self.segments:
                continue
            memory = operand.mem
            address = memory.disp
            base = self.registers[memory.base] if memory.base else None
            if base == PC:
                address += instruction.address + instruction.size
                base = None
            index = self.registers[memory.index] if memory.index else None
            found.append((base, index, memory.scale, address, operand.size))
        return found

    def touched(self, states: Iterable[State], start: int, n_bytes: int) -> set[int]:
        """Return the lines of the ``n_bytes`` at ``start`` that a call touches."""
        found = set()
        for state in states:
            for base, index, scale, address, size in self.operands(state[PC]):
                if base is not None:
                    address += state[base]
                if index is not None:
                    address += scale * state[index]
                address = (address & MASK) - start
                if 0 <= address < n_bytes:
                    found.add(address // LINE_BYTES)
                    found.add((address + size - 1) // LINE_BYTES)
        return found


class Places:
    """Which kind of memory each line of an arena is."""

    def __init__(self, arena: Arena) -> None:
        frames = arena.frames()
        self.start = arena.address(0)
        self.n_bytes = arena.n_bytes
        self.tables = arena.first_page * arena.page_size // LINE_BYTES
        self.control = [
            range(first, first + int(run["n_pages"]) * arena.page_size // LINE_BYTES)
            for run in frames[frames["state"] == FRAME_CONTROL]
            for first in [int(run["page"]) * arena.page_size // LINE_BYTES]
        ]

    def kind(self, line: int) -> int:
        """Index into `KINDS`."""
        if line < self.tables:
            return KINDS.index("tables")
        if any(line in lines for lines in self.control):
            return KINDS.index("control")
        return KINDS.index("blocks")

    def counts(self, lines: Iterable[int]) -> list[int]:
        """Lines of each of `KINDS`."""
        kinds = [self.kind(line) for line in lines]
        return [kinds.count(i) for i in range(len(KINDS))]


@dataclass(frozen=True)
class Lines:
    """Distinct cache lines that operations of a trace touch.

    Attributes
    ----------
    index : numpy.ndarray of intp, shape (n,)
        Index of the operation in the trace.
    verb : numpy.ndarray of uint8, shape (n,)
        Index into `xmem.measure.counts.VERBS`.
    counts : numpy.ndarray of intp, shape (n, 3)
        Lines of each of `KINDS`.
    """

    index: npt.NDArray[np.intp]
    verb: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.intp]

    def mean(self, verb: str) -> dict[str, float]:
        """Return the mean lines of a call, by kind.

        Parameters
        ----------
        verb : str
            One of `xmem.measure.counts.VERBS`.

        Returns
        -------
        dict
            By each of `KINDS`; empty if the trace has no such call.

        Raises
        ------
        BadArgument
            There is no such verb.
        """
        some = self.counts[self.verb == verb_number(verb)]
        if not len(some):
            return {}
        return dict(zip(KINDS, some.mean(axis=0).tolist(), strict=True))


def call_lines(pool: Pool, verb: str, *args: int) -> dict[str, int]:
    """Count the distinct cache lines that a call would touch now, without making it.

    Parameters
    ----------
    pool, verb, *args
        As in `xmem.measure.insn.cost`.

    Returns
    -------
    dict
        By each of `KINDS`.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree
        As the verb itself; nothing is changed.
    SteppingUnavailable
        The system does not allow it, or is not Linux on x86-64.
    """
    places = Places(pool.arena)
    steps = states(pool, verb, *args)  # type: ignore[arg-type]
    found = Decoder().touched(steps, places.start, places.n_bytes)
    return dict(zip(KINDS, places.counts(found), strict=True))


def trace_lines(
    ops: npt.NDArray[np.void], *, quick: bool = False, every: int = 1
) -> Lines:
    """Count the distinct cache lines that each operation of a trace touches.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `xmem.measure.replay.load` returns it.
    quick : bool
        As in `xmem.Pool`.
    every : int
        Count every n-th operation; the others run at full speed.

    Returns
    -------
    Lines

    Raises
    ------
    BadArgument, BadArgumentType, SteppingUnavailable
        As in `xmem.measure.insn.count`.
    """
    decoder = Decoder()
    index: list[int] = []
    counts: list[list[int]] = []
    pool = pool_for(ops, quick=quick)
    with pool.arena as arena:
        places = Places(arena)
        calls: Iterator[tuple[int, list[State]]] = trace_states(pool, ops, every=every)
        for i, steps in calls:
            index.append(i)
            found = decoder.touched(steps, places.start, places.n_bytes)
            counts.append(places.counts(found))
    return Lines(
        index=np.array(index, dtype=np.intp),
        verb=np.take(np.array(VERB_OF_OP, dtype=np.uint8), ops["op"][index]),
        counts=np.array(counts, dtype=np.intp).reshape(-1, len(KINDS)),
    )
