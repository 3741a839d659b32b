# SPDX-License-Identifier: BSD-3-Clause
"""The compiler of what is installed, which decides how many instructions there are."""

import platform
import re
from pathlib import Path

from xmem.measure import insn

#: How the compilers sign what they made.
SIGNATURES = ((r"clang version (\d+)", "clang"), (r"GCC: \([^)]*\) (\d+)", "gcc"))


def compiled_by() -> str:
    """Architecture and compiler, as the pages name them: ``x86_64, gcc 12``."""
    made = Path(insn.__file__).read_bytes().decode("latin-1")
    for pattern, name in SIGNATURES:
        found = re.search(pattern, made)
        if found:
            return f"{platform.machine()}, {name} {found[1]}"
    return f"{platform.machine()}, unknown compiler"
