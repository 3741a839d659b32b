# SPDX-License-Identifier: BSD-3-Clause
"""The C interface of ``xmem.h``, for extension modules without Cython."""

from xmem.arena.holds cimport holds_t
from xmem.arena.superblock cimport arena_t
from xmem.core.control cimport pool_t
from xmem.pool cimport Pool


cdef struct borrowed_t:
    arena_t* arena
    pool_t* pool
    holds_t* holds
    void* object                    # the Pool, of which this has a reference
