# SPDX-License-Identifier: BSD-3-Clause
"""Every trace on every contender, engine or interface: one replay each.

Names and cuts traces, and starts replays. Tables, pictures and progress are shown
elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from xmem.base.engines import ENGINES as ENGINE_NUMBERS
from xmem.base.errors import BadArgument, XmemError
from xmem.cli.exits import ReplayFailed, UnusableFile
from xmem.cli.progress import Progress, Report
from xmem.heap import INTERFACES as INTERFACE_NUMBERS
from xmem.measure.peers import Peer, measure
from xmem.measure.replay import ReplayResult, load
from xmem.measure.replay import replay as replay_ops
from xmem.measure.trace import PeerResult, machine_bytes, peak_live

ENGINES = tuple(ENGINE_NUMBERS)
#: The malloc of this process, to compare with.
SYSTEM = "system"
INTERFACES = tuple(INTERFACE_NUMBERS)
DEFAULT_REPEATS = 5


@dataclass(frozen=True)
class Trace:
    """A trace and its name in tables and records."""

    name: str
    ops: npt.NDArray[np.void]


@dataclass(frozen=True)
class Settings:
    """Settings of all replays of one command."""

    repeats: int = DEFAULT_REPEATS
    arena_bytes: int | None = None
    verify: bool = False
    grow_pages: int | None = None
    hardened: bool | tuple[str, ...] = False
    checked: bool = False
    paths: bool = False
    quick: bool = False
    reserved: bool = False


@dataclass(frozen=True)
class Replay:
    """One replay: a trace on an engine or interface, and its result."""

    trace: Trace
    result: PeerResult

    def failures(self) -> list[str]:
        """Return what went wrong, a sentence each; empty if nothing did."""
        where = f"{self.trace.name} on {self.result.contender}"
        sentences = []
        if self.result.failed:
            sentences.append(f"{where}: {self.result.failed:,} requests failed.")
        if isinstance(self.result, ReplayResult) and self.result.content_errors:
            sentences.append(
                f"{where}: {self.result.content_errors:,} blocks lost their contents."
            )
        return sentences


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
    UnusableFile
        A file is not a trace, or is an empty one.
    click.BadParameter
        A file is named twice.
    """
    refuse_twice(paths)
    return [
        Trace(name, load_ops(path)[:max_ops])
        for name, path in zip(trace_names(paths), paths, strict=True)
    ]


def refuse_too_large(traces: Sequence[Trace]) -> None:
    """Refuse a trace whose blocks would not fit into this machine's memory.

    An arena may be larger, but its tables alone would take minutes to write.

    Raises
    ------
    click.BadParameter
        Names the trace and what it requests.
    """
    most = machine_bytes()
    for trace in traces:
        n_bytes = peak_live(trace.ops)
        if n_bytes > most:
            raise click.BadParameter(
                f"{trace.name} has {n_bytes:,} bytes live at once; this machine has "
                f"{most:,} bytes of memory.",
                param_hint="'TRACE'",
            )


def refuse_twice(paths: Sequence[Path]) -> None:
    """Refuse one file under two names, whose figures would appear twice."""
    for i, path in enumerate(paths):
        for other in paths[:i]:
            if path.exists() and path.samefile(other):
                raise click.BadParameter(
                    f"{path} is the same file as {other}.", param_hint="'TRACE'"
                )


def trace_names(paths: Sequence[Path]) -> list[str]:
    """Name each trace after its file's stem, or its path where stems collide."""
    stems = [path.stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    ]


def load_ops(path: Path) -> npt.NDArray[np.void]:
    """Load one file, or say why it is not a trace."""
    try:
        ops = load(path)
    except (XmemError, OSError) as error:
        raise UnusableFile(str(error)) from error
    if len(ops) == 0:
        raise UnusableFile(f"{path} is an empty trace")
    return ops


def replay_all(
    traces: Sequence[Trace],
    contenders: Sequence[str],
    settings: Settings,
    progress: Progress,
) -> Iterator[Replay]:
    """Replay each trace on each contender, one replay after the other.

    Parameters
    ----------
    traces : sequence of Trace
        Traces to replay.
    contenders : sequence of str
        Names in `ENGINES` and `INTERFACES`, and `SYSTEM`.
    settings : Settings
        Settings of all replays.
    progress : Progress
        Shows each replay as a task.

    Yields
    ------
    Replay
        Each as soon as it has ended, so that an interruption loses only one.
    """
    for trace in traces:
        for contender in contenders:
            with progress.task(f"{trace.name} on {contender}") as report:
                if contender == SYSTEM:
                    yield Replay(trace, replay_system(trace, settings, report))
                else:
                    yield Replay(trace, replay_one(trace, contender, settings, report))


def replay_system(trace: Trace, settings: Settings, report: Report) -> PeerResult:
    """Replay one trace on the malloc of this process."""
    return measure(
        Peer.system(SYSTEM), trace.ops, repeats=settings.repeats, progress=report
    )


def replay_one(
    trace: Trace,
    contender: str,
    settings: Settings,
    report: Report | None = None,
    cold: npt.NDArray[np.bool_] | None = None,
) -> ReplayResult:
    """Replay one trace on one of `ENGINES` or `INTERFACES`.

    The caches are emptied before the operations of `cold`, as in `replay`.

    Raises
    ------
    click.UsageError
        The library refuses the settings.
    ReplayFailed
        The replay could not run, or found the heap corrupt.
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
            quick=settings.quick and contender == "tlsf",
            reserved=settings.reserved and contender == "tlsf",
        )
    except BadArgument as error:
        raise click.UsageError(f"{trace.name} on {contender}: {error}") from error
    except (XmemError, OSError) as error:
        raise ReplayFailed(
            f"{trace.name} on {contender}: {type(error).__name__}: {error}"
        ) from error
