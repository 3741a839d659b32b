# SPDX-License-Identifier: BSD-3-Clause
"""The picture of `xmem versus`: time, worst cases and memory of each allocator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from xmem.cli.plots.style import save, style_grid
from xmem.measure.ranks import VERBS
from xmem.measure.versus import RESERVED, overall

OURS, IN_ARENA, THEIRS = "#0072B2", "#D55E00", "#5F5F5F"
NAMES = {
    OURS: "xmem",
    IN_ARENA: "all of its memory at once",
    THEIRS: "memory of the system",
}
MEAN, GREATEST = "geometric mean of traces", "greatest of traces"
#: Room for numbers at both ends of a panel, as a share of its width.
MARGIN = 0.26
MARKER = 7.0


def draw_versus(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each of time, memory, worst malloc and worst free.

    Parameters
    ----------
    results : sequence of dict
        As `xmem.measure.versus.compare` returns them.
    path : Path
        The picture's file; an existing file is replaced.
    """
    draw_means(overall(results), path)


def draw_means(means: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what `xmem.measure.versus.overall` returns; see `draw_versus`."""
    save(figure_of(means), path)


def figure_of(means: Sequence[dict[str, Any]]) -> Figure:
    """Return the picture of what `xmem.measure.versus.overall` returns."""
    rows = in_order(means)
    figure = Figure(
        figsize=(10.0, 2.4 + 0.52 * len(rows)),
        layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1),
    )
    (time, memory), (malloc, free) = figure.subplots(2, 2, sharey=True)
    draw_time(time, rows, means[0]["ns"])
    draw_memory(memory, rows)
    draw_worst(malloc, rows, "xmalloc")
    draw_worst(free, rows, "xfree")
    for axes in (time, malloc):
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(colour_of(row))
    time.set_ylim(len(rows) - 0.4, -0.6)
    figure.legend(
        handles=marks(rows),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        columnspacing=1.5,
        handletextpad=0.1,
    )
    figure.suptitle("xmem and other allocators on the same traces", fontweight="bold")
    return figure


def in_order(means: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return xmem's rows first, as they come, then others by their worst malloc."""
    return sorted(
        means,
        key=lambda row: 0 if is_ours(row) else row[VERBS["xmalloc"]]["worst"],
    )


def is_ours(row: dict[str, Any]) -> bool:
    """Whether a row is one of xmem's."""
    return str(row["name"]).split(",")[0] == "xmem"


def colour_of(row: dict[str, Any]) -> str:
    """Return the colour of a row."""
    if is_ours(row):
        return OURS
    return IN_ARENA if row["memory_from"] == RESERVED else THEIRS


# Panels ---------------------------------------------------------------------------


def draw_time(axes: Axes, rows: Sequence[dict[str, Any]], base: float) -> None:
    """Draw nanoseconds, with a line from the least to the greatest of the rounds."""
    for y, row in enumerate(rows):
        _, least, greatest = (base * ratio for ratio in row["ratio"])
        ends = min(least, row["ns"]), max(greatest, row["ns"])
        axes.plot(ends, (y, y), color=colour_of(row), linewidth=1.5)
        dot(axes, row["ns"], y, colour_of(row))
        number(axes, ends[1], y, f"{row['ns']:.1f}")
    style_panel(
        axes, "time of an operation", "nanoseconds (line: ratios of the rounds)"
    )
    axes.set_xlim(0, axes.get_xlim()[1])


def draw_memory(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw bytes held for a byte that is live at the peak."""
    for y, row in enumerate(rows):
        if row["memory"] is not None:
            dot(axes, row["memory"], y, colour_of(row))
            number(axes, row["memory"], y, f"{row['memory']:.2f}")
    style_panel(axes, "memory", "bytes for each byte that is live at the peak")
    left, right = axes.dataLim.intervalx
    left, right = min(left, 1.0), max(right, 1.1)
    axes.set_xlim(left - 0.04 * (right - left), right + MARGIN * (right - left))


def draw_worst(axes: Axes, rows: Sequence[dict[str, Any]], verb: str) -> None:
    """Draw the worst call: its mean over the traces and the greatest of them."""
    for y, row in enumerate(rows):
        found = row[VERBS[verb]]
        mean, most = max(found["worst"], 1), max(found["worst_of_all"], 1)
        colour = colour_of(row)
        if has_two(found):
            axes.plot((mean, most), (y, y), color=colour, linewidth=1.5)
            dot(axes, most, y, colour, is_filled=False)
        dot(axes, mean, y, colour)
        number(axes, mean, y, f"{mean:,.0f}", -1)
        if has_two(found):
            number(axes, most, y, f"{most:,.0f}")
    axes.set_xscale("log")
    style_panel(axes, f"worst {verb[1:]}", "cycles of one call")
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def has_two(found: dict[str, Any]) -> bool:
    """Whether the worst call of all traces is not that of each: there are several."""
    mean, most = round(found["worst"]), round(found["worst_of_all"])
    return bool(mean != most)


def dot(axes: Axes, x: float, y: float, colour: str, is_filled: bool = True) -> None:
    """Draw a dot, or a ring."""
    fill = colour if is_filled else "white"
    axes.plot(x, y, "o", markersize=MARKER, color=colour, markerfacecolor=fill)


def number(axes: Axes, x: float, y: float, text: str, side: int = 1) -> None:
    """Write a number on one side of a dot, on white that covers the grid."""
    axes.annotate(
        text,
        (x, y),
        xytext=(8 * side, 0),
        textcoords="offset points",
        horizontalalignment="left" if side > 0 else "right",
        verticalalignment="center_baseline",
        bbox={"boxstyle": "square,pad=0.1", "color": "white", "linewidth": 0},
    )


def style_panel(axes: Axes, title: str, along: str) -> None:
    """Set what all panels have."""
    axes.set_title(title, fontweight="bold", fontsize="medium")
    axes.set_xlabel(along)
    axes.margins(x=MARGIN)
    axes.tick_params(axis="x", labelsize="small")
    axes.tick_params(axis="y", length=0)
    style_grid(axes)


def marks(rows: Sequence[dict[str, Any]]) -> list[Line2D]:
    """Return the entries of the legend: colours that occur, and marks if two do."""
    colours = dict.fromkeys(map(colour_of, rows))
    several = any(has_two(row[verb]) for row in rows for verb in VERBS.values())

    def mark(label: str, colour: str, fill: str) -> Line2D:
        return Line2D(
            [],
            [],
            marker="o",
            markersize=MARKER,
            linestyle="",
            color=colour,
            markerfacecolor=fill,
            label=label,
        )

    two = [mark(MEAN, "black", "black"), mark(GREATEST, "black", "white")]
    return [
        *(mark(NAMES[colour], colour, colour) for colour in colours),
        *(two if several else ()),
    ]
