# SPDX-License-Identifier: BSD-3-Clause
"""`xmem insn`: instructions that each call retires, exactly."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import click
from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from xmem.cli.exits import ReplayFailed
from xmem.cli.outputs import (
    OUTPUT_FILE,
    STDOUT,
    check_json,
    refuse_clashes,
    write_records,
)
from xmem.cli.replay import TRACE_FILE
from xmem.cli.runs import ENGINES, load_traces
from xmem.cli.table import print_whole
from xmem.measure.counts import VERBS, Counts, Summary
from xmem.measure.insn import BUILD, SteppingUnavailable, cost, count, method
from xmem.measure.scenarios import SCENARIOS, Scenario
from xmem.pool import HARDENING

FREE_BLOCKS = (10, 1000)
ALL = "all"
ONE: tuple[Literal["tlsf", "firstfit"], ...] = ("tlsf",)
BOTH: tuple[Literal["tlsf", "firstfit"], ...] = ("tlsf", "firstfit")


@click.command()
@click.argument("traces", metavar="[TRACE...]", nargs=-1, type=TRACE_FILE)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(ENGINES),
    show_default="tlsf for traces, both for scenarios",
    help="Engine to count on; may be given twice.",
)
@click.option(
    "--hardened",
    "hardening",
    multiple=True,
    type=click.Choice([*HARDENING, ALL]),
    help="Harden the pool; may be given again.",
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
    help="Count the proof of each offset as well, which C callers may leave out.",
)
@click.option(
    "--max-ops",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="Count only this many operations of each trace: a call takes milliseconds.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Count each so-manieth operation; the others run at full speed.",
)
@click.option(
    "--free-blocks",
    type=click.IntRange(min=0, max=1_000_000),
    multiple=True,
    default=FREE_BLOCKS,
    show_default=True,
    help="Of scenarios: free blocks behind them; may be given again.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_json,
    help="Write a list of records; - is standard output.",
)
def insn(
    traces: Sequence[Path],
    engines: Sequence[Literal["tlsf", "firstfit"]],
    hardening: Sequence[str],
    quick: int,
    checked: bool,
    max_ops: int,
    every: int,
    free_blocks: Sequence[int],
    json_file: Path | None,
) -> None:
    """Count the instructions of each call of some traces, or of scenarios.

    Without a TRACE the built-in scenarios are counted: heaps made so that a
    call takes a known path, among them the worst.

    Exit status: 0 all well; 1 the system does not let instructions be counted;
    2 usage; 130 interrupted.
    """
    flags: bool | list[str] = True if ALL in hardening else list(hardening)
    aside = json_file == STDOUT
    refuse_clashes(traces, {"--json": json_file})
    if flags and "firstfit" in engines:
        raise click.UsageError("--hardened is for the engine tlsf alone.")
    if quick and (flags or "firstfit" in engines or not traces):
        raise click.UsageError(
            "--quick is for traces on the engine tlsf, not hardened."
        )
    try:
        if traces:
            records = count_traces(
                traces, engines or ONE, flags, quick, checked, max_ops, every, aside
            )
        else:
            chosen = engines or (ONE if flags else BOTH)
            records = count_scenarios(chosen, flags, checked, free_blocks, aside)
    except SteppingUnavailable as error:
        raise ReplayFailed(str(error)) from error
    if json_file is not None:
        write_records(records, json_file)


def count_traces(
    traces: Sequence[Path],
    engines: Sequence[Literal["tlsf", "firstfit"]],
    flags: bool | list[str],
    quick: int,
    checked: bool,
    max_ops: int,
    every: int,
    aside: bool,
) -> list[dict[str, Any]]:
    """Count traces, print a table of each; answers the records."""
    records = []
    console = Console(stderr=True)
    for trace in load_traces(traces, max_ops):
        for engine in engines:
            with Progress(
                console=console, transient=True, disable=not console.is_terminal
            ) as bars:
                task = bars.add_task(f"{trace.name} on {engine}", total=None)
                counts = count(
                    trace.ops,
                    engine=engine,
                    hardened=flags,
                    quick=quick,
                    checked=checked,
                    every=every,
                    progress=partial(show, bars, task),
                )
            print_counts(counts, f"{trace.name} on {counts.engine}", aside)
            records.append(
                {**counts.record(trace.name), "build": BUILD, "method": method()}
            )
    return records


def show(bars: Progress, task: TaskID, done: int, total: int) -> None:
    """Show how far the counting of a trace has come."""
    bars.update(task, completed=done, total=total)


def print_counts(counts: Counts, title: str, aside: bool) -> None:
    """Print verbs and paths of one trace."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("verb, path", no_wrap=True)
    for heading in ("calls", "min", "mean", "max", "worst: op", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("path of the worst", no_wrap=True)
    for verb in VERBS:
        whole = counts.summary(verb)
        if whole is None:
            continue
        table.add_row(verb, *cells(whole), whole.worst_path)
        for some in counts.by_path(verb):
            table.add_row(f"  {some.path}", *cells(some), "")
        table.add_section()
    print_whole(table, [how_counted()], aside)


def how_counted() -> str:
    """Say what the figures are."""
    how = "the processor's counter" if method() == "counter" else "stepping"
    return f"Retired instructions, {BUILD} build, counted by {how}."


def cells(summary: Summary) -> Iterable[str]:
    """Return the figures of one line."""
    return (
        f"{summary.n_ops:,}",
        f"{summary.least:,}",
        f"{summary.mean:,.1f}",
        f"{summary.most:,}",
        f"{summary.worst_index:,}",
        f"{summary.worst_size:,}",
    )


def count_scenarios(
    engines: Sequence[Literal["tlsf", "firstfit"]],
    flags: bool | list[str],
    checked: bool,
    free_blocks: Sequence[int],
    aside: bool,
) -> list[dict[str, Any]]:
    """Count every scenario and print one table; answers the records."""
    sizes = list(dict.fromkeys(free_blocks))
    records = []
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("verb", "scenario", "engine"):
        table.add_column(heading, no_wrap=True)
    for n_free in sizes:
        table.add_column(f"{n_free:,} free", justify="right")
    table.add_column("path", no_wrap=True)
    for scenario in SCENARIOS:
        for engine in scenario.engines:
            if engine not in engines:
                continue
            found = [
                (n_free, *count_scenario(scenario, n_free, engine, flags, checked))
                for n_free in sizes
            ]
            table.add_row(
                scenario.verb,
                scenario.name,
                engine,
                *(f"{n:,}" for _, n, _ in found),
                found[-1][2],
            )
            records += [
                {
                    "verb": scenario.verb,
                    "scenario": scenario.name,
                    "engine": engine,
                    "hardening": list(HARDENING) if flags is True else flags or [],
                    "free_blocks": n_free,
                    "instructions": n,
                    "path": path,
                    "work": scenario.work,
                    "build": BUILD,
                    "method": method(),
                }
                for n_free, n, path in found
            ]
    print_whole(table, [how_counted()], aside)
    return records


def count_scenario(
    scenario: Scenario,
    n_free: int,
    engine: Literal["tlsf", "firstfit"],
    flags: bool | list[str],
    checked: bool,
) -> tuple[int, str]:
    """Count one call."""
    pool, arguments = scenario.make(n_free, engine, hardened=flags)
    try:
        return cost(pool, cast(Any, scenario.verb), *arguments, checked=checked)
    finally:
        pool.arena.close()
