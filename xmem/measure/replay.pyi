# SPDX-License-Identifier: BSD-3-Clause
"""Replay: a trace run against a pool or a heap, a clock per operation."""

from collections.abc import Callable, Collection
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from xmem.measure.trace import TRACE_DTYPE as TRACE_DTYPE
from xmem.measure.trace import ReplayResult as ReplayResult
from xmem.measure.trace import load as load

__all__ = ["TRACE_DTYPE", "ReplayResult", "load", "replay"]

def replay(
    ops: npt.NDArray[Any],
    *,
    engine: str | None = None,
    interface: str | None = None,
    repeats: SupportsIndex = 5,
    arena_bytes: SupportsIndex | None = None,
    verify: bool = False,
    grow_pages: SupportsIndex | None = None,
    max_pages: SupportsIndex | None = None,
    page_size: SupportsIndex | None = None,
    progress: Callable[[int, int], object] | None = None,
    cold: npt.NDArray[np.bool_] | None = None,
    hardened: bool | Collection[str] = False,
    checked: bool = False,
    paths: bool = False,
    quick: bool = False,
    reserved: bool = False,
) -> ReplayResult: ...
