# SPDX-License-Identifier: BSD-3-Clause
"""The table of `xmem waste`: pages taken at the sizes that tell interfaces apart."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from xmem.cli.tables.printing import NOTHING
from xmem.measure.waste import WasteCurve


def telling_sizes(curves: Sequence[WasteCurve]) -> list[tuple[str, int]]:
    """Return the sizes at which the interfaces differ, each with a label.

    XMALLOC_MAX is the greatest of all curves: that of TLSF, unless all curves
    are the legacy engine's.
    """
    page = curves[0].page_size
    limit = max(curve.xmalloc_max for curve in curves)
    return [
        ("1 byte", 1),
        ("half a page", page // 2),
        ("XMALLOC_MAX", limit),
        ("XMALLOC_MAX + 1", limit + 1),
        ("1 page - 1", page - 1),
        ("1 page", page),
        ("1 page + 1", page + 1),
        ("2 pages", 2 * page),
        ("2 pages + 1", 2 * page + 1),
        ("3 pages", 3 * page),
        ("4 pages", 4 * page),
    ]


def make_waste_table(curves: Sequence[WasteCurve]) -> Table:
    """Build the table: one row per telling size, one column per curve.

    Parameters
    ----------
    curves : sequence of WasteCurve
        At least one; all of one page size, measured up to 4 pages.
    """
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("\nrequested", no_wrap=True)
    table.add_column("\nbytes", justify="right", no_wrap=True)
    for curve in curves:
        table.add_column(heading(curve), justify="right", no_wrap=True)
    for label, size in telling_sizes(curves):
        table.add_row(label, f"{size:,}", *(cell(curve, size) for curve in curves))
    table.add_section()
    page = curves[0].page_size
    for label, first, last in (
        ("waste below 1 page", 1, page - 1),
        ("waste, 1 to 4 pages", page, 4 * page),
    ):
        cells = [mean(curve.mean_waste(first, last)) for curve in curves]
        table.add_row(label, "", *cells)
    return table


def heading(curve: WasteCurve) -> str:
    """Return the interface, above the routine where that is not plain xmalloc."""
    return curve.name.replace(": ", "\n") if ":" in curve.name else f"\n{curve.name}"


def cell(curve: WasteCurve, size: int) -> Text:
    """Return the pages that one of many requests takes, bold where too many."""
    pages, per_page = curve.at(size)
    if pages == 0:
        return Text(NOTHING)
    if per_page > 1:
        return Text(f"1/{per_page}")
    needed = -(-size // curve.page_size)
    return Text(f"{pages}", style="bold" if pages > needed else "")


def mean(n_bytes: float) -> str:
    """Format a mean of bytes."""
    return NOTHING if math.isnan(n_bytes) else f"{n_bytes:,.0f}"


def waste_notes(curves: Sequence[WasteCurve]) -> list[str]:
    """Explain the figures, and say how the proposal's complaint came out."""
    lines = [
        f"Pages of {curves[0].page_size:,} bytes that each request takes;"
        " 1/n: n of them share a page. Every size was requested on an empty heap,",
        "by the routine that a program on the interface would use: strict takes"
        " page_alloc_exact above XMALLOC_MAX,",
        "array takes xmalloc_array. - : refused. waste: bytes taken beyond those"
        " requested, mean over the sizes served.",
    ]
    return [*lines, "", *complaint(curves)]


def complaint(curves: Sequence[WasteCurve]) -> list[str]:
    """Say what requests of one page and of two take; equal results share a line."""
    results: dict[tuple[int, int], list[str]] = {}
    for curve in curves:
        one, two = (curve.at(n * curve.page_size)[0] for n in (1, 2))
        results.setdefault((one, two), []).append(curve.name)
    return [
        f"One page requested, {one} taken; two requested, {two} taken: "
        f"{', '.join(names)}."
        for (one, two), names in sorted(results.items(), reverse=True)
        if one
    ]
