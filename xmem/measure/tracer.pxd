# SPDX-License-Identifier: BSD-3-Clause
"""The parent of a stepped child: forks it, steps it, counts."""

from libc.stdint cimport uint64_t

from xmem.measure.tracee cimport place_t


cdef class _Tracer:
    """A child, and the processor that it shares with its parent."""

    cdef int pid                # 0: there is no child
    cdef place_t entry          # of the call that is stepped
    cdef uint64_t own           # address of a function that counts as a verb

    cdef int require(self, int error) except -1
    cdef int fork(self) except -1
    cdef int to_marker(self) except -1
    cdef bint to_verb(self) except -1
    cdef bint step(self, uint64_t* pc) except -1
    cdef uint64_t count(self) except? 0
    cdef object states(self)
    cdef void finish(self) noexcept
    cdef void end(self) noexcept


cdef bint can_step() except -1
