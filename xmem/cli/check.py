# SPDX-License-Identifier: BSD-3-Clause
"""`xmem check`: an arena's file verified, and repaired if asked for."""

from pathlib import Path

import click

from xmem.arena import Arena
from xmem.base.errors import ArenaFormatError, ArenaInUse, HeapCorruption
from xmem.base.repairs import Repair
from xmem.check.repairs import examine_arena
from xmem.cli.exits import CheckFailed, UnusableFile

ARENA_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command()
@click.argument("file", type=ARENA_FILE)
@click.option("--repair", is_flag=True, help="Repair what is broken.")
def check(file: Path, repair: bool) -> None:
    """Verify the page frames and every pool of the arena in FILE.

    Without --repair the file is not changed.

    Exit status: 0 everything is sound; 1 something is broken and has not been
    repaired; 2 usage; 130 interrupted.
    """
    try:
        arena = Arena.open(file, verify=False, repair=repair, shared=False)
    except HeapCorruption as error:
        raise CheckFailed(f"page frames: {error}; not repaired") from error
    except (ArenaFormatError, ArenaInUse) as error:
        raise UnusableFile(str(error)) from error
    except OSError as error:
        raise UnusableFile(f"{file}: {error.strerror}") from error
    with arena:
        found = arena.repairs if repair else examine_arena(arena)
        show(arena, found)
    n_left = sum(not one.is_sound for one in found)
    if n_left:
        hint = "" if repair else ": xmem check --repair repairs what can be repaired"
        raise CheckFailed(f"{n_left} broken{hint}.")


def show(arena: Arena, found: tuple[Repair, ...]) -> None:
    """Print what was found and done, a line each, and what is sound."""
    broken = {one.pool for one in found}
    click.echo(
        f"{arena.path}: {arena.n_bytes} bytes in {arena.n_pages} pages of "
        f"{arena.page_size}"
    )
    if None not in broken:
        click.echo("page frames: sound")
    for one in found:
        click.echo(str(one))
    for name, entry in arena.pools().items():
        if name not in broken:
            click.echo(f"pool {name!r} ({entry['engine']}): sound")
