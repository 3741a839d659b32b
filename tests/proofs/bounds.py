# SPDX-License-Identifier: BSD-3-Clause
"""No call exceeds its bound: a search for heaps whose next call costs the most.

A `Case` (heaps.py) describes a heap as data: the arena, the pool, and steps that are
replayed into a fresh arena. In each heap many calls are counted with
`xmem.measure.insn.cost`, which makes them in a child, and compared with
`xmem.measure.bounds`; in a file, where a child's call is everybody's, two are made step
by step. The search starts with cases that were built to reach the bounds and changes
the best of them at random: orders of the arena, lengths of regions and runs, sizes,
alignments, limits, flags, hooks, steps. What comes closest to the bound of its verb and
kind of pool is kept and changed further.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from xmem import Arena, OutOfMemory, Pool
from xmem.measure import insn
from xmem.measure.bounds import VERBS, bound_of
from xmem.measure.steps import PAGE, Heap

from . import Refuted
from .heaps import ORDERS, POOLS, Case, changed, directed, known, length, lengths

#: Bytes that an xrealloc in a file may copy: there each step of a copy is counted.
CONTENTS = 64
Call = tuple[str, tuple[int, ...]]


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


def new_arena(case: Case) -> Arena:
    """Make the arena of a case; a file has no name any more."""
    n_bytes = PAGE << case.orders
    if not case.in_file:
        return Arena.anonymous(n_bytes, page_size=PAGE, max_pools=2)
    with tempfile.TemporaryDirectory() as folder:
        return Arena.create(Path(folder, "arena"), n_bytes, page_size=PAGE, max_pools=2)


def hooks_of(arena: Arena) -> dict[str, Callable[..., Any]]:
    """Return hooks that lend the arena's pages."""

    def get_mem(n_pages: int) -> int | None:
        with contextlib.suppress(OutOfMemory):
            return arena.page_alloc_exact(n_pages)
        return None

    return {"get_mem": get_mem, "put_mem": lambda run, _: arena.page_free(run)}


def made(case: Case, max_pages: int | None) -> Heap:
    """Make the heap of a case; the caller closes its arena."""
    arena = new_arena(case)
    settings = {"max_pages": max_pages, **case.settings}
    if settings.pop("hooks", False):
        settings |= hooks_of(arena)
    try:
        return Heap(Pool(arena, **settings), case.steps)
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
    asks = tuple((n, min(align, heap.arena.max_align)) for n, align in asks)
    for n_bytes, align in asks:
        yield "xmalloc", (n_bytes, align)
        yield "page_alloc", (min(-(-n_bytes // PAGE) or 1, heap.arena.n_pages),)
    blocks = list(dict.fromkeys([*heap.blocks[-3:], *heap.blocks[:2]]))
    for block in blocks:
        yield "xfree", (block,)
    for block in blocks:
        capacity = heap.pool.usable_size(block)
        for n_bytes, align in asks:
            # What is copied is not counted, but stepped, which takes its time.
            if min(capacity, n_bytes) <= PAGE:
                yield "xrealloc", (block, n_bytes, align)
    for run in dict.fromkeys([*heap.runs[-2:], *heap.runs[:1]]):
        yield "page_free", (run,)


def judged(
    heap: Heap,
    case: Case,
    what: Call,
    count: Callable[[], tuple[int, str]],
    checked: bool,
) -> Found:
    """Count a call and compare it with its bound."""
    verb, args = what
    limit = bound_of(heap.pool, verb, checked=checked)
    n, path = count()
    call = f"{verb}({', '.join(map(str, args))})"
    return Found(n / limit, n, limit, case, call, path, checked)


def copied(heap: Heap, what: Call) -> int:
    """Return the bytes that a call may copy, which are steps."""
    verb, args = what
    if verb != "xrealloc":
        return 0
    return min(heap.pool.usable_size(args[0]), args[1])


def made_by_steps(heap: Heap, what: Call) -> tuple[int, str]:
    """Make a call in a file instruction by instruction: their number, and the path."""
    verb, args = what
    steps = insn.Steps(heap.pool, cast(Any, verb), *args)
    n = sum(1 for _ in steps)
    return n, steps.path or ""


def counts_in_file(case: Case, verbs: tuple[str, ...]) -> Iterator[Found]:
    """Count the first and the last call in the heap of a case, each in its own file."""
    heap = replayed(case)
    with heap.arena:
        some = [
            call
            for call in calls(heap, case.asks)
            if call[0] in verbs and copied(heap, call) <= CONTENTS
        ]
    for what in dict.fromkeys([*some[:1], *some[-1:]]):
        heap = replayed(case)
        with heap.arena:
            found = judged(
                heap, case, what, partial(made_by_steps, heap, what), checked=False
            )
        yield found


def counts(
    case: Case, verbs: tuple[str, ...] = VERBS, checked: bool = False
) -> Iterator[Found]:
    """Count calls in the heap of a case."""
    if case.in_file:
        yield from counts_in_file(case, verbs)
        return
    heap = replayed(case)
    with heap.arena:
        for verb, args in calls(heap, case.asks):
            if verb not in verbs:
                continue
            count = partial(
                insn.cost, heap.pool, cast(Any, verb), *args, checked=checked
            )
            yield judged(heap, case, (verb, args), count, checked)


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
    if settings.get("hooks"):
        return f"{name}, hooked"
    return name if settings.get("join_regions", True) else f"{name}, apart"


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
