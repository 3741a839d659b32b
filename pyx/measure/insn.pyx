# SPDX-License-Identifier: BSD-3-Clause
"""Retired instructions of single operations, counted in a forked child.

A forked child runs the operations, at C level, and stops at a marker in front
of each one that is to be counted. The parent steps it from the first
instruction of the verb to the return from it: the count is exact, and the same
on every machine that runs the same build. Nothing else runs in the child, and
what it does to a private arena is lost with it.

Where ptrace is forbidden and the processor's counters are not, the child reads
them around each call instead.
"""

import mmap

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.measure.counts import (
    CounterUnavailable,
    Counts,
    SteppingUnavailable,
    path_name,
)
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.pool import Pool as _Pool
from xmem.measure.trace import ample_arena_bytes, check_trace

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport arena_t
from xmem.base.arguments cimport count_argument, flag_argument
from xmem.base.bits cimport bit
from xmem.core.control cimport pool_t
from xmem.measure.calls cimport (
    N_VERBS,
    VERB_CHECKED,
    VERBS,
    call_t,
    pool_argument,
    prepare_call,
)
from xmem.measure.counter cimport (
    COUNT_INSTRUCTIONS,
    counted_exit,
    counted_fork,
    counted_kill,
    counted_wait,
    counter_close,
    counter_open,
    counter_read,
)
from xmem.measure.paths cimport (
    PATH_FAILED,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
    path_after,
    path_before,
)
from xmem.measure.tracee cimport (
    TRACEE_SUPPORTED,
    place_t,
    tracee_end,
    tracee_exit,
    tracee_fork,
    tracee_go,
    tracee_marker,
    tracee_pass,
    tracee_pc,
    tracee_place,
    tracee_step,
    tracee_together,
    tracee_wait,
)
from xmem.pool cimport Pool

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define XMEM_BUILD "sanitized"
    #elif defined(XMEM_CHECKED)
    #define XMEM_BUILD "checked"
    #elif !defined(__OPTIMIZE__)
    #define XMEM_BUILD "unoptimised"
    #else
    #define XMEM_BUILD "release"
    #endif
    """
    const char* _BUILD "XMEM_BUILD"

# What is counted where counters are: (type, event) of perf_event_open.
cdef uint32_t EVENT_TYPE = 0
cdef uint64_t EVENT = COUNT_INSTRUCTIONS

#: How this module was built; counts of different builds are not to be compared.
BUILD = _BUILD.decode()

__all__ = [
    "BUILD",
    "CounterUnavailable",
    "Counts",
    "Steps",
    "SteppingUnavailable",
    "addresses",
    "cost",
    "count",
    "is_available",
    "method",
]


# The child -------------------------------------------------------------------

cdef packed struct op_t:
    uint8_t op
    uint8_t align_log2
    uint16_t thread
    uint32_t id
    uint64_t size


cdef struct answer_t:
    uint64_t value
    uint64_t path
    uint64_t n_instructions     # where a counter counts; else 0


cdef enum:
    ANSWER_WORDS = 3


cdef struct program_t:
    arena_t* arena
    pool_t* pool
    const op_t* ops
    const uint8_t* wanted       # per operation: count it
    uint64_t n_ops
    uint64_t* payloads          # per object
    answer_t* answers           # per operation, seen by the parent
    unsigned checked
    int counter                 # a hardware counter, or -1: the parent steps
    uint64_t overhead           # instructions of reading it


cdef uint64_t do_nothing(
    arena_t* _arena, pool_t* _pool, uint64_t _a, uint64_t _b, uint64_t _c
) noexcept nogil:
    """A verb of one instruction, its return, more or less."""
    return 0


cdef uint64_t counted_call(program_t* program, call_t* call) noexcept nogil:
    """Make one call between two readings of the counter; what lay between."""
    cdef uint64_t before = counter_read(program.counter)
    cdef uint64_t value = call.verb(
        program.arena, program.pool, call.a, call.b, call.c
    )
    cdef uint64_t after = counter_read(program.counter)
    call.a = value
    return after - before


cdef int open_counter(program_t* program) noexcept nogil:
    """Open the counter in the child and measure what reading it takes."""
    cdef call_t call
    cdef uint64_t n
    cdef int _i
    program.counter = counter_open(EVENT_TYPE, EVENT)
    if program.counter < 0:
        return program.counter
    program.overhead = ~<uint64_t>0
    for _i in range(64):
        call.verb = do_nothing
        n = counted_call(program, &call)
        if n < program.overhead:
            program.overhead = n
    if program.overhead != 0:
        program.overhead -= 1       # the return counts, as it does in a verb
    return 0


cdef uint64_t make_call(
    program_t* program, call_t* call, answer_t* answer
) noexcept nogil:
    """Make one call behind a marker, and tell its path."""
    cdef uint64_t path = path_before(program.arena, program.pool, call.kind, call.a)
    cdef uint64_t n_pages = program.pool.n_pages
    cdef uint64_t payload = call.a
    if program.counter >= 0:
        answer.n_instructions = counted_call(program, call)
        if answer.n_instructions > program.overhead:
            answer.n_instructions -= program.overhead
        answer.value = call.a
    else:
        tracee_marker()
        answer.value = call.verb(
            program.arena, program.pool, call.a, call.b, call.c
        )
    answer.path = path | path_after(
        program.arena, program.pool, call.kind, payload, answer.value, n_pages
    )
    return answer.value


cdef bint call_for(
    program_t* program, const op_t* op, call_t* call
) noexcept nogil:
    """The call that an operation of a trace is; False if its object failed."""
    cdef uint64_t payload = program.payloads[op.id]
    call.c = 0
    if op.op == 1:
        call.kind = VERB_XFREE
        call.a = payload
        call.b = 0
    elif op.op == 2:
        call.kind = VERB_XREALLOC
        call.a = payload
        call.b = op.size
        call.c = 16
    else:
        call.kind = VERB_XMALLOC
        call.a = op.size
        call.b = bit(op.align_log2) if op.op == 4 else 16
        payload = 1
    call.verb = VERBS[call.kind + program.checked]
    return payload != 0


cdef void run_program(program_t* program) noexcept nogil:
    """Run a trace, in the child."""
    cdef uint64_t i, value
    cdef call_t call
    cdef answer_t* answer
    for i in range(program.n_ops):
        answer = &program.answers[i]
        if not call_for(program, &program.ops[i], &call):
            answer.path = PATH_FAILED
            if program.wanted[i] and program.counter < 0:
                tracee_marker()     # without a call: see follow()
            continue
        if program.wanted[i]:
            value = make_call(program, &call, answer)
        else:
            value = call.verb(
                program.arena, program.pool, call.a, call.b, call.c
            )
        if call.kind == VERB_XFREE:
            program.payloads[program.ops[i].id] = 0
        elif value != 0 or call.kind == VERB_XMALLOC:
            program.payloads[program.ops[i].id] = value
    counted_exit(0)


cdef void run_call(
    program_t* program, call_t* call, answer_t* answer
) noexcept nogil:
    """Make one call, in the child."""
    make_call(program, call, answer)
    counted_exit(0)


# The parent ------------------------------------------------------------------

cdef inline bint is_verb(uint64_t pc) noexcept nogil:
    """Whether a verb's first instruction is at ``pc``."""
    cdef unsigned i
    for i in range(N_VERBS):
        if <uint64_t>VERBS[i] == pc:
            return True
    return False


cdef enum:
    APPROACH_STEPS = 64         # from the marker to the verb; a dozen are taken


cdef int approach(int child, place_t* place) noexcept nogil:
    """Step a child from a marker to the verb; 1 if there was no call."""
    cdef int error, _i
    error = tracee_pass(child)
    if error:
        return error
    for _i in range(APPROACH_STEPS):
        error = tracee_pc(child, &place.pc)
        if error:
            return error
        if is_verb(place.pc):
            return tracee_place(child, place)
        error = tracee_step(child)
        if error:
            return error
    return 1


cdef inline int has_returned(
    int child, const place_t* entry, uint64_t pc, bint* answer
) noexcept nogil:
    """Whether the verb entered at ``entry`` has come back."""
    cdef place_t place
    cdef int error
    place.sp = 0
    answer[0] = False
    if pc != entry.link:
        return 0
    error = tracee_place(child, &place)
    answer[0] = place.sp >= entry.sp
    return error


cdef int follow(int child, uint64_t* n) noexcept nogil:
    """Count the instructions of the call behind a marker, by stepping it.

    A repeated string instruction is one, however often it repeats.
    """
    cdef place_t entry
    cdef uint64_t pc, last
    cdef bint back = False
    cdef int error = approach(child, &entry)
    n[0] = 0
    if error:
        return 0 if error == 1 else error
    last = entry.pc
    n[0] = 1
    while True:
        error = tracee_step(child)
        if error == 0:
            error = tracee_pc(child, &pc)
        if error == 0:
            error = has_returned(child, &entry, pc, &back)
        if error or back:
            return error
        n[0] += pc != last
        last = pc


cdef object unavailable(int error):
    """The exception for a child that could not be stepped."""
    return SteppingUnavailable(-error)


cdef class Tracee:
    """A child, and the processor that it shares with its parent."""

    cdef int pid

    cdef int start(self) except -1:
        """Fork; answers 0 in the child, in which no Python code may run."""
        cdef int pid
        cdef int error
        if not TRACEE_SUPPORTED:
            raise SteppingUnavailable(0)
        tracee_together(True)
        pid = tracee_fork()
        if pid == 0:
            return 0
        if pid < 0:
            tracee_together(False)
            raise unavailable(pid)
        self.pid = pid
        error = tracee_wait(pid)
        if error == 0:
            error = tracee_pass(pid)
        if error:
            self.end()
            raise unavailable(error)
        return 1

    cdef int to_marker(self) except -1:
        """Let the child run to its next marker."""
        cdef int error
        with nogil:
            error = tracee_go(self.pid)
        if error:
            self.end()
            raise unavailable(error)
        return 0

    cdef uint64_t count(self) except? 0:
        """Instructions of the call behind the marker where the child stands."""
        cdef uint64_t n
        cdef int error
        with nogil:
            error = follow(self.pid, &n)
        if error:
            self.end()
            raise unavailable(error)
        return n

    cdef void end(self) noexcept:
        """Kill the child; nothing is left of it."""
        if self.pid > 0:
            tracee_end(self.pid)
            tracee_together(False)
        self.pid = 0

    def __dealloc__(self):
        self.end()


cdef class Counted:
    """A child that reads the processor's counter itself."""

    cdef int pid

    cdef int start(self) except -1:
        """Fork; answers 0 in the child, in which no Python code may run."""
        self.pid = counted_fork()
        if self.pid < 0:
            raise unavailable(self.pid)
        return self.pid != 0

    cdef int join(self) except -1:
        """Wait until it has ended."""
        cdef int error
        while True:
            with nogil:
                error = counted_wait(self.pid)
            if error == 0:
                self.pid = 0
                return 0
            PyErr_CheckSignals()
            if error != -EINTR:
                self.pid = 0
                raise unavailable(error)

    def __dealloc__(self):
        if self.pid > 0:
            counted_kill(self.pid)


cdef int STEPS = -1             # whether a child can be stepped, once it is known


cdef bint _steps():
    """Whether a child can be stepped."""
    global STEPS
    cdef Tracee tracee = Tracee()
    if STEPS < 0:
        try:
            if tracee.start() == 0:
                tracee_exit()
        except SteppingUnavailable:
            STEPS = 0
        else:
            tracee.end()
            STEPS = 1
    return STEPS


def method():
    """How instructions are counted here.

    Returns
    -------
    {"stepping", "counter"} or None
        By stepping a child, which is exact; by the processor's counter, where
        the system forbids that, and an interrupt may add a few; None where
        neither can be had: the system is not Linux, or forbids both.
    """
    cdef int counter
    if _steps():
        return "stepping"
    counter = counter_open(EVENT_TYPE, EVENT)
    if counter < 0:
        return None
    counter_close(counter)
    return "counter"


def is_available():
    """Whether instructions can be counted here.

    Returns
    -------
    bool
        False where `method` is None.
    """
    return method() is not None


cdef bint _by_counter(object chosen) except -1:
    """Whether to count by the counter; refuses what cannot be done."""
    if chosen is None:
        # Stepping says best why it is not to be had.
        return method() == "counter"
    if not isinstance(chosen, str):
        raise BadArgumentType(f"method must be a str, not {type(chosen).__name__}")
    if chosen not in ("stepping", "counter"):
        raise BadArgument(
            f"method must be 'stepping' or 'counter', not {chosen!r}"
        )
    return chosen == "counter"


cdef int _need_counter() except -1:
    cdef int counter = counter_open(EVENT_TYPE, EVENT)
    if counter < 0:
        raise CounterUnavailable(-counter)
    counter_close(counter)
    return 0


def _count_event(event_type, event):
    """Count another event than instructions; for tests on virtual machines."""
    global EVENT_TYPE, EVENT
    EVENT_TYPE = event_type
    EVENT = event


# Whole traces ----------------------------------------------------------------

cdef object _wanted(uint64_t n_ops, uint64_t every):
    """One byte per operation: whether it is counted."""
    wanted = np.zeros(n_ops, dtype=np.uint8)
    wanted[::every] = 1
    return wanted


def count(
    ops,
    *,
    engine="tlsf",
    hardened=False,
    checked=False,
    every=1,
    grow_pages=None,
    max_pages=None,
    page_size=None,
    progress=None,
    method=None,
    quick=0,
):
    """Count the retired instructions of each operation of a trace.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `xmem.measure.replay.load` answers it.
    engine, hardened, grow_pages, max_pages, quick : optional
        As in `xmem.Pool`.
    checked : bool
        Count the proof that an offset is a live block as well, as Python's
        calls make it, where a C caller may leave it out.
    every : int
        Count each so-manieth operation; the others run at full speed.
    page_size : int, optional
        As in `xmem.Arena.anonymous`.
    progress : callable, optional
        Called with (operations counted, to be counted), now and then.
    method : {"stepping", "counter"}, optional
        As `method` names them; by default what it answers.

    Returns
    -------
    Counts

    Raises
    ------
    BadArgument, BadArgumentType
        An argument that cannot be meant, or a trace that breaks the format.
    SteppingUnavailable, CounterUnavailable
        The system does not let us.

    Notes
    -----
    A step takes from 2 to 20 microseconds, so that a call takes up to some
    milliseconds. What xrealloc copies counts as the instructions of memcpy.
    """
    cdef program_t program
    cdef const uint8_t[::1] raw
    cdef const uint8_t[::1] wanted_cells
    cdef uint64_t[::1] payload_cells, count_cells
    cdef uint8_t[::1] shared_cells
    cdef Tracee tracee = Tracee()
    cdef Arena arena
    cdef Pool pool
    cdef Py_ssize_t i, done = 0
    cdef Counted counted = Counted()
    cdef uint64_t interval = count_argument(every, "every", 1)
    cdef bint by_counter = _by_counter(method)
    if by_counter:
        _need_counter()
    ops = check_trace(ops)
    program.checked = VERB_CHECKED if flag_argument(checked, "checked") else 0
    if progress is not None and not callable(progress):
        raise BadArgumentType(
            f"progress must be callable, not {type(progress).__name__}"
        )
    page_bytes = mmap.PAGESIZE if page_size is None else page_size
    arena = _Arena.anonymous(
        ample_arena_bytes(
            ops,
            count_argument(page_bytes, "page_size", 1),
            count_argument(
                16 if grow_pages is None else grow_pages, "grow_pages", 1
            ),
        ),
        page_size=page_size,
    )
    pool = _Pool(
        arena,
        engine=engine,
        hardened=hardened,
        grow_pages=grow_pages,
        max_pages=max_pages,
        quick=quick,
    )
    wanted = _wanted(len(ops), interval)
    counts = np.zeros(len(ops), dtype=np.uint64)
    if len(ops) == 0:
        return _counts(ops, counts, counts, wanted, pool)
    payloads = np.zeros(int(ops["id"].max()) + 1, dtype=np.uint64)
    shared = mmap.mmap(-1, len(ops) * sizeof(answer_t))
    raw = ops.view(np.uint8)
    wanted_cells = wanted
    payload_cells = payloads
    count_cells = counts
    answers = np.frombuffer(shared, dtype=np.uint8)
    shared_cells = answers
    program.arena = &arena.c
    program.pool = pool.c
    program.ops = <const op_t*>&raw[0]
    program.wanted = &wanted_cells[0]
    program.n_ops = len(ops)
    program.payloads = &payload_cells[0]
    program.answers = <answer_t*>&shared_cells[0]
    program.counter = -1
    total = int(wanted.sum())
    arena.enter()
    if by_counter:
        if counted.start() == 0:
            if open_counter(&program):
                counted_exit(1)
            run_program(&program)
        counted.join()
        told = np.array(answers.view(np.uint64).reshape(-1, ANSWER_WORDS))
        if progress is not None:
            progress(total, total)
        return _counts(ops, told[:, 2], told[:, 1], wanted, pool)
    if tracee.start() == 0:
        run_program(&program)
    try:
        for i in range(len(ops)):
            if not wanted_cells[i]:
                continue
            tracee.to_marker()
            count_cells[i] = tracee.count()
            PyErr_CheckSignals()
            done += 1
            if progress is not None and (done & 63 == 0 or done == total):
                progress(done, total)
        # The last path is told behind the last call.
        with nogil:
            tracee_go(tracee.pid)
    finally:
        tracee.end()
    return _counts(
        ops,
        counts,
        np.array(answers.view(np.uint64).reshape(-1, ANSWER_WORDS)[:, 1]),
        wanted,
        pool,
    )


cdef object _counts(ops, counts, paths, wanted, Pool pool):
    """What was counted, without what was not."""
    seen = np.flatnonzero(wanted & (counts != 0))
    return Counts(
        index=seen,
        verb=np.take(np.array([0, 1, 2, 0, 0], dtype=np.uint8), ops["op"][seen]),
        size=ops["size"][seen],
        instructions=counts[seen],
        path=paths[seen].astype(np.uint8),
        engine=pool.engine,
        hardening=pool.hardening,
    )


# Single calls ----------------------------------------------------------------

def cost(pool, verb, *args, checked=False, method=None):
    """Instructions that a call would retire now; it is not made.

    A child makes it, on its copy of the arena.

    Parameters
    ----------
    pool : Pool
        Of an anonymous arena, without hooks.
    verb : {"xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"}
        What to call, at C level; ``page_alloc`` takes a number of pages.
    *args
        Its arguments.
    checked : bool
        Count the proof of the offset as well.
    method : {"stepping", "counter"}, optional
        As `method` names them; by default what it answers.

    Returns
    -------
    n_instructions : int
        From the verb's first instruction to its return.
    path : str
        What it did, such as ``"split"`` or ``"left, region returned"``.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree
        As the verb itself; nothing is changed.
    SteppingUnavailable, CounterUnavailable
        The system does not let us.
    """
    cdef program_t program
    cdef call_t call
    cdef answer_t* answer
    cdef uint8_t[::1] cells
    cdef Tracee tracee = Tracee()
    cdef Counted counted = Counted()
    cdef bint by_counter = _by_counter(method)
    cdef Pool owner = pool_argument(pool)
    cdef uint64_t n
    cdef bint is_checked = flag_argument(checked, "checked")
    owner.enter()
    if owner.arena.path is not None:
        raise BadArgument(
            "the arena is in a file, which a child would change: use an "
            "anonymous arena"
        )
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    answers = np.frombuffer(shared, dtype=np.uint8)
    cells = answers
    answer = <answer_t*>&cells[0]
    prepare_call(&call, owner, verb, args, is_checked)
    program.arena = &owner.arena.c
    program.pool = owner.c
    program.counter = -1
    if by_counter:
        _need_counter()
        if counted.start() == 0:
            if open_counter(&program):
                counted_exit(1)
            run_call(&program, &call, answer)
        counted.join()
        return int(answer.n_instructions), path_name(call.kind, int(answer.path))
    if tracee.start() == 0:
        run_call(&program, &call, answer)
    tracee.to_marker()
    n = tracee.count()
    # The path is told behind the call.
    tracee_go(tracee.pid)
    tracee.end()
    return n, path_name(call.kind, int(answer.path))


def addresses(pool, verb, *args):
    """Addresses of the instructions that a call would retire now; it is not made.

    For a disassembler: ``/proc/self/maps`` says which module they lie in.

    Parameters
    ----------
    pool, verb, *args
        As in `cost`.

    Returns
    -------
    numpy.ndarray of uint64
        Program counters, in the order of execution; a repeated instruction as
        often as it was stepped.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree, SteppingUnavailable
        As in `cost`.
    """
    cdef program_t program
    cdef call_t call
    cdef answer_t answer
    cdef place_t entry
    cdef uint64_t pc
    cdef bint back = False
    cdef int error
    cdef Tracee tracee = Tracee()
    cdef Pool owner = pool_argument(pool)
    owner.enter()
    if owner.arena.path is not None:
        raise BadArgument("the arena is in a file: use an anonymous arena")
    prepare_call(&call, owner, verb, args, False)
    program.arena = &owner.arena.c
    program.pool = owner.c
    program.counter = -1
    if tracee.start() == 0:
        run_call(&program, &call, &answer)
    tracee.to_marker()
    error = approach(tracee.pid, &entry)
    pc = entry.pc
    found = []
    while error == 0 and not back:
        found.append(pc)
        error = tracee_step(tracee.pid)
        if error == 0:
            error = tracee_pc(tracee.pid, &pc)
        if error == 0:
            error = has_returned(tracee.pid, &entry, pc, &back)
    tracee.end()
    if error:
        raise unavailable(error)
    return np.array(found, dtype=np.uint64)


cdef class Steps:
    """A call that is made instruction by instruction; iterate over it.

    The arena has to be in a file, for then the parent sees what the child
    stores: between two steps the caller can look at the arena's bytes. The
    call is made on the arena itself. Until it has ended, which it does at the
    latest when the object is gone, the arena is to be looked at only.

    Parameters
    ----------
    pool, verb, *args
        As in `cost`, but for the arena.

    Yields
    ------
    int
        The number of the step, from 1 on.

    Attributes
    ----------
    n_instructions : int
        Steps made.
    value : int or None
        After the last step what the verb answered: an offset, or 0 when there
        was no room; 1 for a free.
    path : str or None
        After the last step what was done, as in `cost`.
    """

    cdef Tracee tracee
    cdef place_t entry
    cdef object shared, answers
    cdef answer_t* answer
    cdef Pool pool
    cdef unsigned kind
    cdef readonly uint64_t n_instructions
    cdef readonly object value, path

    def __init__(self, pool, verb, *args):
        cdef program_t program
        cdef call_t call
        cdef uint8_t[::1] cells
        cdef Tracee tracee = Tracee()
        cdef int error
        if self.tracee is not None:
            raise BadArgument("steps are initialised once")
        self.pool = pool_argument(pool)
        self.pool.enter()
        if self.pool.arena.path is None:
            raise BadArgument(
                "the arena must be in a file: of an anonymous one the child "
                "would have its own copy"
            )
        self.shared = mmap.mmap(-1, mmap.PAGESIZE)
        self.answers = np.frombuffer(self.shared, dtype=np.uint8)
        cells = self.answers
        self.answer = <answer_t*>&cells[0]
        prepare_call(&call, self.pool, verb, args, False)
        program.arena = &self.pool.arena.c
        program.pool = self.pool.c
        program.counter = -1
        self.kind = call.kind
        if tracee.start() == 0:
            run_call(&program, &call, self.answer)
        tracee.to_marker()
        error = approach(tracee.pid, &self.entry)
        if error:
            tracee.end()
            raise unavailable(error)
        self.tracee = tracee

    def __iter__(self):
        return self

    def __next__(self):
        cdef uint64_t pc
        cdef bint back = False
        cdef int error
        if self.tracee is None or self.tracee.pid == 0:
            raise StopIteration
        error = tracee_step(self.tracee.pid)
        if error == 0:
            error = tracee_pc(self.tracee.pid, &pc)
        if error == 0:
            error = has_returned(self.tracee.pid, &self.entry, pc, &back)
        if error:
            self.tracee.end()
            raise unavailable(error)
        self.n_instructions += 1
        if back:
            tracee_go(self.tracee.pid)
            self.tracee.end()
            self.value = self.answer.value
            self.path = path_name(self.kind, int(self.answer.path))
        return self.n_instructions
