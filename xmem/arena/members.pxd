# SPDX-License-Identifier: BSD-3-Clause
"""Joining a shared arena and leaving it."""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.shared.identity cimport member_t
from xmem.shared.lock cimport LOCK_FORKED, LOCK_TAKEN, lock_enter, lock_leave
from xmem.shared.system cimport now_ns

cdef int member_begin(member_t* member, arena_t* arena, int fd) except -1
cdef int member_settle(member_t* member, bint discards) except -1
cdef int member_forget(member_t* member) except -1
cdef bint member_join(member_t* member, uint64_t timeout_ns, str name) except -1
cdef int member_leave(member_t* member, uint64_t timeout_ns) except -1
cdef int member_end(member_t* member) except -1
cdef bint is_where_verified(member_t* member, arena_t* arena) except -1
cdef int verified_here(member_t* member, arena_t* arena) except -1
cdef tuple member_slots(member_t* member)
cdef unsigned member_count(member_t* member) except? 0
cdef tuple member_reap(member_t* member)
cdef object busy_error(member_t* member, str name)
cdef int area_begin(char* area) except -1


cdef inline bint member_hold(member_t* member, uint64_t timeout_ns) noexcept nogil:
    """Own the lock, or have it already; False if it is not to be had in the time."""
    return lock_enter(member, timeout_ns) == LOCK_TAKEN


cdef inline void member_unhold(member_t* member) noexcept nogil:
    """Give up what `member_hold` gave."""
    lock_leave(member)


cdef inline bint is_forked(int cause) noexcept nogil:
    """Whether a verb did nothing because this process is a child of a fork."""
    return cause == LOCK_FORKED


cdef inline bint is_done(int cause) noexcept nogil:
    """Whether a verb had the lock."""
    return cause == LOCK_TAKEN


cdef inline uint64_t moment_ns() noexcept nogil:
    """The time, by a clock that nobody sets."""
    return now_ns()
