# SPDX-License-Identifier: BSD-3-Clause
"""The worst xfree against the number of live blocks: `xmem replay --plot`."""

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
from xmem.measure.trace import OP_FREE, OP_REALLOC, PeerResult

LIVE_BINS = 24


def live_blocks(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the number of live blocks before each operation of a trace.

    Parameters
    ----------
    kinds : ndarray
        The trace's ``op``.
    """
    change = np.where(kinds == OP_FREE, -1, np.where(kinds == OP_REALLOC, 0, 1))
    return np.concatenate([[0], np.cumsum(change)[:-1]])


def worst_by_live(
    result: PeerResult, verb: str = "xfree"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the worst cycles of a verb against live blocks.

    Returns
    -------
    blocks, cycles : ndarray
        For each range of live blocks with a call: its upper end, and the most
        cycles of a call.
    """
    some = result.of_kind(verb) & result.was_run
    live = np.maximum(live_blocks(result.kinds)[some], 1)
    if not len(live):
        return np.empty(0), np.empty(0)
    ends = np.unique(np.geomspace(1, live.max(), LIVE_BINS).round())
    place = np.searchsorted(ends, live)
    worst = np.zeros(len(ends))
    np.maximum.at(worst, place, result.cycles[some])
    has_calls = np.isin(np.arange(len(ends)), place)
    return ends[has_calls], np.maximum(worst[has_calls], 1)


def draw_live(replays: Sequence[Replay], path: Path) -> None:
    """Draw the worst xfree against the number of live blocks.

    Parameters
    ----------
    replays : sequence of Replay
        At least one.
    path : Path
        The picture's file; an existing file is replaced.
    """
    figure, panels, n_traces = draw_each_trace(replays, draw_worst)
    lines = [line for axes in panels.flat for line in axes.lines]
    if any(np.size(line.get_xdata()) for line in lines):
        # A logarithmic axis needs something to show.
        panels.flat[0].set(xscale="log", yscale="log")
    label_panels(
        panels,
        n_traces,
        "worst xfree\n(cycles of the time-stamp counter)",
        f"live blocks; {passes(replays[0].result.repeats)}",
    )
    figure.suptitle("The worst xfree against live blocks", fontweight="bold")
    add_legend(figure, panels.flat[0], n_columns=3)
    save(figure, path)


def draw_worst(axes: Axes, replay: Replay) -> None:
    """Draw the line of one engine or interface in the panel of its trace."""
    contender = replay.result.contender
    axes.plot(
        *worst_by_live(replay.result),
        color=COLOURS[contender],
        linewidth=2,
        drawstyle="steps-pre",
        label=TITLES[contender],
    )
