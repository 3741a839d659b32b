# SPDX-License-Identifier: BSD-3-Clause
"""Blocks that Python objects own: what pools and heaps have in common.

An allocator gives blocks by offset; here a `Block` owns one, lends it through
the buffer protocol, and gives it back when it is released or collected. Arrays
are NumPy's, over the memory of a Block.
"""

from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.base.offset cimport offset_t


cdef class Allocator:
    cdef readonly Arena arena
    cdef uint32_t number            # of the pool that its blocks come from

    # What a pool or heap says of itself.
    cdef bint is_lost(self) noexcept
    cdef int begin(self) except -1
    cdef offset_t take(self, uint64_t n_bytes, uint64_t alignment,
                       bint is_array, str verb) except 0
    cdef offset_t move(self, offset_t payload, uint64_t n_bytes,
                       uint64_t alignment, str verb) except 0
    cdef int give(self, offset_t payload, str verb) except -1
    cdef uint64_t room_at(self, offset_t payload, str verb) except? 0

    # Blocks with an owner.
    cdef int begin_holding(self) except -1
    cdef int count_lent(self, int buffers) noexcept
    cdef offset_t take_owned(self, uint64_t n_bytes, uint64_t alignment,
                             bint is_array, str verb) except 0
    cdef offset_t move_owned(self, offset_t payload, uint64_t n_bytes,
                             uint64_t alignment, str verb) except 0
    cdef int give_owned(self, offset_t payload, str verb) except -1
    cdef int drop_owned(self, offset_t payload) noexcept
    cdef Block new_block(self, uint64_t n_bytes, uint64_t alignment,
                         bint is_array, str verb)
    cdef object copied(self, object source, object order, object align, str verb)
    cdef object new_array(self, object shape, object dtype, object order,
                          object align, str verb)


cdef class Block:
    cdef readonly Allocator allocator
    cdef readonly offset_t offset       # 0: released
    cdef Py_ssize_t n_bytes
    cdef Py_ssize_t n_views
    cdef bint detached                  # freed by its offset; n_views still pin it

    cdef int enter(self) except -1
    cdef bint is_alive(self) noexcept
    cdef int lend(self) noexcept
    cdef int take_back(self) noexcept
    cdef int refuse_lent(self, str what) except -1
    cdef int forget(self) noexcept


cdef class Loan:
    cdef readonly Block block
