# SPDX-License-Identifier: BSD-3-Clause
"""NumPy's data memory from an arena (NEP 49)."""

from types import TracebackType
from typing import NoReturn, Self, SupportsIndex

from xmem.allocator import Allocator

class numpy_memory:
    @property
    def allocator(self) -> Allocator: ...
    @property
    def fallback(self) -> bool: ...
    def __init__(
        self, pool: Allocator, *, align: SupportsIndex = 64, fallback: bool = False
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
