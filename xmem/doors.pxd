# SPDX-License-Identifier: BSD-3-Clause
"""What Python's pools do in a shared arena: each step under its lock, and routed."""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.base.offset cimport offset_t
from xmem.core cimport creation_t, pool_t, released_t, settings_t
from xmem.core.routes cimport door_t
from xmem.interfaces cimport heap_t


cdef class Door:
    cdef door_t* c
    cdef Arena arena
    cdef uint32_t number
    cdef str name

    @staticmethod
    cdef int refuse(settings_t* settings, object hooks) except -1

    @staticmethod
    cdef creation_t create(
        Arena arena, bytes name, settings_t* settings, uint32_t* number
    ) except *

    @staticmethod
    cdef Door to(Arena arena, uint32_t number, str name)

    @staticmethod
    cdef int begin(Arena arena) except -1

    @staticmethod
    cdef int commit(Arena arena) noexcept

    cdef int set_heap(self, unsigned interface, unsigned role) noexcept
    cdef pool_t* stub(self) noexcept
    cdef int refuse_cause(self) except -1
    cdef offset_t alloc(self, uint64_t n_bytes, uint64_t alignment) except? 0
    cdef bint give(self, offset_t payload) except -1
    cdef offset_t resize(
        self, heap_t* heap, offset_t payload, uint64_t n_bytes, uint64_t alignment,
        bint is_array
    ) except? 0
    cdef uint64_t alloc_each(
        self, uint64_t* sizes, uint64_t n, uint64_t alignment, offset_t* payloads
    ) except? 0
    cdef offset_t free_each(self, offset_t* payloads, uint64_t n) except? 0
    cdef uint64_t reserve(self, uint64_t n_pages, bint keeps) except? 0
    cdef uint64_t drain(self, uint64_t n_most) except? 0
    cdef uint64_t shrink(self) except? 0
    cdef bint retire(self) noexcept
    cdef bint release_next(self, uint32_t* page, released_t* released) noexcept
