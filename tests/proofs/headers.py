# SPDX-License-Identifier: BSD-3-Clause
"""The blocks of an arena by its headers and frame table alone.

Read as a recovery would have to: without lists, bitmaps, flags and counters, and
without the mark of joined regions. Written from docs/format.md, not from the checker.
"""

import ctypes
from typing import NamedTuple

import numpy as np

from xmem import Arena
from xmem.arena import (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
)

from . import Refuted

LINE = 64
STATES = {
    FRAME_FREE,
    FRAME_RUN,
    FRAME_REGION,
    FRAME_CONTROL,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_WHOLE,
}
REGIONS = (FRAME_REGION, FRAME_JOINED)


class Seen(NamedTuple):
    """A block or run of the walk."""

    start: int  # of the payload; of the legacy engine, of the block
    end: int
    used: bool


class Snapshot:
    """The bytes of an arena at one moment."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.bytes = ctypes.string_at(arena.address(0), arena.n_bytes)
        self.words = np.frombuffer(self.bytes, dtype=np.uint64)
        self.page = arena.page_size
        self.n_pages = arena.n_pages
        self.table = int(self.words[48 // 8]) // 8

    def word(self, offset: int) -> int:
        return int(self.words[offset // 8])

    def record(self, page: int) -> tuple[int, int, int]:
        """State, owner and pages of a run."""
        word = int(self.words[self.table + 2 * page])
        return word & 0xFF, word >> 16 & 0xFFFF, word >> 32

    def start(self, payload: int) -> bool:
        """Whether the start bit of a payload is set."""
        word = self.word(self.word(56) + (payload >> 10) * 8)
        return bool(word >> (payload >> 4 & 63) & 1)

    def runs(self) -> list[tuple[int, int, int, int]]:
        """Page, state, owner and pages of every run, in order."""
        found = []
        page = self.arena.first_page
        while page < self.n_pages:
            state, owner, n_pages = self.record(page)
            if state not in STATES or not 0 < n_pages <= self.n_pages - page:
                raise Refuted(f"page {page}: state {state}, {n_pages} pages")
            found.append((page, state, owner, n_pages))
            page += n_pages
        return found

    def pool(self, number: int, engine: str) -> list[Seen]:
        """Every block and run of a pool, in order."""
        found: list[Seen] = []
        covered = 0
        for page, state, owner, n_pages in self.runs():
            start, end = page * self.page, (page + n_pages) * self.page
            if owner != number or start < covered:
                continue
            if state == FRAME_WHOLE:
                found.append(Seen(start, end, True))
            elif state in REGIONS and engine == "tlsf":
                covered = self.chain(number, start, end, found)
            elif state in REGIONS:
                self.legacy_page(start, end, found)
        return found

    def chain(self, number: int, start: int, end: int, found: list[Seen]) -> int:
        """Record the blocks from a region's first to a sentinel; return its end."""
        block = start + 8
        while True:
            word = self.word(block)
            size = word >> 20
            if word >> 5 & 0x7FFF != number:
                raise Refuted(f"header {block:#x}: tag of {word:#x}")
            if size == 0:
                if block != end - 8:
                    raise Refuted(f"sentinel {block:#x} before {end:#x}")
                return end
            while block + size > end - 8:
                state, owner, n_pages = self.record(end // self.page)
                if state not in REGIONS or owner != number:
                    raise Refuted(f"block {block:#x} of {size} leaves its region")
                end += n_pages * self.page
            if size < 32 or size % 16:
                raise Refuted(f"block {block:#x} of {size} bytes")
            found.append(Seen(block + 8, block + size, not word & 1))
            block += size

    def legacy_page(self, start: int, end: int, found: list[Seen]) -> None:
        """The blocks of one page of the legacy engine."""
        block = start
        while block < end:
            word = self.word(block)
            size = word >> 20
            if size == 0 or size % LINE or size > end - block:
                raise Refuted(f"legacy block {block:#x} of {size} bytes")
            found.append(Seen(block, block + size, not word & 1))
            block += size
