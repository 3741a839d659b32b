# SPDX-License-Identifier: BSD-3-Clause
"""How far a command has come, shown on standard error.

On a terminal: a bar for the task under way and, if there are several, one for all
of them. Elsewhere, such as in a log: a line for each task when it ends, and one
every few seconds while it works. Standard output holds results only.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

SECONDS_BETWEEN_LINES = 5.0


class Report(Protocol):
    """What a task calls while it works."""

    def __call__(self, done: int, total: int, step: str = "") -> None:
        """Show that ``done`` of ``total`` are done, ``step`` being under way."""


class Progress:
    """Shows how far a known number of tasks have come.

    Parameters
    ----------
    n_tasks : int, optional
        How many times `task` will be entered.
    console : rich.console.Console, optional
        Where to write; standard error by default.
    all_label : str, optional
        Label of the bar of all tasks.
    """

    def __init__(
        self,
        n_tasks: int = 1,
        console: Console | None = None,
        all_label: str = "all replays",
    ) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task(all_label, total=n_tasks, visible=n_tasks > 1)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, label: str) -> Iterator[Report]:
        """Show one task from its start to its end.

        Parameters
        ----------
        label : str
            Such as the trace and what it is replayed on.

        Yields
        ------
        Report
            To be called as the task goes on.
        """
        if self._console.is_terminal:
            yield from self._bar(label)
        else:
            yield from self._lines(label)

    def _bar(self, label: str) -> Iterator[Report]:
        bar = self._bars.add_task(label, total=None)

        def report(done: int, total: int, step: str = "") -> None:
            self._bars.update(
                bar, completed=done, total=total, description=joined(label, step)
            )

        yield report
        self._bars.remove_task(bar)
        self._bars.advance(self._all)

    def _lines(self, label: str) -> Iterator[Report]:
        start = last = time.monotonic()

        def report(done: int, total: int, step: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                share = done / max(total, 1)
                self._line(f"{joined(label, step)}: {share:.0%}, {now - start:.0f} s")

        yield report
        self._line(f"{label}: done, {time.monotonic() - start:.1f} s")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def joined(label: str, step: str) -> str:
    """Return the label of a task with the step that is under way."""
    return f"{label}, {step}" if step else label
