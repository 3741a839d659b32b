# SPDX-License-Identifier: BSD-3-Clause
"""`xmem replay`: the user's traces on engines and interfaces."""

from collections.abc import Sequence
from pathlib import Path

import click

from xmem.cli.contenders import (
    DEFAULT_REPEATS,
    ENGINES,
    SYSTEM,
    Replay,
    Settings,
    Trace,
    load_traces,
    refuse_too_large,
    replay_all,
)
from xmem.cli.exits import Interrupted, ReplayFailed
from xmem.cli.extras import require
from xmem.cli.options import (
    Hardened,
    arena_bytes_option,
    checked_option,
    default_engines,
    engines_option,
    hardened_option,
    interfaces_option,
    json_option,
    max_ops_option,
    plot_option,
    quick_option,
    refuse_legacy,
    refuse_reserve,
    repeats_option,
    reserve_option,
    traces_argument,
)
from xmem.cli.outputs import STDOUT, refuse_clashes, write_json
from xmem.cli.progress import Progress
from xmem.cli.tables.printing import print_whole
from xmem.cli.tables.replay import make_table, notes

#: Pictures that --plot draws besides its FILE.
PICTURES = ("live", "paths")


def check_hgrm(
    ctx: click.Context, param: click.Parameter, folder: Path | None
) -> Path | None:
    """Ask for the library that writes histograms."""
    if folder is not None:
        require(f"{ctx.command_path} --hgrm", "hgrm")
    return folder


@click.command()
@traces_argument
@engines_option(
    [*ENGINES, SYSTEM], default="tlsf and firstfit; with --plot, system as well"
)
@interfaces_option()
@repeats_option(default=DEFAULT_REPEATS)
@arena_bytes_option(show_default="enough for the trace")
@click.option(
    "--grow-pages",
    metavar="N",
    type=click.IntRange(min=1),
    show_default="grows with the pool; 1 with an interface",
    help="Grow TLSF's pool by N pages at a time.",
)
@max_ops_option()
@click.option(
    "--verify",
    is_flag=True,
    help="Verify the contents of every block, and all invariants at the end.",
)
@hardened_option
@quick_option
@reserve_option
@checked_option
@json_option
@plot_option(
    "how the cycles are distributed; FILE-live, the worst xfree against live "
    "blocks; and FILE-paths, a heat map of the paths"
)
@click.option(
    "--hgrm",
    "hgrm_folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    callback=check_hgrm,
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
    hardened: Hardened,
    quick: bool,
    reserve: bool,
    checked: bool,
    json_file: Path | None,
    plot_file: Path | None,
    hgrm_folder: Path | None,
) -> None:
    """Replay traces and print one table.

    If only interfaces are named, no engine runs. With --hardened, --quick or
    --reserve the default is the engine tlsf alone.

    Exit status: 0 success; 1 a request failed, a replay could not run or
    verification failed; 2 usage; 130 interrupted.
    """
    settings = Settings(
        repeats,
        arena_bytes,
        verify,
        grow_pages,
        hardened,
        checked,
        paths=plot_file is not None,
        quick=quick,
        reserved=reserve,
    )
    contenders = list(dict.fromkeys([*engines, *interfaces]))
    if not contenders:
        system = [SYSTEM] if plot_file is not None else []
        contenders = [*default_engines(ENGINES, hardened, quick or reserve), *system]
    refuse_legacy(contenders, hardened, quick)
    refuse_reserve(contenders, reserve)
    outputs = {"--json": json_file, "--plot": plot_file}
    if plot_file is not None:
        outputs |= {f"--plot's {w}": further_picture(plot_file, w) for w in PICTURES}
    refuse_clashes(traces, outputs)
    aside = json_file == STDOUT
    loaded = load_traces(traces, max_ops)
    if arena_bytes is None:
        refuse_too_large(loaded)
    replays = replay_and_print(loaded, contenders, settings, aside)
    write_json(
        [replay.result.record(replay.trace.name) for replay in replays], json_file
    )
    if plot_file is not None:
        pictures = draw_all(replays, plot_file)
        click.echo(f"Plots: {', '.join(map(str, pictures))}", err=aside)
    if hgrm_folder is not None:
        from xmem.cli.hgrm import write_hgrm

        names = write_hgrm(replays, hgrm_folder)
        click.echo(f"Histograms: {len(names)} files in {hgrm_folder}", err=aside)
    refuse_failures(replays)


def draw_all(replays: Sequence[Replay], plot_file: Path) -> list[Path]:
    """Draw the pictures and return their files."""
    from xmem.cli.plots.distributions import draw_distributions
    from xmem.cli.plots.live import draw_live
    from xmem.cli.plots.paths import draw_paths

    live, paths = (further_picture(plot_file, what) for what in PICTURES)
    draw_distributions(replays, plot_file)
    draw_live(replays, live)
    return [plot_file, live, *([paths] if draw_paths(replays, paths) else [])]


def further_picture(plot_file: Path, what: str) -> Path:
    """Return the name of a further picture: latency.png, latency-live.png."""
    return plot_file.with_name(f"{plot_file.stem}-{what}{plot_file.suffix}")


def replay_and_print(
    traces: Sequence[Trace],
    contenders: Sequence[str],
    settings: Settings,
    aside: bool = False,
) -> list[Replay]:
    """Replay with progress, then print the table and what it means.

    Replays that have ended are printed even if a later one fails or is
    interrupted; ``aside`` prints them on standard error.

    Raises
    ------
    Interrupted
        The user pressed Ctrl-C.
    """
    replays: list[Replay] = []
    n_replays = len(traces) * len(contenders)
    try:
        with Progress(n_replays) as progress:
            for replay in replay_all(traces, contenders, settings, progress):
                replays.append(replay)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(replays)} of {n_replays} replays were finished; no file was written."
        ) from None
    finally:
        if replays:
            print_replays(replays, settings, aside)
    return replays


def print_replays(replays: Sequence[Replay], settings: Settings, aside: bool) -> None:
    """Print the table; it claims to be verified only if all of it is."""
    verified = settings.verify and not any(replay.failures() for replay in replays)
    print_whole(
        make_table(replays),
        notes(replays, settings.repeats, verified, settings.reserved),
        aside,
    )


def refuse_failures(replays: Sequence[Replay]) -> None:
    """End with status 1 and a sentence for each failure, if there is any."""
    failures = [sentence for replay in replays for sentence in replay.failures()]
    if failures:
        raise ReplayFailed("\n       ".join(failures))
