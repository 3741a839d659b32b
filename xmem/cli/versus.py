# SPDX-License-Identifier: BSD-3-Clause
"""`xmem versus`: xmem beside the allocators that a user would otherwise pick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from xmem.base.errors import PeerError
from xmem.cli.exits import Interrupted, ReplayFailed
from xmem.cli.outputs import (
    OUTPUT_FILE,
    STDOUT,
    check_json,
    check_plot,
    refuse_clashes,
    write_records,
)
from xmem.cli.replay import TRACE_FILE
from xmem.cli.runs import load_traces
from xmem.cli.table import NOTHING, print_whole
from xmem.data import demo_trace_path
from xmem.measure.peers import Peer
from xmem.measure.versus import (
    Contender,
    compare,
    engines,
    libraries,
    overall,
    system_name,
)

VERBS = ("xmalloc_cycles", "xfree_cycles")


@click.command()
@click.argument("traces", metavar="[TRACE...]", nargs=-1, type=TRACE_FILE)
@click.option(
    "--peer",
    "peers",
    metavar="FILE.so",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A shared object that exports struct peer PEER (peer.h); may be given again.",
)
@click.option(
    "--library",
    "named",
    metavar="NAME.so",
    multiple=True,
    help="A library that replaces malloc, as the linker finds it, in place of those "
    "that are installed; may be given again.",
)
@click.option(
    "--legacy",
    is_flag=True,
    help="With the legacy engine, which takes its time.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Rounds, in each of which all run once; ratios are within a round.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 10_000),
    default=15,
    show_default=True,
    help="Clocked passes of each in a round; each call counts with its least.",
)
@click.option(
    "--max-ops",
    type=click.IntRange(min=1),
    help="Replay only this many operations of each trace.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_json,
    help="Write a list of records, one per allocator and trace; - is standard output.",
)
@click.option(
    "--plot",
    "plot_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_plot,
    help="Draw time, tail and memory of each, as .png, .svg or .pdf.",
)
def versus(
    traces: Sequence[Path],
    peers: Sequence[Path],
    named: Sequence[str],
    legacy: bool,
    rounds: int,
    repeats: int,
    max_ops: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Run traces on xmem and on the allocators that are installed here.

    glibc's malloc, and jemalloc, mimalloc and tcmalloc where the system has them;
    others by --peer. Without a TRACE the one that comes with xmem is run.

    Exit status: 0 all well; 1 an allocator could not be run; 2 usage; 130
    interrupted.
    """
    files = list(traces) or [demo_trace_path()]
    refuse_clashes(files, {"--json": json_file, "--plot": plot_file})
    load_traces(files)  # what is no trace is refused before the work
    aside = json_file == STDOUT
    contenders = enter(peers, named, legacy)
    console = Console(stderr=True)
    try:
        with Progress(
            console=console, transient=True, disable=not console.is_terminal
        ) as bars:
            task = bars.add_task("", total=None)

            def show(name: str, done: int, total: int) -> None:
                bars.update(task, description=name, completed=done, total=total)

            found = compare(
                contenders,
                files,
                rounds=rounds,
                repeats=repeats,
                max_ops=max_ops,
                progress=show,
            )
    except PeerError as error:
        raise ReplayFailed(str(error)) from error
    except KeyboardInterrupt:
        raise Interrupted("no file was written.") from None
    print_results(found, rounds, repeats, aside)
    if json_file is not None:
        write_records(found, json_file)
    if plot_file is not None:
        from xmem.cli.versus_plot import draw_versus  # matplotlib is slow to import

        draw_versus(found, plot_file)
        click.echo(f"Plot: {plot_file}", err=aside)


def enter(peers: Sequence[Path], named: Sequence[str], legacy: bool) -> list[Contender]:
    """Return everybody who enters, xmem first.

    Raises
    ------
    click.UsageError
        A shared object is no peer, or two have one name.
    """
    contenders = engines()
    if legacy:
        contenders.append(
            Contender("xmem, legacy", "engine", settings={"engine": "firstfit"})
        )
    contenders.append(Contender(system_name(), "system"))
    if named:
        contenders += [Contender(Path(n).name, "system", preload=n) for n in named]
    else:
        contenders += libraries()
    for file in peers:
        try:
            name = Peer.load(file.resolve()).name
        except PeerError as error:
            raise click.UsageError(str(error)) from error
        contenders.append(Contender(name, "peer", file=str(file.resolve())))
    names = [contender.name for contender in contenders]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{names.count(name)} allocators are called {name}.")
    return contenders


def print_results(
    found: Sequence[dict[str, Any]], rounds: int, repeats: int, aside: bool
) -> None:
    """Print a table of the means over the traces, and what its figures mean."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("\nallocator", no_wrap=True)
    for heading in (
        "ns\nper op",
        "\nratio",
        "\nspread",
        "malloc\np50",
        "\np99.9",
        "\nworst",
        "\nof all",
        "free\np50",
        "\np99.9",
        "\nworst",
        "\nof all",
        "memory\n/ live",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in overall(found):
        median, least, greatest = one["ratio"]
        table.add_row(
            one["name"],
            f"{one['ns']:.1f}",
            f"{median:.2f}",
            f"{least:.2f}-{greatest:.2f}",
            *(
                f"{one[verb][key]:,.0f}"
                for verb in VERBS
                for key in ("p50", "p999", "worst", "worst_of_all")
            ),
            NOTHING if one["memory"] is None else f"{one['memory']:.3f}",
        )
    n_traces = len({one["trace"] for one in found})
    failed = sum(one["failed"] for one in found)
    lines = [
        f"Geometric means over {n_traces} trace{'s' * (n_traces != 1)}; medians of "
        f"{rounds} round{'s' * (rounds != 1)}. ns: without the rig's own share. "
        "ratio: to the first row, in the same round.",
        f"malloc, free: cycles of one call, the least of {repeats} repeats; worst "
        "over all calls; of all: the greatest over the traces.",
        "memory: the least arena that serves the trace, over the bytes live at its "
        "peak; of those that get theirs from the system, how far the process grew.",
    ]
    if failed:
        lines.append(f"{failed:,} requests failed.")
    print_whole(table, lines, aside)
