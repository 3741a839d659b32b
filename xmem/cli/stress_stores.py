# SPDX-License-Identifier: BSD-3-Clause
"""`xmem-stress-tmem` and `xmem-stress-diffengine`: the stores, with real pages."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from xmem.base.errors import BadArgument
from xmem.cli.hunting import run, run_options
from xmem.cli.runs import ENGINES, INTERFACES
from xmem.cli.size import parse_size
from xmem.stores.codec import CODECS
from xmem.stores.images import file_pages, process_pages
from xmem.stress.store_trials import DiffEngineTrial, StoreTrial, TmemTrial

SETTINGS = {"help_option_names": ["-h", "--help"]}
#: Operations of a thread in an episode: Python carries them out.
EPISODE_OPS = 1 << 17
BATCH_OPS = 1 << 11
SOURCE_PAGES = 8000
Command = Callable[..., None]


def store_options(compression: str, pages: int, arena: str) -> Callable[..., Command]:
    """Return the decorator that gives a command the options of a store."""

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--pages",
                    "source",
                    metavar="FROM",
                    default="",
                    show_default="the system's shared libraries",
                    help="Where pages are read from: a file, a folder, self, or "
                    "pid:N for the memory of a process.",
                ),
                click.option(
                    "--engine",
                    type=click.Choice(ENGINES),
                    show_default="tlsf",
                    help="Keep pages in a pool with this engine.",
                ),
                click.option(
                    "--interface",
                    type=click.Choice(INTERFACES),
                    help="Keep them in a heap with this interface instead.",
                ),
                click.option(
                    "--compression",
                    type=click.Choice(list(CODECS)),
                    default=compression,
                    show_default=True,
                    help="How pages are compressed.",
                ),
                click.option(
                    "--n-pages",
                    type=click.IntRange(min=512),
                    default=pages,
                    show_default=True,
                    help="Pages that each thread knows.",
                ),
                click.option(
                    "--arena-bytes",
                    type=parse_size,
                    default=arena,
                    show_default=True,
                    help="Size of the arena.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def start(
    program: str,
    kind: type[StoreTrial],
    source: str,
    engine: str | None,
    interface: str | None,
    compression: str,
    n_pages: int,
    arena_bytes: int,
    threads: int,
    trace: Path | None,
    fault_file: Path,
    options: dict[str, Any],
) -> None:
    """Run one of the two."""
    if engine is not None and interface is not None:
        raise click.UsageError("give --engine or --interface, not both.")
    where = found_pages(source, fault_file)
    given = ["--pages", where] if where else []
    if interface is not None:
        given += ["--interface", interface]
    elif engine is not None:
        given += ["--engine", engine]
    given += ["--compression", compression, "--n-pages", str(n_pages)]
    given += ["--arena-bytes", str(arena_bytes)]
    trial = kind(
        where,
        n_pages,
        arena_bytes,
        engine,
        interface,
        compression,
        threads,
        SOURCE_PAGES,
        given,
    )
    run(
        program,
        trial,
        f"{interface or engine or 'tlsf'}, {compression}",
        trace=trace,
        fault_file=fault_file,
        episode_ops=EPISODE_OPS,
        batch_ops=BATCH_OPS,
        **options,
    )


def found_pages(source: str, fault_file: Path) -> str:
    """Where pages are read from, again and again the same.

    Those of a process are written to a file first, beside the fault's.

    Raises
    ------
    click.BadParameter
        There are none.
    """
    process = re.fullmatch(r"self|pid:(\d+)", source)
    try:
        if process is None:
            if not source.endswith(".npy"):
                file_pages(source or None, most=1)
            return source
        pages = process_pages(
            int(process[1]) if process[1] else None, most=SOURCE_PAGES
        )
    except BadArgument as error:
        raise click.BadParameter(str(error), param_hint="--pages") from error
    snapshot = fault_file.with_suffix(".pages.npy")
    np.save(snapshot, pages)
    return str(snapshot)


@click.command(context_settings=SETTINGS)
@store_options("lz4", 20_000, "16M")
@run_options(20_000)
def stress_tmem(
    source: str,
    engine: str | None,
    interface: str | None,
    compression: str,
    n_pages: int,
    arena_bytes: int,
    threads: int,
    trace: Path | None,
    fault_file: Path,
    **options: Any,
) -> None:
    """Put, get and flush pages of transcendent memory under pressure.

    Every answer is compared with what the published rules allow.

    Exit status: 0 nothing was found; 1 a fault was; 2 usage.
    """
    start(
        "xmem-stress-tmem",
        TmemTrial,
        source,
        engine,
        interface,
        compression,
        n_pages,
        arena_bytes,
        threads,
        trace,
        fault_file,
        options,
    )


@click.command(context_settings=SETTINGS)
@store_options("zstd", 8_000, "32M")
@run_options(20_000)
def stress_diffengine(
    source: str,
    engine: str | None,
    interface: str | None,
    compression: str,
    n_pages: int,
    arena_bytes: int,
    threads: int,
    trace: Path | None,
    fault_file: Path,
    **options: Any,
) -> None:
    """Write, read and free pages that are shared, patched and compressed.

    Every page is read back and compared.

    Exit status: 0 nothing was found; 1 a fault was; 2 usage.
    """
    start(
        "xmem-stress-diffengine",
        DiffEngineTrial,
        source,
        engine,
        interface,
        compression,
        n_pages,
        arena_bytes,
        threads,
        trace,
        fault_file,
        options,
    )
