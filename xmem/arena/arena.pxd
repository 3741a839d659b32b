# SPDX-License-Identifier: BSD-3-Clause
"""The Arena object: one mapping and its life cycle."""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.holds cimport give_back_t, holds_t
from xmem.arena.superblock cimport arena_t, entry_t
from xmem.arena.vm cimport vm_forks
from xmem.base.checks cimport unlikely
from xmem.base.offset cimport offset_t

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    unsigned long PyThread_get_thread_ident()


cdef class Arena:
    cdef arena_t c                      # base is NULL when closed
    cdef readonly object path
    cdef int fd
    cdef uint64_t forks                 # vm_forks when it was mapped
    cdef bint busy                      # a thread works in it without the GIL
    cdef PyThread_type_lock gate        # held by that thread
    cdef unsigned long busy_thread      # its identity
    cdef int nested                     # methods in finalisers of that thread
    cdef Py_ssize_t n_exports
    cdef dict exports                   # payload offset -> number of live views
    cdef dict orphans                   # viewed, but their owners are gone
    cdef holds_t holds

    cdef int enter(self) except -1
    cdef int inherited(self) except -1
    cdef int begin_long(self) except -1
    cdef int end_long(self) except -1
    cdef int format(self) except -1
    cdef int reformat(self) except -1
    cdef entry_t* find_entry(self, bytes name) noexcept
    cdef int begin_owning(self, give_back_t give_back) except -1
    cdef int pin(self, offset_t payload) except -1
    cdef int unpin(self, offset_t payload) except -1
    cdef int refuse_viewed(self, offset_t payload) except -1
    cdef int refuse_exported(self, offset_t payload) except -1
    cdef int _unmap(self) except -1
    cdef uint64_t _count_runs(self) except 0
    cdef object _take(self, uint64_t n_pages, str asked)
    cdef uint32_t _own_run(self, offset_t offset, str verb) except? 0


cdef inline int arena_enter(Arena arena) except -1:
    """`Arena.enter`; the call is made only where there is something to do."""
    if unlikely(
        arena.forks != vm_forks or arena.busy or arena.c.base == NULL
    ):
        arena.enter()
    return 0


cdef inline int arena_refuse_held(Arena arena, offset_t payload) except -1:
    """`Arena.refuse_exported`; the call is made only where something is held."""
    if unlikely(arena.n_exports != 0 or arena.holds.owned != NULL):
        arena.refuse_exported(payload)
    return 0


cdef inline bint arena_is_busy(Arena arena) noexcept:
    """Whether another thread works in the arena without the GIL."""
    return arena.busy and arena.busy_thread != PyThread_get_thread_ident()


cdef class View:
    cdef Arena arena                    # None until it is pinned
    cdef offset_t offset
    cdef Py_ssize_t n_bytes

    cdef int pin(self, Arena arena, offset_t offset, uint64_t n_bytes,
                 uint64_t room) except -1
