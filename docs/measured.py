# SPDX-License-Identifier: BSD-3-Clause
"""What the scripts that fill the pages of this folder share.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` of a page
is replaced by what is measured now.
"""

import os
import platform
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from xmem.measure import insn
from xmem.stress.load import ticks_per_second


def require_release() -> None:
    """End the program if the build is not one whose figures are a user's."""
    if insn.BUILD != "release":
        sys.exit(f"figures are those of a release build, not of a {insn.BUILD} one")


def machine() -> str:
    """Name the machine and the software that figures are taken on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{platform.system()} {platform.machine()}, "
        f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} processors, "
        f"time-stamp counter {ticks_per_second() / 1e9:.2f} GHz; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{' '.join(platform.libc_ver())}."
    )


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int] = (0,)
) -> str:
    """Return the lines of a table.

    Parameters
    ----------
    heads : sequence of str
        Headings of the columns.
    rows : sequence of sequence of str
        Cells.
    text : collection of int
        Columns of text, which stand at the left. All others hold figures.
    """
    marks = ["---" if i in text else "---:" for i in range(len(heads))]
    return "\n".join(
        [
            f"| {' | '.join(heads)} |",
            f"|{'|'.join(marks)}|",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def fill(page: Path, parts: Mapping[str, Callable[[], str]]) -> None:
    """Measure each part of a page, and write them in their places."""
    text = page.read_text()
    for name, measured in parts.items():
        print(f"{name} ...", flush=True)
        shown = measured()
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, shown=shown: f"{found[1]}\n{shown}\n\n{found[2]}",
            text,
            count=1,
            flags=re.DOTALL,
        )
    page.write_text(text)
