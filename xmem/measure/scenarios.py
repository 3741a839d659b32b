# SPDX-License-Identifier: BSD-3-Clause
"""Heaps built so that one call has to take a known path, the worst of its kind.

A `Scenario` builds its heap in a pool of its own and names the call to measure: count
its instructions with `xmem.measure.insn.cost`, or its cycles with
`xmem.measure.cycles.cost`. ``work`` lists what the path does at most: list operations
(insertions into and removals from a free list), header words written, bit scans.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from xmem.arena import FRAME_FREE, Arena
from xmem.measure.bounds import Kind
from xmem.measure.steps import (
    MIDDLE,
    Heap,
    Step,
    apart,
    aside,
    between,
    middle,
    moving,
    releasing,
    waiting,
)
from xmem.measure.steps import emptying as emptying_steps
from xmem.pool import Pool

PAGE = 4096
#: Greatest block of the backdrop; the scenarios request larger ones.
SMALL = 400
#: Bytes of a block of the scenario: larger than any hole of the backdrop.
BLOCK = 600
#: Greatest request that is cut off the remainder.
CUT = 1000
#: Bytes of a legacy block that takes a page whole and is no run of pages.
FILLING = PAGE - 128

Build = Callable[[Pool, int], tuple[int, ...]]


@dataclass(frozen=True)
class Scenario:
    """A heap and a call.

    Attributes
    ----------
    verb : str
        As for `xmem.measure.insn.cost`.
    name : str
        Name of the path.
    build : callable
        Builds the heap in a new pool, over a number of free blocks, and returns
        the call's arguments.
    work : str
        What the call does at most.
    settings : dict
        Parameters of the pool.
    engines : tuple of str
        Engines that have the path.
    n_pages : int
        Pages that the arena needs in addition to those of the backdrop.
    n_times : int
        Factor by which the arena has to be larger.
    """

    verb: str
    name: str
    build: Build
    work: str
    settings: dict[str, Any] = field(default_factory=dict)
    engines: tuple[Literal["tlsf", "firstfit"], ...] = ("tlsf", "firstfit")
    n_pages: int = 1 << 10
    n_times: int = 1

    def make(
        self,
        n_free: int,
        engine: Literal["tlsf", "firstfit"] = "tlsf",
        *,
        shared: bool = False,
        **settings: Any,
    ) -> tuple[Pool, tuple[int, ...]]:
        """Build the heap in an arena of its own.

        Parameters
        ----------
        n_free : int
            Free blocks of the backdrop.
        engine : {"tlsf", "firstfit"}
            The engine of the pool.
        shared : bool
            Whether the arena is one that processes share.
        **settings
            More parameters of the pool, such as ``hardened``.

        Returns
        -------
        pool : Pool
            The caller closes its ``arena``.
        arguments : tuple of int
            Of the call.
        """
        # A free block of the legacy engine costs a page, one of TLSF 1 KiB.
        n_pages = n_free * (PAGE if engine == "firstfit" else 1024) // PAGE
        order = max((self.n_times * (n_pages + self.n_pages)).bit_length(), 8)
        make = Arena.memfd if shared else Arena.anonymous
        arena = make((1 << order) * PAGE, page_size=PAGE, max_pools=2)
        pool = Pool(arena, engine=engine, **{**self.settings, **settings})
        return pool, self.build(pool, n_free)


# Building --------------------------------------------------------------------


def backdrop(pool: Pool, n_free: int) -> None:
    """Make ``n_free`` free blocks of at most `SMALL` bytes, between live ones."""
    if pool.engine == "firstfit":
        # Blocks that fill their pages are shrunk, which walks no list.
        for offset in [pool.xmalloc(FILLING) for _ in range(n_free)]:
            pool.xrealloc(offset, PAGE - SMALL)
        return
    sizes = [24 + i * 13 % (SMALL - 24) for i in range(256)]
    holes = []
    for i in range(n_free):
        holes.append(pool.xmalloc(sizes[i & 255]))
        pool.xmalloc(24)
    for offset in holes:
        pool.xfree(offset)


def adjacent(pool: Pool, n_bytes: int, n_blocks: int) -> list[int]:
    """Allocate ``n_blocks`` adjacent blocks; others allocated on the way stay."""
    blocks = [pool.xmalloc(n_bytes) for _ in range(n_blocks)]
    while any(
        not n_bytes < after - block < n_bytes + 128
        for block, after in itertools.pairwise(blocks)
    ):
        blocks = [*blocks[1:], pool.xmalloc(n_bytes)]
    return blocks


def keeping(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Empty a region that the pool keeps, because it has no other empty one."""
    backdrop(pool, n_free)
    blocks = adjacent(pool, pool.maxalloc // 3 - 32, 3)
    pool.xfree(blocks[0])
    pool.xfree(blocks[2])
    drain(pool)
    return (blocks[1],)


def row(pool: Pool, n_free: int, free: tuple[int, ...]) -> list[int]:
    """Make five adjacent blocks over a backdrop, some of them free."""
    backdrop(pool, n_free)
    if pool.engine == "tlsf":
        pool.reserve(8)
    blocks = adjacent(pool, BLOCK, 5)
    for i in free:
        pool.xfree(blocks[i])
    return blocks


def one_run(pool: Pool) -> None:
    """Take every free run of pages but the longest."""
    frames = pool.arena.frames()
    lengths = sorted(frames["n_pages"][frames["state"] == FRAME_FREE].tolist())
    for n_pages in lengths[:-1]:
        pool.arena.page_alloc_exact(n_pages)


def freeing(*free: int) -> Build:
    """Free the middle of five blocks, some of whose neighbours are free."""

    def build(pool: Pool, n_free: int) -> tuple[int, ...]:
        target = row(pool, n_free, free)[2]
        drain(pool)
        return (target,)

    return build


def drain(pool: Pool) -> None:
    """Replace the blocks in quarantine by small ones."""
    if "quarantine" in pool.hardening:
        for _ in range(16):
            pool.xfree(pool.xmalloc(1))


def delayed(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Free a block; the one it displaces from quarantine has two free neighbours."""
    rows = [row(pool, n_free if i == 0 else 0, (1, 3)) for i in range(17)]
    drain(pool)
    for blocks in rows[:16]:
        pool.xfree(blocks[2])
    return (rows[16][2],)


def emptying(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Free the last block of a region while the pool keeps another empty one."""
    backdrop(pool, n_free)
    whole = pool.maxalloc if pool.engine == "tlsf" else FILLING
    blocks = [pool.xmalloc(whole) for _ in range(8)]
    for i in (7, 0, 2):
        pool.xfree(blocks[i])
    drain(pool)
    return (blocks[1],)


def merging(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Free the last block of a region of one page, between free pages."""
    backdrop(pool, n_free)
    one_run(pool)
    arena = pool.arena
    whole = pool.maxalloc if pool.engine == "tlsf" else FILLING
    left = arena.page_alloc_exact(8)
    offset = pool.xmalloc(whole)
    right = arena.page_alloc_exact(8)
    arena.page_alloc_exact(1)
    if pool.engine == "tlsf":
        # The pool keeps another empty region, so it returns this one.
        pool.xfree(pool.xmalloc(whole))
    arena.page_free(left)
    arena.page_free(right)
    return (offset,)


def exact(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request the exact size of the free blocks in a list of one size."""
    row(pool, n_free, (1, 3))
    return BLOCK, 16


def cutting(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request what is cut off the remainder."""
    backdrop(pool, n_free)
    pool.reserve(8)
    while room_behind(pool, pool.xmalloc(BLOCK)) < 2 * BLOCK:
        pass
    return BLOCK, 16


def room_behind(pool: Pool, offset: int) -> int:
    """Payload of the free block behind a live one, or 0."""
    found = pool.walk()
    at = int(found["offset"].searchsorted(offset)) + 1
    if at == len(found) or found["used"][at]:
        return 0
    return int(found["capacity"][at])


def replacing(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request what the remainder does not hold, whose list is empty."""
    if pool.hardening:  # it has no remainder
        return splitting(pool, n_free)
    backdrop(pool, n_free)
    room = 0
    while room <= BLOCK:
        room = room_behind(pool, pool.xmalloc(SMALL + 20))
    while room > CUT + BLOCK:
        room = room_behind(pool, pool.xmalloc(CUT))
    if room > CUT - SMALL:
        pool.xmalloc(max(SMALL + 20, room - BLOCK))
    pool.reserve(64)
    return CUT, 16


def splitting(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request more than a small block while only the largest has room."""
    backdrop(pool, n_free)
    if pool.engine == "tlsf":
        pool.reserve(64)
    return 2 * BLOCK, 16


def next_level(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request a size whose power of two has no free block, while the next has one."""
    backdrop(pool, n_free)
    blocks = adjacent(pool, 2 * BLOCK - 100, 3)
    if pool.engine == "tlsf":
        # Every other free block of this size or more is allocated.
        found = pool.walk()
        free = (found["used"] == 0) & (found["capacity"] >= 512)
        for capacity in found["capacity"][free].tolist():
            pool.xmalloc(capacity)
    pool.xfree(blocks[1])
    drain(pool)
    return BLOCK, 16


def aligning(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request the greatest alignment, so that remainders arise on both sides."""
    backdrop(pool, n_free)
    if pool.engine == "tlsf":
        pool.reserve(64)
    pool.xmalloc(BLOCK)
    return BLOCK, 2048 if pool.engine == "tlsf" else 64


def growing(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request more than any free block has: a page is taken off the last stretch."""
    backdrop(pool, n_free)
    one_run(pool)
    while pool.stats().largest_free_bytes >= 3900:
        pool.xmalloc(3900)
    return (3900, 16)


def failing(pool: Pool, n_free: int) -> tuple[int, ...]:
    """Request more than blocks and pages can serve."""
    backdrop(pool, n_free)
    while pool.arena.n_free_pages:
        pool.arena.page_alloc_exact(pool.arena.longest_free_run)
    return (60 * PAGE, 16)


def resizing(free: tuple[int, ...], n_bytes: int) -> Build:
    """Resize the middle of five blocks."""
    return lambda pool, n_free: (row(pool, n_free, free)[2], n_bytes)


def pages(n_pages: int) -> Build:
    """Allocate a run while all frames are one stretch."""

    def build(pool: Pool, n_free: int) -> tuple[int, ...]:
        one_run(pool)
        return (n_pages,)

    return build


def page_freeing(n_pages: int) -> Build:
    """Free the run in front of the last stretch."""

    def build(pool: Pool, n_free: int) -> tuple[int, ...]:
        one_run(pool)
        return (pool.arena.page_alloc_exact(n_pages),)

    return build


# The list --------------------------------------------------------------------

TLSF: tuple[Literal["tlsf"], ...] = ("tlsf",)
SCENARIOS = [
    Scenario(
        "xfree",
        "isolated",
        freeing(),
        "header and boundary tag written, PREV_FREE set on the right; 1 insertion",
    ),
    Scenario("xfree", "left", freeing(1), "as isolated, and 1 removal"),
    Scenario("xfree", "right", freeing(3), "as isolated, and 1 removal"),
    Scenario("xfree", "both", freeing(1, 3), "as isolated, and 2 removals"),
    Scenario(
        "xfree",
        "both, out of quarantine",
        delayed,
        "as both, for a block freed before; the one freed now takes its slot",
        engines=TLSF,
    ),
    Scenario(
        "xfree",
        "keeping a region",
        keeping,
        "as both; 3 regions examined, 1 failed search for another empty one",
        {"grow_pages": 4},
        engines=TLSF,
    ),
    Scenario(
        "xfree",
        "emptying a region",
        emptying,
        "as both, and a region is returned: 3 headers, 1 search, 2 insertions, a run "
        "of pages freed",
        {"grow_pages": 4},
    ),
    Scenario(
        "xfree",
        "merging pages",
        merging,
        "as emptying a region; its pages merge with free ones on both sides",
        {"grow_pages": 1, "join_regions": False},
        n_pages=1 << 12,
        n_times=2,
    ),
    Scenario(
        "xmalloc",
        "exact",
        exact,
        "2 bit scans; 1 removal; header written, PREV_FREE cleared on the right",
    ),
    Scenario(
        "xmalloc",
        "cutting the remainder",
        cutting,
        "2 headers, a boundary tag and 2 links",
        engines=TLSF,
    ),
    Scenario(
        "xmalloc",
        "replacing the remainder",
        replacing,
        "2 bit scans; 1 removal, 1 insertion; as cutting",
        {"join_regions": False},
        engines=TLSF,
    ),
    Scenario(
        "xmalloc",
        "splitting the largest",
        splitting,
        "3 bit scans; 1 removal, 1 insertion; 2 headers and a boundary tag",
    ),
    Scenario(
        "xmalloc",
        "next first level",
        next_level,
        "as splitting; the first level of the size is empty, the next is searched",
    ),
    Scenario(
        "xmalloc",
        "aligned",
        aligning,
        "3 bit scans; 1 removal, 2 insertions; 3 headers and 2 boundary tags",
    ),
    Scenario(
        "xmalloc",
        "growing",
        growing,
        "3 failed bit scans; a page is taken off the last stretch and joined to the "
        "region on its left: 1 removal, 1 insertion; then as splitting",
        n_pages=1 << 12,
    ),
    Scenario(
        "xmalloc",
        "failing",
        failing,
        "3 bit scans, then searches for at most 4 empty regions, of 8 lists each",
        {"grow_pages": 1},
    ),
    Scenario(
        "xrealloc",
        "shrinking",
        resizing((), 100),
        "as splitting without a search: 2 headers, 1 insertion",
        engines=TLSF,
    ),
    Scenario(
        "xrealloc",
        "growing to the right",
        resizing((3,), 900),
        "1 removal, 1 insertion; 2 headers",
        engines=TLSF,
    ),
    Scenario(
        "xrealloc",
        "growing to the left",
        resizing((1,), 900),
        "1 removal, 1 insertion, 3 headers, 2 start bits; the contents are moved",
        engines=TLSF,
    ),
    Scenario(
        "xrealloc",
        "moving",
        resizing((), 2000),
        "as xmalloc and xfree together; the contents are copied",
    ),
    *(
        Scenario(
            verb,
            f"order {order}",
            build(1 << order),
            what,
            engines=TLSF,
            n_pages=1 << 12,
        )
        for verb, build, what in (
            ("page_alloc", pages, "off the last stretch, which the tree leaves out"),
            ("page_free", page_freeing, "merged with the last stretch"),
        )
        for order in range(0, 12)
    ),
]


# At the bounds ---------------------------------------------------------------


@dataclass(frozen=True)
class Extreme(Scenario):
    """A heap in which a call comes close to its bound.

    The arena has ``2**20`` pages, whatever the number of free blocks: there are none
    but those of the steps.

    Attributes
    ----------
    kind : {"plain", "quick", "hardened"}
        Which of the verb's bounds, see `xmem.measure.bounds`.
    """

    kind: Kind = "plain"


def extreme(
    verb: str,
    kind: Kind,
    name: str,
    work: str,
    steps: tuple[Step, ...],
    call: Callable[[Heap], tuple[int, ...]],
    **settings: Any,
) -> Extreme:
    """Describe a call in a heap made by steps."""

    def build(pool: Pool, _n_free: int) -> tuple[int, ...]:
        return call(Heap(pool, steps))

    flags: dict[Kind, dict[str, Any]] = {
        "plain": {},
        "quick": {"quick": True},
        "hardened": {"hardened": True},
    }
    return Extreme(
        verb,
        name,
        build,
        work,
        {"grow_pages": 1, **flags[kind], **settings},
        TLSF,
        n_pages=1 << 19,
        kind=kind,
    )


def last_block(heap: Heap) -> tuple[int, ...]:
    """Return the argument of an xfree of the block allocated last."""
    return (heap.blocks[-1],)


def asking(*arguments: int) -> Callable[[Heap], tuple[int, ...]]:
    """Return the arguments of a request."""
    return lambda _heap: arguments


#: Log2 of the pages of the arena, and of the pages that are asked for.
ORDERS = 20
PAGES = 20
HELPED = (PAGES * PAGE + 800, 512)
HELPS = (
    "3 searches that fail, a stretch looked at and pages taken out of it; a "
    "region made of them and joined on both sides: 2 removals, 1 insertion; its block "
    "is split on both sides"
)
MOVES = (
    "an aligned run taken out of the last stretch; the old one freed, merged on both "
    "sides, a path of the tree raised and one lowered"
)
EMPTIES = (
    "as both, and a region leaves: a run of pages freed and merged on both sides, a "
    "path of the tree raised and one lowered"
)

EXTREMES: list[Extreme] = [
    extreme(
        "xmalloc",
        "plain",
        "growing between regions",
        HELPS,
        between(ORDERS, PAGES),
        asking(*HELPED),
    ),
    extreme(
        "xmalloc",
        "quick",
        "growing between regions, quick lists",
        f"{HELPS}; a look at the quick lists",
        between(ORDERS, PAGES),
        asking(*HELPED),
    ),
    extreme(
        "xmalloc",
        "hardened",
        "emptying the quarantine",
        "3 searches that fail, 2 blocks verified with their neighbours and freed, a "
        "search again",
        waiting(1000),
        asking(2 * PAGE, 2048),
        max_pages=33,
    ),
    extreme(
        "xfree",
        "plain",
        "emptying a region between stretches",
        EMPTIES,
        emptying_steps(ORDERS, PAGES),
        last_block,
    ),
    extreme(
        "xfree",
        "quick",
        "emptying a region between stretches, quick lists",
        EMPTIES,
        emptying_steps(ORDERS, PAGES),
        last_block,
    ),
    extreme(
        "xfree",
        "hardened",
        "emptying a region between stretches, out of quarantine",
        f"two blocks verified with their neighbours; {EMPTIES}",
        releasing(ORDERS, PAGES),
        last_block,
    ),
    extreme(
        "xrealloc",
        "plain",
        "moving a run",
        MOVES,
        moving(ORDERS),
        lambda heap: (heap.blocks[0], 1, PAGE << (ORDERS - 2)),
    ),
    extreme(
        "xrealloc",
        "quick",
        "moving a run, quick lists",
        MOVES,
        moving(ORDERS),
        lambda heap: (heap.blocks[0], 1, PAGE << (ORDERS - 2)),
    ),
    extreme(
        "xrealloc",
        "hardened",
        "moving to the arena's end, out of quarantine",
        "two blocks verified with their neighbours, the older of them merged on both "
        "sides; 2 searches that fail, the last region extended, its block split twice",
        aside(),
        lambda heap: (heap.blocks[-2], 16, 2048),
    ),
    extreme(
        "page_alloc",
        "plain",
        "the start of the longest stretch",
        "a walk down the tree, a path raised and one lowered",
        middle(ORDERS),
        asking((1 << MIDDLE) + 1),
    ),
    extreme(
        "page_free",
        "plain",
        "between two stretches",
        "merged on both sides: a path of the tree raised and one lowered",
        apart(ORDERS, PAGES),
        lambda heap: (heap.laid[4],),
    ),
]


def scenario(verb: str, name: str) -> Scenario:
    """Find a scenario.

    Parameters
    ----------
    verb, name : str
        As in its attributes.

    Returns
    -------
    Scenario

    Raises
    ------
    LookupError
        There is no such scenario.
    """
    for found in (*SCENARIOS, *EXTREMES):
        if (found.verb, found.name) == (verb, name):
            return found
    raise LookupError(f"no scenario {name!r} of {verb}")
