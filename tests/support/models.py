# SPDX-License-Identifier: BSD-3-Clause
"""Pure-Python models of the page frames and of a pool.

A model keeps live intervals and what they must hold. It is told what the real
allocator returned, refuses a result that breaks a rule, and then says what the
rest must look like. Nothing is shared with the code under test: bins and page
counts are computed from the words of the design.
"""

import os
import random
from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

import xmem
from xmem.arena import FRAME_CONTROL, FRAME_FREE, FRAME_JOINED, FRAME_REGION

SOAK = os.environ.get("XMEM_TEST_PROFILE") == "soak"


def examples(n):
    """Number of examples for a state machine: ``n``, many more in a soak."""
    return 20 * n if SOAK else n


def ceil_log2(n):
    """Least k with 2**k >= n."""
    return (n - 1).bit_length()


def round_up(n, unit):
    """Least multiple of ``unit`` that is at least ``n``."""
    return -(-n // unit) * unit


# Page frames -----------------------------------------------------------------


class FrameModel:
    """Runs of pages that are live; the free ones follow from them."""

    def __init__(self, first_page, n_pages):
        self.first_page = first_page
        self.n_pages = n_pages
        self.live = {}

    def allocated(self, page, n_pages):
        """Record a new run: in bounds, on free pages only."""
        assert self.first_page <= page, "a run in the tables"
        assert page + n_pages <= self.n_pages, "a run beyond the arena"
        for other, length in self.live.items():
            assert page + n_pages <= other or other + length <= page, "overlap"
        self.live[page] = n_pages

    def freed(self, page):
        """Record that a run was given back."""
        del self.live[page]

    def free_runs(self):
        """Every stretch of free pages as (page, n_pages)."""
        found = []
        page = self.first_page
        for run, length in [*sorted(self.live.items()), (self.n_pages, 0)]:
            if run > page:
                found.append((page, run - page))
            page = run + length
        return found

    def n_free_pages(self):
        """Pages in no live run."""
        return self.n_pages - self.first_page - sum(self.live.values())

    def place(self, n_pages, order=0):
        """Where the lowest aligned run of ``n_pages`` starts, or None."""
        for page, length in self.free_runs():
            start = -(-page >> order) << order
            if start + n_pages <= page + length:
                return start
        return None

    def largest_order(self):
        """Greatest order of an aligned run of free pages, -1 where none is free."""
        return max(
            (order_within(page, length) for page, length in self.free_runs()),
            default=-1,
        )

    def compare(self, arena):
        """The arena's frame table is what the live runs say."""
        arena.check()
        frames = arena.frames()
        free = frames[frames["state"] == FRAME_FREE]
        assert [(int(f["page"]), int(f["n_pages"])) for f in free] == self.free_runs()
        used = frames[frames["state"] != FRAME_FREE]
        assert {int(f["page"]): int(f["n_pages"]) for f in used} == self.live
        assert arena.n_free_pages == self.n_free_pages()
        assert arena.largest_free_order == self.largest_order()
        assert arena.longest_free_run == max(
            (length for _, length in self.free_runs()), default=0
        )
        covered = frames["page"] + frames["n_pages"]
        assert list(frames["page"][1:]) == list(covered[:-1])
        assert frames["page"][0] == self.first_page
        assert covered[-1] == self.n_pages


def order_within(page, n_pages):
    """Order of the largest aligned power of two of pages in a stretch."""
    order = 0
    while (-(-page >> (order + 1)) << (order + 1)) + (2 << order) <= page + n_pages:
        order += 1
    return order


# Pools -----------------------------------------------------------------------


def contents(serial, n_bytes):
    """Bytes that no other serial number has."""
    return random.Random(serial).randbytes(n_bytes)


def tlsf_sure_bytes(need):
    """Least size of a free block that is sure to serve ``need`` bytes.

    Bins are exact below 1024 bytes; above, a power of two has 32, and only
    the bins wholly above the request are searched.
    """
    if need < 1024:
        return need
    return round_up(need, 1 << (need.bit_length() - 6))


@dataclass
class LiveBlock:
    """What the model knows of one block."""

    n_bytes: int
    align: int
    data: bytes


class PoolModel:
    """Live blocks of one pool: where they lie and what they hold.

    ``compare`` also proves the figures and limits of the pool.
    """

    def __init__(self, pool):
        self.pool = pool
        self.tlsf = pool.engine == "tlsf"
        self.page_size = pool.arena.page_size
        self.live = {}
        self.starts = []
        self.serial = 0
        self.peak_pages = 0
        self.peak_is_exact = True
        self.reserved = False
        self.rows = None

    # What happens

    def _enter(self, offset, n_bytes, align):
        self.peak_pages = max(self.peak_pages, self.pool.total_size // self.page_size)
        capacity = self.pool.usable_size(offset)
        assert capacity >= n_bytes
        assert offset % max(align, 16) == 0
        if self.tlsf:
            assert (offset % 4096 == 0) == (align > 2048), "the page rule (B3)"
        place = bisect_left(self.starts, offset)
        if place < len(self.starts):
            assert offset + capacity <= self.starts[place], "overlap on the right"
        if place > 0:
            left = self.starts[place - 1]
            assert left + self.pool.usable_size(left) <= offset, "overlap on the left"
        insort(self.starts, offset)

    def _write(self, offset, n_bytes, align):
        self.serial += 1
        data = contents(self.serial, n_bytes)
        self.pool.view(offset, n_bytes)[:] = data
        self.live[offset] = LiveBlock(n_bytes, align, data)

    def allocated(self, offset, n_bytes, align=16, zeroed=False):
        """Record a new block and fill it."""
        self._enter(offset, n_bytes, align)
        if zeroed:
            assert not any(self.pool.view(offset, n_bytes))
        self._write(offset, n_bytes, align)

    def freed(self, offset):
        """Record that a block is gone."""
        del self.live[offset]
        self.starts.remove(offset)

    def resized(self, old, offset, n_bytes, align=16):
        """Record what a reallocation returned; fill the block anew."""
        before = self.live[old]
        align = max(align, before.align)
        self.freed(old)
        self._enter(offset, n_bytes, align)
        kept = min(before.n_bytes, n_bytes)
        assert bytes(self.pool.view(offset, kept)) == before.data[:kept]
        self._write(offset, n_bytes, align)
        self.peak_is_exact = False  # both blocks were held in between

    # What is allowed

    def _has_room(self, n_pages):
        """Whether limit and arena admit a run of ``n_pages`` more."""
        held = self.pool.total_size // self.page_size
        limit = self.pool.max_pages
        return (not limit or held + n_pages <= limit) and (
            self.pool.arena.longest_free_run >= n_pages
        )

    def _has_aligned_room(self, n_pages, order):
        """As `_has_room`; an aligned power of two of pages is enough."""
        return self._has_room(n_pages) and (
            self.pool.arena.largest_free_order >= max(ceil_log2(n_pages), order)
        )

    def must_serve(self, n_bytes, align=16):
        """Whether a request of this size must be served as things are.

        Exact, except for free blocks that a good-fit search may pass over.
        """
        page = self.page_size
        if max(n_bytes, align) > self.pool.arena.n_bytes - page:
            return False
        free = self.free_sizes()
        if not self.tlsf:
            padding = align if align > 64 else 0
            need = round_up(max(n_bytes + padding, 1), 64) + 64
            if need < page:
                return any(size >= need for size in free) or self._has_room(1)
            order = ceil_log2(-(-need // page))
            return self._has_aligned_room(1 << order, order)
        if align > 2048:
            n_pages = max(-(-n_bytes // page), 1)
            return self._has_aligned_room(n_pages, ceil_log2(-(-align // page)))
        need = max(round_up(n_bytes + 8, 16), 32)
        slack = 0 if align <= 16 else 2 * align + 16
        if any(size >= tlsf_sure_bytes(need + slack) for size in free):
            return True
        # The first payload of a region is at 16; one further on leaves room for
        # a block in front of it and is not page-aligned.
        first = next(
            place
            for place in range(0, 4 * max(align, 16), max(align, 16))
            if (place == 16 or place >= 48) and place % 4096
        )
        return self._has_room(-(-(first + need) // page))

    def could_serve(self, n_bytes):
        """Whether some free block is large enough; otherwise the pool has to grow."""
        if self.tlsf:
            need = max(round_up(n_bytes + 8, 16), 32)
        else:
            need = round_up(max(n_bytes, 1), 64) + 64
        return any(size >= need for size in self.free_sizes())

    def free_sizes(self):
        """Sizes of the free blocks, as of the last ``compare``."""
        return [int(size) for size in self.rows["size"][~self.rows["used"]]]

    # What there is

    def compare(self):
        """Pool and arena pass their checkers and agree with the model."""
        pool = self.pool
        pool.arena.check()
        pool.check()
        self.rows = rows = pool.walk()
        used = rows[rows["used"]]
        assert used["offset"].tolist() == self.starts
        for row in used:
            offset = int(row["offset"])
            block = self.live[offset]
            assert row["capacity"] == pool.usable_size(offset) >= block.n_bytes
            assert bytes(pool.view(offset, block.n_bytes)) == block.data
        self._compare_stats(pool.stats(), rows, used)
        self._compare_regions(rows)

    def _compare_stats(self, stats, rows, used):
        free = rows[~rows["used"]]
        page = self.page_size
        assert stats.live_blocks == len(self.live)
        assert stats.used_bytes == used["size"].sum() == self.pool.used_size
        assert stats.free_bytes == free["size"].sum()
        assert stats.free_blocks == len(free)
        assert stats.largest_free_bytes == free["capacity"].max(initial=0)
        assert stats.n_pages == stats.region_pages + stats.run_pages
        assert stats.n_pages * page == self.pool.total_size
        unusable = stats.n_pages * page - int(rows["capacity"].sum())
        if self.tlsf or all(block.align <= 64 for block in self.live.values()):
            assert stats.overhead_bytes == unusable
        else:
            assert stats.overhead_bytes <= unusable
        if len(free):
            share = free["size"].max() / free["size"].sum()
            assert abs(stats.fragmentation - (1 - share)) < 1e-9
        else:
            assert stats.fragmentation == 0
        if self.pool.max_pages:
            assert stats.peak_pages <= self.pool.max_pages, "beyond the limit"
        self.peak_pages = max(self.peak_pages, stats.n_pages)
        if self.peak_is_exact:
            assert stats.peak_pages == self.peak_pages
        else:
            assert stats.peak_pages >= self.peak_pages
            self.peak_pages = stats.peak_pages
            self.peak_is_exact = True

    def _compare_regions(self, rows):
        """Frame table, counters and blocks agree; empty regions are rare."""
        pool = self.pool
        frames = pool.arena.frames()
        own = frames[(frames["owner"] == pool.id) & (frames["state"] != FRAME_CONTROL)]
        is_region = np.isin(own["state"], (FRAME_REGION, FRAME_JOINED))
        stats = pool.stats()
        assert stats.n_regions == is_region.sum()
        assert stats.region_pages == own["n_pages"][is_region].sum()
        assert stats.run_pages == own["n_pages"][~is_region].sum()
        if not pool.join_regions and not self.reserved:
            heads = set(own["page"][is_region].tolist())
            busy = set(rows["region"][rows["used"]].tolist())
            assert len(heads - busy) <= (1 if self.tlsf else 0), "empty regions"

    def regions_inside_holes(self):
        """Regions that lie in one free block with nothing left over to keep."""
        frames = self.pool.arena.frames()
        own = frames[
            (frames["owner"] == self.pool.id)
            & np.isin(frames["state"], (FRAME_REGION, FRAME_JOINED))
        ]
        found = []
        for free in self.rows[~self.rows["used"]]:
            start = int(free["offset"]) - 8
            end = start + int(free["size"])
            for region in own:
                first = int(region["page"]) * self.page_size
                last = first + int(region["n_pages"]) * self.page_size
                # A block that reaches over the seam keeps what is joined to it.
                heads = region["state"] == FRAME_REGION
                left_ok = start == first + 8 if heads else start + 64 <= first
                right_ok = end == last - 8 or end >= last + 64
                if start < last and first < end and left_ok and right_ok:
                    found.append((start, end, first, last))
        return found


def snapshot(pool):
    """Everything about a pool that a refused call must leave alone."""
    return pool.walk().tobytes(), pool.stats(), pool.arena.frames().tobytes()


def make_arena(n_pages, page_size=4096):
    """An anonymous arena of exactly ``n_pages``, tables included."""
    return xmem.Arena.anonymous(n_pages * page_size, page_size=page_size)
