# SPDX-License-Identifier: BSD-3-Clause
"""The Arena object: one mapping and its life cycle."""

from cpython.dict cimport PyDict_Size
from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.holds cimport give_back_t, hold_test, holds_t
from xmem.arena.superblock cimport FRAMES_N_ORDERS, arena_t
from xmem.arena.vm cimport vm_forks
from xmem.base.bits cimport bit
from xmem.base.checks cimport unlikely
from xmem.base.offset cimport offset_t
from xmem.shared.identity cimport member_t

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    unsigned long PyThread_get_thread_ident()


# The pools of an arena examined, and repaired if asked for: a tuple of Repair.
ctypedef tuple (*examine_t)(Arena arena, bint repairs)
# The pools of an arena shrunk, those that are sound.
ctypedef void (*shrink_t)(arena_t* arena) noexcept nogil
# What arenas that processes share do through the verbs of xmem/journalled.pxd.
cdef struct sharing_t:
    void* (*make)() noexcept nogil      # routes, which begin with a member_t, or NULL
    uint32_t (*take)(arena_t*, uint64_t, unsigned) noexcept nogil
    bint (*give)(arena_t*, offset_t) noexcept nogil
    bint (*set_root)(arena_t*, uint64_t) noexcept nogil
    # Number and serial of a pool under destruction, and where to go on; see
    # `shared_release_next`.
    bint (*release)(arena_t*, uint32_t, uint32_t, uint32_t*) noexcept nogil


cdef class Arena:
    cdef arena_t c                      # base is NULL when closed
    cdef member_t* member               # of those who share it, or NULL: members.pyx
    cdef uint64_t timeout_ns            # for their lock
    cdef readonly object path
    cdef readonly tuple repairs         # made when it was opened
    cdef bint is_unseen                 # left half done, and not made whole
    cdef int fd
    cdef uint64_t forks                 # vm_forks when it was mapped
    cdef bint frames_checked            # all of P1 to P6, since it was mapped
    cdef bint is_copied                 # just now: finalisers have to wait
    cdef bint busy                      # a thread works in it without the GIL
    cdef PyThread_type_lock gate        # held by that thread
    cdef unsigned long busy_thread      # its identity
    cdef int nested                     # methods in finalisers of that thread
    cdef Py_ssize_t n_exports
    cdef dict exports                   # from payload offset to number of views
    cdef dict orphans                   # from payload offset to its collected owner
    cdef holds_t holds

    cdef int enter(self) except -1
    cdef int inherited(self) except -1
    cdef int hold(self) except -1
    cdef int hold_slowly(self) except -1
    cdef void unhold(self) noexcept
    cdef bint hold_at_once(self) noexcept
    cdef int refuse_shared(self, str what) except -1
    cdef int refuse_cause(self, int cause) except -1
    cdef int begin_long(self) except -1
    cdef int end_long(self) except -1
    cdef int map(self, uint64_t n_bytes, int fd) except -1
    cdef int share(self, int fd) except -1
    cdef int join(self) except -1
    cdef int open_shared(self, int fd, bint verify, bint repair) except -1
    cdef int open_alone(self, int fd, bint verify, bint repair) except -1
    cdef int abandon(self) except -1
    cdef int verify_alone(self, bint verify, bint repair) except -1
    cdef int leave(self) except -1
    cdef int leave_for_good(self) except -1
    cdef int end_destructions(self) except -1
    cdef int require_shared(self) except -1
    cdef object _frames(self)
    cdef int refuse_unsealed(self) except -1
    cdef int make_whole(self) except -1
    cdef int format(self) except -1
    cdef int reformat(self) except -1
    cdef int prepare_holds(self, give_back_t give_back) except -1
    cdef int pin(self, offset_t payload) except -1
    cdef int unpin(self, offset_t payload) except -1
    cdef int refuse_viewed(self, offset_t payload) except -1
    cdef int refuse_exported(self, offset_t payload) except -1
    cdef int _unmap(self) except -1
    cdef uint64_t _count_runs(self) except 0
    cdef object no_room(self, str call, str held)
    cdef object allocate_run(self, uint64_t n_pages, unsigned order, str call)
    cdef uint32_t require_run(self, offset_t offset, str verb) except? 0


cdef int arena_examine_by(examine_t examine) except -1
cdef int arena_shrink_by(shrink_t shrink) except -1
cdef int arena_share_by(sharing_t* verbs) except -1


cdef inline bint arena_is_ready(Arena arena) noexcept:
    """Whether `Arena.enter` has nothing to do."""
    return (
        arena.forks == vm_forks and not arena.busy and arena.c.base != NULL
    )


cdef inline int arena_enter(Arena arena) except -1:
    """`Arena.enter`, called only where there is something to do."""
    if unlikely(not arena_is_ready(arena)):
        arena.enter()
    return 0


cdef inline bint arena_is_viewed(Arena arena) noexcept:
    """Whether memory is viewed, other than by the objects that own it."""
    return arena.n_exports != 0 and PyDict_Size(arena.exports) != 0


cdef inline int arena_refuse_held(Arena arena, offset_t payload) except -1:
    """`Arena.refuse_exported`, called only where it may refuse."""
    if unlikely(hold_test(&arena.holds, payload) or arena_is_viewed(arena)):
        arena.refuse_exported(payload)
    return 0


cdef inline uint64_t pages_of_order(uint64_t order) noexcept nogil:
    """Pages of a run of any order; of an impossible one more than an arena has."""
    return bit(order) if order < FRAMES_N_ORDERS else ~<uint64_t>0


cdef inline bint arena_is_busy(Arena arena) noexcept:
    """Whether another thread works in the arena without the GIL."""
    return arena.busy and arena.busy_thread != PyThread_get_thread_ident()


cdef class View:
    cdef Arena arena                    # None until it is pinned
    cdef offset_t offset
    cdef Py_ssize_t n_bytes

    cdef bint wants_all                 # of what there is
    cdef uint64_t wanted                # bytes

    @staticmethod
    cdef View of(object n_bytes)
    cdef object export(self, Arena arena, offset_t offset, uint64_t capacity)
    cdef int pin(self, Arena arena, offset_t offset, uint64_t n_bytes,
                 uint64_t capacity) except -1
