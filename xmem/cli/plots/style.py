# SPDX-License-Identifier: BSD-3-Clause
"""Colours, names, panels and files of all pictures.

Pictures are drawn without a display and without global state: every figure is an
object of its own on the Agg canvas. The colours are those of Okabe and Ito, which
people with colour blindness can tell apart; line styles and markers differ as well.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xmem.cli.contenders import INTERFACES, SYSTEM, Replay
from xmem.cli.exits import Unwritten

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
TITLES = {
    "tlsf": "TLSF",
    "firstfit": "legacy first fit",
    SYSTEM: os.confstr("CS_GNU_LIBC_VERSION") or "the system's malloc",
    **{name: f"interface {name}" for name in INTERFACES},
}
DPI = 150


def make_panels(n_panels: int) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure with panels in a grid that is nearly square."""
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
    """Label the outer axes of the panels in use, and hide the other panels."""
    for axes in panels[:, 0]:
        axes.set_ylabel(upwards)
    for axes in panels.flat[n_traces:]:
        axes.set_visible(False)
    lowest = panels.flat[max(0, n_traces - panels.shape[1]) : n_traces]
    for axes in lowest:
        axes.set_xlabel(along)
        axes.tick_params(labelbottom=True)


def draw_each_trace(
    replays: Sequence[Replay], draw: Callable[[Axes, Replay], None]
) -> tuple[Figure, npt.NDArray[Any], int]:
    """Draw replays, those of one trace in one panel.

    Parameters
    ----------
    replays : sequence of Replay
        At least one.
    draw : callable
        Draws one replay.

    Returns
    -------
    figure : Figure
    panels : ndarray of Axes
    n_traces : int
        Panels in use.
    """
    names = list(dict.fromkeys(replay.trace.name for replay in replays))
    figure, panels = make_panels(len(names))
    for name, axes in zip(names, panels.flat, strict=False):
        axes.set_title(name)
        for replay in replays:
            if replay.trace.name == name:
                draw(axes, replay)
        style_grid(axes)
    return figure, panels, len(names)


def add_legend(figure: Figure, axes: Axes, n_columns: int) -> None:
    """Put the legend of one panel below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=n_columns, frameon=False
    )


def style_grid(axes: Axes) -> None:
    """Draw a light grid behind everything else, and no box."""
    axes.grid(visible=True, which="major", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's suffix names.

    Raises
    ------
    Unwritten
        The file cannot be written.
    """
    FigureCanvasAgg(figure)
    try:
        figure.savefig(path, format=path.suffix[1:].lower(), dpi=DPI)
    except OSError as error:
        raise Unwritten(str(path), error) from error
