# SPDX-License-Identifier: BSD-3-Clause
"""Write the tables and pictures of docs/performance.md: ``make performance``.

``python docs/performance.py NAME...`` writes some of the parts. All are measured on
this machine and the build that is installed. Takes about ten minutes; nothing else
should run meanwhile. README shows three of the rows of `field`.
"""

import contextlib
import ctypes
import importlib
import itertools
import os
import statistics
import sys
import textwrap
import threading
import time
import timeit
from collections.abc import Callable
from functools import cache, partial
from multiprocessing import heap, shared_memory
from pathlib import Path
from typing import Any

import measured
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from measured import (
    DOCS,
    ROOT,
    counted,
    fill,
    machine,
    part_of,
    processor,
    require_release,
    table,
)

from xmem import Arena, Pool, numpy_memory
from xmem.cli.founding import count_replays, measure_points
from xmem.cli.plots.growth import draw_growth
from xmem.cli.plots.style import save, style_grid
from xmem.cli.plots.versus import draw_versus
from xmem.cli.progress import Progress
from xmem.cli.tables.printing import NOTHING
from xmem.cli.tables.versus import memory_cells, worst_cells
from xmem.cli.versus import enter
from xmem.measure import insn
from xmem.measure.counts import Summary
from xmem.measure.floors import Conversions, c_memory
from xmem.measure.insn import count
from xmem.measure.lines import trace_lines
from xmem.measure.peers import Peer, measure
from xmem.measure.ranks import VERBS
from xmem.measure.replay import replay
from xmem.measure.trace import TRACE_DTYPE, load, peak_live
from xmem.measure.versus import compare, least_arena, overall
from xmem.pool import HARDENING
from xmem.stress.workloads import HeapWorkload

PAGE = DOCS / "performance.md"
README = ROOT / "README.md"
RELIABILITY = DOCS / "reliability.md"
TRACES = sorted(measured.TRACES.glob("*.npz"))
ROUNDS = 5
N_BYTES = 256
N_PAIRS = 2000
EVERY = 29
LINE_HEADS = ("instructions", "lines of blocks", "of all")
LIVE_BLOCKS = (10**3, 10**4, 10**5, 10**6, 10**7)
ARENA_LOG2 = (20, 24, 28, 32, 34)
N_TIMED = 20_000
SEED = 2004


# Compared with other allocators ----------------------------------------------------


@cache
def compared() -> list[dict[str, Any]]:
    """Run xmem, growing and with its pages reserved, and what is installed here."""
    return compare(enter(ways=(False, True)), TRACES, rounds=ROUNDS)


def field() -> str:
    """Run xmem and other allocators, and draw the picture."""
    found = compared()
    draw_versus(found, DOCS / "versus.png")
    rows = []
    for one in overall(found):
        median, least, greatest = one["ratio"]
        rows.append(
            [
                one["name"],
                f"{one['ns']:.1f}",
                f"{median:.2f} ({least:.2f} to {greatest:.2f})",
                *(
                    " / ".join(f"{one[verb][key]:,.0f}" for key in ("p50", "p999"))
                    + f" / {one[verb]['worst']:,.0f} ({one[verb]['worst_of_all']:,.0f})"
                    for verb in ("xmalloc_cycles", "xfree_cycles")
                ),
                NOTHING if one["memory"] is None else f"{one['memory']:.3f}",
            ]
        )
    return table(
        [
            "allocator",
            "ns/op",
            "ratio (spread)",
            "malloc p50 / p99.9 / worst (of all)",
            "free p50 / p99.9 / worst (of all)",
            "memory / live",
        ],
        rows,
    )


def worst() -> str:
    """Show the worst calls on each trace with their ranks, from the same runs."""
    found = compared()
    names = dict.fromkeys(one["trace"] for one in found)
    shown = []
    for verb in VERBS:
        rows = [[name, *cells] for name, cells in worst_cells(found, verb).items()]
        shown.append(table([f"worst {verb[1:]}", *names, "geometric mean"], rows))
    return "\n\n".join(shown)


def memory() -> str:
    """Show the memory of each allocator on each trace, and what the format needs."""
    found = compared()
    names = dict.fromkeys(one["trace"] for one in found)
    rows = [[name, *cells] for name, cells in memory_cells(found).items()]
    return table(["memory / live", *names], rows)


#: What README shows of it.
IN_README = ("xmem", "glibc", "jemalloc")


def readme() -> str:
    """Return the rows for README: what `field` has written, a few columns of it."""
    lines = part_of(PAGE, "field").splitlines()[2:]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = []
    for name, ns, _, malloc, free, _ in found:
        if name.split()[0] in IN_README and "," not in name:
            worst = [cell.split(" / ")[2].split(" (")[0] for cell in (malloc, free)]
            rows.append([name, ns, *worst])
    heads = ["allocator", "ns per call", "worst malloc, cycles", "worst free, cycles"]
    return table(heads, rows)


# Hardening -------------------------------------------------------------------------

HARDENED: dict[str, dict[str, Any]] = {
    "checked": {"checked": True},
    **{name: {"hardened": (name,)} for name in HARDENING},
    "all of it": {"hardened": True},
}
HARDENED_TRACES = ("redis", "sqlite", "tmem")


def hardening() -> str:
    """Time replays with each kind of hardening, divided by the same replays without."""
    all_ops = [load(measured.TRACES / f"{name}.npz") for name in HARDENED_TRACES]
    ratios: dict[str, list[list[float]]] = {
        name: [[] for _ in all_ops] for name in HARDENED
    }
    for _ in range(ROUNDS):
        for i, ops in enumerate(all_ops):
            plain = replay(ops, repeats=5).ns_per_op
            for name, settings in HARDENED.items():
                ns = replay(ops, repeats=5, **settings).ns_per_op
                ratios[name][i].append(ns / plain)
    rows = [
        [name, *(f"{statistics.median(one):.2f}" for one in found)]
        for name, found in ratios.items()
    ]
    return table(["time, divided by that without", *HARDENED_TRACES], rows)


# Quick lists -----------------------------------------------------------------------


def quick() -> str:
    """Measure what quick lists save, and what they cost in memory."""
    rows = []
    for is_quick in (False, True):
        rows.append(["yes" if is_quick else "no", *quick_row(is_quick)])
    return counted(
        table(
            [
                "quick lists",
                "xmalloc: mean instructions",
                "worst",
                "xfree: mean instructions",
                "worst",
                "memory / live",
            ],
            rows,
        )
    )


def memory_per_live(is_quick: bool) -> str:
    """Return the least arena over the bytes live, the geometric mean of the traces."""
    peer = Peer.engine(quick=is_quick)
    found = []
    for file in TRACES:
        ops = load(file)
        found.append(least_arena(peer, ops) / peak_live(ops))
    return f"{statistics.geometric_mean(found):.3f}"


def quick_row(is_quick: bool) -> list[str]:
    """Count instructions over the traces (means geometric), and find the memory."""
    found: dict[str, list[Summary]] = {"xmalloc": [], "xfree": []}
    for file in TRACES:
        counts = count(load(file), every=EVERY, quick=is_quick)
        for verb, summaries in found.items():
            summary = counts.summary(verb)
            if summary is not None:
                summaries.append(summary)
    row = []
    for summaries in found.values():
        row.append(f"{statistics.geometric_mean(s.mean for s in summaries):.0f}")
        row.append(f"{max(s.most for s in summaries)}")
    return [*row, memory_per_live(is_quick)]


def lines() -> str:
    """Count the cache lines that calls touch, and their instructions."""
    rows = []
    for file in TRACES:
        ops = load(file)
        for is_quick in (False, True):
            counts = count(ops, every=EVERY, quick=is_quick)
            found = trace_lines(ops, quick=is_quick, every=EVERY)
            row = [file.stem, "quick" if is_quick else "plain"]
            for verb in ("xmalloc", "xfree"):
                summary, touched = counts.summary(verb), found.mean(verb)
                if summary is None:
                    row += [NOTHING] * 3
                    continue
                row.append(f"{summary.mean:.0f}")
                row.append(f"{touched['blocks']:.1f}")
                row.append(f"{sum(touched.values()):.1f}")
            rows.append(row)
    heads = [f"{v}: {what}" for v in ("xmalloc", "xfree") for what in LINE_HEADS]
    return counted(table(["trace", "pool", *heads], rows))


# From Python -----------------------------------------------------------------------


UNDER_XMEM = "numpy.empty(n) under xmem.numpy_memory"
UNDER_C = "numpy.empty(n) under a handler that calls malloc"


def pairs() -> dict[str, Callable[[], object]]:
    """Return the ways in which a user takes memory and gives it back."""
    pool = Pool(Arena.anonymous(64 << 20))
    pool.reserve(2000)
    xmalloc, xfree = pool.xmalloc, pool.xfree
    quick = Pool(Arena.anonymous(64 << 20), quick=True)
    quick.reserve(2000)
    quick_xmalloc, quick_xfree = quick.xmalloc, quick.xfree
    floor = Conversions()
    floor_xmalloc, floor_xfree = floor.xmalloc, floor.xfree
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    sizes = np.full(1000, N_BYTES)
    shared = heap.Heap()

    def named() -> None:
        block = shared_memory.SharedMemory(create=True, size=N_BYTES)
        block.close()
        block.unlink()

    found: dict[str, Callable[[], object]] = {
        "xmem: xmalloc, xfree": lambda: xfree(xmalloc(N_BYTES)),
        "xmem, quick: xmalloc, xfree": lambda: quick_xfree(quick_xmalloc(N_BYTES)),
        "two methods that convert arguments and results": (
            lambda: floor_xfree(floor_xmalloc(N_BYTES))
        ),
        "xmem: xmalloc_many, xfree_many (each of 1000)": (
            lambda: pool.xfree_many(pool.xmalloc_many(sizes))
        ),
        "bytearray(n)": lambda: bytearray(N_BYTES),
        "xmem: block": lambda: pool.block(N_BYTES),
        "xmem: empty": lambda: pool.empty(N_BYTES, np.uint8),
        UNDER_XMEM: lambda: np.empty(N_BYTES, np.uint8),
        UNDER_C: lambda: np.empty(N_BYTES, np.uint8),
        "numpy.empty(n)": lambda: np.empty(N_BYTES, np.uint8),
        "ctypes: malloc, free": lambda: libc.free(libc.malloc(N_BYTES)),
        "multiprocessing.heap: malloc, free": (
            lambda: shared.free(shared.malloc(N_BYTES))
        ),
        "SharedMemory: create, unlink": named,
    }
    try:
        cymem = importlib.import_module("cymem.cymem")
    except ImportError:
        return found
    mine = cymem.Pool()
    return {**found, "cymem: alloc, free": lambda: mine.free(mine.alloc(1, N_BYTES))}


def around(name: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a way is timed."""
    if name == UNDER_C:
        return c_memory()
    if name == UNDER_XMEM:
        return numpy_memory(Pool(Arena.anonymous(64 << 20)))
    return contextlib.nullcontext()


def nothing() -> None:
    """Do nothing; timing this tells what a call costs by itself."""


def python() -> str:
    """Time pairs from Python, in rounds."""
    ways = pairs()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        empty = min(timeit.repeat(nothing, number=N_PAIRS, repeat=5)) / N_PAIRS
        for name, way in ways.items():
            number = 20 if "many" in name or "Shared" in name else N_PAIRS
            with around(name):
                least = min(timeit.repeat(way, number=number, repeat=5)) / number
            seconds[name].append((least - empty) / (1000 if "many" in name else 1))
    base = seconds["xmem: xmalloc, xfree"]
    rows = []
    for name, found in seconds.items():
        ratios = [mine / its for mine, its in zip(found, base, strict=True)]
        rows.append(
            [
                name,
                f"{statistics.median(found) * 1e9:,.0f}",
                f"{statistics.median(ratios):,.2f} ({min(ratios):,.2f} to "
                f"{max(ratios):,.2f})",
            ]
        )
    return table(
        [f"{N_BYTES} bytes taken and given back", "ns", "ratio (spread)"], rows
    )


# Threads ---------------------------------------------------------------------------

N_OPS = 2_000_000


def at_once(works: list[Callable[[], object]]) -> float:
    """Return the seconds until all works are done, each in a thread of its own."""
    gate = threading.Barrier(len(works) + 1)

    def run(work: Callable[[], object]) -> None:
        gate.wait()
        work()

    running = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in running:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in running:
        thread.join()
    return time.perf_counter() - start


def python_pairs(n_threads: int, shared: bool) -> float:
    """Return million pairs a second of Python threads, on one pool or on one each."""
    arenas = [Arena.anonymous(16 << 20) for _ in range(n_threads)]
    pools = [
        Pool(arenas[0 if shared else i]) for i in range(1 if shared else n_threads)
    ]
    each = N_OPS // 2 // n_threads

    def work(pool: Pool) -> None:
        for _ in itertools.repeat(None, each):
            pool.xfree(pool.xmalloc(N_BYTES))

    works = [partial(work, pools[i % len(pools)]) for i in range(n_threads)]
    return each * n_threads / at_once(works) / 1e6


def compiled_ops(n_threads: int, shared: bool) -> float:
    """Return million operations a second without the GIL, on one pool or on one each.

    They are those of xmem-stress on small blocks, with their patterns: a thread
    holds the lock for the call alone.
    """
    workloads = [
        HeapWorkload("pool", {"engine": "tlsf"}, "small", 256 << 20, threads=each)
        for each in ([n_threads] if shared else [1] * n_threads)
    ]
    targets = [workload.target() for workload in workloads]
    works = []
    each = N_OPS // n_threads
    for i in range(n_threads):
        ops = workloads[0].generator(SEED + i).make(each)
        target = targets[i % len(targets)]
        works.append(partial(target.execute, i if shared else 0, ops))
    return each * n_threads / at_once(works) / 1e6


def contention() -> str:
    """Measure the work of 1, 2 and 8 threads, on one pool and on a pool each."""
    rows = []
    for n_threads in (1, 2, 8):
        cells = []
        for rate in (python_pairs, compiled_ops):
            for shared in (True, False):
                found = [rate(n_threads, shared) for _ in range(ROUNDS)]
                cells.append(
                    f"{statistics.median(found):.1f} "
                    f"({min(found):.1f} to {max(found):.1f})"
                )
        rows.append([str(n_threads), *cells])
    return table(
        [
            "threads",
            "Python, one pool",
            "Python, a pool each",
            "compiled, one pool and lock",
            "compiled, an arena each",
        ],
        rows,
    )


# Growth ----------------------------------------------------------------------------


def churn(n_live: int) -> npt.NDArray[np.void]:
    """Return a trace: blocks of 16 to 200 bytes; then one is freed, one allocated."""
    rng = np.random.default_rng(SEED)
    ops = np.zeros(n_live + 2 * N_TIMED, dtype=TRACE_DTYPE)
    born, swapped = ops[:n_live], ops[n_live:]
    born["id"] = np.arange(n_live)
    born["size"] = rng.integers(16, 200, n_live)
    live = np.arange(n_live)
    places = rng.integers(0, n_live, N_TIMED)
    for i, place in enumerate(places.tolist()):
        swapped["id"][2 * i] = live[place]
        live[place] = swapped["id"][2 * i + 1] = n_live + i
    swapped["op"][::2] = 1
    swapped["size"][1::2] = rng.integers(16, 200, N_TIMED)
    return ops


def tail(result: Any, kind: int) -> list[float]:
    """Return p50, p99.9 and worst of the last calls of a kind."""
    cycles = result.cycles[-2 * N_TIMED :][result.kinds[-2 * N_TIMED :] == kind]
    return [float(np.quantile(cycles, q)) for q in (0.5, 0.999, 1.0)]


def instructions(n_live: int, arena_bytes: int | None = None) -> tuple[int, int]:
    """Count an xfree between live blocks, and an xmalloc that splits."""
    n_bytes = arena_bytes or max(256 * n_live, 1 << 24)
    with Arena.anonymous(n_bytes, max_pools=2) as arena:
        pool = Pool(arena)
        offsets = pool.xmalloc_many(np.full(n_live, 100))
        free = insn.cost(pool, "xfree", int(offsets[n_live // 2]))[0]
        return free, insn.cost(pool, "xmalloc", 100)[0]


COST_HEADS = (
    *("xfree p50", "p99.9", "worst", "xmalloc p50", "p99.9", "worst"),
    *("xfree instructions", "xmalloc instructions"),
)


def live() -> str:
    """Measure the cost against live blocks, and draw the picture."""
    rows, drawn = [], []
    for n_live in LIVE_BLOCKS:
        result = measure(Peer.engine(), churn(n_live), repeats=7)
        free, alloc = tail(result, 1), tail(result, 0)
        n_free, n_alloc = instructions(n_live)
        rows.append(
            [
                f"{n_live:,}",
                *(f"{cycles:,.0f}" for cycles in (*free, *alloc)),
                f"{n_free}",
                f"{n_alloc}",
            ]
        )
        drawn.append((n_live, *free, n_free))
    draw(drawn)
    return counted(table(["live blocks", *COST_HEADS], rows))


def draw(points: list[tuple[float, ...]]) -> None:
    """Draw xfree against live blocks: cycles rise with the caches, not instructions."""
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    columns = list(zip(*points, strict=True))
    for values, label, style in (
        (columns[3], "worst, cycles", "-"),
        (columns[2], "p99.9, cycles", "--"),
        (columns[1], "p50, cycles", ":"),
        (columns[4], "instructions", "-."),
    ):
        axes.plot(columns[0], values, style, marker="o", linewidth=2, label=label)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("live blocks of 16 to 200 bytes, freed in random order")
    axes.set_ylabel("one xfree")
    axes.set_title("xfree of TLSF against live blocks", fontweight="bold")
    axes.legend(frameon=False)
    style_grid(axes)
    save(figure, DOCS / "growth.png")


def arenas() -> str:
    """Measure the cost against the size of the arena."""
    rows = []
    for log2 in ARENA_LOG2:
        result = measure(Peer.engine(), churn(1000), repeats=7, arena_bytes=1 << log2)
        free, alloc = tail(result, 1), tail(result, 0)
        n_free, n_alloc = instructions(1000, 1 << log2)
        rows.append(
            [
                f"2^{log2}",
                *(f"{cycles:,.0f}" for cycles in (*free, *alloc)),
                f"{n_free}",
                f"{n_alloc}",
            ]
        )
    return counted(table(["arena bytes", *COST_HEADS], rows))


def picture() -> str:
    """Draw the picture that `xmem demo` draws, and say where it was measured."""
    with Progress(count_replays()) as progress:
        draw_growth(list(measure_points(progress)), DOCS / "worst-xfree.png")
    return textwrap.fill(
        "`make demo` draws this picture: the worst-case time of one `xfree` under TLSF "
        "and under the *legacy engine*, the first fit that TLSF replaced in Xen. (This "
        f"one: {processor()}, {os.cpu_count()} processors, {time.strftime('%B %Y')}.)",
        width=88,
    )


def misuse() -> str:
    """Show when each allocator that is installed stops a program that is wrong."""
    sys.path.insert(0, str(ROOT / "tests"))
    wrong = importlib.import_module("proofs.misuse")
    sys.path.remove(str(ROOT / "tests"))
    seen = wrong.measure()
    return table(
        ["mistake", *seen],
        [
            [mistake, *(found[what] for found in seen.values())]
            for what, mistake in wrong.MISTAKES.items()
        ],
        n_text=1 + len(seen),
    )


PARTS: dict[tuple[Path, str], Callable[[], str]] = {
    (PAGE, "machine"): lambda: f"{machine()} Medians of {ROUNDS} rounds.",
    (PAGE, "field"): field,
    (PAGE, "worst"): worst,
    (PAGE, "memory"): memory,
    (README, "performance"): readme,
    (README, "picture"): picture,
    (RELIABILITY, "misuse"): misuse,
    (RELIABILITY, "hardening"): hardening,
    (PAGE, "quick"): quick,
    (PAGE, "lines"): lines,
    (PAGE, "python"): python,
    (PAGE, "threads"): contention,
    (PAGE, "live"): live,
    (PAGE, "arenas"): arenas,
}


def main() -> None:
    """Replace what was measured."""
    require_release()
    fill(PARTS)


if __name__ == "__main__":
    main()
