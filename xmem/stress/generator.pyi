# SPDX-License-Identifier: BSD-3-Clause
"""Operations generated without the GIL, in the trace format."""

from typing import Final, SupportsIndex

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_IDS", "MAX_LIFETIME", "TABLE_ENTRIES", "OpGenerator"]

MAX_IDS: Final[int]
MAX_LIFETIME: Final[int]
TABLE_ENTRIES: Final[int]

class OpGenerator:
    def __init__(
        self,
        sizes: npt.ArrayLike,
        lifetimes: npt.ArrayLike,
        seed: SupportsIndex,
        *,
        frames: bool = False,
    ) -> None: ...
    def make(self, n_ops: SupportsIndex) -> npt.NDArray[np.void]: ...
