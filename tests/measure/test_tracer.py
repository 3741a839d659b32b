# SPDX-License-Identifier: BSD-3-Clause
"""The tracer of a child: where it can step at all."""

import platform
import sys

import pytest

from xmem import Pool
from xmem.measure import insn


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="stepping needs Linux on x86-64 or aarch64",
)
def test_only_the_system_prevents_stepping_here(small_arena):
    """Where ptrace is forbidden, the error has the system's number."""
    number = None
    try:
        insn.cost(Pool(small_arena), "xmalloc", 100)
    except insn.SteppingUnavailable as error:
        number = error.number
    assert number != 0
