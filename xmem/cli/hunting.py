# SPDX-License-Identifier: BSD-3-Clause
"""What the four stress commands have in common: options, what is shown, the end.

Exit status: 0 nothing was found; 1 a fault was; 2 usage. Ctrl-C ends a run early,
with all that follows a run.
"""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from xmem.base.errors import XmemError
from xmem.cli.exits import FAILED
from xmem.cli.outputs import OUTPUT_FILE, STDOUT, check_json
from xmem.measure.trace import TRACE_DTYPE, check_trace
from xmem.stress.hunt import Outcome, Plan, command_of, hunt, write_prefix
from xmem.stress.load import ticks_per_second
from xmem.stress.trials import HeapTrial, Ops, Trial

DEFAULT_SECONDS = 10.0
Command = Callable[..., None]


def run_options(check_every: int) -> Callable[[Command], Command]:
    """Return the decorator that gives a command the options of every run."""

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--seconds",
                    type=click.FloatRange(min=0, min_open=True),
                    show_default="10, without --ops and --trace",
                    help="Run at most so long.",
                ),
                click.option(
                    "--ops",
                    "n_ops",
                    type=click.IntRange(min=1),
                    help="Run so many operations of each thread.",
                ),
                click.option(
                    "--seed",
                    type=click.IntRange(min=0, max=(1 << 32) - 1),
                    show_default="drawn, and printed",
                    help="Of all that is drawn: with one thread, the same seed and "
                    "operations make the same run.",
                ),
                click.option(
                    "--threads",
                    type=click.IntRange(min=1, max=64),
                    default=1,
                    show_default=True,
                    help="Threads on the one subject.",
                ),
                click.option(
                    "--check-every",
                    type=click.IntRange(min=1),
                    default=check_every,
                    show_default=True,
                    help="Verify all invariants and contents after so many "
                    "operations of each thread.",
                ),
                click.option(
                    "--trace",
                    metavar="FILE",
                    type=click.Path(exists=True, dir_okay=False, path_type=Path),
                    help="Run the operations of a file, once.",
                ),
                click.option(
                    "--fault-file",
                    metavar="FILE",
                    type=click.Path(dir_okay=False, path_type=Path),
                    default=Path("fault.npz"),
                    show_default=True,
                    help="Where the shortest run with a fault is written.",
                ),
                click.option(
                    "--json",
                    "json_file",
                    metavar="FILE",
                    type=OUTPUT_FILE,
                    callback=check_json,
                    help="Write a record of the run; - is standard output.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def load_ops(path: Path) -> Ops:
    """Load the operations of a trace or of a fault's file.

    Raises
    ------
    click.BadParameter
        It is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ops: Ops = file["ops"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise click.BadParameter(f"{path} is no trace: {error}") from error
    if ops.dtype != TRACE_DTYPE or ops.ndim != 1:
        raise click.BadParameter(f"{path} is no trace: its fields are others")
    if len(ops) and int(ops["id"].max()) > 16 * len(ops) + (1 << 20):
        raise click.BadParameter(f"{path} has numbers far above its operations'")
    return ops


def run(
    program: str,
    trial: Trial,
    subject: str,
    *,
    seconds: float | None,
    n_ops: int | None,
    seed: int | None,
    check_every: int,
    trace: Path | None,
    fault_file: Path,
    json_file: Path | None,
    episode_ops: int,
    batch_ops: int,
) -> None:
    """Run a trial, show how it goes, and end the process."""
    console = Console(stderr=json_file == STDOUT)
    if seed is None:
        seed = secrets.randbits(32)
    if seconds is None and n_ops is None and trace is None:
        seconds = DEFAULT_SECONDS
    console.print(f"seed {seed}", highlight=False)
    ops = None if trace is None else load_ops(trace)
    if ops is not None and isinstance(trial, HeapTrial):
        try:
            ops = check_trace(ops)
        except XmemError as error:
            raise click.BadParameter(f"{trace}: {error}") from error
    plan = Plan(
        trial,
        seed,
        n_ops,
        seconds,
        check_every,
        ops,
        episode_ops,
        batch_ops,
    )
    try:
        outcome = watch(plan, console)
    except XmemError as error:
        raise click.UsageError(str(error)) from error
    console.print(summary(outcome, f"{program}: {subject}"))
    record = recorded(outcome, program, subject, seed)
    if outcome.fault is not None:
        record["fault"] = tell_fault(program, plan, outcome, fault_file, console)
    if json_file == STDOUT:
        click.echo(json.dumps(record, indent=2))
    elif json_file is not None:
        json_file.write_text(json.dumps(record, indent=2) + "\n")
    raise SystemExit(0 if outcome.fault is None else FAILED)


def watch(plan: Plan, console: Console) -> Outcome:
    """Run a plan and show it while it goes."""
    plan.trial.subject()  # what cannot be made is said at once
    if not console.is_terminal:
        return hunt(plan)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        shown = 0.0

        def show(outcome: Outcome) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                live.update(summary(outcome, "running"), refresh=True)

        return hunt(plan, show)


def figures(outcome: Outcome) -> dict[str, str]:
    """Return what is shown of a run, by name."""
    seen = outcome.seen
    rate = outcome.n_ops / outcome.seconds if outcome.seconds else 0.0
    shown = {
        "operations": f"{outcome.n_ops:,}",
        "operations per second": f"{rate:,.0f}",
        "checks of everything": f"{outcome.n_checks:,}",
        "live": f"{seen.get('live', 0):,}",
        "pages held": f"{seen.get('n_pages', 0):,}",
        "requests refused": f"{seen.get('failed', 0):,}",
        "fragmentation": f"{outcome.fragmentation:.3f}",
    }
    for name, key in (
        ("worst allocation", "worst_alloc"),
        ("worst free", "worst_free"),
        ("worst reallocation", "worst_resize"),
    ):
        if seen.get(key):
            us = seen[key] / ticks_per_second() * 1e6
            shown[name] = f"{seen[key]:,} cycles ({us:,.1f} us)"
    for key in ("evicted", "shared", "patched", "compressed"):
        if key in seen:
            shown[f"pages {key}"] = f"{seen[key]:,}"
    return shown


def summary(outcome: Outcome, title: str) -> Table:
    """Return the table of a run."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figures(outcome).items():
        table.add_row(name, value)
    table.add_row("faults", "0" if outcome.fault is None else "[red]1[/red]")
    return table


def recorded(outcome: Outcome, program: str, subject: str, seed: int) -> dict[str, Any]:
    """Return the record of a run."""
    return {
        "program": program,
        "subject": subject,
        "seed": seed,
        "ops": outcome.n_ops,
        "seconds": outcome.seconds,
        "checks": outcome.n_checks,
        "fragmentation": outcome.fragmentation,
        "seen": outcome.seen,
        "tsc_hz": ticks_per_second(),
        "fault": None,
    }


def tell_fault(
    program: str, plan: Plan, outcome: Outcome, path: Path, console: Console
) -> dict[str, Any]:
    """Say what was found, write what leads to it; answers its record."""
    fault = outcome.fault
    assert fault is not None
    console.print(f"Fault: {fault.what}", style="red", highlight=False)
    if fault.ops is None:
        console.print(
            f"The {fault.n_tried:,} operations before it do not show it again, one by "
            "one: it needs the threads."
        )
        return {"what": fault.what, "file": None, "command": None}
    write_prefix(fault, path)
    command = command_of(program, plan, path)
    console.print(
        f"The shortest run that shows it, {len(fault.ops):,} operations, is {path}. "
        "Replay it with:"
    )
    console.print(f"    {command}", highlight=False, soft_wrap=True)
    return {
        "what": fault.what,
        "file": str(path),
        "ops": len(fault.ops),
        "command": command,
    }
