# SPDX-License-Identifier: BSD-3-Clause
"""`xmem demo`: a table of the trace that comes with xmem, and one picture."""

from pathlib import Path

import click

from xmem.cli.contenders import ENGINES, Settings, load_traces
from xmem.cli.extras import require
from xmem.cli.founding import (
    HOW_MEASURED,
    Point,
    count_replays,
    measure_points,
    worst_ratio,
)
from xmem.cli.progress import Progress
from xmem.cli.replay import refuse_failures, replay_and_print
from xmem.data import demo_trace_path

PICTURE = "worst-xfree.png"


@click.command()
@click.option(
    "--out",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    default=Path("demo-output"),
    help="Folder for the picture; made if it does not exist.",
)
@click.pass_context
def demo(ctx: click.Context, folder: Path) -> None:
    """Compare both engines in about ten seconds.

    Replays a real trace that comes with xmem and prints a table. Then draws the
    worst xfree of both engines against the number of live blocks.
    """
    require(ctx.command_path, "plot")
    from xmem.cli.plots.growth import draw_growth

    make_folder(folder)
    replays = replay_and_print(load_traces([demo_trace_path()]), ENGINES, Settings())
    refuse_failures(replays)
    click.echo()
    with Progress(count_replays()) as progress:
        points = list(measure_points(progress))
    draw_growth(points, folder / PICTURE)
    click.echo(ratio_lines(points))
    click.echo(f"Picture: {(folder / PICTURE).resolve()}")


def make_folder(folder: Path) -> None:
    """Make the folder; a usage error says why it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="'--out'") from error


def ratio_lines(points: list[Point]) -> str:
    """Return what the right end of the picture shows."""
    legacy, tlsf, ratio = worst_ratio(points)
    return (
        f"Worst xfree with {legacy.n_blocks:,} blocks live: "
        f"legacy {legacy.worst_cycles:,} cycles, TLSF {tlsf.worst_cycles:,}.\n"
        f"Ratio legacy / TLSF: {ratio:,.0f}\n"
        f"{HOW_MEASURED}"
    )
