# SPDX-License-Identifier: BSD-3-Clause
"""Allocation sites of arena memory, for tracemalloc."""

from typing import Final

TRACEMALLOC_DOMAIN: Final[int]

def trace_sites(on: bool, /) -> bool: ...
