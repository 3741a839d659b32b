# SPDX-License-Identifier: BSD-3-Clause
"""`xmem insn`: the instructions that each call retires, exactly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import click

from xmem.cli.contenders import ENGINES, Trace, load_traces
from xmem.cli.exits import ReplayFailed
from xmem.cli.options import (
    Hardened,
    checked_option,
    default_engines,
    engines_option,
    hardened_option,
    json_option,
    max_ops_option,
    optional_traces_argument,
    quick_option,
    refuse_legacy,
)
from xmem.cli.outputs import STDOUT, refuse_clashes, write_json
from xmem.cli.progress import Progress
from xmem.cli.tables.insn import NOTES, make_counts_table, make_scenarios_table
from xmem.cli.tables.printing import print_whole
from xmem.measure.insn import BUILD, SteppingUnavailable, cost, count
from xmem.measure.scenarios import EXTREMES, SCENARIOS, Scenario
from xmem.pool import HARDENING

FREE_BLOCKS = (10, 1000)
#: Counting takes up to milliseconds a call.
MAX_OPS = 5000

Engine = Literal["tlsf", "firstfit"]


@click.command()
@optional_traces_argument
@engines_option(ENGINES, default="tlsf for traces, both for scenarios")
@hardened_option
@quick_option
@checked_option
@max_ops_option(default=MAX_OPS)
@click.option(
    "--every",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Count every N-th operation of a trace; the others run at full speed.",
)
@click.option(
    "--free-blocks",
    metavar="N",
    type=click.IntRange(min=0, max=1_000_000),
    multiple=True,
    default=FREE_BLOCKS,
    help="Free blocks in the heap of a scenario. May be given again.",
)
@json_option
def insn(
    traces: Sequence[Path],
    engines: Sequence[Engine],
    hardened: Hardened,
    quick: bool,
    checked: bool,
    max_ops: int,
    every: int,
    free_blocks: Sequence[int],
    json_file: Path | None,
) -> None:
    """Count the instructions of each call in traces, or in scenarios.

    Without a TRACE the built-in scenarios are counted: heaps made so that a call
    takes a known path, the worst paths among them.

    Exit status: 0 success; 1 the system does not let instructions be counted;
    2 usage; 130 interrupted.
    """
    refuse_clashes(traces, {"--json": json_file})
    if quick and not traces:
        raise click.UsageError(
            "--quick is for traces: the scenarios make heaps by freeing blocks, which "
            "would wait in quick lists. Name a TRACE."
        )
    usual = ("tlsf",) if traces else default_engines(ENGINES, hardened, quick)
    chosen = cast(Sequence[Engine], tuple(dict.fromkeys(engines)) or usual)
    refuse_legacy(chosen, hardened, quick)
    aside = json_file == STDOUT
    try:
        if traces:
            records = count_traces(
                load_traces(traces, max_ops),
                chosen,
                aside,
                hardened=hardened,
                quick=quick,
                checked=checked,
                every=every,
            )
        else:
            sizes = list(dict.fromkeys(free_blocks))
            records = count_scenarios(chosen, hardened, checked, sizes)
            print_whole(make_scenarios_table(records), NOTES, aside)
    except SteppingUnavailable as error:
        raise ReplayFailed(str(error)) from error
    write_json(records, json_file)


def count_traces(
    traces: Sequence[Trace], engines: Sequence[Engine], aside: bool, **settings: Any
) -> list[dict[str, Any]]:
    """Count traces, print a table of each and return the records.

    Parameters
    ----------
    traces : sequence of Trace
        Traces to count.
    engines : sequence of str
        Engines to count each on.
    aside : bool
        Print on standard error.
    **settings
        As `xmem.measure.insn.count` takes them.
    """
    records = []
    for trace in traces:
        for engine in engines:
            title = f"{trace.name} on {engine}"
            # The bar ends before the table is printed over it.
            with Progress() as progress, progress.task(title) as report:
                counts = count(trace.ops, engine=engine, progress=report, **settings)
            print_whole(make_counts_table(counts, title), NOTES, aside)
            records.append({**counts.record(trace.name), "build": BUILD})
    return records


def count_scenarios(
    engines: Sequence[Engine],
    hardened: Hardened,
    checked: bool,
    free_blocks: Sequence[int],
) -> list[dict[str, Any]]:
    """Count every scenario and return the records.

    Those at the bounds say themselves how their pool is hardened.
    """
    names = HARDENING if hardened is True else hardened or ()
    records = []
    for scenario in SCENARIOS if hardened else (*SCENARIOS, *EXTREMES):
        for engine in scenario.engines:
            if engine not in engines:
                continue
            for n_free in free_blocks:
                n, path = count_scenario(scenario, n_free, engine, hardened, checked)
                records.append(
                    {
                        "verb": scenario.verb,
                        "scenario": scenario.name,
                        "engine": engine,
                        "hardening": list(hardening_of(scenario) or names),
                        "free_blocks": n_free,
                        "instructions": n,
                        "path": path,
                        "work": scenario.work,
                        "build": BUILD,
                    }
                )
    return records


def hardening_of(scenario: Scenario) -> Sequence[str]:
    """Return what a scenario hardens its pool with."""
    return list(HARDENING) if scenario.settings.get("hardened") else []


def count_scenario(
    scenario: Scenario,
    n_free: int,
    engine: Engine,
    hardened: Hardened,
    checked: bool,
) -> tuple[int, str]:
    """Return the instructions and the path of a scenario's call."""
    settings: dict[str, Any] = {"hardened": hardened} if hardened else {}
    pool, arguments = scenario.make(n_free, engine, **settings)
    try:
        return cost(pool, cast(Any, scenario.verb), *arguments, checked=checked)
    finally:
        pool.arena.close()
