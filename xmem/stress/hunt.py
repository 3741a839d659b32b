# SPDX-License-Identifier: BSD-3-Clause
"""Carry out operations until time is up or a fault is found, and trace the fault.

A *session* is a series of *episodes*. Each has a new target, and operations generated
from the session's seed and the episode's number, carried out in *batches*. The session
has a process of its own, because a broken allocator may well crash. Once a fault is
found, the shortest prefix of the episode that still shows it is found by bisection,
with a new process for each attempt.
"""

import contextlib
import multiprocessing
import multiprocessing.process
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from xmem.base.errors import XmemError
from xmem.stress.target import NO_TURN
from xmem.stress.workloads import Generator, Ops, Target, Workload

__all__ = ["Fault", "Outcome", "Plan", "command_of", "hunt", "write_prefix"]

EPISODE_OPS = 1 << 22
BATCH_OPS = 1 << 15
REPORT_SECONDS = 0.2
#: Distance of the seeds of two episodes; threads take the seeds in between.
EPISODE_STRIDE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What a session does, how long, and how often it checks.

    Attributes
    ----------
    workload : Workload
        The target and what generates operations for it.
    seed : int
        Seed of the session.
    n_ops : int, optional
        Operations of each thread; unlimited if None.
    seconds : float, optional
        Greatest duration.
    check_every : int
        Operations of each thread between two checks of all invariants and contents.
    ops : numpy.ndarray, optional
        Carry out these, once, instead of generated operations.
    episode_ops : int
        Operations of each thread in an episode.
    batch_ops : int
        Greatest number of operations of each thread in a batch.
    """

    workload: Workload
    seed: int = 0
    n_ops: int | None = None
    seconds: float | None = None
    check_every: int = 200_000
    ops: Ops | None = None
    episode_ops: int = EPISODE_OPS
    batch_ops: int = BATCH_OPS

    def batch(self, done: int) -> int:
        """Return the size of the batch after the first ``done`` of an episode.

        Tracing a fault generates the operations again in the same batches, because
        the random numbers may depend on them.
        """
        return min(self.batch_ops, self.check_every - done % self.check_every)


@dataclass(frozen=True)
class Fault:
    """A fault, and the shortest prefix of operations that shows it.

    Attributes
    ----------
    what : str
        Description of the fault.
    ops : numpy.ndarray or None
        The prefix; None if no prefix shows the fault again, which can happen with
        several threads.
    n_episode : int
        Operations of the episode up to the fault.
    """

    what: str
    ops: Ops | None
    n_episode: int


@dataclass
class Outcome:
    """The result of a session.

    Attributes
    ----------
    n_ops : int
        Operations of all threads.
    seconds : float
        Duration.
    n_checks, n_episodes : int
    stats : dict
        Those of the last episode, with the worst calls of all episodes; see
        `xmem.stress.target.HeapTarget.stats`.
    fragmentation : float
        At the last report.
    fault : Fault or None
    """

    n_ops: int = 0
    seconds: float = 0.0
    n_checks: int = 0
    n_episodes: int = 0
    stats: dict[str, Any] = field(default_factory=dict)
    fragmentation: float = 0.0
    fault: Fault | None = None


# In the process that may crash -----------------------------------------------------


def find_fault(target: Target) -> str | None:
    """Verify everything; describe what is wrong, or return None."""
    try:
        n_bad = target.check()
    except XmemError as error:
        return f"{type(error).__name__}: {error}"
    return f"the contents of {n_bad} live objects have changed" if n_bad else None


def execute_batches(
    target: Target, batches: Sequence[Ops], log: list[tuple[Ops, Any]] | None
) -> int:
    """Carry out each thread's batch; return the first operation with a fault, or -1.

    With several threads, ``log`` receives the operations with their turns.
    """
    if len(batches) == 1:
        return target.execute(0, batches[0])
    faults = [-1] * len(batches)
    turns = [np.full(len(ops), NO_TURN, dtype=np.uint64) for ops in batches]

    def work(i: int) -> None:
        faults[i] = target.execute(i, batches[i], turns[i])

    threads = [
        threading.Thread(target=work, args=(i,), daemon=True)
        for i in range(len(batches))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if log is not None:
        for i, ops in enumerate(batches):
            ops["thread"] = i
            log.append((ops, turns[i]))
    return max(faults)


def merge_log(log: Sequence[tuple[Ops, Any]]) -> Ops:
    """Return the operations of all threads in the order they were carried out."""
    ops = np.concatenate([part for part, _ in log])
    turns = np.concatenate([part for _, part in log])
    order = np.argsort(turns, kind="stable")
    sorted_ops: Ops = ops[order[turns[order] != NO_TURN]]
    return sorted_ops


def generators_of(plan: Plan, episode: int) -> list[Generator]:
    """Return the generators of the threads of an episode."""
    return [
        plan.workload.generator(plan.seed + EPISODE_STRIDE * episode + thread)
        for thread in range(plan.workload.threads)
    ]


def run_session(plan: Plan, pipe: Connection) -> None:
    """Do episodes and report them until told to end: the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = time.monotonic()
    n_done = episode = 0
    try:
        while True:
            left = None if plan.n_ops is None else plan.n_ops - n_done
            if plan.ops is not None and episode:
                break
            if (left is not None and left <= 0) or is_over(plan, start, pipe):
                break
            n_done += do_episode(plan, episode, left, start, pipe)
            episode += 1
        pipe.send(("end",))
    except EpisodeFailed:
        pass


class EpisodeFailed(Exception):
    """A fault was found and reported."""


def is_over(plan: Plan, start: float, pipe: Connection) -> bool:
    """Whether time is up, or the parent wants the session to end."""
    if plan.seconds is not None and time.monotonic() - start >= plan.seconds:
        return True
    return pipe.poll()


def do_episode(
    plan: Plan, episode: int, left: int | None, start: float, pipe: Connection
) -> int:
    """Do one episode; return the number of operations of each thread."""
    n_objects = None
    if plan.ops is not None:
        n_objects = int(plan.ops["id"].max()) + 1 if len(plan.ops) else 1
    target = plan.workload.target(n_objects)
    generators = generators_of(plan, episode) if plan.ops is None else []
    most = plan.episode_ops if left is None else min(plan.episode_ops, left)
    if plan.ops is not None:
        most = len(plan.ops)
    log: list[tuple[Ops, Any]] = []
    done = 0
    last_report = 0.0
    while done < most:
        n_ops = min(plan.batch(done), most - done)
        pipe.send(("batch", episode, done + n_ops))
        if plan.ops is not None:
            batches = [plan.ops[done : done + n_ops]]
        else:
            batches = [generator.make(n_ops) for generator in generators]
        at = execute_batches(target, batches, log)
        done += n_ops
        is_last = done == most or is_over(plan, start, pipe)
        is_checked = is_last or done % plan.check_every == 0
        what = find_fault(target) if is_checked or at >= 0 else None
        if at >= 0:
            what = f"an object has changed ({what or 'everything else is sound'})"
        if what is not None:
            ops = merge_log(log) if log else None
            n_prefix = done - n_ops + at + 1 if at >= 0 and not log else done
            pipe.send(("fault", what, n_prefix, ops))
            raise EpisodeFailed
        if is_last or time.monotonic() - last_report >= REPORT_SECONDS:
            last_report = time.monotonic()
            pipe.send(("stats", episode, target.stats(), target.fragmentation()))
        pipe.send(("done", n_ops * len(batches), is_checked))
        if is_last:
            break
    return done


# In the process that hunts ----------------------------------------------------------


def hunt(plan: Plan, progress: Callable[[Outcome], object] | None = None) -> Outcome:
    """Do a session to its end, or to the first fault.

    Parameters
    ----------
    plan : Plan
        What the session does.
    progress : callable, optional
        Called a few times a second with the outcome so far.

    Returns
    -------
    Outcome
        Ctrl-C ends the session after the current batch.
    """
    outcome = Outcome()
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    child = context.Process(target=run_session, args=(plan, other), daemon=True)
    start_without_interrupts(child)
    other.close()
    last = (0, 0)
    fault: tuple[str, int, Ops | None] | None = None
    has_ended = False
    while not has_ended and fault is None:
        try:
            if pipe.poll(REPORT_SECONDS):
                message, *values = pipe.recv()
                if message == "batch":
                    last = values[0], values[1]
                elif message == "done":
                    outcome.n_ops += values[0]
                    outcome.n_checks += values[1]
                elif message == "stats":
                    take_stats(outcome, *values)
                elif message == "fault":
                    fault = values[0], values[1], values[2]
                else:
                    has_ended = True
            outcome.seconds = time.monotonic() - start
            if progress is not None:
                progress(outcome)
        except EOFError:
            child.join()
            fault = f"the process died: {exit_status(child.exitcode)}", last[1], None
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                pipe.send("end")
    child.join()
    outcome.seconds = time.monotonic() - start
    if fault is not None:
        outcome.fault = trace_back(plan, last[0], *fault)
    return outcome


def start_without_interrupts(child: multiprocessing.process.BaseProcess) -> None:
    """Start a process that ignores Ctrl-C from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        child.start()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child.start()
    finally:
        signal.signal(signal.SIGINT, before)


def take_stats(
    outcome: Outcome, episode: int, stats: dict[str, int], fragmentation: float
) -> None:
    """Take over the child's counts; the worst calls are those of all episodes."""
    worst = {
        key: max(value, outcome.stats.get(key, 0))
        for key, value in stats.items()
        if key.startswith("worst")
    }
    outcome.stats = {**stats, **worst}
    outcome.fragmentation = fragmentation
    outcome.n_episodes = episode + 1


def exit_status(status: int | None) -> str:
    """Describe an exit status."""
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"


# The shortest prefix ---------------------------------------------------------------


def trace_back(
    plan: Plan, episode: int, what: str, n_prefix: int, ops: Ops | None
) -> Fault:
    """Find the shortest prefix of an episode that shows a fault."""
    if ops is None:
        ops = plan.ops
    if ops is None:
        generator = generators_of(plan, episode)[0]
        parts = []
        done = 0
        while done < n_prefix:
            parts.append(generator.make(plan.batch(done)))
            done += len(parts[-1])
        ops = np.concatenate(parts)
    ops = plan.workload.renumbered(ops[:n_prefix])
    n_ops = len(ops)
    if not shows(plan, ops):
        return Fault(what, None, n_ops)
    good, bad = 0, n_ops
    while bad - good > 1:
        middle = (good + bad) // 2
        if shows(plan, ops[:middle]):
            bad = middle
        else:
            good = middle
    return Fault(what, ops[:bad], n_ops)


def attempt(workload: Workload, ops: Ops) -> None:
    """Carry out operations on a new target; exit with status 1 at a fault."""
    n_objects = int(ops["id"].max()) + 1 if len(ops) else 1
    target = workload.target(n_objects)
    at = target.execute(0, ops)
    os._exit(1 if at >= 0 or find_fault(target) is not None else 0)


def shows(plan: Plan, ops: Ops) -> bool:
    """Whether operations show a fault, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=attempt, args=(plan.workload, ops), daemon=True)
    child.start()
    child.join()
    return child.exitcode != 0


def write_prefix(fault: Fault, path: Path) -> None:
    """Write the operations of a fault as a trace."""
    assert fault.ops is not None
    np.savez_compressed(path, ops=fault.ops)


def command_of(program: str, plan: Plan, path: Path) -> str:
    """Return the command that replays a prefix."""
    return shlex.join([program, *plan.workload.options, "--trace", str(path)])
