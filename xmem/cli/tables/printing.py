# SPDX-License-Identifier: BSD-3-Clause
"""How tables are printed, and what a cell without a figure holds."""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

NOTHING = "-"


def print_whole(
    table: Table, below: Sequence[str], aside: bool = False, above: str = ""
) -> None:
    """Print a table on standard output, never truncated, and lines below it.

    A terminal that is too narrow wraps its lines; a pipe gets each whole.

    Parameters
    ----------
    table : rich.table.Table
        The table.
    below : sequence of str
        Lines below it.
    aside : bool, optional
        Print on standard error.
    above : str, optional
        A heading.
    """
    console = Console(stderr=aside)
    wide = console.options.update(width=10_000)
    needed = Measurement.get(console, wide, table).maximum
    console.width = max(console.width, needed)
    if above:
        console.print(f"{above}\n", style="bold", highlight=False, soft_wrap=True)
    console.print(table)
    console.print()
    print_lines(below, aside)


def print_lines(lines: Sequence[str], aside: bool = False) -> None:
    """Print lines on standard output, or on standard error."""
    console = Console(stderr=aside)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
