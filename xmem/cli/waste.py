# SPDX-License-Identifier: BSD-3-Clause
"""`xmem waste`: pages taken against bytes asked, under each interface."""

from collections.abc import Sequence
from pathlib import Path

import click

from xmem.base.errors import BadArgument, XmemError
from xmem.cli.exits import ReplayFailed
from xmem.cli.outputs import (
    OUTPUT_FILE,
    STDOUT,
    check_json,
    check_plot,
    refuse_clashes,
    write_records,
)
from xmem.cli.progress import ReplayProgress
from xmem.cli.runs import INTERFACES
from xmem.cli.size import parse_size
from xmem.cli.table import print_whole
from xmem.cli.waste_table import make_waste_table, waste_notes
from xmem.measure.waste import WasteCurve, measure_waste


@click.command()
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    type=click.Choice(INTERFACES),
    default=INTERFACES,
    show_default="all",
    help="Interface to measure; may be given again.",
)
@click.option(
    "--page-size",
    type=parse_size,
    metavar="SIZE",
    help="Size of a page, such as 4096 or 64K; by default the system's.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_json,
    help="Write the pages of every size, one record per interface and routine; "
    "- is standard output.",
)
@click.option(
    "--plot",
    "plot_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_plot,
    help="Draw pages taken against bytes asked, as .png, .svg or .pdf.",
)
def waste(
    interfaces: Sequence[str],
    page_size: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Show how many pages a request of every size takes.

    From 1 byte to 4 pages, each size measured on an empty heap.

    Exit status: 0 all well; 1 a measurement failed; 2 usage; 130 interrupted.
    """
    refuse_clashes([], {"--json": json_file, "--plot": plot_file})
    aside = json_file == STDOUT
    curves = measure_all(list(dict.fromkeys(interfaces)), page_size)
    print_whole(make_waste_table(curves), waste_notes(curves), aside)
    if json_file is not None:
        write_records([curve.record() for curve in curves], json_file)
    if plot_file is not None:
        from xmem.cli.waste_plot import draw_waste  # matplotlib is slow to import

        draw_waste(curves, plot_file)
        click.echo(f"Plot: {plot_file}", err=aside)


def measure_all(interfaces: Sequence[str], page_size: int | None) -> list[WasteCurve]:
    """Measure interfaces one after the other, with progress.

    Raises
    ------
    click.BadParameter
        No arena has such a page size.
    ReplayFailed
        A measurement failed.
    """
    curves: list[WasteCurve] = []
    try:
        with ReplayProgress(len(interfaces), all_label="all interfaces") as progress:
            for interface in interfaces:
                with progress.replay(f"waste of {interface}") as report:
                    curves += measure_waste(
                        interface, page_size=page_size, progress=report
                    )
    except BadArgument as error:
        raise click.BadParameter(str(error), param_hint="'--page-size'") from error
    except (XmemError, OSError) as error:
        raise ReplayFailed(f"{type(error).__name__}: {error}") from error
    return curves
