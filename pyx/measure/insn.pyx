# SPDX-License-Identifier: BSD-3-Clause
"""Retired instructions of single operations, counted in a forked child.

The child (child.pyx) makes the calls at C level and the parent (tracer.pyx) steps
it through those that are to be counted. The count is exact, and the same on every
machine that runs the same build. Nothing else runs in the child, and its changes
to a private arena are lost with it.
"""

import mmap

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.measure.codes import VERB_OF_OP
from xmem.measure.counts import Counts, SteppingUnavailable, path_name
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.pool import Pool as _Pool
from xmem.measure.trace import ample_arena_bytes, check_trace

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t

from xmem.base.arguments cimport count_argument, flag_argument
from xmem.measure.callees cimport VERB_CHECKED
from xmem.measure.calls cimport call_t, pool_argument, prepare_call
from xmem.measure.child cimport child_call, child_trace, program_t, result_t
from xmem.measure.codes cimport op_t
from xmem.measure.tracer cimport _Tracer, can_step
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

#: How this module was built; counts of different builds must not be compared.
BUILD = _BUILD.decode()

__all__ = [
    "BUILD",
    "Counts",
    "Steps",
    "SteppingUnavailable",
    "addresses",
    "cost",
    "count",
    "is_available",
    "pool_for",
    "states",
    "trace_states",
]


def is_available():
    """Whether instructions can be counted here.

    Returns
    -------
    bool
        False where the system is not Linux on x86-64 or aarch64, or forbids a
        process to trace its child.
    """
    return can_step()


# Whole traces ----------------------------------------------------------------

cdef class TraceProgram:
    """A trace as the child plays it, with all the memory that it needs."""

    cdef program_t c
    cdef object ops, wanted, payloads, shared, results
    cdef Pool pool

    def __init__(self, ops, Pool pool not None, uint64_t every, unsigned checked):
        """Prepare a trace that is not empty; each ``every``-th operation is wanted."""
        cdef const uint8_t[::1] raw = ops.view(np.uint8)
        cdef uint8_t[::1] wanted_cells
        cdef uint64_t[::1] payload_cells
        cdef uint8_t[::1] result_cells
        self.ops = ops
        self.wanted = np.zeros(len(ops), dtype=np.uint8)
        self.wanted[::every] = 1
        wanted_cells = self.wanted
        self.pool = pool
        self.payloads = np.zeros(int(ops["id"].max()) + 1, dtype=np.uint64)
        # The child writes its results where the parent sees them.
        self.shared = mmap.mmap(-1, len(ops) * sizeof(result_t))
        self.results = np.frombuffer(self.shared, dtype=np.uint8)
        payload_cells = self.payloads
        result_cells = self.results
        self.c.arena = &pool.arena.c
        self.c.pool = pool.c
        self.c.ops = <const op_t*>&raw[0]
        self.c.wanted = &wanted_cells[0]
        self.c.n_ops = len(ops)
        self.c.payloads = &payload_cells[0]
        self.c.results = <result_t*>&result_cells[0]
        self.c.checked = checked

    cdef _Tracer start(self):
        """Fork a child that stands in front of the trace."""
        cdef _Tracer tracer = _Tracer()
        self.pool.arena.enter()
        if tracer.fork() == 0:
            child_trace(&self.c)
        return tracer

    cdef object count(self, progress):
        """Run the child; return the instructions of each operation, 0 if not wanted."""
        cdef _Tracer tracer
        cdef uint64_t[::1] cells
        cdef uint64_t i
        cdef uint64_t done = 0
        cdef uint64_t total = int(self.wanted.sum())
        counts = np.zeros(len(self.ops), dtype=np.uint64)
        cells = counts
        tracer = self.start()
        try:
            for i in range(self.c.n_ops):
                if not self.c.wanted[i]:
                    continue
                tracer.to_marker()
                cells[i] = tracer.count()
                PyErr_CheckSignals()
                done += 1
                if progress is not None and (done & 63 == 0 or done == total):
                    progress(done, total)
            tracer.finish()
        finally:
            tracer.end()
        return counts

    def states(self):
        """Run the child; yield each wanted operation and the registers in its call."""
        cdef _Tracer tracer = self.start()
        cdef uint64_t i
        try:
            for i in range(self.c.n_ops):
                if not self.c.wanted[i]:
                    continue
                tracer.to_marker()
                found = tracer.states()
                PyErr_CheckSignals()
                if found:
                    yield i, found
        finally:
            tracer.end()

    cdef object paths(self):
        """Return the path bits of each operation, once the child has ended."""
        words = self.results.view(np.uint64).reshape(-1, sizeof(result_t) // 8)
        return words[:, 1].astype(np.uint8)


def pool_for(ops, *, page_size=None, grow_pages=None, **settings):
    """Make a pool in an anonymous arena in which no request of a trace need fail.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace.
    page_size : int, optional
        As in `xmem.Arena.anonymous`.
    grow_pages, **settings
        As in `xmem.Pool`.

    Returns
    -------
    Pool
    """
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
    return _Pool(arena, grow_pages=grow_pages, **settings)


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
    quick=False,
):
    """Count the retired instructions of each operation of a trace.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `xmem.measure.replay.load` returns it.
    engine, hardened, grow_pages, max_pages, quick : optional
        As in `xmem.Pool`.
    checked : bool
        Also count the proof that an offset is a live block, which Python's calls
        always make and a C caller may leave out.
    every : int
        Count every n-th operation; the others run at full speed.
    page_size : int, optional
        As in `xmem.Arena.anonymous`.
    progress : callable, optional
        Called now and then with (operations counted, operations to count).

    Returns
    -------
    Counts

    Raises
    ------
    BadArgument, BadArgumentType
        An invalid argument, or a trace that breaks the format.
    SteppingUnavailable
        The system does not allow it.

    Notes
    -----
    A step takes 2 to 20 microseconds, so a call takes up to some milliseconds.
    What xrealloc copies does not count; the call of memcpy does.
    """
    cdef uint64_t interval = count_argument(every, "every", 1)
    cdef unsigned proof = VERB_CHECKED if flag_argument(checked, "checked") else 0
    cdef TraceProgram program
    cdef Pool pool
    ops = check_trace(ops)
    if progress is not None and not callable(progress):
        raise BadArgumentType(
            f"progress must be callable, not {type(progress).__name__}"
        )
    pool = pool_for(
        ops,
        page_size=page_size,
        grow_pages=grow_pages,
        engine=engine,
        hardened=hardened,
        max_pages=max_pages,
        quick=quick,
    )
    counts = np.zeros(len(ops), dtype=np.uint64)
    paths = np.zeros(len(ops), dtype=np.uint8)
    if len(ops):
        program = TraceProgram(ops, pool, interval, proof)
        counts = program.count(progress)
        paths = program.paths()
    found = np.flatnonzero(counts)
    return Counts(
        index=found,
        verb=np.take(np.array(VERB_OF_OP, dtype=np.uint8), ops["op"][found]),
        size=ops["size"][found],
        instructions=counts[found],
        path=paths[found],
        engine=pool.engine,
        hardening=pool.hardening,
    )


def trace_states(pool, ops, *, every=1):
    """Yield the registers in calls of a trace, before each of their instructions.

    For a disassembler, which can tell from them what an instruction touches; see
    `xmem.measure.lines`. Linux on x86-64 only.

    Parameters
    ----------
    pool : Pool
        Of an anonymous arena; the trace is played in a copy of it.
    ops : numpy.ndarray
        A trace, as in `count`.
    every : int
        As in `count`.

    Yields
    ------
    index : int
        Of the operation.
    states : list of tuple of int
        For each instruction rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15 and rip.

    Raises
    ------
    BadArgument, BadArgumentType
        An invalid argument, or a trace that breaks the format.
    SteppingUnavailable
        The system does not allow it.
    """
    cdef uint64_t interval = count_argument(every, "every", 1)
    cdef Pool of = pool_argument(pool)
    ops = check_trace(ops)
    if len(ops):
        yield from TraceProgram(ops, of, interval, 0).states()


# Single calls ----------------------------------------------------------------

cdef class CallProgram:
    """One call as the child makes it, and the page in which it records the result."""

    cdef program_t c
    cdef call_t call
    cdef result_t* result
    cdef object shared, results
    cdef Pool pool

    def __init__(self, pool, verb, args, bint checked, bint in_file):
        """Check a call on an arena that is, or is not, in a file."""
        cdef uint8_t[::1] cells
        self.pool = pool_argument(pool)
        self.pool.enter()
        if in_file and self.pool.arena.fd < 0:
            raise BadArgument(
                "the arena must be in a file: the child would have its own copy of "
                "an anonymous one"
            )
        if not in_file and self.pool.arena.fd >= 0:
            raise BadArgument(
                "the arena is in a file, which the child would change: use an "
                "anonymous arena"
            )
        self.shared = mmap.mmap(-1, mmap.PAGESIZE)
        self.results = np.frombuffer(self.shared, dtype=np.uint8)
        cells = self.results
        self.result = <result_t*>&cells[0]
        prepare_call(&self.call, self.pool, verb, args, checked)
        self.c.arena = &self.pool.arena.c
        self.c.pool = self.pool.c

    cdef _Tracer start(self):
        """Fork a child that stands at the marker in front of the call."""
        cdef _Tracer tracer = _Tracer()
        if tracer.fork() == 0:
            child_call(&self.c, &self.call, self.result)
        tracer.own = <uint64_t>self.call.verb
        tracer.to_marker()
        return tracer

    cdef str path(self):
        """Name the call's path, once the child has ended."""
        return path_name(self.call.kind, int(self.result.path))


def cost(pool, verb, *args, checked=False):
    """Count the instructions that a call would retire now, without making it.

    A child makes the call, on its own copy of the arena.

    Parameters
    ----------
    pool : Pool
        Of an anonymous arena, without hooks.
    verb : {"xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"}
        The verb to call, at C level; ``page_alloc`` takes a number of pages.
    *args
        Its arguments.
    checked : bool
        Also count the proof of the offset.

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
    SteppingUnavailable
        The system does not allow it.
    """
    cdef CallProgram program = CallProgram(
        pool, verb, args, flag_argument(checked, "checked"), False
    )
    cdef _Tracer tracer = program.start()
    cdef uint64_t n = tracer.count()
    tracer.finish()
    return n, program.path()


def addresses(pool, verb, *args):
    """Return the addresses of the instructions that a call would retire now.

    The call is not made. The addresses are for a disassembler;
    ``/proc/self/maps`` says which module they lie in.

    Parameters
    ----------
    pool, verb, *args
        As in `cost`.

    Returns
    -------
    numpy.ndarray of uint64
        Program counters in order of execution. A repeated instruction occurs as
        often as it was stepped.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree, SteppingUnavailable
        As in `cost`.
    """
    cdef CallProgram program = CallProgram(pool, verb, args, False, False)
    cdef _Tracer tracer = program.start()
    cdef uint64_t pc
    found = []
    if tracer.to_verb():
        found.append(tracer.entry.pc)
        while tracer.step(&pc):
            found.append(pc)
    tracer.end()
    return np.array(found, dtype=np.uint64)


def states(pool, verb, *args):
    """Return the registers before each instruction that a call would retire now.

    The call is not made. Linux on x86-64 only.

    Parameters
    ----------
    pool, verb, *args
        As in `cost`.

    Returns
    -------
    list of tuple of int
        As `trace_states` yields them.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree, SteppingUnavailable
        As in `cost`.
    """
    cdef CallProgram program = CallProgram(pool, verb, args, False, False)
    cdef _Tracer tracer = program.start()
    found = tracer.states()
    tracer.end()
    return found


cdef class Steps:
    """Make a call instruction by instruction; iterate over the object to step.

    The arena has to be in a file, so that the parent sees what the child stores:
    the caller can look at the arena's bytes between two steps. The call is made on
    the arena itself. Only look at the arena until the call has ended, which it
    does at the latest when this object is gone.

    Parameters
    ----------
    pool, verb, *args
        As in `cost`, except that the arena is in a file. In place of the name of a
        verb it may be a compiled function of one's own: a capsule ``xmem.verb_t`` of
        a ``verb_t`` (xmem/measure/callees.pxd), with up to three words.

    Yields
    ------
    int
        The number of the step, from 1.

    Attributes
    ----------
    n_instructions : int
        Steps made.
    value : int or None
        After the last step, the value that the verb returned: an offset, 0 if
        there was no room, 1 for a free.
    path : str or None
        After the last step, what the call did, as in `cost`.
    """

    cdef CallProgram program
    cdef _Tracer tracer
    cdef readonly uint64_t n_instructions
    cdef readonly object value, path

    def __init__(self, pool, verb, *args):
        if self.tracer is not None:
            raise BadArgument("steps cannot be initialised twice")
        cdef CallProgram program = CallProgram(pool, verb, args, False, True)
        cdef _Tracer tracer = program.start()
        tracer.to_verb()
        self.program = program
        self.tracer = tracer

    def __iter__(self):
        return self

    def __next__(self):
        cdef uint64_t pc
        if self.tracer is None or self.tracer.pid == 0:
            raise StopIteration
        cdef bint is_inside = self.tracer.step(&pc)
        self.n_instructions += 1
        if not is_inside:
            self.tracer.finish()
            self.value = self.program.result.value
            self.path = self.program.path()
        return self.n_instructions
