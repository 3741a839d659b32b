# SPDX-License-Identifier: BSD-3-Clause
"""The table of `xmem versus`: means over the traces, and what they are."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from xmem.cli.tables.printing import NOTHING
from xmem.measure.versus import overall

VERBS = ("xmalloc_cycles", "xfree_cycles")
QUANTILES = ("p50", "p999", "worst", "worst_of_all")
#: The verb stands above the first of its quantiles.
HEADINGS = (
    *("ns\nper op", "\nratio", "\nspread"),
    *("malloc\np50", "\np99.9", "\nworst", "\nof all"),
    *("free\np50", "\np99.9", "\nworst", "\nof all"),
    "memory\n/ live",
)


def make_versus_table(results: Sequence[dict[str, Any]]) -> Table:
    """Build the table: one row per allocator.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("\nallocator", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in overall(results):
        median, least, greatest = row["ratio"]
        table.add_row(
            row["name"],
            f"{row['ns']:.1f}",
            f"{median:.2f}",
            f"{least:.2f}-{greatest:.2f}",
            *(f"{row[verb][key]:,.0f}" for verb in VERBS for key in QUANTILES),
            NOTHING if row["memory"] is None else f"{row['memory']:.3f}",
        )
    return table


def versus_notes(
    results: Sequence[dict[str, Any]], rounds: int, repeats: int, reserved: bool
) -> list[str]:
    """Explain the figures."""
    n_traces = len({result["trace"] for result in results})
    n_failed = sum(result["failed"] for result in results)
    lines = [
        f"Geometric means over {n_traces} trace{'s' * (n_traces != 1)}; medians of "
        f"{rounds} round{'s' * (rounds != 1)}. ns: without the rig's own share. "
        "ratio: to the first row, in the same round.",
        f"malloc, free: cycles of one call, the least of {repeats} repeats; worst: "
        "over all calls; of all: the greatest over the traces.",
        "memory: the least arena that serves the trace, over the bytes live at its "
        "peak; for allocators that use the system's memory, how far the process grew "
        "(-: it had memory at hand).",
    ]
    if reserved:
        lines.append(
            "Pools of TLSF have their pages before the clock starts, but for memory."
        )
    if n_failed:
        lines.append(f"{n_failed:,} requests failed.")
    return lines
