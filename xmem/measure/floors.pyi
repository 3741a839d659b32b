# SPDX-License-Identifier: BSD-3-Clause
"""Floors: what a call from Python takes when no allocator does anything."""

from types import TracebackType
from typing import SupportsIndex

__all__ = ["Conversions", "c_memory"]

class Conversions:
    def __init__(self) -> None: ...
    @property
    def n_live(self) -> int: ...
    def xmalloc(self, n: SupportsIndex, /, align: SupportsIndex = 16) -> int: ...
    def xfree(self, offset: SupportsIndex, /) -> None: ...

class c_memory:
    def __init__(self) -> None: ...
    def __enter__(self) -> c_memory: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
