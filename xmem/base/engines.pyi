# SPDX-License-Identifier: BSD-3-Clause
"""The two engines: their numbers, as arenas store them, and their names."""

from typing import Final, Literal

ENGINES: Final[dict[Literal["tlsf", "firstfit"], int]]
