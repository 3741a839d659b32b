# SPDX-License-Identifier: BSD-3-Clause
"""The extras of the package that commands need, and what to do without them.

A command asks for those it uses, an option when it is given. Nothing here imports
any of them, so this module works where none is installed.
"""

import sys
from importlib.util import find_spec

#: Modules of each extra in pyproject.toml; ``tools`` there means all of them.
EXTRAS = {
    "cli": ("click", "rich"),
    "plot": ("matplotlib",),
    "hgrm": ("hdrh",),
    "lines": ("capstone",),
    "stores": ("lz4", "zstandard", "xxhash"),
}
#: Distributions that are not called after their module.
DISTRIBUTIONS = {"hdrh": "hdrhistogram"}
USAGE = 2


def is_missing(module: str) -> bool:
    """Whether a module of the top level cannot be imported; does not import it."""
    try:
        return find_spec(module) is None
    except (ImportError, ValueError):
        return True


def require(program: str, *extras: str) -> None:
    """End the process with one line and status 2 if a library is missing.

    Parameters
    ----------
    program : str
        Command or option that needs them.
    *extras : str
        Names in `EXTRAS`.

    Raises
    ------
    SystemExit
        A library is missing. The line on standard error names it and the
        ``pip install`` that brings it.
    """
    missing = [
        (extra, DISTRIBUTIONS.get(module, module))
        for extra in extras
        for module in EXTRAS[extra]
        if is_missing(module)
    ]
    if missing:
        names = ", ".join(name for _, name in missing)
        needed = ",".join(dict.fromkeys(extra for extra, _ in missing))
        print(
            f"{program} needs {names}: pip install 'xmem-tlsf[{needed}]'",
            file=sys.stderr,
        )
        raise SystemExit(USAGE)
