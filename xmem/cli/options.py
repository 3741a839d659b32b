# SPDX-License-Identifier: BSD-3-Clause
"""Arguments and options that commands share, each declared once.

An option means the same in every command that has it. Where only the default
differs, or what is drawn, it is a function that returns the decorator.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from xmem.base.errors import BadArgument
from xmem.base.sizes import parse_size
from xmem.cli.contenders import INTERFACES, SYSTEM
from xmem.cli.outputs import OUTPUT_FILE, check_output, check_plot
from xmem.pool import HARDENING

#: Of `--hardened`: all kinds of hardening.
ALL = "all"
#: What `Pool` and `Heap` take as ``hardened``.
Hardened = bool | tuple[str, ...]
#: Contenders that run the legacy engine, which has neither hardening nor quick lists.
LEGACY = frozenset({"firstfit", "legacy"})

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def size(text: str) -> int:
    """Return a number of bytes, as `xmem.base.sizes.parse_size` reads it.

    The type of options that take a size.
    """
    try:
        return parse_size(text)
    except BadArgument as error:
        raise click.BadParameter(f"{error}.") from error


TRACE_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


def decorated(command: Command, options: Sequence[Decorator[Any]]) -> Command:
    """Apply decorators so that ``--help`` shows the options in this order."""
    for option in reversed(options):
        command = option(command)
    return command


# Traces ---------------------------------------------------------------------------

traces_argument = click.argument(
    "traces", metavar="TRACE...", nargs=-1, required=True, type=TRACE_FILE
)
optional_traces_argument = click.argument(
    "traces", metavar="[TRACE...]", nargs=-1, type=TRACE_FILE
)


def max_ops_option(default: int | None = None) -> Decorator[Any]:
    """Return the option that cuts traces; all operations by default."""
    return click.option(
        "--max-ops",
        metavar="N",
        type=click.IntRange(min=1),
        default=default,
        show_default=True if default else "all",
        help="Run only the first N operations of each trace.",
    )


def repeats_option(default: int) -> Decorator[Any]:
    """Return the option for how often traces are clocked."""
    return click.option(
        "--repeats",
        metavar="N",
        type=click.IntRange(1, 1_000_000),
        default=default,
        help="Clock N passes of each trace; the fewest cycles of each call count.",
    )


# What they run on -----------------------------------------------------------------


def engines_option(choices: Sequence[str], default: str) -> Decorator[Any]:
    """Return the option that names engines, as ``engines``."""
    system = f"; {SYSTEM} is the malloc of this process" if SYSTEM in choices else ""
    return click.option(
        "--engine",
        "engines",
        multiple=True,
        type=click.Choice(choices),
        show_default=default,
        help=f"Engine to run on{system}. May be given again.",
    )


def engine_option(choices: Sequence[str], default: str) -> Decorator[Any]:
    """Return the option that names one engine, as ``engine``."""
    return click.option(
        "--engine",
        type=click.Choice(choices),
        show_default=default,
        help="Engine to run on.",
    )


def interfaces_option(default: str | None = None) -> Decorator[Any]:
    """Return the option that names interfaces of a heap, as ``interfaces``."""
    return click.option(
        "--interface",
        "interfaces",
        multiple=True,
        type=click.Choice(INTERFACES),
        show_default=default or False,
        help="Interface of a heap to run on. May be given again.",
    )


interface_option = click.option(
    "--interface",
    type=click.Choice(INTERFACES),
    help="Interface of a heap to run on, instead of an engine.",
)


def refuse_both(engine: str | None, interface: str | None) -> None:
    """Refuse an engine and an interface where there is one heap."""
    if engine is not None and interface is not None:
        raise click.UsageError("give --engine or --interface, not both.")


def combined_hardening(
    ctx: click.Context, param: click.Parameter, names: Iterable[str]
) -> Hardened:
    """Return what `Pool` takes for the names that were given."""
    chosen = tuple(dict.fromkeys(names))
    return True if ALL in chosen else chosen


hardened_option = click.option(
    "--hardened",
    multiple=True,
    type=click.Choice([*HARDENING, ALL]),
    callback=combined_hardening,
    help="Harden what is measured. May be given again.",
)
quick_option = click.option(
    "--quick",
    is_flag=True,
    help="Let freed blocks wait in quick lists, with the engine tlsf.",
)
reserve_option = click.option(
    "--reserve",
    is_flag=True,
    help="Give pools of TLSF most pages of their arena before the clock starts.",
)
checked_option = click.option(
    "--checked",
    is_flag=True,
    help="Prove each offset before it is freed or resized, as Python's calls do.",
)


def refuse_reserve(contenders: Iterable[str], reserve: bool) -> None:
    """Refuse --reserve with contenders that are no pool of TLSF.

    Raises
    ------
    click.UsageError
        There is one.
    """
    if reserve and set(contenders) - {"tlsf", SYSTEM}:
        raise click.UsageError("--reserve is for the engine tlsf alone.")


def refuse_legacy(contenders: Iterable[str], hardened: Hardened, quick: bool) -> None:
    """Refuse options that TLSF alone has, where something else is to run.

    Raises
    ------
    click.UsageError
        Says which option, and what to name instead.
    """
    names = set(contenders)
    if hardened and names & LEGACY:
        raise click.UsageError(
            "--hardened is for TLSF alone: name the engine tlsf, or interfaces "
            "other than legacy."
        )
    if quick and names - {"tlsf", SYSTEM}:
        raise click.UsageError("--quick is for the engine tlsf alone.")
    if quick and hardened:
        raise click.UsageError("--quick and --hardened exclude each other.")


def default_engines(
    engines: Sequence[str], hardened: Hardened, quick: bool
) -> tuple[str, ...]:
    """Return the default engines that have the options that were given."""
    only_tlsf = bool(hardened or quick)
    return tuple(name for name in engines if not (only_tlsf and name in LEGACY))


def arena_bytes_option(
    default: str | None = None, show_default: bool | str = True
) -> Decorator[Any]:
    """Return the option that sets the size of the arena."""
    return click.option(
        "--arena-bytes",
        metavar="SIZE",
        type=size,
        default=default,
        show_default=show_default,
        help="Size of the arena, such as 64M or 1G.",
    )


# What is written ------------------------------------------------------------------

json_option = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=OUTPUT_FILE,
    callback=check_output,
    help="Write the results as JSON. With - they go to standard output, and the "
    "table to standard error.",
)


def plot_option(what: str) -> Decorator[Any]:
    """Return the option for a picture of ``what``."""
    return click.option(
        "--plot",
        "plot_file",
        metavar="FILE",
        type=OUTPUT_FILE,
        callback=check_plot,
        help=f"Draw {what}. FILE ends in .png, .svg or .pdf.",
    )
