# SPDX-License-Identifier: BSD-3-Clause
"""The Heap object: one or two pools under an interface of the 2008 proposal."""

from libc.stdint cimport uint64_t

from xmem.allocator cimport Allocator
from xmem.arena.arena cimport Arena, arena_is_ready
from xmem.base.offset cimport offset_t
from xmem.interfaces cimport heap_t
from xmem.pool cimport Pool, pool_is_destroyed


cdef class Heap(Allocator):
    cdef heap_t c
    cdef Pool main
    cdef Pool subpage                   # None unless it is a pool of its own

    cdef int create_shared(self, Arena arena, str interface, object name,
                           object hardened, dict settings) except -1
    cdef int refuse_again(self) except -1
    cdef int found(self, Pool main, Pool subpage, unsigned interface) except -1
    cdef int attach(self, Pool main, Pool subpage, unsigned interface) except -1
    cdef object limit_error(self, uint64_t n_bytes, uint64_t alignment, str verb)
    cdef object refusal(self, uint64_t n_bytes, uint64_t alignment,
                        bint is_array, str verb)
    cdef int refuse(self, Pool pool, offset_t offset, str verb) except -1
    cdef int hold(self) except -1
    cdef offset_t allocate_shared(self, uint64_t n_bytes, uint64_t alignment,
                                  bint is_array, str verb) except 0
    cdef offset_t resize_shared(self, offset_t payload, uint64_t n_bytes,
                                uint64_t alignment, bint is_array,
                                str verb) except 0
    cdef int free_shared(self, offset_t payload, str verb) except -1
    cdef int page_free_shared(self, offset_t offset) except -1
    cdef uint64_t capacity_shared(self, offset_t payload, str verb) except? 0
    cdef offset_t require_subpage(self, offset_t payload, str verb) except 0
    cdef Pool pool_of_subpage(self)
    cdef offset_t require_run(self, offset_t offset, str verb) except 0
    cdef int require_subpage_interface(self, str verb) except -1
    cdef uint64_t total(self, uint64_t header, uint64_t count, uint64_t size,
                        str verb) except? 0
    cdef object lent(self, offset_t offset, uint64_t n_pages, object n, str verb)


cdef inline bint heap_is_ready(Heap heap) noexcept:
    """Whether `Heap.enter` has nothing to do, and nobody else has the arena open."""
    return (
        heap.main is not None
        and heap.main.door is None
        and arena_is_ready(heap.arena)
        and not pool_is_destroyed(heap.main)
        and (heap.subpage is None or not pool_is_destroyed(heap.subpage))
    )
