# SPDX-License-Identifier: BSD-3-Clause
from typing import Any, Final, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_LIFETIME", "Load", "Subject", "ticks_per_second"]

MAX_LIFETIME: Final[int]

def ticks_per_second() -> float: ...

class Load:
    def __init__(
        self,
        sizes: npt.ArrayLike,
        lifetimes: npt.ArrayLike,
        seed: SupportsIndex,
        *,
        frames: bool = False,
    ) -> None: ...
    def make(self, n_ops: SupportsIndex) -> npt.NDArray[np.void]: ...

class Subject:
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
    def run(
        self,
        thread: SupportsIndex,
        ops: npt.NDArray[np.void],
        turns: npt.NDArray[np.uint64] | None = None,
    ) -> int: ...
    def check(self) -> int: ...
    def seen(self) -> dict[str, int]: ...
    def fragmentation(self) -> float: ...
