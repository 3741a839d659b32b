# SPDX-License-Identifier: BSD-3-Clause
"""The tables of `xmem versus`: means over traces, worst calls and memory on each."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from xmem.cli.tables.printing import NOTHING
from xmem.measure.ranks import VERBS, mean_cycles, ranks
from xmem.measure.versus import overall

QUANTILES = ("p50", "p999", "worst", "worst_of_all")
#: The verb stands above the first of its quantiles.
HEADINGS = (
    *("ns\nper op", "\nratio", "\nspread"),
    *("malloc\np50", "\np99.9", "\nworst", "\nof all"),
    *("free\np50", "\np99.9", "\nworst", "\nof all"),
    "memory\n/ live",
)
#: What xmem's pools are asked, by the ways in which they run.
QUESTIONS = {
    (False,): "xmem's pools grow in the calls that are clocked",
    (True,): "xmem's pools have their pages before the clock starts",
    (False, True): "xmem's pools as they grow, and with their pages reserved",
}
#: The row of what xmem's format needs, and the heading of its table.
FORMAT = "the format of xmem"
MEMORY_HEADING = "Memory on each trace, over the bytes live at its peak"
#: As users call the verbs.
NAMES = {"xmalloc": "malloc", "xfree": "free"}


def new_table() -> Table:
    """Return a table with the column of names."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("\nallocator", no_wrap=True)
    return table


def heading(ways: Sequence[bool]) -> str:
    """Return the heading of the table of means, which says what was asked."""
    return f"All traces: {QUESTIONS[tuple(ways)]}"


def worst_heading(verb: str) -> str:
    """Return the heading of the table of the worst calls of a verb."""
    return f"Worst {NAMES[verb]} on each trace: cycles (rank)"


def make_versus_table(results: Sequence[dict[str, Any]]) -> Table:
    """Build the table of means: one row per allocator.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    """
    table = new_table()
    table.add_column("\nmemory", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in overall(results):
        median, least, greatest = row["ratio"]
        table.add_row(
            row["name"],
            row["memory_from"] or NOTHING,
            f"{row['ns']:.1f}",
            f"{median:.2f}",
            f"{least:.2f}-{greatest:.2f}",
            *(f"{row[v][key]:,.0f}" for v in VERBS.values() for key in QUANTILES),
            per_live(row["memory"]),
        )
    return table


def make_worst_table(results: Sequence[dict[str, Any]], verb: str) -> Table:
    """Build the table of the worst calls of a verb: cycles and rank on each trace.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    verb : {"xmalloc", "xfree"}
        The verb.
    """
    table = new_table()
    traces = list(dict.fromkeys(result["trace"] for result in results))
    for trace in traces:
        table.add_column(f"\n{trace}", justify="right", no_wrap=True)
    table.add_column("geometric\nmean", justify="right", no_wrap=True)
    for name, cells in worst_cells(results, verb).items():
        table.add_row(name, *cells)
    return table


def make_memory_table(results: Sequence[dict[str, Any]]) -> Table:
    """Build the table of memory over live bytes, of each allocator on each trace.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    """
    table = new_table()
    for trace in dict.fromkeys(result["trace"] for result in results):
        table.add_column(f"\n{trace}", justify="right", no_wrap=True)
    for name, cells in memory_cells(results).items():
        table.add_row(name, *cells)
    return table


def memory_cells(results: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return memory over live bytes of each allocator: all traces.

    Last what blocks of xmem's format need, whoever places them.
    """
    cells: dict[str, list[str]] = {}
    least: dict[str, str] = {}
    for result in results:
        cells.setdefault(result["name"], []).append(per_live(result["memory"]))
        least[result["trace"]] = per_live(result["format"])
    return {**cells, FORMAT: list(least.values())}


def per_live(value: float | None) -> str:
    """Return a figure of memory."""
    return NOTHING if value is None else f"{value:.3f}"


def worst_cells(results: Sequence[dict[str, Any]], verb: str) -> dict[str, list[str]]:
    """Return the worst calls of each allocator with ranks: all traces, and the mean."""
    worst: dict[str, list[float]] = {}
    cells: dict[str, list[str]] = {}
    for result in results:
        cycles, rank = result[VERBS[verb]]["worst"], result["ranks"][verb]
        worst.setdefault(result["name"], []).append(cycles)
        cells.setdefault(result["name"], []).append(cell(cycles, rank))
    means = [mean_cycles(values) if any(values) else 0 for values in worst.values()]
    for name, mean, rank in zip(worst, means, ranks(means), strict=True):
        cells[name].append(cell(mean, rank))
    return cells


def cell(cycles: float, rank: int | None) -> str:
    """Return a number of cycles and its rank."""
    return NOTHING if rank is None else f"{cycles:,.0f} ({rank})"


def versus_notes(
    results: Sequence[dict[str, Any]], rounds: int, repeats: int
) -> list[str]:
    """Explain the figures."""
    n_traces = len({result["trace"] for result in results})
    n_failed = sum(result["failed"] for result in results)
    lines = [
        "memory: grown, pools obtain pages of their arena in the calls that are "
        "clocked; reserved, all memory is there before the clock starts; system, it "
        "comes from the system, and stays in the process from pass to pass.",
        f"Geometric means over {n_traces} trace{'s' * (n_traces != 1)}; medians of "
        f"{rounds} round{'s' * (rounds != 1)}. ns: without the rig's own share. "
        "ratio: to the first row, in the same round.",
        f"malloc, free: cycles of one call, the least of {repeats} repeats; worst: "
        "over all calls; of all: the greatest over the traces.",
        "rank: 1 more than the number of allocators whose worst call this one exceeds "
        "by more than a tenth.",
        "memory / live: the least arena that serves the trace, over the bytes live at "
        "its peak; for allocators that use the system's memory, how far the process "
        "grew (-: it had memory at hand). The format of xmem: what its blocks, headers "
        "and tables need for the bytes that live at the peak, whoever places them.",
    ]
    if n_failed:
        lines.append(f"{n_failed:,} requests failed.")
    return lines
