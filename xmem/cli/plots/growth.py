# SPDX-License-Identifier: BSD-3-Clause
"""The picture of `xmem demo`: the worst xfree against the number of live blocks."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from xmem.cli.contenders import ENGINES
from xmem.cli.founding import BLOCK_BYTES, HOW_MEASURED, Point, worst_ratio
from xmem.cli.plots.style import COLOURS, TITLES, save, style_grid

MARKERS = {"tlsf": "o", "firstfit": "s"}


def draw_growth(points: list[Point], path: Path) -> None:
    """Draw the worst xfree against the number of live blocks.

    Parameters
    ----------
    points : list of Point
        Both engines at the same numbers of blocks.
    path : Path
        The picture's file; an existing file is replaced.
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
    """Draw an arrow between the engines at the right end, with their ratio."""
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
    """Add an axis on the right that shows the cycles as time."""

    def seconds_of(cycles: npt.ArrayLike) -> npt.ArrayLike:
        return np.asarray(cycles, dtype=float) / tsc_hz

    def cycles_of(seconds: npt.ArrayLike) -> npt.ArrayLike:
        return np.asarray(seconds, dtype=float) * tsc_hz

    twin = axes.secondary_yaxis("right", functions=(seconds_of, cycles_of))
    twin.yaxis.set_major_formatter(FuncFormatter(lambda s, _: format_seconds(s)))
    twin.set_ylabel(f"time at {tsc_hz / 1e9:.2f} GHz")


def format_seconds(seconds: float) -> str:
    """Format a duration in the unit that suits it: 100 ns, 10 µs, 1 ms."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * 0.999:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
