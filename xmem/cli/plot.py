# SPDX-License-Identifier: BSD-3-Clause
"""The pictures: distributions of cycles, and worst xfree against live blocks.

Draws without a display and without global state: every figure is its own
object on the Agg canvas. Colours are those of Okabe and Ito, which people who
see few colours can tell apart; line styles and markers differ as well.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from xmem.cli.founding import BLOCK_BYTES, HOW_MEASURED, Point, worst_ratio
from xmem.cli.runs import ENGINES, INTERFACES, SYSTEM, Run
from xmem.cli.table import passes

COLOURS = {
    "tlsf": "#0072B2",
    "firstfit": "#D55E00",
    "strict": "#009E73",
    "array": "#56B4E9",
    "subpage": "#CC79A7",
    "legacy": "#E69F00",
    "merged": "#000000",
    SYSTEM: "#7F7F7F",
}
MARKERS = {"tlsf": "o", "firstfit": "s"}
TITLES = {
    "tlsf": "TLSF",
    "firstfit": "legacy first fit",
    SYSTEM: os.confstr("CS_GNU_LIBC_VERSION") or "the system's malloc",
    **{name: f"interface {name}" for name in INTERFACES},
}
STYLES = {"xfree": "-", "xmalloc": ":"}
DPI = 150


def draw_distributions(runs: Sequence[Run], path: Path) -> None:
    """Draw how the cycles of xmalloc and xfree are distributed.

    One panel per trace: the share of calls that take at least so many cycles.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    path : Path
        Where the picture goes; an existing file is replaced.
    """
    names = list(dict.fromkeys(run.trace.name for run in runs))
    figure, panels = make_panels(len(names))
    for name, axes in zip(names, panels.flat, strict=False):
        axes.set_title(name)
        for run in runs:
            if run.trace.name == name:
                draw_run(axes, run)
    label_panels(
        panels,
        len(names),
        "share of calls that take\nat least so many cycles",
        "cycles of one call (time-stamp counter),\n" + passes(runs[0].result.repeats),
    )
    figure.suptitle("How long one xfree and one xmalloc take", fontweight="bold")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def make_panels(n_panels: int) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure with a panel for each trace, nearly as wide as high."""
    n_columns = math.ceil(math.sqrt(n_panels))
    n_rows = math.ceil(n_panels / n_columns)
    figure = Figure(
        figsize=(max(7.0, 4.2 * n_columns), 1.4 + 3.4 * n_rows), layout="constrained"
    )
    panels: npt.NDArray[Any] = figure.subplots(
        n_rows, n_columns, sharex=True, sharey=True, squeeze=False
    )
    return figure, panels


def label_panels(
    panels: npt.NDArray[Any], n_traces: int, upwards: str, along: str
) -> None:
    """Label the outer axes of the panels in use and hide the others."""
    for axes in panels[:, 0]:
        axes.set_ylabel(upwards)
    for axes in panels.flat[n_traces:]:
        axes.set_visible(False)
    lowest = panels.flat[max(0, n_traces - panels.shape[1]) : n_traces]
    for axes in lowest:
        axes.set_xlabel(along)
        axes.tick_params(labelbottom=True)


def draw_run(axes: Axes, run: Run) -> None:
    """Draw the lines of one engine or interface in the panel of its trace."""
    contender = run.result.contender
    for verb, style in STYLES.items():
        result = run.result
        cycles = result.cycles[result.of_kind(verb) & result.was_run]
        axes.plot(
            *tail_shares(cycles),
            color=COLOURS[contender],
            linestyle=style,
            linewidth=2,
            drawstyle="steps-pre",
            label=f"{TITLES[contender]}: {verb}",
        )
    axes.set(xscale="log", yscale="log")
    style_grid(axes)


def tail_shares(
    cycles: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the complementary cumulative distribution of some cycles.

    Returns
    -------
    values : ndarray
        The distinct values, ascending; 0 becomes 1, for the logarithmic axis.
    shares : ndarray
        Of the calls, how large a part takes at least that long.
    """
    values, counts = np.unique(np.maximum(cycles, 1), return_counts=True)
    shares = np.cumsum(counts[::-1])[::-1] / max(len(cycles), 1)
    return values.astype(np.float64), shares


def draw_growth(points: list[Point], path: Path) -> None:
    """Draw the worst xfree against the number of live blocks.

    Parameters
    ----------
    points : list of Point
        Both engines at the same numbers of blocks.
    path : Path
        Where the picture goes; an existing file is replaced.
    """
    figure = Figure(figsize=(8.0, 5.4), layout="constrained")
    axes = figure.subplots()
    for engine in ENGINES:
        draw_engine(axes, [point for point in points if point.engine == engine])
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(f"live blocks of {BLOCK_BYTES} bytes, freed in random order")
    axes.set_ylabel("worst xfree (cycles of the time-stamp counter)")
    ticks = sorted({point.n_blocks for point in points})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.6)
    axes.set_ylim(bottom=100)
    add_time_axis(axes, points[0].tsc_hz)
    mark_ratio(axes, points)
    style_grid(axes)
    axes.set_title("The longest that one xfree takes", fontweight="bold")
    figure.supxlabel(HOW_MEASURED, fontsize="small", color="0.35")
    save(figure, path)


def draw_engine(axes: Axes, points: list[Point]) -> None:
    """Draw the line of one engine, with its name above."""
    engine = points[0].engine
    axes.plot(
        [point.n_blocks for point in points],
        [point.worst_cycles for point in points],
        color=COLOURS[engine],
        marker=MARKERS[engine],
        linewidth=2,
    )
    middle = points[(len(points) - 1) // 2]
    axes.annotate(
        TITLES[engine],
        (middle.n_blocks, middle.worst_cycles),
        xytext=(-6, 14),
        textcoords="offset points",
        horizontalalignment="right",
        color=COLOURS[engine],
        fontsize="large",
        fontweight="bold",
    )


def mark_ratio(axes: Axes, points: list[Point]) -> None:
    """Draw an arrow between the engines at the right end, and its length."""
    legacy, tlsf, ratio = worst_ratio(points)
    axes.annotate(
        "",
        (legacy.n_blocks, legacy.worst_cycles),
        xytext=(tlsf.n_blocks, tlsf.worst_cycles),
        arrowprops={"arrowstyle": "<->", "color": "0.4", "shrinkA": 6, "shrinkB": 6},
    )
    axes.annotate(
        f"{ratio:,.0f} times",
        (tlsf.n_blocks, math.sqrt(legacy.worst_cycles * max(tlsf.worst_cycles, 1))),
        xytext=(-6, 0),
        textcoords="offset points",
        horizontalalignment="right",
        color="0.25",
    )


def add_time_axis(axes: Axes, tsc_hz: float) -> None:
    """Give the cycles' axis a twin on the right that reads in seconds."""

    def seconds_of(cycles: npt.ArrayLike) -> npt.ArrayLike:
        return np.asarray(cycles, dtype=float) / tsc_hz

    def cycles_of(seconds: npt.ArrayLike) -> npt.ArrayLike:
        return np.asarray(seconds, dtype=float) * tsc_hz

    twin = axes.secondary_yaxis("right", functions=(seconds_of, cycles_of))
    twin.yaxis.set_major_formatter(FuncFormatter(lambda s, _: write_seconds(s)))
    twin.set_ylabel(f"time at {tsc_hz / 1e9:.2f} GHz")


def write_seconds(seconds: float) -> str:
    """Write a duration in the unit that suits it: 100 ns, 10 µs, 1 ms."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * 0.999:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def style_grid(axes: Axes) -> None:
    """Draw a light grid and no box."""
    axes.grid(visible=True, which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's suffix names.

    Raises
    ------
    click.FileError
        The file cannot be written.
    """
    FigureCanvasAgg(figure)
    try:
        figure.savefig(path, format=path.suffix[1:].lower(), dpi=DPI)
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error
