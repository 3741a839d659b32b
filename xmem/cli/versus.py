# SPDX-License-Identifier: BSD-3-Clause
"""`xmem versus`: xmem and the allocators that a user would otherwise pick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from xmem.base.errors import PeerError
from xmem.cli.contenders import ENGINES, load_traces, refuse_too_large
from xmem.cli.exits import Interrupted, ReplayFailed
from xmem.cli.options import (
    engines_option,
    json_option,
    max_ops_option,
    optional_traces_argument,
    plot_option,
    refuse_reserve,
    repeats_option,
    reserve_option,
)
from xmem.cli.outputs import STDOUT, refuse_clashes, write_json
from xmem.cli.progress import Progress
from xmem.cli.tables.printing import print_lines, print_whole
from xmem.cli.tables.versus import (
    MEMORY_HEADING,
    heading,
    make_memory_table,
    make_versus_table,
    make_worst_table,
    versus_notes,
    worst_heading,
)
from xmem.data import demo_trace_path
from xmem.measure.libraries import defines
from xmem.measure.peers import Peer
from xmem.measure.ranks import VERBS
from xmem.measure.versus import Contender, compare, libraries, system_name
from xmem.measure.versus import engines as tlsf_contenders

#: Of the engines, which run unless others are named.
USUAL = ("tlsf",)


@click.command()
@optional_traces_argument
@engines_option(ENGINES, default="tlsf")
@click.option(
    "--peer",
    "peers",
    metavar="FILE.so",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A shared object that exports struct peer PEER (measure/peer.h), or a "
    "library that replaces malloc. May be given again.",
)
@click.option(
    "--library",
    "sonames",
    metavar="NAME.so",
    multiple=True,
    show_default="those that are installed",
    help="A library that replaces malloc, as the linker finds it. May be given again.",
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=5,
    help="Run every allocator once in each of N rounds; ratios are within a round.",
)
@repeats_option(default=15)
@max_ops_option()
@reserve_option
@click.option(
    "--reserve-too",
    is_flag=True,
    help="Run pools of TLSF both ways: growing, and with --reserve.",
)
@json_option
@plot_option("time, tail and memory of each allocator")
def versus(
    traces: Sequence[Path],
    engines: Sequence[str],
    peers: Sequence[Path],
    sonames: Sequence[str],
    rounds: int,
    repeats: int,
    max_ops: int | None,
    reserve: bool,
    reserve_too: bool,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Run traces on xmem and on the allocators that are installed here.

    These are the C library's malloc, and jemalloc, mimalloc, tcmalloc, snmalloc and
    rpmalloc where the system has them; --peer adds others. Without a TRACE the
    trace that comes with xmem is run.

    Exit status: 0 success; 1 an allocator could not be run; 2 usage; 130
    interrupted.
    """
    refuse_reserve(engines, reserve)
    ways = ways_of(engines or USUAL, reserve, reserve_too)
    files = list(traces) or [demo_trace_path()]
    refuse_clashes(files, {"--json": json_file, "--plot": plot_file})
    # Refuses what is not a trace, or too large, before the work.
    refuse_too_large(load_traces(files, max_ops))
    aside = json_file == STDOUT
    contenders = enter(peers, sonames, engines or USUAL, ways)
    results = run_rounds(contenders, files, rounds, repeats, max_ops)
    print_whole(make_versus_table(results), [], aside, heading(ways))
    for verb in VERBS:
        print_whole(make_worst_table(results, verb), [], aside, worst_heading(verb))
    print_whole(make_memory_table(results), [], aside, MEMORY_HEADING)
    print_lines(versus_notes(results, rounds, repeats), aside)
    write_json(results, json_file)
    if plot_file is not None:
        from xmem.cli.plots.versus import draw_versus

        draw_versus(results, plot_file)
        click.echo(f"Plot: {plot_file}", err=aside)


def ways_of(
    engines: Sequence[str], reserve: bool, reserve_too: bool
) -> tuple[bool, ...]:
    """Return whether pools of TLSF reserve pages, for each way in which they run.

    Raises
    ------
    click.UsageError
        The options exclude each other, or no pool of TLSF runs.
    """
    if reserve and reserve_too:
        raise click.UsageError("--reserve and --reserve-too exclude each other.")
    if reserve_too and "tlsf" not in engines:
        raise click.UsageError("--reserve-too is for the engine tlsf.")
    return (False, True) if reserve_too else (reserve,)


def run_rounds(
    contenders: Sequence[Contender],
    files: Sequence[Path],
    rounds: int,
    repeats: int,
    max_ops: int | None,
) -> list[dict[str, Any]]:
    """Compare, and show how far it has come.

    Raises
    ------
    ReplayFailed, Interrupted
        An allocator could not be run, or the user has had enough.
    """
    try:
        with Progress() as progress, progress.task("xmem versus") as report:

            def show(name: str, done: int, total: int) -> None:
                report(done, total, name)

            return compare(
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


def enter(
    peers: Sequence[Path] = (),
    sonames: Sequence[str] = (),
    engines: Sequence[str] = USUAL,
    ways: Sequence[bool] = (False,),
) -> list[Contender]:
    """Return everyone who takes part: xmem, the C library, libraries, peers.

    Parameters
    ----------
    peers : sequence of Path
        Shared objects that export a ``struct peer``, and libraries that replace
        malloc.
    sonames : sequence of str
        Libraries that replace malloc; those installed if there is none.
    engines : sequence of str
        Engines of xmem.
    ways : sequence of bool
        Whether pools of TLSF have their pages before the clock starts; with both
        values they run both ways.

    Raises
    ------
    click.UsageError
        A shared object is not a peer, or two allocators have one name.
    """
    contenders: list[Contender] = []
    if "tlsf" in engines:
        contenders += [one for reserved in ways for one in tlsf_contenders(reserved)]
    if "firstfit" in engines:
        contenders.append(
            Contender("xmem, legacy", "engine", settings={"engine": "firstfit"})
        )
    contenders.append(Contender(system_name(), "system"))
    if sonames:
        contenders += [Contender(Path(n).name, "system", preload=n) for n in sonames]
    else:
        contenders += libraries()
    contenders += [peer_contender(file) for file in peers]
    names = [contender.name for contender in contenders]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{names.count(name)} allocators are called {name}.")
    return contenders


def peer_contender(file: Path) -> Contender:
    """Return the contender of a shared object; a usage error if it is none."""
    path = str(file.resolve())
    if defines(path, "PEER") is False and defines(path, "malloc"):
        return Contender(file.name, "system", preload=path)
    try:
        name = Peer.load(path).name
    except PeerError as error:
        raise click.UsageError(str(error)) from error
    return Contender(name, "peer", file=path)
