# SPDX-License-Identifier: BSD-3-Clause
"""The places of an arena's words, written down a second time, and how to spoil them.

The offsets are those of format version 7. They are not taken from the headers: a
change of the layout that forgets the version is noticed.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from xmem import Arena, Pool

# Superblock
MAGIC, VERSION, BYTE_ORDER, N_BYTES = 0, 8, 12, 16
PAGE_BYTES, N_PAGES, FIRST_PAGE, MAX_POOLS = 24, 28, 32, 36
DIRECTORY, FRAME_TABLE, START_BITMAP, SECRET, FLAGS = 40, 48, 56, 64, 72
RUNHEADS, STRETCHES, RESERVED = 80, 88, 96
FIXED_CRC, FIXED_BYTES = 112, 112
STATE, ROOT, PAGE_CRC, N_SERIALS = 120, 128, 136, 140
N_FREE_PAGES, TOP, ORDER_BITMAP, HEADS, FRAMES_END = 208, 216, 224, 232, 364
SUPERBLOCK_BYTES = 1024
INITIALISING, READY, CLEAN = 0x11E0, 0x22D3, 0x443C

# Entry of the pool directory
ENTRY_BYTES = 64
ENTRY_CONTROL, ENTRY_PAGES, ENTRY_ENGINE, ENTRY_STATE, ENTRY_SERIAL = 40, 48, 52, 56, 60

# Record of the frame table: a word, next, prev
FRAME_BYTES = 16
NEXT, PREV = 8, 12

# Control block
POOL_MAGIC, POOL_NUMBER, POOL_ENGINE, POOL_FLAGS = 0, 4, 8, 12
MAX_REQUEST, RELEASE_BYTES, SPARE, RETURNED, GROW_PAGES, POOL_MAX_PAGES = range(
    16, 64, 8
)
POOL_PAGES, PEAK_PAGES, REGION_PAGES, RUN_PAGES, N_REGIONS, N_RUNS = range(64, 112, 8)
SHORT_LIMIT, QUICK, QUICK_BELOW, QUICK_COUNT, QUICK_HELD = range(112, 152, 8)
TLSF_TAG, TLSF_USED_BYTES, TLSF_N_USED, UPPER, N_BINS, BINS, ASIDE = range(176, 232, 8)
LOWER = 232
LEGACY_TAG, LEGACY_USED_BYTES, LEGACY_N_USED, N_FREE, HEAD, LEGACY_PAGE = range(
    384, 432, 8
)
RING, N_FREED, N_WAITING, N_LOST, DAMAGE = 432, 560, 568, 576, 584
RING_SIZES, ROOMY, KEPT_PAGES, LAST_REGION = 616, 680, 688, 696
CONTROL_BYTES = 704

# Header word of a block
FREE, PREV_FREE, ALIGN, TAG, SIZE = 1, 2, 1 << 2, 1 << 5, 1 << 20
LINK_NEXT, LINK_BACK = 8, 16
LEGACY_NEXT, LEGACY_PREV, LEGACY_ALIGNMENT = 8, 16, 24
LINE = 64


def frame_word(state: int, order: int, owner: int, n_pages: int) -> int:
    """Record of a run's first page."""
    return state | order << 8 | owner << 16 | n_pages << 32


class Words:
    """The words of an open arena, to read and to spoil."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.undo: list[tuple[int, bytes]] = []

    def word(self, offset: int) -> int:
        return self._read(offset, 8)

    def half(self, offset: int) -> int:
        return self._read(offset, 4)

    def _read(self, offset: int, n_bytes: int) -> int:
        return int.from_bytes(self.bytes(offset, n_bytes), "little")

    def bytes(self, offset: int, n_bytes: int) -> bytes:
        return ctypes.string_at(self.arena.address(offset), n_bytes)

    def write(self, offset: int, held: bytes) -> None:
        """Overwrite bytes; `repair` brings them back."""
        self.undo.append((offset, self.bytes(offset, len(held))))
        ctypes.memmove(self.arena.address(offset), held, len(held))

    def set(self, offset: int, value: int) -> None:
        """Overwrite a word of 64 bits."""
        self.write(offset, (value & (1 << 64) - 1).to_bytes(8, "little"))

    def set_half(self, offset: int, value: int) -> None:
        """Overwrite a word of 32 bits."""
        self.write(offset, (value & (1 << 32) - 1).to_bytes(4, "little"))

    def flip(self, offset: int, bits: int) -> None:
        """Change some bits of a word."""
        self.set(offset, self.word(offset) ^ bits)

    def add(self, offset: int, amount: int) -> None:
        """Add to a word, modulo 2**64."""
        self.set(offset, self.word(offset) + amount)

    def repair(self) -> None:
        """Undo everything, last first."""
        while self.undo:
            offset, held = self.undo.pop()
            ctypes.memmove(self.arena.address(offset), held, len(held))

    # Places

    def entry(self, number: int) -> int:
        return self.word(DIRECTORY) + (number - 1) * ENTRY_BYTES

    def frame(self, page: int) -> int:
        return self.word(FRAME_TABLE) + page * FRAME_BYTES

    def runheads(self) -> list[tuple[int, int]]:
        """Offset and number of words of each level of the run heads."""
        levels = []
        offset = self.word(RUNHEADS)
        n = self.half(N_PAGES)
        while not levels or n > 1:
            n = -(-n // 64)
            levels.append((offset, n))
            offset += 8 * n
        return levels

    def head(self, order: int) -> int:
        return HEADS + 4 * order

    def stretches(self) -> list[tuple[int, int]]:
        """Offset and number of entries of each level of the tree."""
        counts = []
        n = self.half(N_PAGES)
        while not counts or n > 1:
            n = -(-n // 8)
            counts.append(n)
        longest = self.word(STRETCHES)
        levels = []
        for n in counts:
            levels.append((longest, n))
            longest += 4 * (-(-n // 8) * 8)
        return levels

    def tables_end(self) -> int:
        """End of the last table, behind which there is padding."""
        longest, n = self.stretches()[-1]
        return longest + 4 * (-(-n // 8) * 8)

    def control(self, pool: Pool) -> int:
        return self.word(self.entry(pool.id) + ENTRY_CONTROL)

    def bin_of(self, pool: Pool, block: int) -> tuple[int, int]:
        """Offset of the bin on whose list a free block is, and its number."""
        bins = self.control(pool) + CONTROL_BYTES
        end = bins + 8 * self.word(self.control(pool) + N_BINS)
        back = self.word(block + LINK_BACK)
        while not bins <= back < end:
            back = self.word(back - LINK_NEXT + LINK_BACK)
        return back, (back - bins) // 8

    def flip_start(self, payload: int) -> None:
        """Change the start bit of a payload."""
        where = self.word(START_BITMAP) + (payload >> 10) * 8
        self.flip(where, 1 << ((payload >> 4) & 63))

    def start(self, payload: int) -> bool:
        where = self.word(START_BITMAP) + (payload >> 10) * 8
        return bool(self.word(where) >> ((payload >> 4) & 63) & 1)


@contextlib.contextmanager
def damaged(arena: Arena) -> Iterator[Words]:
    """Words that are repaired at the end, whatever happens."""
    words = Words(arena)
    try:
        yield words
    finally:
        words.repair()


def first(rows: Any, **values: Any) -> int:
    """Index of the first row of a walk or a frame table with these values."""
    for i, row in enumerate(rows):
        if all(row[name] == value for name, value in values.items()):
            return i
    raise LookupError(values)
