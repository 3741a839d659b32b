# SPDX-License-Identifier: BSD-3-Clause
"""The command `xmem`, which imports a subcommand when it is asked for."""

import errno
import os
import sys
from importlib import import_module

import click

from xmem.cli.exits import Interrupted, Unwritten

#: Each is the command of its name in the module `xmem.cli` NAME.
COMMANDS = ("check", "demo", "insn", "replay", "versus", "waste")


#: What a system reports when a disk, a file or a user's share of them is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def drop_output() -> None:
    """Drop what standard output still holds, or Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LazyGroup(click.Group):
    """A group of `COMMANDS` that end with status 130 on Ctrl-C, not 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"xmem.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Invoke the subcommand; turn Ctrl-C, or a full disk, into one clear line."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise Interrupted("stopped before the end.") from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            drop_output()
            raise Unwritten(error.filename or "standard output", error) from None
        return done


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="xmem-tlsf", prog_name="xmem")
def xmem() -> None:
    """Measure xmem's engines and interfaces, and check the files of arenas."""
