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
        self.laid: list[int] = []
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

    def lay(self, *places: int) -> None:
        """Take all pages that are free, in runs of which some lie in known places.

        ``places`` are first pages and lengths, one after the other, from left to right.
        The pages behind the last are held, until `let`.
        """
        for page, n_pages in zip(places[::2], places[1::2], strict=False):
            here = self.arena.page_alloc_exact(1)
            self.arena.page_free(here)
            gap = page - here // PAGE
            if gap > 0:
                self.arena.page_alloc_exact(gap)
            self.laid.append(self.arena.page_alloc_exact(max(n_pages, 1)))
        while self.arena.n_free_pages:
            run = self.arena.page_alloc_exact(self.arena.longest_free_run)
            self.held.append(run)

    def draw(self, i: int) -> int:
        """Take a run that was laid, each once; 0 if there is none."""
        run = self.laid[i % len(self.laid)] if self.laid else 0
        if run:
            self.laid[i % len(self.laid)] = 0
        return run

    def open(self, i: int) -> None:
        """Free a run that was laid."""
        if run := self.draw(i):
            self.arena.page_free(run)

    def claim(self, i: int) -> None:
        """Count a run that was laid among the others, as the one allocated last."""
        if run := self.draw(i):
            self.runs.append(run)

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


def whole(n_pages: int) -> int:
    """Return the bytes of the block that fills a region."""
    return n_pages * PAGE - ENDS


# In which calls reach their bounds ---------------------------------------------

#: A block in a region of one page, and an empty region of two: no block of a whole page
#: waits on a quick list.
RESIDENT: tuple[Step, ...] = (("get", 3000),)
EMPTY: tuple[Step, ...] = (("get", whole(2) - 16), ("drop", -1))
#: A region of a page that ends in a free block, and one that begins with one.
ENDING: tuple[Step, ...] = (("get", 3000),)
BEGINNING: tuple[Step, ...] = (("get", 600), ("get", 3000), ("drop", -2))


def far(orders: int) -> tuple[int, int, int]:
    """Return three pages of an arena of ``2**orders``, from left to right.

    Each but the first is the last one in the groups of every level of the tree but the
    highest, so that a walk to it looks at every entry.
    """
    quarter = 1 << (orders - 2)
    return quarter // 2, 2 * quarter - 1, 3 * quarter + quarter // 2 - 1


def between(orders: int, n_pages: int) -> tuple[Step, ...]:
    """Leave two stretches free, each between regions with free ends.

    The second has ``n_pages``, the first one less.
    """
    first, _, last = far(orders)
    n = n_pages
    places = (
        *(first - 1, 1, first, n - 1, first + n - 1, 1),
        *(last - 1, 1, last, n, last + n, 1),
    )
    return (
        ("lay", *places),
        *(("open", 0), *ENDING, ("open", 2), *BEGINNING),
        *(("open", 3), *ENDING, ("open", 5), *BEGINNING),
        *(("open", 1), ("open", 4)),
    )


def apart(orders: int, n_pages: int, *steps: Step) -> tuple[Step, ...]:
    """Have a stretch on either side of ``n_pages`` that `far` says, and make steps.

    Other pages are free in two places for them.
    """
    first, middle, last = far(orders)
    start = middle - n_pages + 3
    n = 1 << (orders - 4)
    places = (
        *(first, 1, first + 2, 2, first + 5, 2),
        *(start - n, n, start, n_pages, start + n_pages, n, last, n - 1),
    )
    return (
        ("lay", *places),
        *(("open", 0), *RESIDENT),
        *steps,
        *(("open", 3), ("open", 5), ("open", 6)),
    )


def leaving(orders: int, n: int) -> tuple[Step, ...]:
    """Have an empty region of ``n`` pages between two stretches."""
    return apart(orders, n, ("open", 4), ("get", whole(n) - 16), ("drop", -1))


def moving(orders: int) -> tuple[Step, ...]:
    """Have a run of pages between two stretches, and a longer one at the arena's end.

    Only that has room for a run of ``2**(orders - 2)`` pages, aligned to their size.
    """
    _, middle, _ = far(orders)
    n = 1 << (orders - 5)
    return (
        ("lay", middle - n, n, middle, 3, middle + 3, n),
        *(("open", 1), ("get", 3 * PAGE, PAGE)),
        *(("open", 0), ("open", 2), ("let",)),
    )


def scattered(orders: int, n: int) -> tuple[Step, ...]:
    """Have small blocks between free ones, and others that wait and are the same."""
    return (("rows", 40, 450), ("island", 2, 1), *between(orders, n))


def aside() -> tuple[Step, ...]:
    """Let the block next to leave the quarantine lie between free ones.

    So does the one that is resized; neither has a great alignment.
    """
    return (("island", 2, 400), ("rows", 18, 700), ("size", 0, 400, 128))


def emptying(orders: int, n: int) -> tuple[Step, ...]:
    """Have a block alone in a region of ``n`` pages, while another region is empty."""
    return apart(
        orders,
        n,
        *(("open", 1), *EMPTY, ("churn", 16, 1)),
        *(("open", 4), ("island", n, 5000)),
    )


def releasing(orders: int, n: int) -> tuple[Step, ...]:
    """Do as `emptying`, with the block next to leave the quarantine of a hardened pool.

    The block allocated last lies between free ones. The quarantine was full before.
    """
    return (
        ("churn", 16, 1),
        *apart(
            orders,
            n,
            *(("open", 2), ("rows", 4, 700)),
            *(("open", 1), *EMPTY, ("churn", 16, 1)),
            *(("open", 4), ("island", n, 500), ("drop", -1), ("churn", 15, 1)),
        ),
    )


def overflowing(orders: int, n: int) -> tuple[Step, ...]:
    """Let more wait on quick lists than the limit admits, and do as `between`."""
    return (("waits", 40, 3000), ("get", 63 * PAGE), *between(orders, n))


#: Order of the run that `middle` has room for.
MIDDLE = 5


def middle(orders: int) -> tuple[Step, ...]:
    """Leave a stretch in which a run of order `MIDDLE` leaves pages on both sides."""
    _, _, last = far(orders)
    return (("lay", last, (2 << MIDDLE) + 7), ("open", 0))


def waiting(n_bytes: int) -> tuple[Step, ...]:
    """Let 16 blocks wait, each between free ones, and leave no page free."""
    return (
        *RESIDENT,
        *(("island", 2, n_bytes),) * 16,
        *(("drop", -1),) * 16,
        ("fill",),
    )
