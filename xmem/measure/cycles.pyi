# SPDX-License-Identifier: BSD-3-Clause
"""Cycles of one call, made again and again on the same heap, warm or cold."""

from typing import Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from xmem.pool import Pool

__all__ = ["cost"]

def cost(
    pool: Pool,
    verb: Literal["xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"],
    *args: SupportsIndex,
    repeats: SupportsIndex = 101,
    cold: bool = False,
    checked: bool = False,
) -> npt.NDArray[np.uint64]: ...
