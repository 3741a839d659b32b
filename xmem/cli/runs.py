# SPDX-License-Identifier: BSD-3-Clause
"""Traces times contenders, engines or interfaces: one replay each.

Knows how to name and cut traces and how to start a replay; what is shown of it
is the business of `table`, `plot` and `progress`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument, XmemError
from xmem.cli.exits import ReplayFailed
from xmem.cli.progress import ReplayProgress, Report
from xmem.heap import INTERFACES as INTERFACE_NUMBERS
from xmem.measure.peers import Peer, measure
from xmem.measure.replay import ReplayResult, load
from xmem.measure.replay import replay as replay_ops
from xmem.measure.trace import PeerResult

ENGINES = ("tlsf", "firstfit")
#: The malloc of this process, to compare with.
SYSTEM = "system"
INTERFACES = tuple(INTERFACE_NUMBERS)
DEFAULT_REPEATS = 5


@dataclass(frozen=True)
class Trace:
    """A trace and the name it goes by."""

    name: str
    ops: npt.NDArray[np.void]


@dataclass(frozen=True)
class Settings:
    """What all replays of one command have in common."""

    repeats: int = DEFAULT_REPEATS
    arena_bytes: int | None = None
    verify: bool = False
    grow_pages: int | None = None
    hardened: bool | tuple[str, ...] = False
    checked: bool = False
    paths: bool = False
    quick: int = 0


@dataclass(frozen=True)
class Run:
    """One replay: a trace on an engine or interface, and what came of it."""

    trace: Trace
    result: PeerResult

    def failures(self) -> list[str]:
        """Say what went wrong, one sentence each; empty when nothing did."""
        where = f"{self.trace.name} on {self.result.contender}"
        said = []
        if self.result.failed:
            said.append(f"{where}: {self.result.failed:,} requests failed.")
        if isinstance(self.result, ReplayResult) and self.result.content_errors:
            said.append(
                f"{where}: {self.result.content_errors:,} blocks lost their contents."
            )
        return said


def load_traces(paths: Sequence[Path], max_ops: int | None = None) -> list[Trace]:
    """Load traces, named after their files.

    Parameters
    ----------
    paths : sequence of Path
        Files in the trace format.
    max_ops : int, optional
        Keep at most this many operations of each.

    Returns
    -------
    list of Trace
        In the order of `paths`.

    Raises
    ------
    click.BadParameter
        A file is no trace, or an empty one, or named twice.
    """
    refuse_twice(paths)
    return [
        Trace(name, load_ops(path)[:max_ops])
        for name, path in zip(trace_names(paths), paths, strict=True)
    ]


def refuse_twice(paths: Sequence[Path]) -> None:
    """Refuse one file under two names: its figures would stand there twice."""
    for i, path in enumerate(paths):
        for other in paths[:i]:
            if path.exists() and path.samefile(other):
                raise click.BadParameter(
                    f"{path} is the same file as {other}.", param_hint="'TRACE'"
                )


def trace_names(paths: Sequence[Path]) -> list[str]:
    """Name each file by its stem, or by its path where stems collide."""
    stems = [path.stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    ]


def load_ops(path: Path) -> npt.NDArray[np.void]:
    """Load one file; a usage error says why it is no trace."""
    try:
        ops = load(path)
    except (XmemError, OSError) as error:
        raise click.BadParameter(str(error), param_hint="'TRACE'") from error
    if len(ops) == 0:
        raise click.BadParameter(f"{path}: an empty trace", param_hint="'TRACE'")
    return ops


def run_all(
    traces: Sequence[Trace],
    contenders: Sequence[str],
    settings: Settings,
    progress: ReplayProgress,
) -> Iterator[Run]:
    """Replay each trace on each contender, one after the other.

    Parameters
    ----------
    traces : sequence of Trace
        What to replay.
    contenders : sequence of str
        On which of `ENGINES`, `INTERFACES` and `SYSTEM`.
    settings : Settings
        How.
    progress : ReplayProgress
        Told how far it is.

    Yields
    ------
    Run
        Each as soon as it is finished, so that an interruption loses one only.
    """
    for trace in traces:
        for contender in contenders:
            with progress.replay(f"{trace.name} on {contender}") as report:
                if contender == SYSTEM:
                    yield Run(trace, run_system(trace, settings, report))
                else:
                    yield Run(trace, run_one(trace, contender, settings, report))


def run_system(trace: Trace, settings: Settings, report: Report) -> PeerResult:
    """Replay one trace on the malloc of this process."""
    return measure(
        Peer.system(SYSTEM), trace.ops, repeats=settings.repeats, progress=report
    )


def run_one(
    trace: Trace,
    contender: str,
    settings: Settings,
    report: Report | None = None,
    cold: npt.NDArray[np.bool_] | None = None,
) -> ReplayResult:
    """Replay one trace on one of `ENGINES` or `INTERFACES`.

    Before the operations of `cold` the caches are emptied, as in `replay`.

    Raises
    ------
    click.UsageError
        The settings make no sense for the library.
    ReplayFailed
        The replay could not run, or the heap was found corrupt.
    """
    try:
        return replay_ops(
            trace.ops,
            engine=None if contender in INTERFACES else contender,
            interface=contender if contender in INTERFACES else None,
            repeats=settings.repeats,
            arena_bytes=settings.arena_bytes,
            verify=settings.verify,
            grow_pages=settings.grow_pages,
            progress=report,
            cold=cold,
            hardened=settings.hardened,
            checked=settings.checked,
            paths=settings.paths and contender in ENGINES,
            quick=settings.quick if contender == "tlsf" else 0,
        )
    except BadArgument as error:
        raise click.UsageError(f"{trace.name} on {contender}: {error}") from error
    except (XmemError, OSError) as error:
        raise ReplayFailed(
            f"{trace.name} on {contender}: {type(error).__name__}: {error}"
        ) from error
