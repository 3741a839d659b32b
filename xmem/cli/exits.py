# SPDX-License-Identifier: BSD-3-Clause
"""Exit statuses of the commands, each with the error that leads to it.

====== ==================================================================
0      success
1      a replay could not run, a request failed, verification failed, a
       stress session found a fault, or an arena is broken
2      usage: a wrong option, a missing file, a file that is not a trace,
       a missing library; an output that could not be written
130    interrupted (Ctrl-C)
====== ==================================================================

A failed request counts as a failure, because the figures of a replay that
skipped work cannot be compared with those of one that did all of it. The table
and the files are written all the same.
"""

import click

FAILED = 1
UNWRITTEN = 2
UNUSABLE = 2
INTERRUPTED = 130


class ReplayFailed(click.ClickException):
    """A replay could not run, left requests unserved or failed verification."""

    exit_code = FAILED


class Unwritten(click.FileError):
    """A file, or standard output, could not be written: a disk is full."""

    exit_code = UNWRITTEN

    def __init__(self, filename: str, error: OSError) -> None:
        super().__init__(filename, error.strerror or str(error))


class UnusableFile(click.ClickException):
    """A file is not what the command needs: one line says why, without the usage."""

    exit_code = UNUSABLE


class CheckFailed(click.ClickException):
    """An arena's file is broken, and has not been repaired."""

    exit_code = FAILED


class Interrupted(click.ClickException):
    """The user pressed Ctrl-C."""

    exit_code = INTERRUPTED

    def show(self, file: object = None) -> None:
        """Print the message on standard error, on a line of its own."""
        click.echo(f"\nInterrupted: {self.format_message()}", err=True)
