# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of why a call takes its time: its path, and how many blocks live.

`xmem replay --plot` draws them beside the distributions of `plot`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from xmem.cli.plot import (
    COLOURS,
    TITLES,
    label_panels,
    make_panels,
    save,
    style_grid,
)
from xmem.cli.runs import Run
from xmem.cli.table import passes
from xmem.measure.counts import path_name
from xmem.measure.replay import ReplayResult
from xmem.measure.trace import PeerResult

VERBS = ("xmalloc", "xfree", "xrealloc")
BINS_PER_DECADE = 8
LIVE_BINS = 24
#: Shares below are drawn like this one.
LEAST_SHARE = 1e-5


# Cost against live blocks --------------------------------------------------------


def live_blocks(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Blocks that live before each operation of a trace.

    Parameters
    ----------
    kinds : ndarray
        The trace's ``op``.
    """
    change = np.where(kinds == 1, -1, np.where(kinds == 2, 0, 1))
    return np.concatenate([[0], np.cumsum(change)[:-1]])


def worst_by_live(
    result: PeerResult, verb: str = "xfree"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Worst cycles of a verb against live blocks.

    Returns
    -------
    blocks, cycles : ndarray
        Of each range of live blocks in which there was a call its upper end,
        and the most cycles of a call.
    """
    some = result.of_kind(verb) & result.was_run
    live = np.maximum(live_blocks(result.kinds)[some], 1)
    if not len(live):
        return np.empty(0), np.empty(0)
    ends = np.unique(np.geomspace(1, live.max(), LIVE_BINS).round())
    place = np.searchsorted(ends, live)
    worst = np.zeros(len(ends))
    np.maximum.at(worst, place, result.cycles[some])
    found = np.isin(np.arange(len(ends)), place)
    return ends[found], np.maximum(worst[found], 1)


def draw_live(runs: Sequence[Run], path: Path) -> None:
    """Draw the worst xfree against the number of live blocks.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    path : Path
        Where the picture goes; an existing file is replaced.
    """
    names = list(dict.fromkeys(run.trace.name for run in runs))
    figure, panels = make_panels(len(names))
    has_calls = False
    for name, axes in zip(names, panels.flat, strict=False):
        axes.set_title(name)
        for run in runs:
            if run.trace.name == name:
                contender = run.result.contender
                blocks, cycles = worst_by_live(run.result)
                has_calls |= len(blocks) > 0
                axes.plot(
                    blocks,
                    cycles,
                    color=COLOURS[contender],
                    linewidth=2,
                    drawstyle="steps-pre",
                    label=TITLES[contender],
                )
        style_grid(axes)
    if has_calls:  # a logarithmic axis needs something to show
        panels.flat[0].set(xscale="log", yscale="log")
    label_panels(
        panels,
        len(names),
        "worst xfree\n(cycles of the time-stamp counter)",
        f"live blocks; {passes(runs[0].result.repeats)}",
    )
    figure.suptitle("The longest xfree against the blocks that live", fontweight="bold")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


# Heat map of the paths -----------------------------------------------------------


def path_rows(
    result: ReplayResult, edges: npt.NDArray[np.float64]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Distribution of the cycles of each path.

    Parameters
    ----------
    result : ReplayResult
        With paths.
    edges : ndarray
        Of the columns, in cycles, ascending.

    Returns
    -------
    names : list of str
        Verb, path and number of calls, the most frequent path of a verb first.
    shares : ndarray, shape (rows, columns)
        Of the calls of a path, how large a part falls into the column.
    """
    assert result.paths is not None
    names, shares = [], []
    for number, verb in enumerate(VERBS):
        some = result.of_kind(verb) & result.was_run
        groups: dict[str, npt.NDArray[np.bool_]] = {}
        for bits in np.unique(result.paths[some]):
            # Several bits have one name, and then one row.
            name = path_name(number, int(bits))
            groups[name] = groups.get(name, False) | some & (result.paths == bits)
        for name, mask in sorted(groups.items(), key=lambda item: -item[1].sum()):
            cycles = np.clip(result.cycles[mask], edges[0], edges[-1])
            count, _ = np.histogram(cycles, edges)
            names.append(f"{verb} {name} ({len(cycles):,})")
            shares.append(count / len(cycles))
    return names, np.array(shares).reshape(len(names), len(edges) - 1)


def draw_paths(runs: Sequence[Run], path: Path) -> bool:
    """Draw a heat map of the paths of TLSF: how long the calls of each take.

    Parameters
    ----------
    runs : sequence of Run
        Those on TLSF whose paths were noted are drawn.
    path : Path
        Where the picture goes; an existing file is replaced.

    Returns
    -------
    bool
        False if no run had paths, and nothing was drawn.
    """
    noted = [
        (run.trace.name, run.result)
        for run in runs
        if isinstance(run.result, ReplayResult)
        and run.result.paths is not None
        and run.result.engine == "tlsf"
    ]
    if not noted:
        return False
    most = max(max(int(result.cycles.max()), 10) for _, result in noted)
    decades = math.ceil(math.log10(most))
    edges = np.logspace(0, decades, decades * BINS_PER_DECADE + 1)
    tables = [(name, *path_rows(result, edges)) for name, result in noted]
    figure = Figure(
        figsize=(10.0, 1.6 + sum(0.9 + 0.22 * len(rows) for _, rows, _ in tables)),
        layout="constrained",
    )
    panels = figure.subplots(
        len(tables),
        1,
        squeeze=False,
        sharex=True,
        height_ratios=[0.5 + len(rows) for _, rows, _ in tables],
    )
    for (name, rows, shares), axes in zip(tables, panels.flat, strict=True):
        mesh = axes.pcolormesh(
            edges,
            np.arange(len(rows) + 1),
            np.ma.masked_equal(shares, 0),
            norm=LogNorm(LEAST_SHARE, 1, clip=True),
            cmap="viridis",
        )
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize="small")
        axes.invert_yaxis()
        axes.set(xscale="log", title=name)
    panels.flat[-1].set_xlabel(
        f"cycles of one call (time-stamp counter), {passes(noted[0][1].repeats)}"
    )
    figure.colorbar(mesh, ax=panels, label="share of the calls of the path")
    figure.suptitle("How long each path of TLSF takes", fontweight="bold")
    save(figure, path)
    return True
