# SPDX-License-Identifier: BSD-3-Clause
"""`xmem-stress-tmem` and `xmem-stress-diffengine`: the stores, with real pages."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from xmem.base.errors import BadArgument
from xmem.cli.contenders import ENGINES
from xmem.cli.options import (
    arena_bytes_option,
    decorated,
    engine_option,
    interface_option,
    refuse_both,
)
from xmem.cli.stress.options import (
    CONTEXT,
    SessionOptions,
    as_arguments,
    session_options,
)
from xmem.cli.stress.session import run_session
from xmem.stores.codec import CODECS
from xmem.stores.images import file_pages, process_pages
from xmem.stress.store_workloads import (
    DiffEngineWorkload,
    StoreWorkload,
    TmemWorkload,
)

#: Operations of a thread in an episode: Python carries them out.
EPISODE_OPS = 1 << 17
BATCH_OPS = 1 << 11
CHECK_EVERY = 20_000
SOURCE_PAGES = 8000


def store_options(
    compression: str, n_pages: int, arena_bytes: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator that gives a command the options of a store.

    Parameters
    ----------
    compression, n_pages, arena_bytes
        Defaults of these options.
    """
    options = [
        click.option(
            "--pages",
            "source",
            metavar="FROM",
            default="",
            show_default="the system's shared libraries",
            help="Read pages from a file, from the shared libraries of a folder, or "
            "from the memory of a process: self or pid:N.",
        ),
        engine_option(ENGINES, default="tlsf"),
        interface_option,
        click.option(
            "--compression",
            type=click.Choice(list(CODECS)),
            default=compression,
            help="Compression of the pages.",
        ),
        click.option(
            "--n-pages",
            metavar="N",
            type=click.IntRange(min=512),
            default=n_pages,
            help="Pages that each thread writes and reads.",
        ),
        arena_bytes_option(default=arena_bytes),
    ]
    return lambda command: decorated(command, options)


@click.command(context_settings=CONTEXT)
@store_options("lz4", 20_000, "16M")
@session_options(CHECK_EVERY)
def stress_tmem(**options: Any) -> None:
    """Put, get and flush pages of transcendent memory under pressure.

    Every result is compared with what the published rules allow.

    Exit status: 0 no fault was found; 1 a fault was found; 2 usage.
    """
    stress_store("xmem-stress-tmem", TmemWorkload, **options)


@click.command(context_settings=CONTEXT)
@store_options("zstd", 8_000, "32M")
@session_options(CHECK_EVERY)
def stress_diffengine(**options: Any) -> None:
    """Write, read and free pages that are shared, patched and compressed.

    Every page is read back and compared.

    Exit status: 0 no fault was found; 1 a fault was found; 2 usage.
    """
    stress_store("xmem-stress-diffengine", DiffEngineWorkload, **options)


def stress_store(
    program: str,
    kind: type[StoreWorkload],
    *,
    session: SessionOptions,
    source: str,
    engine: str | None,
    interface: str | None,
    compression: str,
    n_pages: int,
    arena_bytes: int,
) -> None:
    """Run a session on a store of one kind."""
    refuse_both(engine, interface)
    where = repeatable_source(source, session.fault_file)
    workload = kind(
        where,
        n_pages,
        arena_bytes,
        engine,
        interface,
        compression,
        session.threads,
        SOURCE_PAGES,
        as_arguments(
            pages=where,
            engine=engine,
            interface=interface,
            compression=compression,
            n_pages=n_pages,
            arena_bytes=arena_bytes,
        ),
    )
    run_session(
        program,
        workload,
        f"{interface or engine or ENGINES[0]}, {compression}",
        session,
        EPISODE_OPS,
        BATCH_OPS,
    )


def repeatable_source(source: str, fault_file: Path) -> str:
    """Return where the same pages can be read from again.

    The pages of a process are written to a file first, next to the fault file.

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
