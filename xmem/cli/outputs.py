# SPDX-License-Identifier: BSD-3-Clause
"""Files that the commands write: refused before the long work, not after it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

#: `--json -`: the records go to standard output, the table to standard error.
STDOUT = Path("-")
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
OUTPUT_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def check_json(
    ctx: click.Context, param: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file for records that cannot be written."""
    if path is not None and path != STDOUT:
        check_folder(ctx, param, path)
    return path


def check_plot(
    ctx: click.Context, param: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file for a plot that cannot be written, or be no picture."""
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
    return path


def check_folder(ctx: click.Context, param: click.Parameter, path: Path) -> None:
    """Refuse a file whose folder is none, or is closed to us."""
    if not os.access(path.parent, os.W_OK):
        raise click.BadParameter(f"{path.parent} is no folder to write to.", ctx, param)


def refuse_clashes(inputs: Sequence[Path], outputs: dict[str, Path | None]) -> None:
    """Refuse to write over a file that is read, or to write two into one.

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
    """Whether two paths lead to one file, links of both kinds included."""
    try:
        return path.samefile(other)
    except OSError:
        # At most one exists yet: then the names decide.
        return path.resolve() == other.resolve()


def write_records(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write records as JSON, to a file or to standard output.

    Raises
    ------
    click.FileError
        The file cannot be written.
    """
    text = json.dumps(records, indent=2) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error
