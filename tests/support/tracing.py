# SPDX-License-Identifier: BSD-3-Clause
"""Small traces, written as tuples."""

import numpy as np

from xmem.measure.trace import OP_FREE, OP_MALLOC, OP_REALLOC, TRACE_DTYPE

ENGINES = ["tlsf", "firstfit"]
EMPTY = np.zeros(0, dtype=TRACE_DTYPE)


def trace(*lines):
    """A trace of (op, id, size) or (op, id, size, align_log2) lines."""
    ops = np.zeros(len(lines), dtype=TRACE_DTYPE)
    for op, (kind, name, size, *align_log2) in zip(ops, lines, strict=True):
        op["op"], op["id"], op["size"] = kind, name, size
        op["align_log2"] = align_log2[0] if align_log2 else 0
    return ops


GOOD = [(OP_MALLOC, 0, 100), (OP_REALLOC, 0, 200), (OP_FREE, 0, 0)]
