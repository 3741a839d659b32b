# SPDX-License-Identifier: BSD-3-Clause
"""How the cycles of xfree and xmalloc are distributed: `xmem replay --plot`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from xmem.cli.contenders import Replay
from xmem.cli.plots.style import (
    COLOURS,
    TITLES,
    add_legend,
    draw_each_trace,
    label_panels,
    save,
)
from xmem.cli.tables.replay import passes

STYLES = {"xfree": "-", "xmalloc": ":"}


def draw_distributions(replays: Sequence[Replay], path: Path) -> None:
    """Draw how the cycles of xmalloc and xfree are distributed.

    One panel per trace: the share of calls that take at least a number of cycles.

    Parameters
    ----------
    replays : sequence of Replay
        At least one.
    path : Path
        The picture's file; an existing file is replaced.
    """
    figure, panels, n_traces = draw_each_trace(replays, draw_tails)
    label_panels(
        panels,
        n_traces,
        "share of calls that take\nat least this many cycles",
        "cycles of one call (time-stamp counter),\n"
        + passes(replays[0].result.repeats),
    )
    figure.suptitle("How long one xfree and one xmalloc take", fontweight="bold")
    add_legend(figure, panels.flat[0], n_columns=2)
    save(figure, path)


def draw_tails(axes: Axes, replay: Replay) -> None:
    """Draw the lines of one engine or interface in the panel of its trace."""
    result = replay.result
    for verb, style in STYLES.items():
        cycles = result.cycles[result.of_kind(verb) & result.was_run]
        axes.plot(
            *tail_shares(cycles),
            color=COLOURS[result.contender],
            linestyle=style,
            linewidth=2,
            drawstyle="steps-pre",
            label=f"{TITLES[result.contender]}: {verb}",
        )
    axes.set(xscale="log", yscale="log")


def tail_shares(
    cycles: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the complementary cumulative distribution of some cycles.

    Returns
    -------
    values : ndarray
        The distinct values, ascending; 0 becomes 1, for the logarithmic axis.
    shares : ndarray
        The share of calls that take at least that long.
    """
    values, counts = np.unique(np.maximum(cycles, 1), return_counts=True)
    shares = np.cumsum(counts[::-1])[::-1] / max(len(cycles), 1)
    return values.astype(np.float64), shares
