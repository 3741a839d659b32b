# SPDX-License-Identifier: BSD-3-Clause
"""The parent of a stepped child: forks it, steps it, counts.

The parent steps a call from the first instruction of the verb to the return from
it, so the count is exact, and the same on every machine that runs the same build. The C
library's memcpy and memmove are stepped, but not counted: it has one for each kind of
processor.
"""

from xmem.measure.counts import SteppingUnavailable

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memmove

from xmem.measure.callees cimport N_VERBS, VERBS
from xmem.measure.tracee cimport (
    N_REGISTERS,
    TRACEE_SUPPORTED,
    place_t,
    tracee_end,
    tracee_exit,
    tracee_fork,
    tracee_go,
    tracee_pass,
    tracee_pc,
    tracee_place,
    tracee_registers,
    tracee_step,
    tracee_together,
    tracee_wait,
)

cdef enum:
    APPROACH_STEPS = 64         # from the marker to the verb; about a dozen are taken
    NO_CALL = 1                 # where 0 is success and an error is negative


# Steps -----------------------------------------------------------------------

cdef inline bint is_verb(uint64_t pc) noexcept nogil:
    """Whether ``pc`` is the first instruction of a verb."""
    cdef unsigned i
    for i in range(N_VERBS):
        if <uint64_t>VERBS[i] == pc:
            return True
    return False


cdef int approach(int child, uint64_t own, place_t* entry) noexcept nogil:
    """Step a child from a marker to the verb or to ``own``, or return ``NO_CALL``."""
    cdef int error, _i
    error = tracee_pass(child)
    if error:
        return error
    for _i in range(APPROACH_STEPS):
        error = tracee_pc(child, &entry.pc)
        if error:
            return error
        if entry.pc == own or is_verb(entry.pc):
            return tracee_place(child, entry)
        error = tracee_step(child)
        if error:
            return error
    return NO_CALL


cdef int step_verb(
    int child, const place_t* entry, uint64_t* pc, bint* is_back
) noexcept nogil:
    """Make one step; say where the child is and whether the verb has returned."""
    cdef place_t place
    cdef int error = tracee_step(child)
    place.sp = 0
    is_back[0] = False
    if error == 0:
        error = tracee_pc(child, pc)
    if error == 0 and pc[0] == entry.link:
        error = tracee_place(child, &place)
        is_back[0] = place.sp >= entry.sp
    return error


cdef inline bint is_copying(uint64_t pc) noexcept nogil:
    """Whether ``pc`` is the first instruction of the C library's memcpy or memmove."""
    return pc == <uint64_t>memcpy or pc == <uint64_t>memmove


cdef int pass_copy(
    int child, const place_t* entry, uint64_t* pc, bint* is_back
) noexcept nogil:
    """Step a verb from the first instruction of a copy to the return from it."""
    cdef place_t copy
    cdef bint is_done = False
    cdef int error = tracee_place(child, &copy)
    while error == 0 and not is_done:
        error = step_verb(child, &copy, pc, &is_done)
    is_back[0] = copy.link == entry.link        # called in tail position
    return error


cdef int count_steps(int child, const place_t* entry, uint64_t* n) noexcept nogil:
    """Count the instructions of a verb, by stepping it to its return.

    A repeated string instruction counts once, however often it repeats, and so does a
    copy.
    """
    cdef uint64_t pc
    cdef uint64_t last = entry.pc
    cdef bint is_back = False
    cdef int error
    n[0] = 1
    while True:
        error = step_verb(child, entry, &pc, &is_back)
        if error == 0 and not is_back and is_copying(pc):
            n[0] += 1
            error = pass_copy(child, entry, &pc, &is_back)
        if error or is_back:
            return error
        n[0] += pc != last
        last = pc


# The child as an object ------------------------------------------------------

cdef class _Tracer:
    """A child, and the processor that it shares with its parent.

    A method that fails kills the child and raises `SteppingUnavailable`.
    """

    cdef int require(self, int error) except -1:
        """End the child and raise if ``error`` is one."""
        if error < 0:
            self.end()
            raise SteppingUnavailable(-error)
        return 0

    cdef int fork(self) except -1:
        """Fork; returns 0 in the child, which must not run Python code."""
        cdef int pid
        if not TRACEE_SUPPORTED:
            raise SteppingUnavailable(0)
        tracee_together(True)
        pid = tracee_fork()
        if pid == 0:
            return 0
        if pid < 0:
            tracee_together(False)
            raise SteppingUnavailable(-pid)
        self.pid = pid
        self.require(tracee_wait(pid))
        self.require(tracee_pass(pid))
        return 1

    cdef int to_marker(self) except -1:
        """Let the child run to its next marker."""
        cdef int error
        with nogil:
            error = tracee_go(self.pid)
        return self.require(error)

    cdef bint to_verb(self) except -1:
        """Step from a marker to the verb; False if no call follows the marker."""
        cdef int error
        with nogil:
            error = approach(self.pid, self.own, &self.entry)
        self.require(error)
        return error != NO_CALL

    cdef bint step(self, uint64_t* pc) except -1:
        """Make one step inside the verb; False once the verb has returned."""
        cdef bint is_back = False
        cdef int error
        with nogil:
            error = step_verb(self.pid, &self.entry, pc, &is_back)
        self.require(error)
        return not is_back

    cdef uint64_t count(self) except? 0:
        """Count the instructions of the call after the marker; 0 without a call."""
        cdef uint64_t n
        cdef int error
        if not self.to_verb():
            return 0
        with nogil:
            error = count_steps(self.pid, &self.entry, &n)
        self.require(error)
        return n

    cdef object states(self):
        """Return the registers before each instruction of the call after the marker."""
        cdef uint64_t cells[N_REGISTERS]
        cdef uint64_t pc
        found = []
        if not self.to_verb():
            return found
        while True:
            self.require(tracee_registers(self.pid, cells))
            found.append(tuple([cells[i] for i in range(N_REGISTERS)]))
            if not self.step(&pc):
                return found

    cdef void finish(self) noexcept:
        """Let the child record what its last call did, and end it."""
        with nogil:
            tracee_go(self.pid)
        self.end()

    cdef void end(self) noexcept:
        """Kill the child and wait for it."""
        if self.pid > 0:
            tracee_end(self.pid)
            tracee_together(False)
        self.pid = 0

    def __dealloc__(self):
        self.end()


cdef int CAN_STEP = -1          # whether a child can be stepped; -1: not known yet


cdef bint can_step() except -1:
    """Whether a child can be stepped here."""
    global CAN_STEP
    cdef _Tracer tracer = _Tracer()
    if CAN_STEP < 0:
        try:
            if tracer.fork() == 0:
                tracee_exit()
        except SteppingUnavailable:
            CAN_STEP = 0
        else:
            tracer.end()
            CAN_STEP = 1
    return CAN_STEP
