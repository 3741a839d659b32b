# SPDX-License-Identifier: BSD-3-Clause
"""`xmem replay`: traces of one's own, on engines and interfaces."""

from collections.abc import Sequence
from pathlib import Path

import click

from xmem.cli.exits import Interrupted, ReplayFailed
from xmem.cli.outputs import (
    OUTPUT_FILE,
    STDOUT,
    check_json,
    check_plot,
    refuse_clashes,
    write_records,
)
from xmem.cli.progress import ReplayProgress
from xmem.cli.runs import (
    DEFAULT_REPEATS,
    ENGINES,
    INTERFACES,
    SYSTEM,
    Run,
    Settings,
    Trace,
    load_traces,
    run_all,
)
from xmem.cli.size import parse_size
from xmem.cli.table import notes, print_table
from xmem.pool import HARDENING

ALL = "all"
#: What --plot draws beside its file.
PICTURES = ("live", "paths")
TRACE_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command()
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True, type=TRACE_FILE)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice([*ENGINES, SYSTEM]),
    show_default="tlsf and firstfit; with --plot, system as well",
    help="Engine to replay on, or system, the malloc of this process; may be given "
    "again.",
)
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    type=click.Choice(INTERFACES),
    help="Interface to replay on, as a program ported to it; may be given again.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1_000_000),
    default=DEFAULT_REPEATS,
    show_default=True,
    help="Replay this often; each call counts with its least cycles.",
)
@click.option(
    "--arena-bytes",
    type=parse_size,
    metavar="SIZE",
    help="Size of the arena, such as 64M or 1G; by default enough for the trace.",
)
@click.option(
    "--grow-pages",
    type=click.IntRange(min=1),
    show_default="16; 1 with an interface",
    help="Pages that TLSF's pool grows by.",
)
@click.option(
    "--max-ops",
    type=click.IntRange(min=1),
    help="Replay only this many operations of each trace.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Verify the contents of every block, and all invariants at the end.",
)
@click.option(
    "--hardened",
    "hardening",
    multiple=True,
    type=click.Choice([*HARDENING, ALL]),
    help="Harden the pool or heap; may be given again.",
)
@click.option(
    "--quick",
    metavar="BLOCKS",
    type=click.IntRange(min=0, max=255),
    default=0,
    help="Of TLSF's pool: so many freed blocks of each size wait to be used again.",
)
@click.option(
    "--checked",
    is_flag=True,
    help="Prove each offset before it is freed or resized, as Python's calls do.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_json,
    help="Write a list of records, one per trace and engine; - is standard output.",
)
@click.option(
    "--plot",
    "plot_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_plot,
    help="Draw how the cycles are distributed, as .png, .svg or .pdf; beside it "
    "FILE-live, the worst xfree against live blocks, and FILE-paths, a heat map of "
    "the paths.",
)
@click.option(
    "--hgrm",
    "hgrm_folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the cycles of each verb in HdrHistogram's format, a file for each.",
)
def replay(
    traces: Sequence[Path],
    engines: Sequence[str],
    interfaces: Sequence[str],
    repeats: int,
    arena_bytes: int | None,
    grow_pages: int | None,
    max_ops: int | None,
    verify: bool,
    hardening: Sequence[str],
    quick: int,
    checked: bool,
    json_file: Path | None,
    plot_file: Path | None,
    hgrm_folder: Path | None,
) -> None:
    """Replay traces and print one table.

    On both engines, unless engines or interfaces are named; a picture without names
    has the system's malloc as well.

    Exit status: 0 all well; 1 a request failed, a replay could not run or
    verification failed; 2 usage; 130 interrupted.
    """
    hardened = True if ALL in hardening else tuple(hardening)
    settings = Settings(
        repeats,
        arena_bytes,
        verify,
        grow_pages,
        hardened,
        checked,
        paths=plot_file is not None,
        quick=quick,
    )
    contenders = list(dict.fromkeys([*engines, *interfaces]))
    if not contenders:
        contenders = [*ENGINES, *([SYSTEM] if plot_file is not None else [])]
    if hardened and {"firstfit", "legacy"} & set(contenders):
        raise click.UsageError(
            "--hardened is for TLSF alone: name the engine tlsf, or interfaces."
        )
    if quick and (hardened or not set(contenders) <= {*ENGINES, SYSTEM}):
        raise click.UsageError(
            "--quick is for the engine tlsf, not hardened, and for no interface."
        )
    outputs = {"--json": json_file, "--plot": plot_file}
    if plot_file is not None:
        outputs |= {f"--plot's {w}": beside(plot_file, w) for w in PICTURES}
    refuse_clashes(traces, outputs)
    aside = json_file == STDOUT
    loaded = load_traces(traces, max_ops)
    runs = replay_and_print(loaded, contenders, settings, aside)
    if json_file is not None:
        write_records([run.result.record(run.trace.name) for run in runs], json_file)
    if plot_file is not None:
        pictures = draw_all(runs, plot_file)
        click.echo(f"Plots: {', '.join(map(str, pictures))}", err=aside)
    if hgrm_folder is not None:
        from xmem.cli.hgrm import write_hgrm

        names = write_hgrm(runs, hgrm_folder)
        click.echo(f"Histograms: {len(names)} files in {hgrm_folder}", err=aside)
    refuse_failures(runs)


def draw_all(runs: Sequence[Run], plot_file: Path) -> list[Path]:
    """Draw the pictures; answers their names."""
    from xmem.cli.plot import draw_distributions  # matplotlib is slow to import
    from xmem.cli.plot_paths import draw_live, draw_paths

    live, paths = (beside(plot_file, what) for what in PICTURES)
    draw_distributions(runs, plot_file)
    draw_live(runs, live)
    return [plot_file, live, *([paths] if draw_paths(runs, paths) else [])]


def beside(plot_file: Path, what: str) -> Path:
    """Name a picture that belongs to another: latency.png, latency-live.png."""
    return plot_file.with_name(f"{plot_file.stem}-{what}{plot_file.suffix}")


def replay_and_print(
    traces: Sequence[Trace],
    contenders: Sequence[str],
    settings: Settings,
    aside: bool = False,
) -> list[Run]:
    """Replay with progress, then print the table and what it means.

    What was finished is printed even if the rest fails or is interrupted; on
    standard error if it is to stand ``aside``.

    Raises
    ------
    Interrupted
        The user pressed Ctrl-C.
    """
    runs: list[Run] = []
    n_replays = len(traces) * len(contenders)
    try:
        with ReplayProgress(n_replays) as progress:
            for run in run_all(traces, contenders, settings, progress):
                runs.append(run)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(runs)} of {n_replays} replays were finished; no file was written."
        ) from None
    finally:
        if runs:
            print_runs(runs, settings, aside)
    return runs


def print_runs(runs: Sequence[Run], settings: Settings, aside: bool) -> None:
    """Print the table; it claims to be verified only if all of it is."""
    verified = settings.verify and not any(run.failures() for run in runs)
    print_table(runs, notes(runs, settings.repeats, verified), aside)


def refuse_failures(runs: Sequence[Run]) -> None:
    """End with status 1 if any replay failed in part, saying which."""
    failures = [sentence for run in runs for sentence in run.failures()]
    if failures:
        raise ReplayFailed("\n       ".join(failures))
