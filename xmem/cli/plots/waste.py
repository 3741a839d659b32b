# SPDX-License-Identifier: BSD-3-Clause
"""The picture of `xmem waste`: pages taken against bytes requested.

Curves that agree at every size are drawn as one line with all their names, so
that the few lines that remain show how the interfaces differ.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xmem.cli.plots.style import COLOURS, save, style_grid
from xmem.measure.waste import WasteCurve

REQUESTED = (1, 2)  # pages: the sizes of the proposal's complaint


def draw_waste(curves: Sequence[WasteCurve], path: Path) -> None:
    """Draw the pages taken against the bytes requested.

    Parameters
    ----------
    curves : sequence of WasteCurve
        At least one; all of one page size and the same sizes.
    path : Path
        The picture's file; an existing file is replaced.
    """
    figure = Figure(figsize=(8.0, 6.4), layout="constrained")
    axes = figure.subplots()
    page = curves[0].page_size
    n_pages = len(curves[0].points) // page
    axes.plot([0, n_pages], [0, n_pages], color="0.6", label="no waste")
    for group in group_curves(curves):
        draw_group(axes, group)
        mark_whole_pages(axes, group[0])
    top = max(int(curve.points["pages"].max()) for curve in curves)
    axes.set_xlim(0, n_pages * 1.01)
    axes.set_ylim(0, top * 1.02)
    axes.set_xticks(range(n_pages + 1))
    axes.set_yticks(range(top + 1))
    axes.set_xlabel(f"requested, in pages of {page:,} bytes")
    axes.set_ylabel("pages that each request takes")
    axes.set_title("Pages taken against bytes requested", fontweight="bold")
    style_grid(axes)
    axes.legend(loc="upper left", frameon=False)
    save(figure, path)


def group_curves(curves: Sequence[WasteCurve]) -> list[list[WasteCurve]]:
    """Group the curves that agree at every size, in their order."""
    groups: list[list[WasteCurve]] = []
    for curve in curves:
        for group in groups:
            if curve.same_pages(group[0]):
                group.append(curve)
                break
        else:
            groups.append([curve])
    return groups


def is_greedy(curve: WasteCurve) -> bool:
    """Whether a request of one page takes more than one."""
    return curve.at(curve.page_size)[0] > 1


def look(curve: WasteCurve) -> dict[str, Any]:
    """Choose colour, line and layer: greedy, exact and limited curves differ.

    Curves that lie on each other stay visible: wide, narrow, dotted.
    """
    if not curve.served().all():
        return {
            "color": "black",
            "linestyle": (0, (1, 1.5)),
            "linewidth": 2,
            "zorder": 4,
        }
    if is_greedy(curve):
        return {"color": COLOURS["firstfit"], "linewidth": 5, "zorder": 2.5}
    return {"color": COLOURS["tlsf"], "linewidth": 2, "zorder": 3}


def draw_group(axes: Axes, group: list[WasteCurve]) -> None:
    """Draw one line, and shade what it takes beyond the whole pages requested."""
    curve = group[0]
    sizes = curve.points["size"] / curve.page_size
    pages = curve.pages_each()
    label = ", ".join(member.name for member in group)
    if not curve.served().all():
        label += " (refuses the rest)"
    axes.plot(sizes, pages, drawstyle="steps-pre", label=label, **look(curve))
    whole = np.ceil(sizes)
    axes.fill_between(
        sizes,
        whole,
        np.fmax(pages, whole),
        step="pre",
        color=look(curve)["color"],
        alpha=0.2,
        linewidth=0,
    )


def mark_whole_pages(axes: Axes, curve: WasteCurve) -> None:
    """Label what a request of one page and of two takes."""
    offset, side = ((-8, 6), "right") if is_greedy(curve) else ((8, -16), "left")
    for n in REQUESTED:
        taken = curve.at(n * curve.page_size)[0]
        if taken == 0:
            continue
        colour = look(curve)["color"]
        axes.plot([n], [taken], marker="o", color=colour, markersize=8, zorder=5)
        axes.annotate(
            f"{n} requested, {taken} taken",
            (n, taken),
            xytext=offset,
            textcoords="offset points",
            horizontalalignment=side,
            color=colour,
            fontweight="bold",
        )
