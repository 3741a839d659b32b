# SPDX-License-Identifier: BSD-3-Clause
"""The command `xmem` and what it is made of."""

import click

from xmem.cli.demo import demo
from xmem.cli.exits import Interrupted
from xmem.cli.insn import insn
from xmem.cli.replay import replay
from xmem.cli.versus import versus
from xmem.cli.waste import waste


class InterruptibleGroup(click.Group):
    """A group whose commands end with status 130 on Ctrl-C, not 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Invoke the subcommand; turn Ctrl-C into one clear line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("stopped before the end.") from None


@click.group(
    cls=InterruptibleGroup, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="xmem-tlsf", prog_name="xmem")
def xmem() -> None:
    """Compare TLSF with the legacy first-fit engine, and the heap's interfaces."""


xmem.add_command(demo)
xmem.add_command(insn)
xmem.add_command(replay)
xmem.add_command(versus)
xmem.add_command(waste)
