# SPDX-License-Identifier: BSD-3-Clause
"""The tables of `xmem insn`: one for each trace, or one of all scenarios."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from xmem.measure.counts import VERBS, Counts, Summary
from xmem.measure.insn import BUILD

NOTES = (f"Retired instructions, {BUILD} build, counted by single-stepping.",)


def make_counts_table(counts: Counts, title: str) -> Table:
    """Build the table of one trace: verbs, and the paths of each."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("verb, path", no_wrap=True)
    for heading in ("calls", "min", "mean", "max", "worst: op", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("path of the worst", no_wrap=True)
    for verb in VERBS:
        whole = counts.summary(verb)
        if whole is None:
            continue
        table.add_row(verb, *figures(whole), whole.worst_path)
        for part in counts.by_path(verb):
            table.add_row(f"  {part.path}", *figures(part), "")
        table.add_section()
    return table


def figures(summary: Summary) -> Sequence[str]:
    """Return the figures of one row."""
    return (
        f"{summary.n_ops:,}",
        f"{summary.least:,}",
        f"{summary.mean:,.1f}",
        f"{summary.most:,}",
        f"{summary.worst_index:,}",
        f"{summary.worst_size:,}",
    )


def make_scenarios_table(records: Sequence[dict[str, Any]]) -> Table:
    """Build the table of all scenarios: a column for each number of free blocks.

    Parameters
    ----------
    records : sequence of dict
        One for each scenario, engine and number of free blocks.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("verb", "scenario", "engine"):
        table.add_column(heading, no_wrap=True)
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        key = record["verb"], record["scenario"], record["engine"]
        rows.setdefault(key, []).append(record)
    for n_free in dict.fromkeys(record["free_blocks"] for record in records):
        table.add_column(f"{n_free:,} free", justify="right")
    table.add_column("path", no_wrap=True)
    for key, row in rows.items():
        counts = (f"{record['instructions']:,}" for record in row)
        table.add_row(*key, *counts, row[-1]["path"])
    return table
