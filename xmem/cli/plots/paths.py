# SPDX-License-Identifier: BSD-3-Clause
"""A heat map of how long each path of TLSF takes: `xmem replay --plot`."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from xmem.cli.contenders import Replay
from xmem.cli.plots.style import save
from xmem.cli.tables.replay import passes
from xmem.measure.codes import TRACE_VERBS
from xmem.measure.counts import path_name
from xmem.measure.replay import ReplayResult

BINS_PER_DECADE = 8
#: Smaller shares get the colour of this one.
LEAST_SHARE = 1e-5


def path_rows(
    result: ReplayResult, edges: npt.NDArray[np.float64]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return how the cycles of each path are distributed.

    Parameters
    ----------
    result : ReplayResult
        With paths.
    edges : ndarray
        Edges of the columns, in cycles, ascending.

    Returns
    -------
    names : list of str
        Verb, path and number of calls, the most frequent path of a verb first.
    shares : ndarray, shape (rows, columns)
        The share of a path's calls that fall into the column.
    """
    assert result.paths is not None
    names, shares = [], []
    for number, verb in enumerate(TRACE_VERBS):
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


def draw_paths(replays: Sequence[Replay], path: Path) -> bool:
    """Draw a heat map of the paths of TLSF: how long the calls of each take.

    Parameters
    ----------
    replays : sequence of Replay
        Those on TLSF with paths are drawn.
    path : Path
        The picture's file; an existing file is replaced.

    Returns
    -------
    bool
        False if no replay has paths; then nothing is drawn.
    """
    drawn = [
        (replay.trace.name, replay.result)
        for replay in replays
        if isinstance(replay.result, ReplayResult)
        and replay.result.paths is not None
        and replay.result.engine == "tlsf"
    ]
    if not drawn:
        return False
    most = max(max(int(result.cycles.max()), 10) for _, result in drawn)
    decades = math.ceil(math.log10(most))
    edges = np.logspace(0, decades, decades * BINS_PER_DECADE + 1)
    tables = [(name, *path_rows(result, edges)) for name, result in drawn]
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
        f"cycles of one call (time-stamp counter), {passes(drawn[0][1].repeats)}"
    )
    figure.colorbar(mesh, ax=panels, label="share of the calls of the path")
    figure.suptitle("How long each path of TLSF takes", fontweight="bold")
    save(figure, path)
    return True
