# SPDX-License-Identifier: BSD-3-Clause
"""Every sequence of operations up to a length, on a tiny arena, against a model.

A tree is walked: at each node every operation that there is, on a copy of the
arena's bytes. After each one the checkers pass, the walk shows exactly the
live blocks, none overlaps, each is aligned and holds what was written, and a
request was refused only where no free block and no free pages could serve it.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import click

from xmem import Arena, OutOfMemory, Pool

from . import Refuted

PAGE = 4096
KINDS: list[dict[str, Any]] = [
    {"engine": "tlsf", "grow_pages": 1},
    {"engine": "tlsf", "grow_pages": 2, "join_regions": False},
    {"engine": "tlsf", "grow_pages": 2, "hardened": True},
    {"engine": "firstfit"},
]
SIZES = (0, 100, 1500, 4050)
ALIGNED = (40, 256)
RESIZES = (24, 600, 4100)
#: Pages for blocks: so few that requests fail within a handful of operations.
POOL_PAGES = 5

Live = dict[int, tuple[int, int, int]]  # offset: bytes, alignment, what it holds


class Tree:
    """The walk over all sequences on one kind of pool."""

    def __init__(self, kind: dict[str, Any]) -> None:
        self.kind = kind
        self.arena = Arena.anonymous(14 * PAGE, page_size=PAGE, max_pools=1)
        self.pool = Pool(self.arena, max_pages=POOL_PAGES, **kind)
        self.base = self.arena.address(0)
        self.n_states = 0
        self.n_refused = 0
        self.done: list[str] = []

    def operations(self, live: Live) -> Iterator[tuple[str, int, int, int]]:
        """Every operation that there is: verb, offset, bytes, alignment."""
        for n in SIZES:
            yield "xmalloc", 0, n, 16
        yield "xmalloc", 0, *ALIGNED
        for offset in live:
            yield "xfree", offset, 0, 0
            for n in RESIZES:
                yield "xrealloc", offset, n, 16

    def visit(self, live: Live, length: int) -> None:
        """Try all sequences of ``length`` operations from here."""
        held = ctypes.string_at(self.base, self.arena.n_bytes)
        for verb, offset, n, align in [*self.operations(live)]:
            self.done.append(f"{verb}({offset:#x}, {n}, {align})")
            after = self.make(verb, offset, n, align, dict(live))
            self.n_states += 1
            self.look(after)
            if length > 1:
                self.visit(after, length - 1)
            self.done.pop()
            ctypes.memmove(self.base, held, len(held))

    def make(self, verb: str, offset: int, n: int, align: int, live: Live) -> Live:
        """Make an operation on pool and model."""
        if verb == "xfree":
            self.pool.xfree(offset)
            del live[offset]
            return live
        value = self.n_states & 0xFF
        if verb == "xrealloc":
            size, align, value = live[offset]
            ctypes.memset(self.base + offset, value, size)
        try:
            if verb == "xmalloc":
                made = self.pool.xmalloc(n, align)
            else:
                made = self.pool.xrealloc(offset, n)
        except OutOfMemory:
            self.n_refused += 1
            self.excuse(n, align)
            if verb == "xrealloc" and n <= live[offset][0]:
                raise Refuted(f"{self.done}: a shrink was refused") from None
            return live
        if verb == "xrealloc":
            kept = min(n, live.pop(offset)[0])
            if ctypes.string_at(self.base + made, kept) != bytes([value]) * kept:
                raise Refuted(f"{self.done}: contents lost")
        if made in live:
            raise Refuted(f"{self.done}: {made:#x} is live already")
        ctypes.memset(self.base + made, value, n)
        live[made] = n, align, value
        return live

    def excuse(self, n: int, align: int) -> None:
        """Refuse a refusal for which there is no reason.

        Twice the request, its alignment and the headers are surely enough
        where they lie in one piece.
        """
        need = 2 * (n + align + 128)
        walked = self.pool.walk()
        free = walked["capacity"][~walked["used"]]
        if len(free) and int(free.max()) >= need:
            raise Refuted(f"{self.done}: refused with {free.max()} bytes free")
        pages = -(-need // PAGE)
        left = POOL_PAGES - self.pool.total_size // PAGE
        order = self.arena.largest_free_order
        if 2 * pages <= left and order >= 0 and 1 << order >= 2 * pages:
            raise Refuted(f"{self.done}: refused with {left} pages to be had")

    def look(self, live: Live) -> None:
        """Refuse a state that the model does not know."""
        self.pool.check()
        self.arena.check()
        walked = self.pool.walk()
        used = walked[walked["used"]]
        if sorted(live) != used["offset"].tolist():
            raise Refuted(f"{self.done}: live are {sorted(live)}, seen {used}")
        end = 0
        for offset, capacity in zip(
            used["offset"].tolist(), used["capacity"].tolist(), strict=True
        ):
            n, align, value = live[offset]
            if offset < end or capacity < n or offset % align:
                raise Refuted(f"{self.done}: {offset:#x} lies wrong")
            if ctypes.string_at(self.base + offset, n) != bytes([value]) * n:
                raise Refuted(f"{self.done}: contents of {offset:#x}")
            end = offset + capacity


def prove(length: int) -> tuple[int, int]:
    """Try all sequences up to a length on each kind of pool.

    Returns
    -------
    n_states, n_refused : int
        States looked at, and requests that were refused.
    """
    n_states = n_refused = 0
    for kind in KINDS:
        tree = Tree(kind)
        tree.visit({}, length)
        n_states += tree.n_states
        n_refused += tree.n_refused
    return n_states, n_refused


@click.command()
@click.option("--length", default=5, show_default=True)
def main(length: int) -> None:
    """Try every sequence of operations up to a length."""
    n_states, n_refused = prove(length)
    click.echo(
        f"exhaustive: {n_states:,} sequences of up to {length} operations on "
        f"{len(KINDS)} kinds of pool; {n_refused:,} requests refused; every state "
        "was the model's"
    )


if __name__ == "__main__":
    main()
