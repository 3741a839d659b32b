# SPDX-License-Identifier: BSD-3-Clause
"""Each bit of each header of a heap flipped, one at a time.

`check()` finds it, or it is harmless: the three bits in which a block in use
keeps the alignment that was requested, where the block has that alignment too.
In a hardened pool the next operation refuses: on the block itself if it is in
use, on its neighbours if it is free, and the one with which it leaves if it is in
quarantine. There one bit alone is harmless: a free block's mark that it was
poisoned, taken away, says that it need not be.
"""

import ctypes
from collections import Counter
from typing import Any

import click

from xmem import Arena, HeapCorruption, InvalidFree, Pool

from . import Refuted

PAGE = 4096
KINDS: list[dict[str, Any]] = [
    {"engine": "tlsf"},
    {"engine": "tlsf", "grow_pages": 1},
    {"engine": "tlsf", "grow_pages": 4},
    {"engine": "tlsf", "grow_pages": 4, "join_regions": False},
    {"engine": "tlsf", "grow_pages": 4, "hardened": True},
    {"engine": "firstfit"},
]
REQUESTS = [
    (0, 16),
    (24, 16),
    (25, 16),
    (100, 16),
    (100, 512),
    (700, 16),
    (40, 2048),
    (1500, 16),
    (3000, 16),
    (9, 16),
    (5000, 16),
    (300, 16),
]
WAITING = 3
RING = 16
ALIGN_BITS = range(2, 5)
POISONED_BIT = 2


class Heap:
    """A heap of live and free blocks, and its memory."""

    def __init__(self, kind: dict[str, Any]) -> None:
        self.arena = Arena.anonymous(40 * PAGE, page_size=PAGE, max_pools=2)
        self.pool = Pool(self.arena, **kind)
        offsets = [self.pool.xmalloc(n, align) for n, align in REQUESTS * 2]
        for offset in offsets[1::3]:
            self.pool.xfree(offset)
        if self.pool.hardening:
            for _ in range(16):  # nothing waits any longer
                self.pool.xfree(self.pool.xmalloc(5))
        walked = self.pool.walk()
        self.waiting = set(walked["offset"][walked["kind"] == WAITING].tolist())
        self.memory = (ctypes.c_ubyte * self.arena.n_bytes).from_address(
            self.arena.address(0)
        )

    def flip(self, header: int, bit: int) -> None:
        self.memory[header + (bit >> 3)] ^= 1 << (bit & 7)

    def bytes(self) -> bytes:
        return bytes(self.memory)

    def headers(self) -> list[tuple[int, int, bool, int]]:
        """Header, payload, whether in use, kind (3: in quarantine)."""
        found = []
        for row in self.pool.walk():
            header = int(row["offset"]) - 8
            if self.pool.engine == "firstfit":
                header = int(row["offset"] + row["capacity"] - row["size"])
            elif row["kind"] == 1:
                continue
            found.append(
                (header, int(row["offset"]), bool(row["used"]), int(row["kind"]))
            )
        return found

    def is_harmless(self, payload: int, used: bool, header: int, bit: int) -> bool:
        """Whether a flipped bit, in its place now, says nothing untrue."""
        if self.pool.engine == "firstfit" or bit not in ALIGN_BITS:
            return False
        if not used:
            was_poisoned = bit == POISONED_BIT and not self.memory[header] >> bit & 1
            return was_poisoned and payload not in self.waiting
        log2 = (self.memory[header] >> 2 & 7) + 4
        return not payload & (1 << log2) - 1 and not self.pool.hardening


def refuses(call: Any, *args: int) -> bool:
    """Whether a call finds that something is wrong."""
    try:
        call(*args)
    except (HeapCorruption, InvalidFree):
        return True
    return False


def prove_checked(heap: Heap, seen: Counter[str]) -> None:
    """Each flip is seen by check(), or harmless."""
    for header, payload, used, _ in heap.headers():
        for bit in range(64):
            heap.flip(header, bit)
            harmless = heap.is_harmless(payload, used, header, bit)
            found = refuses(heap.pool.check)
            heap.flip(header, bit)
            seen["harmless" if harmless else "found by check()"] += 1
            if found == harmless:
                raise Refuted(
                    f"{heap.pool!r}: bit {bit} of the header {header:#x} "
                    f"({'used' if used else 'free'}): found {found}"
                )
    heap.pool.check()


def prove_refused(heap: Heap, seen: Counter[str]) -> None:
    """In a hardened pool the next operation refuses each flip."""
    headers = heap.headers()
    before = heap.bytes()
    for i, (header, payload, used, kind) in enumerate(headers):
        if kind == WAITING:
            prove_waiting(heap, header, seen)
            continue
        neighbours = [
            row[1]
            for row in headers[max(0, i - 1) : i + 2]
            if row[2] and abs(row[1] - payload) < 4 * PAGE and is_next_to(heap, row, i)
        ]
        for bit in range(64):
            heap.flip(header, bit)
            calls = [payload] if used else neighbours
            if heap.is_harmless(payload, used, header, bit):
                calls = []
            for offset in calls:
                if not (
                    refuses(heap.pool.xfree, offset)
                    and refuses(heap.pool.xrealloc, offset, 8000)
                    and (not used or refuses(heap.pool.usable_size, offset))
                ):
                    raise Refuted(
                        f"bit {bit} of the header {header:#x}, used {used}: an "
                        f"operation on {offset:#x} saw nothing"
                    )
                seen["refused by the next operation"] += 1
            heap.flip(header, bit)
            if heap.bytes() != before:
                raise Refuted(f"bit {bit} of {header:#x}: a refusal changed a byte")
    heap.pool.check()


def prove_waiting(heap: Heap, header: int, seen: Counter[str]) -> None:
    """A block in quarantine is found damaged when it leaves."""
    before = heap.bytes()
    for bit in range(64):
        heap.flip(header, bit)
        found = False
        for _ in range(RING):
            found |= refuses(lambda: heap.pool.xfree(heap.pool.xmalloc(5)))
        if not found:
            raise Refuted(f"bit {bit} of {header:#x}, in quarantine, was not found")
        seen["refused when it left the quarantine"] += 1
        ctypes.memmove(heap.arena.address(0), before, len(before))


def is_next_to(heap: Heap, row: tuple[int, int, bool, int], i: int) -> bool:
    """Whether a block in use touches the block number ``i``."""
    walked = heap.pool.walk()
    start = int(walked["offset"][i]) - 8
    end = start + int(walked["size"][i])
    size = int(walked["size"][walked["offset"] == row[1]][0])
    return row[0] == end or row[0] + size == start


def prove() -> Counter[str]:
    """Try all kinds of pool; return how many flips ended in which way."""
    seen: Counter[str] = Counter()
    for kind in KINDS:
        prove_checked(Heap(kind), seen)
        if kind.get("hardened"):
            prove_refused(Heap(kind), seen)
    return seen


@click.command()
def main() -> None:
    """Flip every bit of every header of some heaps."""
    seen = prove()
    for what, n in seen.items():
        click.echo(f"{n:8,}  {what}")
    click.echo(f"bits: {seen.total():,} flips on {len(KINDS)} kinds of pool")


if __name__ == "__main__":
    main()
