# SPDX-License-Identifier: BSD-3-Clause
"""Offsets, which name everything in an arena and hold in every process.

An offset counts bytes from the arena's base; 0 means none. No block and no page run
starts at 0, because the superblock does.
"""

from libc.stdint cimport uint64_t

ctypedef uint64_t offset_t
