# SPDX-License-Identifier: BSD-3-Clause
"""Blocks that Python objects own: what pools and heaps have in common.

An allocator names blocks by offset; a `Block` owns one, exports it through the
buffer protocol, and frees it when it is released or collected. Arrays are
NumPy's, over the memory of a Block.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.base.offset cimport offset_t


cdef class Allocator:
    cdef readonly Arena arena
    cdef uint32_t number            # of the pool that its blocks come from

    # Pool and Heap override these.
    cdef bint is_destroyed(self) noexcept
    cdef int enter(self) except -1
    cdef offset_t require_live(self, offset_t payload, str verb) except 0
    cdef offset_t allocate(self, uint64_t n_bytes, uint64_t alignment,
                           bint is_array, str verb) except 0
    cdef offset_t resize(self, offset_t payload, uint64_t n_bytes,
                         uint64_t alignment, bint is_array, str verb) except 0
    cdef int free_live(self, offset_t payload) except -1
    cdef int settle(self) except -1
    cdef uint64_t capacity(self, offset_t payload, str verb) except? 0

    # Blocks with an owner.
    cdef int prepare_holds(self) except -1
    cdef offset_t allocate_owned(self, uint64_t n_bytes, uint64_t alignment,
                                 bint is_array, str verb) except 0
    cdef offset_t resize_owned(self, offset_t payload, uint64_t n_bytes,
                               uint64_t alignment, str verb) except 0
    cdef int free_owned(self, offset_t payload, str verb) except -1
    cdef bint free_at_once(self, offset_t payload) noexcept
    cdef int free_collected(self, offset_t payload) noexcept
    cdef int free_unviewed(self, offset_t payload) except -1
    cdef Block new_block(self, uint64_t n_bytes, uint64_t alignment,
                         bint is_array, str verb)
    cdef object copied(self, object source, object order, object align, str verb)
    cdef object new_array(self, object shape, object dtype, object order,
                          object align, str verb)


cdef inline void count_exports(Allocator allocator, int buffers) noexcept:
    """Add to the number of buffers of owned blocks; -1 for one that ended."""
    allocator.arena.n_exports += buffers
    allocator.arena.holds.n_lent[allocator.number] += buffers


cdef class Block:
    cdef readonly Allocator allocator
    cdef readonly offset_t offset       # 0: released
    cdef Py_ssize_t n_bytes
    cdef Py_ssize_t n_views
    cdef bint detached                  # freed by its offset; n_views still pin it

    cdef int enter(self) except -1
    cdef bint is_alive(self) noexcept
    cdef int begin_export(self) noexcept
    cdef int end_export(self) noexcept
    cdef int refuse_exported(self, str what) except -1
    cdef int forget(self) noexcept


cdef class BlockExport:
    cdef Allocator allocator
    cdef offset_t offset                # 0: not made by an array method
    cdef Py_ssize_t n_bytes
    cdef Block made                     # None until it is asked for

    cdef int own(self, Allocator allocator, uint64_t n_bytes, uint64_t alignment,
                 str verb) except -1
    cdef Block to_block(self)
