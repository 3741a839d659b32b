# SPDX-License-Identifier: BSD-3-Clause
"""Cycles of one call, made again and again on the same heap, warm or cold.

The arena is copied, the call is made once, and the lines that it changed are found
by comparison. From then on only these lines are restored before each call, so a
call finds the caches as it would in a running program: warm, with all that it
touches in them, or cold (caches.pxd), with none of it.
"""

import os

import numpy as np

from xmem.base.errors import BadArgument

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from xmem.base.arguments cimport count_argument, flag_argument
from xmem.measure.caches cimport EVICT_BYTES, LINE_BYTES, evict
from xmem.measure.calls cimport call_t, pool_argument, prepare_call, run_call
from xmem.measure.clock cimport clock_overhead, clock_ticks
from xmem.pool cimport Pool

__all__ = ["cost"]

cdef enum:
    MAX_REPEATS = 1000000
    WARM_UP = 8                 # calls before the first one that is kept


cdef struct bench_t:
    char* base
    const char* saved           # a copy of the arena before the call
    const uint64_t* lines       # numbers of the lines that the call changes
    uint64_t n_lines
    char* evictor               # NULL: the caches stay warm
    uint64_t overhead           # ticks of reading the clock


cdef void put_back(bench_t* bench) noexcept nogil:
    """Restore the lines that the call changed."""
    cdef uint64_t i, at
    for i in range(bench.n_lines):
        at = bench.lines[i] * LINE_BYTES
        memcpy(bench.base + at, bench.saved + at, LINE_BYTES)


cdef uint64_t find_changes(
    const char* base, const char* saved, uint64_t n_lines, uint64_t* found
) noexcept nogil:
    """Count the lines that differ; list them in ``found`` unless it is NULL."""
    cdef uint64_t i
    cdef uint64_t n = 0
    for i in range(n_lines):
        if memcmp(base + i * LINE_BYTES, saved + i * LINE_BYTES, LINE_BYTES) != 0:
            if found != NULL:
                found[n] = i
            n += 1
    return n


cdef uint64_t timed_call(Pool pool, call_t* call) noexcept nogil:
    """Make one call; return its ticks."""
    cdef uint64_t ticks = clock_ticks()
    run_call(call, &pool.arena.c, pool.c)
    return clock_ticks() - ticks


cdef void time_calls(
    bench_t* bench, Pool pool, call_t* call, uint64_t* ticks, uint64_t n_repeats
) noexcept nogil:
    """Make a call again and again, on the same heap each time."""
    cdef uint64_t i, elapsed
    for i in range(WARM_UP + n_repeats):
        if bench.evictor != NULL:
            evict(bench.evictor)
        elapsed = timed_call(pool, call)
        put_back(bench)
        if i >= WARM_UP:
            ticks[i - WARM_UP] = (
                elapsed - bench.overhead if elapsed > bench.overhead else 0
            )


cdef object find_lines(bench_t* bench, Pool pool, call_t* call):
    """Make a call once; set the lines that it changed, in an array to be kept."""
    cdef uint64_t[::1] cells
    cdef uint64_t n_arena_lines = pool.arena.c.n_bytes // LINE_BYTES
    timed_call(pool, call)
    bench.n_lines = find_changes(bench.base, bench.saved, n_arena_lines, NULL)
    lines = np.zeros(bench.n_lines + 1, dtype=np.uint64)
    cells = lines
    bench.lines = &cells[0]
    find_changes(bench.base, bench.saved, n_arena_lines, &cells[0])
    return lines


cdef int refuse_arena(Pool pool) except -1:
    """Refuse an arena that cannot be copied and put back."""
    if pool.arena.path is not None:
        raise BadArgument(
            "the arena is in a file, which others may see: use an anonymous arena"
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if pool.arena.n_bytes > memory // 2:
        raise BadArgument(
            f"the arena has {pool.arena.n_bytes} bytes, all of which are copied; "
            f"this machine has {memory}: use a smaller arena"
        )
    return 0


def cost(pool, verb, *args, repeats=101, cold=False, checked=False):
    """Measure the cycles that a call would take now; the arena is left as it was.

    Parameters
    ----------
    pool : Pool
        Of an anonymous arena, without hooks. Nothing else may use the arena
        meanwhile; its memory is copied for the duration.
    verb : {"xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"}
        The verb to call, at C level; ``page_alloc`` takes a number of pages.
    *args
        Its arguments.
    repeats : int
        How many times to make the call, at most a million.
    cold : bool
        Evict the caches of the core before each call, by writing 64 MiB of other
        memory.
    checked : bool
        Also time the proof of the offset.

    Returns
    -------
    numpy.ndarray of uint64, shape (repeats,)
        Cycles (ticks of `xmem.measure.clock`) of each call, less the cost of
        reading the clock. The least is that of an undisturbed call; the rest is
        noise of the machine.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree
        As the verb itself; nothing is changed.
    """
    cdef Pool owner = pool_argument(pool)
    cdef uint64_t n_repeats = count_argument(repeats, "repeats", 1)
    cdef bint is_cold = flag_argument(cold, "cold")
    cdef bint is_checked = flag_argument(checked, "checked")
    cdef call_t call
    cdef bench_t bench
    cdef uint8_t[::1] saved_cells, evict_cells
    cdef uint64_t[::1] tick_cells
    if n_repeats > MAX_REPEATS:
        raise BadArgument(f"repeats must be at most {MAX_REPEATS}, not {repeats}")
    owner.enter()
    refuse_arena(owner)
    saved = np.empty(owner.arena.n_bytes, dtype=np.uint8)
    saved_cells = saved
    ticks = np.zeros(n_repeats, dtype=np.uint64)
    tick_cells = ticks
    prepare_call(&call, owner, verb, args, is_checked)
    bench.base = owner.arena.c.base
    bench.saved = <const char*>&saved_cells[0]
    bench.evictor = NULL
    bench.overhead = clock_overhead()
    memcpy(&saved_cells[0], bench.base, owner.arena.c.n_bytes)
    lines = find_lines(&bench, owner, &call)
    put_back(&bench)
    if is_cold:
        evictor = np.zeros(EVICT_BYTES, dtype=np.uint8)
        evict_cells = evictor
        bench.evictor = <char*>&evict_cells[0]
    time_calls(&bench, owner, &call, &tick_cells[0], n_repeats)
    PyErr_CheckSignals()
    del lines
    return ticks
