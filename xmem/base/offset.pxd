# SPDX-License-Identifier: BSD-3-Clause
"""An offset: how everything in an arena is named, in every process.

Bytes from the arena's base to the first byte of what is named; 0 is nothing. No
block and no page run starts there, because the superblock does.
"""

from libc.stdint cimport uint64_t

ctypedef uint64_t offset_t
