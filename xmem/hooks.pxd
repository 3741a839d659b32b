# SPDX-License-Identifier: BSD-3-Clause
"""The caller's own source of regions: get_mem and put_mem of a pool."""

from libc.stdint cimport uint64_t

from xmem.allocator cimport Allocator
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t


cdef class Hooks:
    cdef object get_mem, put_mem

    cdef uint64_t obtain(self, Allocator pool, pool_t* c,
                         uint64_t n_pages) except? 0
    cdef uint64_t obtain_for(self, Allocator pool, pool_t* c, uint64_t n_bytes,
                             uint64_t alignment) except? 0
    cdef void put(self, offset_t start, uint64_t n_pages) noexcept
    cdef void put_returned(self, Allocator pool, pool_t* c) noexcept


cdef Hooks hooks_from(unsigned engine, object get_mem, object put_mem)
