# SPDX-License-Identifier: BSD-3-Clause
"""`xmem-stress` and `xmem-stress-frames`: heaps, pools and page frames."""

from pathlib import Path
from typing import Any

import click

from xmem.cli.hunting import run, run_options
from xmem.cli.runs import ENGINES, INTERFACES
from xmem.cli.size import parse_size
from xmem.pool import HARDENING
from xmem.stress.hunt import BATCH_OPS, EPISODE_OPS
from xmem.stress.loads import FRAME_LOADS, LOADS
from xmem.stress.trials import HeapTrial

ALL = "all"
SETTINGS = {"help_option_names": ["-h", "--help"]}


def told(loads: dict[str, Any]) -> str:
    """Say what the names of loads mean, for a help text."""
    return "; ".join(f"{name}: {load.what}" for name, load in loads.items())


@click.command(context_settings=SETTINGS)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    show_default="tlsf",
    help="Stress a pool with this engine.",
)
@click.option(
    "--interface",
    type=click.Choice(INTERFACES),
    help="Stress a heap with this interface instead.",
)
@click.option(
    "--hardened",
    "hardening",
    multiple=True,
    type=click.Choice([*HARDENING, ALL]),
    help="Harden it; may be given again.",
)
@click.option(
    "--quick",
    type=click.IntRange(min=0, max=255),
    default=0,
    help="Freed blocks of each size that wait to be used again.",
)
@click.option(
    "--load",
    type=click.Choice(list(LOADS)),
    default="mixed",
    show_default=True,
    help=f"Sizes and lifetimes. {told(LOADS)}.",
)
@click.option(
    "--arena-bytes",
    type=parse_size,
    show_default="of the load",
    help="Size of the arena.",
)
@run_options(200_000)
def stress(
    engine: str | None,
    interface: str | None,
    hardening: tuple[str, ...],
    quick: int,
    load: str,
    arena_bytes: int | None,
    threads: int,
    trace: Path | None,
    **options: Any,
) -> None:
    """Run mixed verbs over one heap; verify every block and every invariant.

    Exit status: 0 nothing was found; 1 a fault was; 2 usage.
    """
    if engine is not None and interface is not None:
        raise click.UsageError("give --engine or --interface, not both.")
    hardened = True if ALL in hardening else list(hardening)
    settings: dict[str, Any] = {"hardened": hardened} if hardened else {}
    given: list[str] = []
    if interface is not None:
        settings["interface"] = interface
        given += ["--interface", interface]
        if quick:
            raise click.UsageError("--quick is for a pool: give no --interface.")
    else:
        settings["engine"] = engine or "tlsf"
        given += ["--engine", settings["engine"]]
    if quick:
        settings["quick"] = quick
        given += ["--quick", str(quick)]
    for name in hardening:
        given += ["--hardened", name]
    size = arena_bytes or LOADS[load].arena_bytes
    given += ["--arena-bytes", str(size), "--check-every", "1000000"]
    trial = HeapTrial(
        "pool" if interface is None else "heap",
        settings,
        load,
        size,
        threads,
        given=given,
    )
    name = settings["engine"] if interface is None else interface
    run(
        "xmem-stress",
        trial,
        f"{name}, {load if trace is None else trace}",
        trace=trace,
        episode_ops=EPISODE_OPS,
        batch_ops=BATCH_OPS,
        **options,
    )


@click.command(context_settings=SETTINGS)
@click.option(
    "--load",
    type=click.Choice(list(FRAME_LOADS)),
    default="orders",
    show_default=True,
    help=f"Run lengths and lifetimes. {told(FRAME_LOADS)}.",
)
@click.option(
    "--arena-bytes",
    type=parse_size,
    show_default="of the load",
    help="Size of the arena.",
)
@run_options(200_000)
def stress_frames(
    load: str,
    arena_bytes: int | None,
    threads: int,
    trace: Path | None,
    **options: Any,
) -> None:
    """Allocate and free page runs; verify every page and the frame table.

    Exit status: 0 nothing was found; 1 a fault was; 2 usage.
    """
    size = arena_bytes or FRAME_LOADS[load].arena_bytes
    given = ["--arena-bytes", str(size), "--check-every", "1000000"]
    run(
        "xmem-stress-frames",
        HeapTrial("frames", {}, load, size, threads, given=given),
        f"page frames, {load if trace is None else trace}",
        trace=trace,
        episode_ops=EPISODE_OPS,
        batch_ops=BATCH_OPS,
        **options,
    )
