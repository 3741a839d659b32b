# SPDX-License-Identifier: BSD-3-Clause
"""Each ``put`` replaced by a plain store, in turn: ``proofs.undo`` has to find it.

The verbs of shared pools are built once more, with a number for each of their stores
(support/put_sites.h). Of each store that random calls reach, the undo proof runs with
that one unlogged until it refutes it. A store whose old value never matters is not
found: those are printed, with their lines.
"""

import ctypes
import re
import tempfile
from pathlib import Path
from typing import Any

import click
from support.builds import ROOT, Builds

from . import Refuted, undo
from .shared_pools import SOURCE

HEADER = SOURCE.with_name("put_sites.h")


def built(folder: Path) -> tuple[Any, ctypes.CDLL, str]:
    """Build and import the numbered verbs; return what tests need of them.

    Returns
    -------
    shared : module
        ``support/_shared.pyx``, which uses them.
    library : ctypes.CDLL
        For their variables.
    source : str
        The C code, in which the numbers are.
    """
    builds = Builds(folder)
    verbs = builds.module(
        ROOT / "pyx" / "journalled.pyx",
        macros=("XMEM_LOGGED",),
        flags=("-O1", "-g0", "-w", "-include", str(HEADER)),
        name="xmem.journalled",
    )
    shared = builds.module(SOURCE)
    (source,) = folder.rglob("journalled.c")
    return shared, ctypes.CDLL(verbs.__file__), source.read_text()


def lines(source: str) -> list[str]:
    """Name the function and the number of the store in it, of each store in order."""
    found = []
    function = ""
    for line in source.splitlines():
        if heading := re.match(r"static .*?(__pyx_f_\w+)\(.*\) \{", line):
            function = re.sub(r"__pyx_f_(?:\d*xmem_)?", "", heading[1])
        for call in re.findall(r"XMEM_PUT(?:32)?\(.*\);", line):
            found.append(f"{function}: {call}")
    return found


def is_found(shared: Any, seeds: range, n_calls: int) -> bool:
    """Whether the undo proof refutes what is built, with one of the seeds."""
    for seed in seeds:
        try:
            undo.prove(n_calls, seed, shared)
        except Refuted:
            return True
    return False


@click.command()
@click.option("--calls", default=30, show_default=True, help="Of each kind of pool.")
@click.option("--seeds", default=6, show_default=True, help="Tried for each store.")
def main(calls: int, seeds: int) -> None:
    """Unlog each store in turn; print those that the undo proof does not find."""
    with tempfile.TemporaryDirectory() as folder:
        shared, library, source = built(Path(folder))
        plain = ctypes.c_int.in_dll(library, "xmem_plain_site")
        seen = (ctypes.c_ubyte * 1024).in_dll(library, "xmem_sites_seen")
        names = lines(source)
        if is_found(shared, range(1, 2), calls):
            raise Refuted("the stores are refuted as they are")
        for kind in undo.KINDS:
            with tempfile.TemporaryDirectory() as place:
                scene = undo.Scene(Path(place), kind, 1, shared)
                scene.hurry(20_000)
                scene.close()
        sites = [i for i in range(len(names)) if seen[i]]
        n_found = 0
        for site in sites:
            plain.value = site
            if is_found(shared, range(1, 1 + seeds), calls):
                n_found += 1
            else:
                click.echo(f"not found: {names[site]}")
        plain.value = -1
    click.echo(
        f"put_sites: {len(sites)} of {len(names)} stores reached; {n_found} of them "
        "unlogged were found"
    )


if __name__ == "__main__":
    main()
