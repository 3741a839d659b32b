# SPDX-License-Identifier: BSD-3-Clause
"""The table of `xmem replay` and `xmem demo`, and the lines that explain it."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from xmem.cli.contenders import Replay
from xmem.cli.tables.printing import NOTHING
from xmem.measure.replay import ReplayResult
from xmem.measure.trace import PeerResult

#: Columns of one verb: heading, key in `ReplayResult.summary`.
QUANTILES = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("worst", "worst"))
VERBS = ("xmalloc", "xfree")
#: An interrupt may strike the same call twice, but hardly three times.
ENOUGH_REPEATS = 3


def make_table(replays: Sequence[Replay]) -> Table:
    """Build the table: one row per trace and engine or interface.

    Parameters
    ----------
    replays : sequence of Replay
        In the order of the rows; those of one trace stand together.

    Returns
    -------
    rich.table.Table
        With two lines of headings: above the quantiles of cycles stands the verb.
    """
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("\ntrace", no_wrap=True)
    table.add_column(contender_heading(replays), no_wrap=True)
    for heading in headings():
        table.add_column(heading, justify="right", no_wrap=True)
    for i, replay in enumerate(replays):
        last_of_trace = (
            i + 1 < len(replays) and replays[i + 1].trace is not replay.trace
        )
        table.add_row(*row(replay), end_section=last_of_trace)
    return table


def contender_heading(replays: Sequence[Replay]) -> str:
    """Return the heading of the column that names engine or interface."""
    has_interface = {
        isinstance(replay.result, ReplayResult) and replay.result.interface is not None
        for replay in replays
    }
    if has_interface == {True, False}:
        return "engine or\ninterface"
    return "\ninterface" if True in has_interface else "\nengine"


def headings() -> list[str]:
    """Return the headings of the columns that hold figures."""
    cycles = [
        f"{verb if i == 0 else ''}\n{heading}"
        for verb in VERBS
        for i, (heading, _) in enumerate(QUANTILES)
    ]
    return ["ns\nper op", *cycles, "pages\n/ live", "failed\nrequests"]


def row(replay: Replay) -> list[str]:
    """Return the cells of one replay."""
    result = replay.result
    return [
        replay.trace.name,
        result.contender,
        f"{result.ns_per_op:,.1f}",
        *(cell for verb in VERBS for cell in cycles(result, verb)),
        ratio(result.pages_per_live_byte),
        f"{result.failed:,}",
    ]


def cycles(result: PeerResult, verb: str) -> list[str]:
    """Return the cells of one verb; a trace may have no call of it."""
    if not (result.of_kind(verb) & result.was_run).any():
        return [NOTHING] * len(QUANTILES)
    summary = result.summary(verb)
    return [f"{summary[key]:,}" for _, key in QUANTILES]


def ratio(pages_per_live_byte: float | None) -> str:
    """Format peak page bytes over peak live bytes."""
    return NOTHING if pages_per_live_byte is None else f"{pages_per_live_byte:.2f}"


def notes(
    replays: Sequence[Replay], repeats: int, verified: bool, reserved: bool = False
) -> list[str]:
    """Explain the figures.

    Parameters
    ----------
    replays : sequence of Replay
        Those in the table.
    repeats : int
        Clocked passes of each trace.
    verified : bool
        Whether contents and invariants were verified, with success.
    reserved : bool
        Whether pools had their pages before the clock started.

    Returns
    -------
    list of str
        Lines for below the table.
    """
    lines = [
        f"xmalloc, xfree: cycles of the time-stamp counter ({clock(replays)}) per call,"
        f" {passes(repeats)};",
        "worst: the maximum over all calls. pages / live: the most bytes held in pages,"
        " without the pool's control block, over the most bytes live.",
    ]
    if verified:
        lines.append(
            "Verified: the contents of every block at each realloc, each free and the"
            " end; check() was clean."
        )
    if reserved:
        lines.append(
            "Pools of TLSF had most pages of their arena before the clock started:"
            " pages / live says nothing of the trace."
        )
    return lines


def passes(repeats: int) -> str:
    """Say what the cycles of a call are, and whether the repeats are too few."""
    if repeats == 1:
        return "of one pass only, interrupts included (take --repeats 3 or more)"
    if repeats < ENOUGH_REPEATS:
        return f"the least of {repeats} repeats, too few to be free of interrupts"
    return f"the least of {repeats} repeats"


def clock(replays: Sequence[Replay]) -> str:
    """Format the frequency of the time-stamp counter."""
    return f"{replays[0].result.tsc_hz / 1e9:.2f} GHz"
