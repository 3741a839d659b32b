# SPDX-License-Identifier: BSD-3-Clause
"""What is seen while replays run, on standard error.

On a terminal: two bars, the replay under way and all of them. Elsewhere (a log
of continuous integration): a line per replay, and one now and then while a slow
one works. Standard output holds results only.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

SECONDS_BETWEEN_LINES = 5.0

#: What `xmem.measure.replay.replay` calls: operations done, operations in all.
Report = Callable[[int, int], None]


class ReplayProgress:
    """Shows how far a known number of replays have come.

    Parameters
    ----------
    n_replays : int
        How many times `replay` will be entered.
    console : rich.console.Console, optional
        Where to write; standard error by default.
    all_label : str, optional
        What stands beside the bar of all of them.
    """

    def __init__(
        self,
        n_replays: int,
        console: Console | None = None,
        all_label: str = "all replays",
    ) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task(all_label, total=n_replays)

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
    def replay(self, label: str) -> Iterator[Report]:
        """Show one replay, from its start to its end.

        Parameters
        ----------
        label : str
            What is replayed on what.

        Yields
        ------
        Report
            To be called with the operations done and the operations in all.
        """
        if self._console.is_terminal:
            yield from self._replay_bar(label)
        else:
            yield from self._replay_lines(label)

    def _replay_bar(self, label: str) -> Iterator[Report]:
        task = self._bars.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            self._bars.update(task, completed=done, total=total)

        yield report
        self._bars.remove_task(task)
        self._bars.advance(self._all)

    def _replay_lines(self, label: str) -> Iterator[Report]:
        start = last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                self._line(f"{label}: {done / max(total, 1):.0%}, {now - start:.0f} s")

        yield report
        self._line(f"{label}: done, {time.monotonic() - start:.1f} s")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
