# SPDX-License-Identifier: BSD-3-Clause
"""The Pool object: an engine, its regions and runs, its limits and counters."""

from libc.stdint cimport uint32_t, uint64_t

from xmem.allocator cimport Allocator
from xmem.arena.arena cimport Arena
from xmem.base.finding cimport finding_t
from xmem.base.offset cimport offset_t
from xmem.check.census cimport census_t
from xmem.check.visit cimport block_info_t, cursor_t
from xmem.core.control cimport pool_t


cdef class Pool(Allocator):
    cdef readonly str name
    cdef uint32_t serial            # of the directory entry it was made for
    cdef object get_mem, put_mem    # None: regions come from the arena
    cdef offset_t step_at           # where check_step goes on, 0: the beginning
    cdef pool_t* c                  # valid while the arena is open

    cdef int attach(self, Arena arena, str name, uint32_t number) except -1
    cdef int hook(self, object get_mem, object put_mem) except -1
    cdef int grow_hooked(self, uint64_t n_bytes, uint64_t alignment) except -1
    cdef offset_t resize(self, offset_t payload, uint64_t n_bytes,
                         uint64_t alignment, str verb) except 0
    cdef int prove(self, offset_t payload) except -1
    cdef int raise_damage(self) except -1
    cdef object damage(self, finding_t* finding)
    cdef uint64_t waiting(self) noexcept
    cdef uint64_t take_mem(self, uint64_t n_pages) except? 0
    cdef int settle(self) except -1
    cdef void put_away(self, offset_t start, uint64_t n_pages) noexcept
    cdef int enter(self) except -1
    cdef offset_t live(self, offset_t payload, str verb) except 0
    cdef int refuse(self, offset_t payload, str verb) except -1
    cdef offset_t block_left_of(self, offset_t payload) noexcept
    cdef int admit_alignment(self, uint64_t alignment) except -1
    cdef object no_room(self, object n, str verb)
    cdef offset_t allocate(self, uint64_t n_bytes, uint64_t alignment,
                           str verb) except 0
    cdef int refuse_live(self) except -1
    cdef uint64_t live_blocks(self) noexcept
    cdef int audit(self, census_t* census) except -1
    cdef bint see(self, cursor_t* cursor, block_info_t* info) noexcept


cdef uint32_t pool_create(Arena arena, object name, object engine,
                          object grow_pages, object max_pages,
                          bint join_regions, unsigned hardening,
                          object quick, object quick_bytes) except 0
