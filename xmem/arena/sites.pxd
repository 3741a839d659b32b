# SPDX-License-Identifier: BSD-3-Clause
"""Allocation sites: arena memory as `tracemalloc` sees it.

Blocks and page runs that Python calls obtain are recorded in a domain of their
own, by address. Python's memory and the arena's do not overlap, so nothing is
counted twice. When recording is off, a call pays for one test of a flag.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t, uintptr_t

from xmem.arena.superblock cimport arena_t
from xmem.base.offset cimport offset_t

cdef extern from "Python.h":
    int PyTraceMalloc_Track(unsigned int domain, uintptr_t at, size_t n_bytes)
    int PyTraceMalloc_Untrack(unsigned int domain, uintptr_t at)


cdef enum:
    SITES_DOMAIN = 0x786D656D   # "xmem"


cdef bint sites_on              # change it by xmem.trace_sites


cdef inline void site_allocated(
    arena_t* arena, offset_t offset, uint64_t n_bytes
) noexcept:
    """Record memory that the running Python line has obtained."""
    if sites_on:
        PyTraceMalloc_Track(
            SITES_DOMAIN, <uintptr_t>(arena.base + offset), n_bytes
        )


cdef inline void site_freed(arena_t* arena, offset_t offset) noexcept:
    """Forget memory that is freed."""
    if sites_on:
        PyTraceMalloc_Untrack(SITES_DOMAIN, <uintptr_t>(arena.base + offset))


cdef void sites_end(arena_t* arena) noexcept
