# SPDX-License-Identifier: BSD-3-Clause
"""The picture of `xmem versus`: time, worst cases and memory of each allocator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from xmem.cli.plots.style import save, style_grid
from xmem.measure.versus import overall

OURS, THEIRS = "#0072B2", "#7F7F7F"
TITLES = (
    "ns per operation",
    "worst malloc (cycles)",
    "worst free (cycles)",
    "memory / live bytes",
)


def values_of(row: dict[str, Any]) -> tuple[float, ...]:
    """Figures of an allocator, one for each of `TITLES`."""
    return (
        row["ns"],
        row["xmalloc_cycles"]["worst_of_all"],
        row["xfree_cycles"]["worst_of_all"],
        row["memory"] or 0.0,
    )


def draw_versus(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each of time, worst malloc, worst free and memory.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    path : Path
        The picture's file; an existing file is replaced.
    """
    rows = overall(results)
    names = [row["name"] for row in rows]
    figure = Figure(figsize=(13.0, 1.4 + 0.4 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(TITLES), sharey=True)
    columns = zip(*map(values_of, rows), strict=True)
    colours = [OURS if name.startswith("xmem") else THEIRS for name in names]
    for axes, title, values in zip(panels, TITLES, columns, strict=True):
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="{:,.3g}", padding=3, fontsize="small")
        axes.set_title(title)
        if "cycles" in title:
            axes.set_xscale("log")
        axes.margins(x=0.25)
        style_grid(axes)
    first = rows[0]["ns"] or 1
    spreads = [[first * r["ratio"][k] for r in rows] for k in (1, 2)]
    panels[0].hlines(names, spreads[0], spreads[1], color="black", linewidth=1)
    panels[0].invert_yaxis()
    figure.suptitle("xmem and other allocators on the same traces", fontweight="bold")
    save(figure, path)
