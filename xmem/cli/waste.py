# SPDX-License-Identifier: BSD-3-Clause
"""`xmem waste`: pages taken against bytes requested, under each interface."""

from collections.abc import Sequence
from pathlib import Path

import click

from xmem.base.errors import BadArgument, XmemError
from xmem.cli.contenders import INTERFACES
from xmem.cli.exits import ReplayFailed
from xmem.cli.options import interfaces_option, json_option, plot_option, size
from xmem.cli.outputs import STDOUT, refuse_clashes, write_json
from xmem.cli.progress import Progress
from xmem.cli.tables.printing import print_whole
from xmem.cli.tables.waste import make_waste_table, waste_notes
from xmem.measure.waste import WasteCurve, measure_waste


@click.command()
@interfaces_option(default="all")
@click.option(
    "--page-size",
    metavar="SIZE",
    type=size,
    show_default="the system's",
    help="Size of a page, such as 4096 or 64K.",
)
@json_option
@plot_option("the pages taken against the bytes requested")
def waste(
    interfaces: Sequence[str],
    page_size: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Show how many pages a request of every size takes.

    From 1 byte to 4 pages, each size measured on an empty heap.

    Exit status: 0 success; 1 a measurement failed; 2 usage; 130 interrupted.
    """
    refuse_clashes([], {"--json": json_file, "--plot": plot_file})
    aside = json_file == STDOUT
    curves = measure_all(list(dict.fromkeys(interfaces or INTERFACES)), page_size)
    print_whole(make_waste_table(curves), waste_notes(curves), aside)
    write_json([curve.record() for curve in curves], json_file)
    if plot_file is not None:
        from xmem.cli.plots.waste import draw_waste

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
        with Progress(len(interfaces), all_label="all interfaces") as progress:
            for interface in interfaces:
                with progress.task(f"waste of {interface}") as report:
                    curves += measure_waste(
                        interface, page_size=page_size, progress=report
                    )
    except BadArgument as error:
        raise click.BadParameter(str(error), param_hint="'--page-size'") from error
    except (XmemError, OSError) as error:
        raise ReplayFailed(f"{type(error).__name__}: {error}") from error
    return curves
