# SPDX-License-Identifier: BSD-3-Clause
"""The options of a stress session, which all four commands have."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from xmem.cli.options import TRACE_FILE, decorated, json_option
from xmem.cli.outputs import OUTPUT_FILE, check_output

#: The commands stand alone, so they set what a group would pass on.
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class SessionOptions:
    """Values of the options that `session_options` adds."""

    seconds: float | None
    n_ops: int | None
    seed: int | None
    threads: int
    check_every: int
    trace: Path | None
    fault_file: Path
    json_file: Path | None

    @property
    def most_seconds(self) -> float | None:
        """Seconds after which the session ends, if anything but its operations."""
        has_end = self.n_ops is not None or self.trace is not None
        return DEFAULT_SECONDS if self.seconds is None and not has_end else self.seconds


def session_options(
    check_every: int,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator that gives a command the options of a session.

    The command receives them as one argument, ``session``.

    Parameters
    ----------
    check_every : int
        Default of ``--check-every``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def collected(**values: Any) -> None:
            names = [field.name for field in fields(SessionOptions)]
            session = SessionOptions(**{name: values.pop(name) for name in names})
            command(session=session, **values)

        return decorated(collected, options_of_all(check_every))

    return decorate


def options_of_all(check_every: int) -> list[Callable[..., Any]]:
    """Return the options of a session, in the order of ``--help``."""
    return [
        click.option(
            "--seconds",
            metavar="S",
            type=click.FloatRange(min=0, min_open=True),
            show_default=f"{DEFAULT_SECONDS:.0f}, without --ops and --trace",
            help="End after S seconds.",
        ),
        click.option(
            "--ops",
            "n_ops",
            metavar="N",
            type=click.IntRange(min=1),
            show_default="until time is up",
            help="End after N operations of each thread.",
        ),
        click.option(
            "--seed",
            metavar="N",
            type=click.IntRange(min=0, max=(1 << 32) - 1),
            show_default="drawn, and printed",
            help="Seed of everything random. With one thread, the same seed and number "
            "of operations repeat a session.",
        ),
        click.option(
            "--threads",
            metavar="N",
            type=click.IntRange(min=1, max=64),
            default=1,
            help="Threads that share the allocator or store.",
        ),
        click.option(
            "--check-every",
            metavar="N",
            type=click.IntRange(min=1),
            default=check_every,
            help="Verify all invariants and contents after every N operations of each "
            "thread.",
        ),
        click.option(
            "--trace",
            metavar="FILE",
            type=TRACE_FILE,
            help="Run the operations of a trace or a fault file, once.",
        ),
        click.option(
            "--fault-file",
            metavar="FILE",
            type=OUTPUT_FILE,
            callback=check_output,
            default=Path("fault.npz"),
            help="File for the shortest sequence of operations that shows a fault.",
        ),
        json_option,
    ]


def as_arguments(**values: Any) -> list[str]:
    """Return options as a command line has them.

    Parameters
    ----------
    **values
        By the option's name, with underscores. None, zero, False and empty are left
        out; True is the option alone; of a tuple, each item is given.
    """
    return [
        word
        for name, value in values.items()
        for item in (value if isinstance(value, tuple) else (value,))
        if item
        for word in (f"--{name.replace('_', '-')}", str(item))[
            : 1 if item is True else 2
        ]
    ]
