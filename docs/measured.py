# SPDX-License-Identifier: BSD-3-Clause
"""What the scripts that fill the pages of this folder share.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` of a page
is replaced by what is measured now. Each script takes the names of the parts to
measure; without any it measures all.
"""

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from xmem.measure import insn
from xmem.measure.peers import Peer, measure
from xmem.measure.replay import load

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TRACES = ROOT / "asv_bench" / "traces"
#: How the compilers sign what they made.
SIGNATURES = ((r"clang version (\d+)", "clang"), (r"GCC: \([^)]*\) (\d+)", "gcc"))


def require_release() -> None:
    """End the program if the build is not one whose figures are a user's."""
    if insn.BUILD != "release":
        sys.exit(f"figures are those of a release build, not of a {insn.BUILD} one")


def build() -> str:
    """Return architecture and compiler of what is installed: ``x86_64, gcc 12``.

    Instructions are the same wherever both are.
    """
    made = Path(insn.__file__).read_bytes().decode("latin-1")
    for pattern, name in SIGNATURES:
        found = re.search(pattern, made)
        if found:
            return f"{platform.machine()}, {name} {found[1]}"
    return f"{platform.machine()}, unknown compiler"


def processor() -> str:
    """Return system, architecture and name of the processor."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{platform.system()} {platform.machine()}, "
        f"{model[1] if model else 'unknown processor'}"
    )


def machine() -> str:
    """Return what cycles and seconds were taken on, as a sentence."""
    one_op = load(TRACES / "redis.npz")[:1]
    hz = measure(Peer.null(), one_op, repeats=1).tsc_hz
    return (
        f"Taken on {processor()}, {os.cpu_count()} processors, time-stamp counter "
        f"{hz / 1e9:.2f} GHz; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {' '.join(platform.libc_ver())}."
    )


def table(heads: list[str], rows: Iterable[list[str]], n_text: int = 1) -> str:
    """Return the lines of a table.

    The first columns are text, and so are others that hold anything but numbers.
    """
    rows = list(rows)
    rules = []
    for i in range(len(heads)):
        cells = [row[i] for row in rows if row[i]]
        is_text = i < n_text or not all(cell[0].isdigit() for cell in cells)
        rules.append("---" if is_text else "---:")
    return "\n".join(
        [
            f"| {' | '.join(heads)} |",
            f"|{'|'.join(rules)}|",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def counted(shown: str) -> str:
    """Return a table of instructions with the build that they belong to."""
    return f"{shown}\n\nInstructions on {build()}."


def part_of(page: Path, name: str) -> str:
    """Return what a page shows between a marker and its end.

    Raises
    ------
    LookupError
        The page has no such marker, or has it twice.
    """
    found = re.findall(
        rf"<!-- {name} -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL
    )
    if len(found) != 1:
        raise LookupError(f"{page.name} has {len(found)} parts named {name}")
    part: str = found[0].strip()
    return part


def fill(parts: Mapping[tuple[Path, str], Callable[[], str]]) -> None:
    """Measure parts of pages and write each in its place.

    Those that the command line names, or all.
    """
    names = sys.argv[1:]
    unknown = set(names) - {name for _, name in parts}
    if unknown:
        sys.exit(f"there is no part {', '.join(unknown)}")
    for (page, name), measured in parts.items():
        if names and name not in names:
            continue
        part_of(page, name)
        print(f"{page.name}: {name} ...", flush=True)
        shown = measured()
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, shown=shown: f"{found[1]}\n{shown}\n\n{found[2]}",
            page.read_text(),
            flags=re.DOTALL,
        )
        page.write_text(text)
