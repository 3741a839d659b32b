# SPDX-License-Identifier: BSD-3-Clause
"""Retired instructions of single operations, counted by stepping a child."""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from xmem.measure.counts import Counts as Counts
from xmem.measure.counts import SteppingUnavailable as SteppingUnavailable
from xmem.pool import Pool

_Verb = Literal["xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"]

__all__ = [
    "BUILD",
    "Counts",
    "SteppingUnavailable",
    "Steps",
    "addresses",
    "cost",
    "count",
    "is_available",
    "pool_for",
    "states",
    "trace_states",
]

BUILD: Literal["release", "checked", "sanitized", "unoptimised"]

def is_available() -> bool: ...
def pool_for(
    ops: npt.NDArray[np.void],
    *,
    page_size: SupportsIndex | None = None,
    grow_pages: SupportsIndex | None = None,
    **settings: Any,
) -> Pool: ...
def count(
    ops: npt.NDArray[np.void],
    *,
    engine: Literal["tlsf", "firstfit"] = "tlsf",
    hardened: bool | Collection[str] = False,
    checked: bool = False,
    every: SupportsIndex = 1,
    grow_pages: SupportsIndex | None = None,
    max_pages: SupportsIndex | None = None,
    page_size: SupportsIndex | None = None,
    progress: Callable[[int, int], object] | None = None,
    quick: bool = False,
) -> Counts: ...
def cost(
    pool: Pool,
    verb: _Verb,
    *args: SupportsIndex,
    checked: bool = False,
) -> tuple[int, str]: ...
def addresses(
    pool: Pool, verb: _Verb, *args: SupportsIndex
) -> npt.NDArray[np.uint64]: ...
def states(pool: Pool, verb: _Verb, *args: SupportsIndex) -> list[tuple[int, ...]]: ...
def trace_states(
    pool: Pool, ops: npt.NDArray[np.void], *, every: SupportsIndex = 1
) -> Iterator[tuple[int, list[tuple[int, ...]]]]: ...

class Steps:
    def __init__(self, pool: Pool, verb: _Verb | Any, *args: SupportsIndex) -> None: ...
    def __iter__(self) -> Iterator[int]: ...
    def __next__(self) -> int: ...
    @property
    def n_instructions(self) -> int: ...
    @property
    def value(self) -> int | None: ...
    @property
    def path(self) -> str | None: ...
