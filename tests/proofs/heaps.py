# SPDX-License-Identifier: BSD-3-Clause
"""Heaps as data for the search of ``make proof-bounds``, and random changes of them.

Some were built to reach the bounds, some are the worst that earlier searches found.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from xmem.measure.steps import (
    EMPTY,
    MIDDLE,
    PAGE,
    RESIDENT,
    Step,
    apart,
    aside,
    between,
    emptying,
    far,
    leaving,
    middle,
    moving,
    overflowing,
    releasing,
    scattered,
    waiting,
    whole,
)
from xmem.pool import HARDENING

ORDERS = range(6, 21)


@dataclass(frozen=True)
class Case:
    """A heap as data.

    Attributes
    ----------
    orders : int
        Log2 of the pages of the arena.
    settings : dict
        Parameters of the pool; ``hooks`` gives it regions by get_mem and put_mem.
    spare : int or None
        Pages that the pool's limit leaves after the steps; None for no limit.
    steps : tuple
        What is done to the heap; see `Heap`.
    asks : tuple
        Requests that are counted: bytes and alignment.
    name : str
        Where the search began.
    in_file : bool
        Whether the arena is in a file, where fewer calls are counted: each is made.
    """

    orders: int
    settings: dict[str, Any]
    steps: tuple[Step, ...]
    asks: tuple[tuple[int, int], ...]
    spare: int | None = None
    name: str = ""
    in_file: bool = False

    def __str__(self) -> str:
        return (
            f"Case({self.orders}, {self.settings}, {self.steps}, {self.asks}, "
            f"spare={self.spare}, name={self.name!r}, in_file={self.in_file})"
        )


# Directed cases --------------------------------------------------------------


def directed(orders: int, n: int, pool: dict[str, Any]) -> Iterator[Case]:
    """Cases built to reach the bounds, with runs or regions of ``n`` pages."""
    for name, spare, asks, steps in (
        (
            "an empty region leaves and a larger one comes",
            1,
            ((n * PAGE, 16), (n * PAGE, 2048), (n * PAGE - 3000, 2048), (16, 16384)),
            (*RESIDENT, ("get", whole(n) - 16), ("drop", -1)),
        ),
        (
            "the last block of a region",
            None,
            ((n * PAGE, 2048), (2 * n * PAGE, 16)),
            (*RESIDENT, *EMPTY, ("island", n, 24)),
        ),
        (
            "a whole region",
            None,
            ((n * PAGE, 2048), (2 * n * PAGE, 16)),
            (*RESIDENT, *EMPTY, ("get", whole(n) - 16)),
        ),
        (
            "a region leaves with a full quarantine",
            None,
            ((n * PAGE, 2048), (100, 16)),
            (
                *RESIDENT,
                *EMPTY,
                ("island", n, 500),
                ("drop", -1),
                ("rows", 15, 500),
                ("get", 500),
            ),
        ),
        (
            "blocks wait and nothing else is free",
            0,
            ((500, 16), (600, 2048), (n * PAGE, 2048), (100, 16), (24, 4096)),
            (
                *RESIDENT,
                *(("island", 2, 400),) * 4,
                ("ladder", 40, 24),
                ("rows", 16, 700),
                ("fill",),
            ),
        ),
        (
            "islands wait",
            0,
            ((500, 16), (600, 2048), (n * PAGE, 2048), (100, 16), (24, 4096)),
            (
                *RESIDENT,
                *(("island", 2, 1000),) * 16,
                *(("drop", -1),) * 16,
                ("fill",),
            ),
        ),
        (
            "neighbours",
            None,
            ((200, 2048), (1000, 16), (30, 16), (PAGE * n, 1024), (1500, 512)),
            (
                *RESIDENT,
                ("reserve", n + 4),
                *(("get", 600),) * 7,
                ("drop", 1),
                ("drop", 2),
                ("churn", 16, 1),
            ),
        ),
        (
            "growing beside a region",
            None,
            ((3500, 16), (3000, 2048), (40, 65536), (n * PAGE, 16)),
            (("get", 600), ("get", 600), ("drop", 0)),
        ),
        (
            "whole pages",
            None,
            ((16, 8192), (PAGE * n, PAGE), (PAGE + 1, 16), (24, 2 * PAGE), (24, 16)),
            (("get", 24, PAGE), ("get", 24), ("get", n * PAGE, PAGE)),
        ),
        (
            "a run that moves",
            None,
            tuple((1, 1 << log2) for log2 in (13, 17, 20, 28, 29)),
            (("get", n * PAGE, PAGE), ("get", 24), ("get", 255 * PAGE, PAGE)),
        ),
        (
            "a small block alone in its region",
            None,
            ((n * PAGE, 2048), (3000, 2048), (2 * n * PAGE, 16)),
            (*RESIDENT, *EMPTY, ("island", n, 24), ("get", whole(1) - 16)),
        ),
        (
            "runs",
            None,
            ((PAGE, 16), (n * PAGE, 16)),
            (("take", n),),
        ),
        (
            "runs among free ones",
            None,
            ((n * PAGE, 16), (PAGE, 16)),
            (("take", n),),
        ),
        (
            "gathering",
            None,
            (
                (n * PAGE, 16),
                (n * PAGE, 2048),
                (2 * n * PAGE, 2048),
                (3 * n * PAGE, 2048),
            ),
            (
                *RESIDENT,
                *(("take", max(1, n)),) * 12,
                ("fill",),
                ("give", 3),
                ("give", 4),
                ("get", whole(1)),
                ("drop", -1),
            ),
        ),
        *mosaics(orders),
    ):
        yield Case(orders, pool, steps, asks, spare, name)


def mosaics(
    orders: int,
) -> Iterator[tuple[str, int | None, tuple[tuple[int, int], ...], tuple[Step, ...]]]:
    """Free pages next to regions, in an arena that is full otherwise.

    The pages of regions are freed from the right to the left, so that the numbers of
    those further left stay what they were; the others come last, from the left.
    """
    at = (1 << (orders - 1)) - 12 if orders < 12 else 2036
    for plan in (
        ((8, 0), (4, 0)),
        ((8, 0), (4, 0), (3, 1), (8, 1)),
        ((15, 0), (5, 1), (2, 2), (8, 0)),
        ((5, 0), (16, 0), (2, 0)),
        ((16, 1), (4, 1), (8, 0), (15, 2)),
    ):
        n_pages = sum(n for n, _ in plan)
        steps: list[Step] = []
        first = at + n_pages
        for n, what in reversed(plan):
            first -= n
            if what:
                steps += [("bare", first, n), ("reserve", n)]
            if what == 2:
                steps.append(("get", 600))
        # What lies left of each is gone by then.
        steps += [("bare", at, n) for n, what in plan if not what]
        asks = tuple(
            (n_pages * PAGE - rest, align)
            for rest in (24, 3 * PAGE, n_pages * PAGE // 3)
            for align in (16, 512, 2048)
        )
        yield "a mosaic", None, asks, (("tile",), ("fill",), *steps)


def known(orders: int) -> Iterator[tuple[str, Case]]:
    """Yield the worst that earlier searches found, and the verb."""
    plain, apart_, quick, hardened = POOLS[:4]
    n = 20 if orders > 9 else 3
    _, page, _ = far(orders)
    helped = ((n * PAGE + 800, 512), (n * PAGE - 4000, 2048), (n * PAGE + 1700, 32))
    asks = ((PAGE << MIDDLE, 16), ((PAGE << MIDDLE) + 1, 16))
    yield "page_alloc", Case(orders, plain, middle(orders), asks)
    run = (("lay", page - n, n, page, 3, page + 3, n), ("open", 0), ("open", 2))
    yield "page_free", Case(orders, plain, (*run, ("claim", 1)), ((1, 16),))
    for pool in (plain, quick, hardened, apart_):
        for verb, steps, asks, spare in (
            ("xmalloc", between(orders, n), helped, None),
            ("xmalloc", overflowing(orders, n), helped, None),
            ("xmalloc", leaving(orders, n), ((2 * n * PAGE, 2048),), n + 1),
            ("xrealloc", moving(orders), ((1, PAGE << (orders - 2)), (1, 8192)), None),
            ("xfree", emptying(orders, n), ((1, 16),), None),
            ("xfree", releasing(orders, n), ((1, 16),), None),
            ("page_free", (*apart(orders, n), ("claim", 4)), ((1, 16),), None),
        ):
            yield verb, Case(orders, pool, steps, asks, spare)
    for n_bytes in (500, 1000):
        ask = (2 * PAGE, 2048)
        yield "xmalloc", Case(orders, hardened, waiting(n_bytes), (ask,), 0)
    waits = (*RESIDENT, ("rows", 17, 700), ("fill",))
    yield "xmalloc", Case(orders, hardened, waits, ((600, 2048), (16, 4096)), 0)
    yield "xrealloc", Case(orders, hardened, scattered(orders, n), helped)
    yield "xrealloc", Case(orders, hardened, aside(), ((16, 2048),))
    # A free block of the size, which is found no more when one has left the quarantine.
    found = (
        *(("get", 3000), ("island", 2, 400), ("island", 2, 400), ("ladder", 40, 24)),
        *(("size", 0, 400, 128), ("rows", 16, 700), ("fill",)),
    )
    yield "xrealloc", Case(7, hardened, found, ((PAGE, 2048),), 0)


POOLS: tuple[dict[str, Any], ...] = (
    {"grow_pages": 1},
    {"grow_pages": 1, "join_regions": False},
    {"grow_pages": 1, "quick": True},
    {"grow_pages": 1, "hardened": True},
    {"grow_pages": 1, "hardened": True, "join_regions": False},
    {"grow_pages": 1, "hooks": True},
    {"grow_pages": 1, "hooks": True, "hardened": True},
    {},
    {"quick": True},
)


def lengths(orders: int) -> list[int]:
    """Lengths of runs that fall apart into many powers of two, or into one."""
    half = 1 << (orders - 3)
    return [1, 2, half - 1, half + 1, 0x55555 & (half - 1) | 1]


# Changes ---------------------------------------------------------------------


def length(rng: random.Random, orders: int) -> int:
    """Return a length of a run: near a power of two, or alternating bits."""
    power = 1 << rng.randrange(orders - 1)
    return max(
        1,
        rng.choice(
            [1, power, power - 1, power + 1, 0x55555 & (power - 1), power * 3 // 4]
        ),
    )


def n_bytes_of(rng: random.Random, orders: int) -> int:
    """Return a size of a block: small, of about a page, or of a region."""
    if rng.random() < 0.6:
        return rng.choice([1, 24, 40, 400, 1000, 2000, 3500, 4040, 4072, 4073, 5000])
    return length(rng, orders) * PAGE - rng.choice([0, 16, 24, 40, 48, 600, 3000])


def argument(rng: random.Random, orders: int, old: int) -> int:
    """Return another argument of a step."""
    if rng.random() < 0.3:
        return old + rng.choice([-16, -2, -1, 1, 2, 16])
    if old > 0 and rng.random() < 0.4:
        # A length has another run, or lacks one, when it falls apart.
        unit = PAGE if old > 1 << orders else 1
        return max(1, old ^ (unit << rng.randrange(orders - 2)))
    if abs(old) < 64:
        return rng.randint(-20, 20) if rng.random() < 0.7 else length(rng, orders)
    return n_bytes_of(rng, orders) if rng.random() < 0.7 else length(rng, orders)


def step(rng: random.Random, orders: int) -> Step:
    """Return a random step."""
    n, size = length(rng, orders), n_bytes_of(rng, orders)
    i = rng.randint(-4, 4)
    align = 1 << rng.randint(4, 13)
    return rng.choice(
        [
            ("half",),
            ("let",),
            ("tile",),
            ("bare", 20 * abs(i), n),
            ("lay", n, 1, n + 1, 2, 3 * n, n),
            ("open", i),
            ("claim", i),
            ("fill",),
            ("take", n),
            ("give", i),
            ("give", i),
            ("sieve", i, rng.randint(1, 4)),
            ("get", size),
            ("get", size, align),
            ("drop", i),
            ("drop", i),
            ("size", i, size, align),
            ("island", n, size),
            ("rows", rng.randint(1, 18), min(size, 1000)),
            ("ladder", rng.randint(1, 60), min(size, 200)),
            ("churn", 16, 1),
            ("reserve", n),
            ("shrink",),
        ]
    )


def changed(case: Case, rng: random.Random) -> Case:
    """Return a case with one change."""
    steps = list(case.steps)
    at = rng.randrange(len(steps))
    what = rng.randrange(10)
    if what == 0:
        steps.insert(at, step(rng, case.orders))
    elif what == 1 and len(steps) > 1:
        del steps[at]
    elif what == 2:
        other = rng.randrange(len(steps))
        steps[at], steps[other] = steps[other], steps[at]
    elif what in (3, 4):
        name, *args = steps[at]
        if args:
            i = rng.randrange(min(len(args), 2))
            args[i] = argument(rng, case.orders, args[i])
            if name in ("get", "size", "island", "take", "reserve"):
                args[-1] = max(args[-1], 1) if len(args) < 3 else args[-1]
            steps[at] = (name, *args)
    elif what == 5:
        return replace(case, orders=rng.choice([rng.choice(ORDERS), ORDERS[-1]]))
    elif what == 6:
        return replace(
            case, spare=rng.choice([None, 0, 1, 2, length(rng, case.orders)])
        )
    elif what == 7:
        asks = [*case.asks]
        i = rng.randrange(len(asks))
        n_bytes, align = asks[i]
        if rng.random() < 0.5:
            n_bytes = max(0, argument(rng, case.orders, n_bytes))
        else:
            align = 1 << rng.randint(4, 16)
        asks[i] = (n_bytes, align)
        return replace(case, asks=tuple(asks))
    elif what == 8:
        return replace(case, in_file=rng.random() < 0.5)
    else:
        return replace(case, settings=settings(rng))
    return replace(case, steps=tuple(steps))


def settings(rng: random.Random) -> dict[str, Any]:
    """Return random parameters of a pool."""
    found: dict[str, Any] = {
        "grow_pages": rng.choice([1, 1, 1, 2, 3, 4, 16, None, None]),
        "join_regions": rng.random() < 0.7,
    }
    which = rng.randrange(4)
    if which == 0:
        found["quick"] = True
    elif which == 1:
        found["hardened"] = True
    elif which == 2:
        found["hardened"] = tuple(rng.sample(sorted(HARDENING), rng.randint(1, 4)))
    if rng.random() < 0.1:
        found["hooks"] = True
    return found
