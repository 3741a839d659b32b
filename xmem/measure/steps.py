# SPDX-License-Identifier: BSD-3-Clause
"""Heaps described as data: steps that are made in a new pool.

`xmem.measure.scenarios` builds the heaps in which a call reaches its bound by them, and
``make proof-bounds`` changes them at random.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

from xmem.base.errors import BadArgument, OutOfMemory
from xmem.pool import Pool

PAGE = 4096
#: What a region has besides the payload of the block that fills it: a header and the
#: words at its ends.
ENDS = 24

#: Pages that `Heap.tile` takes at most.
MOST_TILES = 4096

Step = tuple[Any, ...]


class Heap:
    """A pool in which steps have been made.

    A step is the name of a method and its arguments. One that is refused is left
    undone, and indices of blocks and runs wrap around: any sequence of steps is a heap.

    Parameters
    ----------
    pool : Pool
        A new pool.
    steps : iterable of tuple
        The steps.

    Attributes
    ----------
    pool, arena
        The pool and its arena.
    blocks, runs : list of int
        Offsets of the blocks and of the runs of pages that are live, the last one
        allocated last.
    """

    def __init__(self, pool: Pool, steps: Iterable[Step]) -> None:
        self.pool = pool
        self.arena = pool.arena
        self.blocks: list[int] = []
        self.runs: list[int] = []
        self.held: list[int] = []
        self.tiles: dict[int, int] = {}
        for name, *args in steps:
            with contextlib.suppress(OutOfMemory, BadArgument):
                getattr(self, name)(*args)

    def half(self) -> None:
        """Hold the upper half of the arena."""
        self.held.append(self.arena.page_alloc_exact(self.arena.n_pages // 2))

    def fill(self) -> None:
        """Take every free run of pages, the largest first."""
        while self.arena.n_free_pages:
            self.runs.append(self.arena.page_alloc(self.arena.largest_free_order))

    def let(self) -> None:
        """Free what is held."""
        while self.held:
            self.arena.page_free(self.held.pop())

    def tile(self) -> None:
        """Take every free page alone; in a large arena, the first of them."""
        while self.arena.n_free_pages and len(self.tiles) < MOST_TILES:
            page = self.arena.page_alloc(0)
            self.tiles[page // PAGE] = page

    def bare(self, first: int, n_pages: int) -> None:
        """Free pages that were taken alone, from the ``first`` of these on."""
        chosen = sorted(self.tiles)[first % (len(self.tiles) or 1) :][:n_pages]
        for page in chosen:
            self.arena.page_free(self.tiles.pop(page))

    def take(self, n_pages: int) -> None:
        """Allocate a run."""
        self.runs.append(self.arena.page_alloc_exact(max(n_pages, 1)))

    def give(self, i: int) -> None:
        """Free a run; from the last with a negative index."""
        if self.runs:
            self.arena.page_free(self.runs.pop(i % len(self.runs)))

    def sieve(self, start: int, step: int) -> None:
        """Free every ``step``-th run from ``start`` on."""
        freed = self.runs[start % (len(self.runs) or 1) :: max(step, 1)]
        self.runs = [run for run in self.runs if run not in freed]
        for run in freed:
            self.arena.page_free(run)

    def get(self, n_bytes: int, align: int = 16) -> None:
        """Allocate a block."""
        self.blocks.append(self.pool.xmalloc(n_bytes, align))

    def drop(self, i: int) -> None:
        """Free a block."""
        if self.blocks:
            self.pool.xfree(self.blocks.pop(i % len(self.blocks)))

    def size(self, i: int, n_bytes: int, align: int = 16) -> None:
        """Resize a block."""
        if self.blocks:
            i %= len(self.blocks)
            self.blocks[i] = self.pool.xrealloc(self.blocks[i], n_bytes, align)

    def island(self, n_pages: int, n_bytes: int) -> None:
        """Make a region in which one block lies between two free ones."""
        half = max(n_pages, 2) * PAGE // 2
        left = self.pool.xmalloc(2 * half - 2 * ENDS)
        left = self.pool.xrealloc(left, half)
        block = self.pool.xmalloc(half - 4 * ENDS)
        self.blocks.append(self.pool.xrealloc(block, n_bytes))
        self.pool.xfree(left)

    def rows(self, n: int, n_bytes: int) -> None:
        """Free blocks between free ones, which wait where the pool lets them wait."""
        n = n % 64
        rows = [[self.pool.xmalloc(n_bytes) for _ in range(4)] for _ in range(n)]
        for row in rows:
            self.pool.xfree(row[0])
            self.pool.xfree(row[2])
        self.churn(16, 1)
        for row in rows:
            self.blocks.append(row[3])
            self.pool.xfree(row[1])

    def waits(self, n: int, n_bytes: int) -> None:
        """Let blocks wait on quick lists above the limit, each between free ones.

        The neighbours are too large to wait. A large block that is live meanwhile
        raises the limit, which falls when it is freed.
        """
        large = self.pool.xmalloc(64 * PAGE)
        sizes = (PAGE + 100, n_bytes, PAGE + 100, 24)
        rows = [[self.pool.xmalloc(size) for size in sizes] for _ in range(n % 64)]
        for row in rows:
            self.pool.xfree(row[0])
            self.pool.xfree(row[2])
            self.blocks.append(row[3])
        for row in rows:
            self.pool.xfree(row[1])
        self.pool.xfree(large)

    def ladder(self, n: int, n_bytes: int) -> None:
        """Allocate blocks of ascending sizes, then free them."""
        sizes = range(n_bytes, n_bytes + 16 * (n % 64), 16)
        for block in [self.pool.xmalloc(size) for size in sizes]:
            self.pool.xfree(block)

    def churn(self, n: int, n_bytes: int) -> None:
        """Allocate and free, so that what was freed before leaves the quarantine."""
        for _ in range(n % 64):
            self.pool.xfree(self.pool.xmalloc(n_bytes))

    def reserve(self, n_pages: int) -> None:
        """Obtain regions."""
        self.pool.reserve(n_pages)

    def shrink(self) -> None:
        """Give regions back."""
        self.pool.shrink()


def low(*steps: Step) -> tuple[Step, ...]:
    """Make steps while the upper half of the arena is held and the lower is full.

    Then the upper half is one free run.
    """
    return (("half",), ("fill",), *steps, ("let",))


def whole(n_pages: int) -> int:
    """Return the bytes of the block that fills a region."""
    return n_pages * PAGE - ENDS


# In which calls reach their bounds ---------------------------------------------

#: A block in a region of one page, and an empty region of one page.
RESIDENT: tuple[Step, ...] = (("give", -1), ("get", 3000))
EMPTY: tuple[Step, ...] = (("give", -1), ("get", whole(1) - 16), ("drop", -1))


def leaving(n: int) -> tuple[Step, ...]:
    """Have an empty region of ``n`` pages in hand."""
    return (
        *low(("give", -1), ("get", 3000), ("give", -12), ("give", -1)),
        *(("get", whole(n) - 16), ("drop", -1)),
    )


def gathering(at: int) -> tuple[Step, ...]:
    """Leave 23 pages free, in three runs side by side: 5, 16 and 2 pages.

    ``at`` is the number of the first, among the pages taken alone.
    """
    return (("tile",), ("fill",), ("bare", at, 5), ("bare", at, 16), ("bare", at, 2))


def moving(n: int) -> tuple[Step, ...]:
    """Have a small block between free ones, and room for a region of ``n`` pages."""
    return (
        *low(*RESIDENT, *EMPTY, ("fill",)),
        *(("island", 2, 24), ("get", 4056), ("churn", 16, 1)),
    )


def scattered() -> tuple[Step, ...]:
    """Have a small block between free ones, and others that wait and are the same."""
    return (*low(*RESIDENT, *EMPTY), ("rows", 61, 1000), ("island", 2, 1))


def emptying(n: int) -> tuple[Step, ...]:
    """Have a block alone in a region of ``n`` pages, while another region is empty."""
    return (*low(*RESIDENT, *EMPTY, ("churn", 16, 1)), ("island", n, 5000))


def releasing(n: int) -> tuple[Step, ...]:
    """Do as `emptying`, with the block next to leave the quarantine of a hardened pool.

    The block allocated last lies between free ones.
    """
    return (
        *low(*RESIDENT, ("give", -4), ("rows", 4, 700), *EMPTY, ("churn", 16, 1)),
        *(("island", n, 500), ("drop", -1), ("churn", 15, 1)),
    )


def overflowing(*steps: Step) -> tuple[Step, ...]:
    """Make steps while more waits on quick lists than the limit admits."""
    return (
        *low(*RESIDENT, *EMPTY, ("give", -12), ("waits", 12, 3000), ("fill",)),
        *steps,
    )


def waiting(n_bytes: int) -> tuple[Step, ...]:
    """Let 16 blocks wait, each between free ones, and leave no page free."""
    return (
        *low(*RESIDENT),
        *(("island", 2, n_bytes),) * 16,
        *(("drop", -1),) * 16,
        ("fill",),
    )
