# SPDX-License-Identifier: BSD-3-Clause
"""What the scripts that fill the pages of this folder share.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` of a page
is replaced by what is measured now.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from xmem.measure import insn


def require_release() -> None:
    """End the program if the build is not one whose figures are a user's."""
    if insn.BUILD != "release":
        sys.exit(f"figures are those of a release build, not of a {insn.BUILD} one")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Lines of a table; the first column is text."""
    return "\n".join(
        [
            f"| {' | '.join(heads)} |",
            "|---|" + "---:|" * (len(heads) - 1),
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
