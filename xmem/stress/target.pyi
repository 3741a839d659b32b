# SPDX-License-Identifier: BSD-3-Clause
"""The target of a stress test: a pool, a heap, or page frames."""

from typing import Any, Final, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

__all__ = ["NO_TURN", "HeapTarget", "ticks_per_second"]

NO_TURN: Final[int]

def ticks_per_second() -> float: ...

class HeapTarget:
    def __init__(
        self,
        kind: Literal["pool", "heap", "frames"],
        settings: dict[str, Any],
        arena_bytes: SupportsIndex,
        *,
        threads: SupportsIndex = 1,
        n_objects: SupportsIndex = 65536,
        page_size: SupportsIndex | None = None,
    ) -> None: ...
    def execute(
        self,
        thread: SupportsIndex,
        ops: npt.NDArray[np.void],
        turns: npt.NDArray[np.uint64] | None = None,
    ) -> int: ...
    def check(self) -> int: ...
    def stats(self) -> dict[str, int]: ...
    def fragmentation(self) -> float: ...
