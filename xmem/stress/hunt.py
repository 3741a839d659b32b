# SPDX-License-Identifier: BSD-3-Clause
"""Run operations until time is up or a fault is found, and say what led to it.

A run consists of *episodes*: a fresh subject each, and so many operations made up
from the run's seed and the episode's number. It goes on in a process of its own,
for a broken allocator may well take its process with it. When a fault has been
found, the shortest prefix of the episode that still has it is sought by halving,
each attempt in a fresh process.
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
from xmem.stress.trials import Maker, Ops, Trial, Tried

__all__ = ["Fault", "Outcome", "Plan", "command_of", "hunt", "write_prefix"]

EPISODE_OPS = 1 << 22
BATCH_OPS = 1 << 15
REPORT_SECONDS = 0.2
#: A seed's episodes and threads are this far apart.
EPISODE_STRIDE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What to run, how long, and how often to look.

    Attributes
    ----------
    trial : Trial
    seed : int
    n_ops : int, optional
        Of each thread; without end if None.
    seconds : float, optional
        At most.
    check_every : int
        Operations of each thread between two looks at all invariants and contents.
    ops : numpy.ndarray, optional
        Run these, once, instead of what the seed makes.
    episode_ops : int
        Operations of each thread in an episode.
    batch_ops : int
        Operations of each thread between two looks at the time.
    """

    trial: Trial
    seed: int = 0
    n_ops: int | None = None
    seconds: float | None = None
    check_every: int = 200_000
    ops: Ops | None = None
    episode_ops: int = EPISODE_OPS
    batch_ops: int = BATCH_OPS

    def batch(self, done: int) -> int:
        """Operations of the batch behind the first ``done`` of an episode.

        They are made in the same batches again when a fault is traced back, for
        what is drawn may depend on them.
        """
        return min(self.batch_ops, self.check_every - done % self.check_every)


@dataclass(frozen=True)
class Fault:
    """What went wrong, and the shortest run that shows it.

    Attributes
    ----------
    what : str
    ops : numpy.ndarray or None
        The prefix; None if none shows it again, as may be with several threads.
    n_tried : int
        Operations of the episode in which it was found.
    """

    what: str
    ops: Ops | None
    n_tried: int


@dataclass
class Outcome:
    """What a run did.

    Attributes
    ----------
    n_ops : int
        Operations of all threads.
    seconds : float
    n_checks, n_episodes : int
    seen : dict
        Of the last episode, the worst of all; see `xmem.stress.load.Subject.seen`.
    fragmentation : float
        When last looked at.
    fault : Fault or None
    """

    n_ops: int = 0
    seconds: float = 0.0
    n_checks: int = 0
    n_episodes: int = 0
    seen: dict[str, Any] = field(default_factory=dict)
    fragmentation: float = 0.0
    fault: Fault | None = None


# In the process that may die -------------------------------------------------------


def look(subject: Tried) -> str | None:
    """Verify everything; what is wrong, or None."""
    try:
        n_bad = subject.check()
    except XmemError as error:
        return f"{type(error).__name__}: {error}"
    return f"{n_bad} live objects are not what they were" if n_bad else None


def run_threads(
    subject: Tried, batches: Sequence[Ops], log: list[tuple[Ops, Any]] | None
) -> int:
    """Run each thread's batch; the first operation with a fault, or -1.

    ``log`` receives, of several threads, the operations with their turns.
    """
    if len(batches) == 1:
        return subject.run(0, batches[0])
    found = [-1] * len(batches)
    turns = [np.full(len(ops), ~np.uint64(0), dtype=np.uint64) for ops in batches]

    def work(i: int) -> None:
        found[i] = subject.run(i, batches[i], turns[i])

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
    return max(found)


def in_turn(log: Sequence[tuple[Ops, Any]]) -> Ops:
    """Return the operations of all threads in the order that they ran in."""
    ops = np.concatenate([part for part, _ in log])
    turns = np.concatenate([part for _, part in log])
    order = np.argsort(turns, kind="stable")
    sorted_ops: Ops = ops[order[turns[order] != ~np.uint64(0)]]
    return sorted_ops


def makers_of(plan: Plan, episode: int) -> list[Maker]:
    """Return what makes up the operations of each thread in an episode."""
    return [
        plan.trial.maker(plan.seed + EPISODE_STRIDE * episode + thread)
        for thread in range(plan.trial.threads)
    ]


def carry_out(plan: Plan, pipe: Connection) -> None:
    """Run episodes, tell of them, end when told to: the child's whole life."""
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
            n_done += run_episode(plan, episode, left, start, pipe)
            episode += 1
        pipe.send(("end",))
    except EpisodeFailed:
        pass


class EpisodeFailed(Exception):
    """A fault was found, and told of."""


def is_over(plan: Plan, start: float, pipe: Connection) -> bool:
    """Whether time is up, or the other side wants an end."""
    if plan.seconds is not None and time.monotonic() - start >= plan.seconds:
        return True
    return pipe.poll()


def run_episode(
    plan: Plan, episode: int, left: int | None, start: float, pipe: Connection
) -> int:
    """Run one episode; answers the operations of a thread."""
    n_objects = None
    if plan.ops is not None:
        n_objects = int(plan.ops["id"].max()) + 1 if len(plan.ops) else 1
    subject = plan.trial.subject(n_objects)
    makers = makers_of(plan, episode) if plan.ops is None else []
    most = plan.episode_ops if left is None else min(plan.episode_ops, left)
    if plan.ops is not None:
        most = len(plan.ops)
    log: list[tuple[Ops, Any]] = []
    done = 0
    told = 0.0
    while done < most:
        n_ops = min(plan.batch(done), most - done)
        pipe.send(("batch", episode, done + n_ops))
        if plan.ops is not None:
            batches = [plan.ops[done : done + n_ops]]
        else:
            batches = [maker.make(n_ops) for maker in makers]
        at = run_threads(subject, batches, log)
        done += n_ops
        is_last = done == most or is_over(plan, start, pipe)
        is_time = is_last or done % plan.check_every == 0
        what = look(subject) if is_time or at >= 0 else None
        if at >= 0:
            what = f"an object is not what it was ({what or 'all else is sound'})"
        if what is not None:
            ops = in_turn(log) if log else None
            n_prefix = done - n_ops + at + 1 if at >= 0 and not log else done
            pipe.send(("fault", what, n_prefix, ops))
            raise EpisodeFailed
        if is_last or time.monotonic() - told >= REPORT_SECONDS:
            told = time.monotonic()
            pipe.send(("seen", episode, done, subject.seen(), subject.fragmentation()))
        pipe.send(("done", n_ops * len(batches), is_time))
        if is_last:
            break
    return done


# In the process that hunts ---------------------------------------------------------


def hunt(plan: Plan, progress: Callable[[Outcome], object] | None = None) -> Outcome:
    """Run a plan to its end, or to the first fault.

    Parameters
    ----------
    plan : Plan
        What to run.
    progress : callable, optional
        Called with the outcome so far, some times a second.

    Returns
    -------
    Outcome
        Ctrl-C ends the run after the current operations.
    """
    outcome = Outcome()
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    child = context.Process(target=carry_out, args=(plan, other), daemon=True)
    start_ignoring(child)
    other.close()
    last = (0, 0)
    found: tuple[str, int, Ops | None] | None = None
    has_ended = False
    while not has_ended and found is None:
        try:
            if pipe.poll(REPORT_SECONDS):
                said = pipe.recv()
                if said[0] == "batch":
                    last = said[1], said[2]
                elif said[0] == "done":
                    outcome.n_ops += said[1]
                    outcome.n_checks += said[2]
                elif said[0] == "seen":
                    note_seen(outcome, *said[1:])
                elif said[0] == "fault":
                    found = said[1], said[2], said[3]
                else:
                    has_ended = True
            outcome.seconds = time.monotonic() - start
            if progress is not None:
                progress(outcome)
        except EOFError:
            child.join()
            found = f"the process died: {how_ended(child.exitcode)}", last[1], None
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                pipe.send("end")
    child.join()
    outcome.seconds = time.monotonic() - start
    if found is not None:
        outcome.fault = trace_back(plan, last[0], *found)
    return outcome


def start_ignoring(child: multiprocessing.process.BaseProcess) -> None:
    """Start a process to which Ctrl-C means nothing from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        child.start()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child.start()
    finally:
        signal.signal(signal.SIGINT, before)


def note_seen(
    outcome: Outcome,
    episode: int,
    _: int,
    seen: dict[str, int],
    fragmentation: float,
) -> None:
    """Take in what the child has seen; the worst is that of all episodes."""
    worst = {
        key: max(value, outcome.seen.get(key, 0))
        for key, value in seen.items()
        if key.startswith("worst")
    }
    outcome.seen = {**seen, **worst}
    outcome.fragmentation = fragmentation
    outcome.n_episodes = episode + 1


def how_ended(status: int | None) -> str:
    """Say what an exit status means."""
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
        maker = makers_of(plan, episode)[0]
        parts = []
        done = 0
        while done < n_prefix:
            parts.append(maker.make(plan.batch(done)))
            done += len(parts[-1])
        ops = np.concatenate(parts)
    ops = plan.trial.renumbered(ops[:n_prefix])
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


def attempt(trial: Trial, ops: Ops) -> None:
    """Run operations on a fresh subject; exit status 1 if there is a fault."""
    n_objects = int(ops["id"].max()) + 1 if len(ops) else 1
    subject = trial.subject(n_objects)
    at = subject.run(0, ops)
    os._exit(1 if at >= 0 or look(subject) is not None else 0)


def shows(plan: Plan, ops: Ops) -> bool:
    """Whether operations show a fault, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=attempt, args=(plan.trial, ops), daemon=True)
    child.start()
    child.join()
    return child.exitcode != 0


def write_prefix(fault: Fault, path: Path) -> None:
    """Write the operations of a fault as a trace."""
    assert fault.ops is not None
    np.savez_compressed(path, ops=fault.ops)


def command_of(program: str, plan: Plan, path: Path) -> str:
    """Return the command that replays a prefix."""
    return shlex.join([program, *plan.trial.options(), "--trace", str(path)])
