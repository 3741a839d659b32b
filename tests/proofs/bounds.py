# SPDX-License-Identifier: BSD-3-Clause
"""No call exceeds its bound: a search for heaps whose next call costs the most.

A `Case` describes a heap as data: the arena, the pool, and steps that are replayed into
a fresh arena. In each heap many calls are counted with `xmem.measure.insn.cost`, which
makes them in a child, and compared with `xmem.measure.bounds`. The search starts with
cases that were built to reach the bounds and changes the best of them at random: orders
of the arena, lengths of regions and runs, sizes, alignments, limits, flags, steps. What
comes closest to the bound of its verb and kind of pool is kept and changed further.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import click

from xmem import Arena, Pool
from xmem.measure import insn
from xmem.measure.bounds import VERBS, bound_of
from xmem.measure.steps import (
    EMPTY,
    PAGE,
    RESIDENT,
    Heap,
    Step,
    emptying,
    leaving,
    low,
    moving,
    releasing,
    scattered,
    waiting,
    whole,
)
from xmem.pool import HARDENING

from . import Refuted

ORDERS = range(6, 21)
#: Bytes in a block that an xrealloc moves: the bounds leave the copy out.
CONTENTS = 64
Call = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A heap as data.

    Attributes
    ----------
    orders : int
        Log2 of the pages of the arena.
    settings : dict
        Parameters of the pool.
    spare : int or None
        Pages that the pool's limit leaves after the steps; None for no limit.
    steps : tuple
        What is done to the heap; see `Heap`.
    asks : tuple
        Requests that are counted: bytes and alignment.
    name : str
        Where the search began.
    """

    orders: int
    settings: dict[str, Any]
    steps: tuple[Step, ...]
    asks: tuple[tuple[int, int], ...]
    spare: int | None = None
    name: str = ""

    def __str__(self) -> str:
        return (
            f"Case({self.orders}, {self.settings}, {self.steps}, {self.asks}, "
            f"spare={self.spare}, name={self.name!r})"
        )


# Directed cases --------------------------------------------------------------


def directed(orders: int, n: int, pool: dict[str, Any]) -> Iterator[Case]:
    """Cases built to reach the bounds, with runs or regions of ``n`` pages."""
    for name, spare, asks, steps in (
        (
            "an empty region leaves and a larger one comes",
            1,
            ((n * PAGE, 16), (n * PAGE, 2048), (n * PAGE - 3000, 2048), (16, 16384)),
            (*low(*RESIDENT), ("get", whole(n) - 16), ("drop", -1)),
        ),
        (
            "the last block of a region",
            None,
            ((n * PAGE, 2048), (2 * n * PAGE, 16)),
            (*low(*RESIDENT, *EMPTY), ("island", n, 24)),
        ),
        (
            "a whole region",
            None,
            ((n * PAGE, 2048), (2 * n * PAGE, 16)),
            (*low(*RESIDENT, *EMPTY), ("get", whole(n) - 16)),
        ),
        (
            "a region leaves with a full quarantine",
            None,
            ((n * PAGE, 2048), (100, 16)),
            (
                *low(*RESIDENT, *EMPTY),
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
                *low(*RESIDENT),
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
                *low(*RESIDENT),
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
                *low(*RESIDENT),
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
            (*low(("give", -1), ("give", -1)), ("get", 600), ("get", 600), ("drop", 0)),
        ),
        (
            "whole pages",
            None,
            ((16, 8192), (PAGE * n, PAGE), (PAGE + 1, 16), (24, 2 * PAGE), (24, 16)),
            (*low(), ("get", 24, PAGE), ("get", 24), ("get", n * PAGE, PAGE)),
        ),
        (
            "a small block alone in its region",
            None,
            ((n * PAGE, 2048), (3000, 2048), (2 * n * PAGE, 16)),
            (*low(*RESIDENT, *EMPTY), ("island", n, 24), ("get", whole(1) - 16)),
        ),
        (
            "runs",
            None,
            ((PAGE, 16), (n * PAGE, 16)),
            (*low(), ("take", n)),
        ),
        (
            "runs among free ones",
            None,
            ((n * PAGE, 16), (PAGE, 16)),
            (*low(("sieve", 0, 1)), ("take", n)),
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
                *low(*RESIDENT),
                *(("take", max(1, n)),) * 12,
                ("fill",),
                ("give", 3),
                ("give", 4),
                ("get", whole(1)),
                ("drop", -1),
            ),
        ),
    ):
        yield Case(orders, pool, steps, asks, spare, name)


def known(orders: int) -> Iterator[tuple[str, Case]]:
    """Yield the worst that earlier searches found, and the verb."""
    n = (1 << (orders - 3)) + 1
    big = n * PAGE
    plain, apart, quick, hardened = POOLS[:4]
    runs: tuple[tuple[str, tuple[Step, ...], int], ...] = (
        ("page_free", (*low(), ("take", n)), 1),
        ("page_alloc", (*low(("sieve", 0, 1)), ("take", n)), big),
    )
    for verb, made_by, n_bytes in runs:
        yield verb, Case(orders, plain, made_by, ((n_bytes, 16),))
    for pool in (plain, quick, hardened, apart):
        for verb, steps, ask, spare in (
            ("xmalloc", leaving, (big, 2048), 1),
            ("xrealloc", moving, (big, 2048), None),
            ("xfree", emptying, (1, 16), None),
            ("xfree", releasing, (1, 16), None),
        ):
            yield verb, Case(orders, pool, steps(n), (ask,), spare)
    for n_bytes in (500, 1000):
        ask = (2 * PAGE, 2048)
        yield "xmalloc", Case(orders, hardened, waiting(n_bytes), (ask,), 0)
    waits = (*low(*RESIDENT), ("rows", 17, 700), ("fill",))
    yield "xmalloc", Case(orders, hardened, waits, ((600, 2048), (16, 4096)), 0)
    asks = ((3000, 2048), (600, 16))
    yield "xrealloc", Case(orders, hardened, scattered(), asks)


POOLS: tuple[dict[str, Any], ...] = (
    {"grow_pages": 1},
    {"grow_pages": 1, "join_regions": False},
    {"grow_pages": 1, "quick": 16},
    {"grow_pages": 1, "hardened": True},
    {"grow_pages": 1, "hardened": True, "join_regions": False},
)


def lengths(orders: int) -> list[int]:
    """Lengths of runs that fall apart into many powers of two, or into one."""
    half = 1 << (orders - 3)
    return [1, 2, half - 1, half + 1, 0x55555 & (half - 1) | 1]


# Counting --------------------------------------------------------------------


@dataclass(order=True)
class Found:
    """A count, and where it was found. Compared by its share of the bound."""

    share: float
    count: int = field(compare=False)
    bound: int = field(compare=False)
    case: Case = field(compare=False)
    call: str = field(compare=False)
    path: str = field(compare=False)
    checked: bool = field(compare=False)


def made(case: Case, max_pages: int | None) -> Heap:
    """Make the heap of a case; the caller closes its arena."""
    arena = Arena.anonymous(PAGE << case.orders, page_size=PAGE, max_pools=2)
    try:
        return Heap(Pool(arena, max_pages=max_pages, **case.settings), case.steps)
    except BaseException:
        arena.close()
        raise


def replayed(case: Case) -> Heap:
    """Make the heap of a case; where it has a limit, once without to learn its size."""
    heap = made(case, None)
    if case.spare is None:
        return heap
    with heap.arena:
        held = heap.pool.total_size // PAGE
    return made(case, max(held + case.spare, 1))


def calls(heap: Heap, asks: tuple[tuple[int, int], ...]) -> Iterator[Call]:
    """Calls to count in a heap."""
    for n_bytes, align in asks:
        yield "xmalloc", (n_bytes, align)
        yield "page_alloc", (min(-(-n_bytes // PAGE) or 1, heap.arena.n_pages),)
    blocks = list(dict.fromkeys([*heap.blocks[-3:], *heap.blocks[:2]]))
    for block in blocks:
        yield "xfree", (block,)
    for block in blocks:
        capacity = heap.pool.usable_size(block)
        for n_bytes, align in asks:
            # What is copied would be counted; and stepped, which takes its time.
            if min(capacity, n_bytes) <= PAGE:
                yield "xrealloc", (block, n_bytes, align)
    for run in dict.fromkeys([*heap.runs[-2:], *heap.runs[:1]]):
        yield "page_free", (run,)


def counts(
    case: Case, verbs: tuple[str, ...] = VERBS, checked: bool = False
) -> Iterator[Found]:
    """Count calls in the heap of a case."""
    heap = replayed(case)
    with heap.arena:
        for verb, args in calls(heap, case.asks):
            if verb not in verbs:
                continue
            n, path = insn.cost(heap.pool, cast(Any, verb), *args, checked=checked)
            if (
                "moved" in path
                and min(heap.pool.usable_size(args[0]), args[1]) > CONTENTS
            ):
                continue
            limit = bound_of(heap.pool, verb, checked=checked)
            call = f"{verb}({', '.join(map(str, args))})"
            yield Found(n / limit, n, limit, case, call, path, checked)


# Search ----------------------------------------------------------------------


class Search:
    """The best that has been found of each verb and kind of pool."""

    #: Cases that are kept of each.
    N_KEPT = 6

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kept: dict[tuple[str, str], list[Found]] = {}
        self.n_cases = self.n_calls = 0

    def visit(
        self, case: Case, verbs: tuple[str, ...] = VERBS, checked: bool = False
    ) -> None:
        """Count a case and keep the best."""
        self.n_cases += 1
        for found in counts(case, verbs, checked):
            self.n_calls += 1
            verb = found.call.split("(")[0]
            self.keep((verb, kind(case.settings)), found)

    def keep(self, key: tuple[str, str], found: Found) -> None:
        """Keep a count if it is among the best."""
        kept = self.kept.setdefault(key, [])
        # Of those that cost the same, one of each beginning.
        if any((k.count, k.case.name) == (found.count, found.case.name) for k in kept):
            return
        kept.append(found)
        kept.sort(reverse=True)
        del kept[self.N_KEPT :]

    def best(self) -> dict[tuple[str, str], Found]:
        """Return the largest share of each verb and kind of pool."""
        return {key: kept[0] for key, kept in sorted(self.kept.items())}

    def recall(self, orders: tuple[int, ...], until: float) -> None:
        """Count the worst that is known."""
        for k in orders:
            for verb, case in known(k):
                if time.monotonic() > until:
                    return
                self.visit(case, (verb,))

    def begin(self, orders: tuple[int, ...], until: float) -> None:
        """Count the directed cases."""
        cases = [
            case
            for k in orders
            for n in lengths(k)
            for pool in POOLS
            for case in directed(k, n, pool)
        ]
        self.rng.shuffle(cases)
        for case in cases:
            if time.monotonic() > until:
                return
            self.visit(case)

    def climb(self) -> None:
        """Change one of the best, or another directed case, and count it."""
        rng = self.rng
        key = rng.choice(list(self.kept))
        case = rng.choice(self.kept[key]).case
        if rng.random() < 0.2:
            k = rng.choice(ORDERS)
            pool = rng.choice(POOLS)
            case = rng.choice(list(directed(k, length(rng, k), pool)))
        for _ in range(rng.randint(1, 3)):
            case = changed(case, rng)
        verb = rng.choice(VERBS) if rng.random() < 0.2 else key[0]
        checked = verb in ("xfree", "xrealloc") and rng.random() < 0.2
        self.visit(case, (verb,), checked)


def kind(settings: dict[str, Any]) -> str:
    """Name a kind of pool."""
    name = "hardened" if settings.get("hardened") else "plain"
    name = "quick" if settings.get("quick") else name
    return name if settings.get("join_regions", True) else f"{name}, apart"


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
    what = rng.randrange(9)
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
    else:
        return replace(case, settings=settings(rng))
    return replace(case, steps=tuple(steps))


def settings(rng: random.Random) -> dict[str, Any]:
    """Return random parameters of a pool."""
    found: dict[str, Any] = {
        "grow_pages": rng.choice([1, 1, 1, 2, 3, 4, 16]),
        "join_regions": rng.random() < 0.7,
    }
    which = rng.randrange(4)
    if which == 0:
        found["quick"] = rng.choice([1, 4, 16, 64])
    elif which == 1:
        found["hardened"] = True
    elif which == 2:
        found["hardened"] = tuple(rng.sample(sorted(HARDENING), rng.randint(1, 4)))
    return found


def prove(
    seconds: float,
    seed: int,
    orders: tuple[int, ...] = (20, 6, 13),
    report: Callable[[Search], object] | None = None,
) -> Search:
    """Search for some seconds; the directed cases first."""
    search = Search(seed)
    until = time.monotonic() + seconds
    search.recall(orders, until)
    search.begin(orders, until - seconds * 0.6)
    shown = time.monotonic()
    while time.monotonic() < until:
        search.climb()
        if report is not None and time.monotonic() > shown + 60:
            shown = time.monotonic()
            report(search)
    return search


def refute(search: Search) -> None:
    """Raise if a bound was exceeded."""
    for found in search.best().values():
        if found.share > 1:
            raise Refuted(
                f"{found.call} takes {found.count:,} instructions, its bound is "
                f"{found.bound:,}: {found.path}, checked={found.checked}, in "
                f"{found.case}"
            )


def show(search: Search) -> None:
    """Print what was tried and the largest share of each bound."""
    click.echo(f"{search.n_cases:,} heaps, {search.n_calls:,} calls")
    for (verb, name), found in search.best().items():
        click.echo(
            f"{verb:10} {name:15} {found.share:7.1%}  {found.count:5,} of "
            f"{found.bound:5,}  {found.call}, {found.path}"
            f"{', checked' if found.checked else ''}\n    {found.case}"
        )


@click.command()
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--seed", type=int, help="Of a search to repeat; else a fresh one.")
def main(seconds: float, seed: int | None) -> None:
    """Search for a call that exceeds its bound."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"bounds: --seed {seed}")
    search = prove(seconds, seed)
    show(search)
    refute(search)


if __name__ == "__main__":
    main()
