# SPDX-License-Identifier: BSD-3-Clause
"""Entry point of `xmem`: refuses politely when a tool is missing.

The only module here that may be imported without the extra ``tools``.
"""

import sys
from importlib.util import find_spec

TOOLS = ("click", "rich", "matplotlib", "hdrh")


def missing_tools() -> list[str]:
    """Return the names of the tools that cannot be imported.

    Returns
    -------
    list of str
        A part of `TOOLS`, in its order; empty when all are there.
    """
    return [name for name in TOOLS if find_spec(name) is None]


def main() -> None:
    """Run the command `xmem` with the arguments of the process."""
    missing = missing_tools()
    if missing:
        sys.exit(
            f"xmem: the command line needs {', '.join(missing)}, not installed here.\n"
            "Install what it needs with: pip install 'xmem-tlsf[tools]'\n"
            "or, in a checkout, with: pip install '.[tools]'"
        )
    from xmem.cli.group import xmem  # only now: it imports the tools

    xmem()


if __name__ == "__main__":
    main()
