# SPDX-License-Identifier: BSD-3-Clause
"""Entry points of `xmem` and of the four stress commands.

Each asks for the extras that it needs before it imports its command. Apart from
`extras`, no other module of this package can be imported without them.
"""

from xmem.cli.extras import require


def main() -> None:
    """Run `xmem`; its commands and options ask for more where they need it."""
    require("xmem", "cli")
    from xmem.cli.group import xmem

    xmem()


def stress() -> None:
    """Run `xmem-stress`."""
    require("xmem-stress", "cli")
    from xmem.cli.stress.heaps import stress

    stress()


def stress_frames() -> None:
    """Run `xmem-stress-frames`."""
    require("xmem-stress-frames", "cli")
    from xmem.cli.stress.heaps import stress_frames

    stress_frames()


def stress_tmem() -> None:
    """Run `xmem-stress-tmem`."""
    require("xmem-stress-tmem", "cli", "stores")
    from xmem.cli.stress.stores import stress_tmem

    stress_tmem()


def stress_diffengine() -> None:
    """Run `xmem-stress-diffengine`."""
    require("xmem-stress-diffengine", "cli", "stores")
    from xmem.cli.stress.stores import stress_diffengine

    stress_diffengine()


if __name__ == "__main__":
    main()
