# SPDX-License-Identifier: BSD-3-Clause
"""A stress session: how it starts, what it shows, how it ends.

Exit status: 0 no fault was found; 1 a fault was found; 2 usage. Ctrl-C ends a
session early, with its summary.
"""

import secrets
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from xmem.base.errors import XmemError
from xmem.cli.exits import FAILED, UnusableFile
from xmem.cli.outputs import STDOUT, refuse_clashes, write_json
from xmem.cli.stress.options import SessionOptions
from xmem.measure.trace import TRACE_DTYPE, check_trace
from xmem.stress.hunt import Fault, Outcome, Plan, command_of, hunt, write_prefix
from xmem.stress.target import ticks_per_second
from xmem.stress.workloads import HeapWorkload, Ops, Workload

SECONDS_BETWEEN_FRAMES = 0.2


def run_session(
    program: str,
    workload: Workload,
    target: str,
    options: SessionOptions,
    episode_ops: int,
    batch_ops: int,
) -> None:
    """Run a session, show how it goes, and end the process.

    Parameters
    ----------
    program : str
        Name of the command.
    workload : Workload
        The target and its operations.
    target : str
        Name of the target, for the summary.
    options : SessionOptions
        Options that all sessions have.
    episode_ops, batch_ops : int
        As in `xmem.stress.hunt.Plan`.

    Raises
    ------
    SystemExit
        Always; status 1 if a fault was found.
    click.UsageError
        The target cannot be made with its settings.
    """
    # A fault file may be replayed: what replaces it is at most a part of it.
    inputs = [options.trace] if options.trace is not None else []
    refuse_clashes(inputs, {"--json": options.json_file})
    outputs = {"--fault-file": options.fault_file, "--json": options.json_file}
    refuse_clashes([], outputs)
    ops = None if options.trace is None else load_ops(options.trace, workload)
    console = Console(stderr=options.json_file == STDOUT)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    console.print(f"seed {seed}", highlight=False)
    plan = Plan(
        workload,
        seed,
        options.n_ops,
        options.most_seconds,
        options.check_every,
        ops,
        episode_ops,
        batch_ops,
    )
    try:
        outcome = watch(plan, console)
    except XmemError as error:
        raise click.UsageError(str(error)) from error
    console.print(summary(outcome, f"{program}: {target}"))
    record = record_of(outcome, program, target, seed)
    if outcome.fault is not None:
        command = command_of(program, plan, options.fault_file)
        record["fault"] = report_fault(
            outcome.fault, command, options.fault_file, console
        )
    write_json(record, options.json_file)
    raise SystemExit(0 if outcome.fault is None else FAILED)


def load_ops(path: Path, workload: Workload) -> Ops:
    """Load the operations of a trace or of a fault file.

    Raises
    ------
    UnusableFile
        The file holds none that the workload can take.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ops: Ops = file["ops"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UnusableFile(f"{path} is not a trace.") from error
    if ops.dtype != TRACE_DTYPE or ops.ndim != 1:
        raise UnusableFile(f"{path} is not a trace: its fields differ.")
    if len(ops) and int(ops["id"].max()) > 16 * len(ops) + (1 << 20):
        raise UnusableFile(f"{path} has ids far above its number of operations.")
    if isinstance(workload, HeapWorkload):
        try:
            ops = check_trace(ops)
        except XmemError as error:
            raise UnusableFile(f"{path}: {error}") from error
    return ops


def watch(plan: Plan, console: Console) -> Outcome:
    """Run a plan; on a terminal, show its figures meanwhile."""
    plan.workload.target()  # refuses bad settings at once
    if not console.is_terminal:
        return hunt(plan)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        last = 0.0

        def show(outcome: Outcome) -> None:
            nonlocal last
            if time.monotonic() - last > SECONDS_BETWEEN_FRAMES:
                last = time.monotonic()
                live.update(summary(outcome, "running"), refresh=True)

        return hunt(plan, show)


def figures(outcome: Outcome) -> dict[str, str]:
    """Return the figures of a session by label."""
    stats = outcome.stats
    rate = outcome.n_ops / outcome.seconds if outcome.seconds else 0.0
    rows = {
        "operations": f"{outcome.n_ops:,}",
        "operations per second": f"{rate:,.0f}",
        "complete checks": f"{outcome.n_checks:,}",
        "live": f"{stats.get('live', 0):,}",
        "pages held": f"{stats.get('n_pages', 0):,}",
        "requests refused": f"{stats.get('failed', 0):,}",
        "fragmentation": f"{outcome.fragmentation:.3f}",
    }
    for label, key in (
        ("worst allocation", "worst_alloc"),
        ("worst free", "worst_free"),
        ("worst reallocation", "worst_resize"),
    ):
        if stats.get(key):
            us = stats[key] / ticks_per_second() * 1e6
            rows[label] = f"{stats[key]:,} cycles ({us:,.1f} us)"
    for key in ("evicted", "shared", "patched", "compressed"):
        if key in stats:
            rows[f"pages {key}"] = f"{stats[key]:,}"
    return rows


def summary(outcome: Outcome, title: str) -> Table:
    """Return the table of a session."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, value in figures(outcome).items():
        table.add_row(label, value)
    table.add_row("faults", "0" if outcome.fault is None else "[red]1[/red]")
    return table


def record_of(outcome: Outcome, program: str, target: str, seed: int) -> dict[str, Any]:
    """Return the record of a session for ``--json``."""
    return {
        "program": program,
        "target": target,
        "seed": seed,
        "ops": outcome.n_ops,
        "seconds": outcome.seconds,
        "checks": outcome.n_checks,
        "fragmentation": outcome.fragmentation,
        "stats": outcome.stats,
        "tsc_hz": ticks_per_second(),
        "fault": None,
    }


def report_fault(
    fault: Fault, command: str, path: Path, console: Console
) -> dict[str, Any]:
    """Print a fault, write the operations that show it, and return its record."""
    console.print(f"Fault: {fault.what}", style="red", highlight=False)
    if fault.ops is None:
        console.print(
            f"The {fault.n_episode:,} operations before it do not show it again when "
            "they run one by one: it needs the threads."
        )
        return {"what": fault.what, "file": None, "command": None}
    write_prefix(fault, path)
    console.print(
        f"The shortest sequence that shows it, {len(fault.ops):,} operations, is in "
        f"{path}. Replay it with:"
    )
    console.print(f"    {command}", highlight=False, soft_wrap=True)
    return {
        "what": fault.what,
        "file": str(path),
        "ops": len(fault.ops),
        "command": command,
    }
