# SPDX-License-Identifier: BSD-3-Clause
"""Virtual memory and files: system calls, all made in arena/vm.pyx."""

from libc.stdint cimport uint64_t


cdef uint64_t vm_forks      # number of forks between the first process and this one
# Grows with what may forbid a verb that was allowed before: a fork, work without the
# GIL (closing is that, too), sites that are recorded. See `pool_is_ordinary`.
cdef uint64_t vm_changes

cdef void vm_change() noexcept nogil
cdef uint64_t vm_page_bytes() noexcept nogil
cdef uint64_t vm_alignment(uint64_t n_bytes) noexcept nogil
cdef char* vm_map(uint64_t n_bytes, uint64_t alignment, int fd) noexcept nogil
cdef int vm_unmap(char* base, uint64_t n_bytes) noexcept nogil
cdef int vm_sync(char* base, uint64_t n_bytes) noexcept nogil
cdef int vm_discard(char* base, uint64_t n_bytes, bint is_file) noexcept nogil
cdef object vm_error(str what)
