# SPDX-License-Identifier: BSD-3-Clause
"""Files that the commands write: checked before the long work, not after it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from xmem.cli.exits import Unwritten
from xmem.cli.extras import require

#: `--json -`: the records go to standard output, the table to standard error.
STDOUT = Path("-")
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
OUTPUT_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def check_output(
    ctx: click.Context, param: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file that cannot be written; `STDOUT` can."""
    if path is not None and path != STDOUT:
        check_folder(ctx, param, path)
    return path


def check_plot(
    ctx: click.Context, param: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a picture that cannot be drawn, or cannot be written."""
    if path is None:
        return None
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise click.BadParameter(
            f"{path} must end in {', '.join(PLOT_SUFFIXES[:-1])} or "
            f"{PLOT_SUFFIXES[-1]}.",
            ctx,
            param,
        )
    check_folder(ctx, param, path)
    require(f"{ctx.command_path} --plot", "plot")
    return path


def check_folder(ctx: click.Context, param: click.Parameter, path: Path) -> None:
    """Refuse a file whose folder does not exist or cannot be written to."""
    if not os.access(path.parent, os.W_OK):
        raise click.BadParameter(
            f"{path.parent} is not a folder that can be written to.", ctx, param
        )


def refuse_clashes(inputs: Sequence[Path], outputs: dict[str, Path | None]) -> None:
    """Refuse to overwrite a file that is read, and to write two outputs to one file.

    Parameters
    ----------
    inputs : sequence of Path
        Files that exist and are read.
    outputs : dict
        Files to be written, by option; None where the option is not given.

    Raises
    ------
    click.UsageError
        Names the option and the file.
    """
    taken = [(f"the trace {path}", path) for path in inputs]
    for option, path in outputs.items():
        if path is None or path == STDOUT:
            continue
        for what, other in taken:
            if is_same_file(path, other):
                raise click.UsageError(f"{option} would overwrite {what}.")
        taken.append((f"what {option} writes", path))


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, through links of either kind too."""
    try:
        return path.samefile(other)
    except OSError:
        # At most one exists yet, so the names decide.
        return path.resolve() == other.resolve()


def write_json(
    content: Sequence[dict[str, Any]] | dict[str, Any], path: Path | None
) -> None:
    """Write records as JSON to a file or to standard output; nothing if None.

    Raises
    ------
    Unwritten
        The file cannot be written.
    """
    if path is None:
        return
    text = json.dumps(content, indent=2) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise Unwritten(str(path), error) from error
