# SPDX-License-Identifier: BSD-3-Clause
"""Entry point of `xmem`: refuses politely when a tool is missing.

The only module here that may be imported without the extra ``tools``.
"""

import sys
from importlib.util import find_spec

TOOLS = ("click", "rich", "matplotlib", "hdrh", "lz4", "zstandard", "xxhash")


def missing_tools() -> list[str]:
    """Return the names of the tools that cannot be imported.

    Returns
    -------
    list of str
        A part of `TOOLS`, in its order; empty when all are there.
    """
    return [name for name in TOOLS if find_spec(name) is None]


def refuse_without_tools(program: str) -> None:
    """End with a clear line if a tool is missing."""
    missing = missing_tools()
    if missing:
        sys.exit(
            f"{program}: the command line needs {', '.join(missing)}, not installed "
            "here.\n"
            "Install what it needs with: pip install 'xmem-tlsf[tools]'\n"
            "or, in a checkout, with: pip install '.[tools]'"
        )


# Each imports the tools only when they are known to be there.


def main() -> None:
    """Run the command `xmem` with the arguments of the process."""
    refuse_without_tools("xmem")
    from xmem.cli.group import xmem

    xmem()


def stress() -> None:
    """Run `xmem-stress`."""
    refuse_without_tools("xmem-stress")
    from xmem.cli.stress import stress

    stress()


def stress_frames() -> None:
    """Run `xmem-stress-frames`."""
    refuse_without_tools("xmem-stress-frames")
    from xmem.cli.stress import stress_frames

    stress_frames()


def stress_tmem() -> None:
    """Run `xmem-stress-tmem`."""
    refuse_without_tools("xmem-stress-tmem")
    from xmem.cli.stress_stores import stress_tmem

    stress_tmem()


def stress_diffengine() -> None:
    """Run `xmem-stress-diffengine`."""
    refuse_without_tools("xmem-stress-diffengine")
    from xmem.cli.stress_stores import stress_diffengine

    stress_diffengine()


if __name__ == "__main__":
    main()
