# SPDX-License-Identifier: BSD-3-Clause
"""Cycles of one call, made again and again on the same heap, warm or cold.

The arena is copied; the call is made once, and what it changed is found by
comparing. From then on the heap is put back before each call by restoring just
those lines of it, so that a call finds the caches as a call of a running program
would: warm, with all that it touches in them, or cold, with all of it evicted.
"""

import os

import numpy as np

from xmem.base.errors import BadArgument

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from xmem.base.arguments cimport count_argument, flag_argument
from xmem.measure.calls cimport call_t, pool_argument, prepare_call
from xmem.measure.clock cimport clock_overhead, clock_ticks
from xmem.pool cimport Pool

__all__ = ["cost"]

cdef enum:
    LINE_BYTES = 64
    EVICT_BYTES = 64 << 20      # more than the caches that one core can use
    MAX_REPEATS = 1000000
    WARM_UP = 8                 # calls before the first that counts


cdef struct bench_t:
    char* base
    const char* saved           # the arena as it was
    const uint64_t* lines       # numbers of the lines that the call changes
    uint64_t n_lines
    char* evictor


cdef void evict(char* buffer) noexcept nogil:
    """Fill the caches and the translations of this core with other memory."""
    cdef uint64_t i
    for i in range(EVICT_BYTES // LINE_BYTES):
        buffer[i * LINE_BYTES] += 1


cdef void put_back(bench_t* bench) noexcept nogil:
    """Make the arena what it was."""
    cdef uint64_t i, at
    for i in range(bench.n_lines):
        at = bench.lines[i] * LINE_BYTES
        memcpy(bench.base + at, bench.saved + at, LINE_BYTES)


cdef uint64_t find_changes(
    const char* base, const char* saved, uint64_t n_lines, uint64_t* found
) noexcept nogil:
    """Count the lines that differ, and note them if there is where."""
    cdef uint64_t i
    cdef uint64_t n = 0
    for i in range(n_lines):
        if memcmp(base + i * LINE_BYTES, saved + i * LINE_BYTES, LINE_BYTES) != 0:
            if found != NULL:
                found[n] = i
            n += 1
    return n


cdef uint64_t timed_call(Pool pool, call_t* call) noexcept nogil:
    """Ticks of one call."""
    cdef uint64_t ticks = clock_ticks()
    call.verb(&pool.arena.c, pool.c, call.a, call.b, call.c)
    return clock_ticks() - ticks


def cost(pool, verb, *args, repeats=101, cold=False, checked=False):
    """Cycles that a call would take now; the arena is left as it was.

    Parameters
    ----------
    pool : Pool
        Of an anonymous arena, without hooks. Nothing else may use the arena
        meanwhile; its memory is copied for the time of the call.
    verb : {"xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"}
        What to call, at C level; ``page_alloc`` takes a number of pages.
    *args
        Its arguments.
    repeats : int
        How often it is made, at most a million.
    cold : bool
        Evict the caches of the core before each call.
    checked : bool
        Time the proof of the offset as well.

    Returns
    -------
    numpy.ndarray of uint64, shape (repeats,)
        Cycles (ticks of `xmem.measure.clock`) of each call, less what reading the clock
        costs. The least is the call undisturbed; the rest is the machine's.

    Raises
    ------
    BadArgument, BadArgumentType, InvalidFree
        As the verb itself; nothing is changed.
    """
    cdef Pool owner = pool_argument(pool)
    cdef uint64_t n_repeats = count_argument(repeats, "repeats", 1)
    cdef bint is_cold = flag_argument(cold, "cold")
    cdef bint is_checked = flag_argument(checked, "checked")
    cdef uint64_t i, ticks, overhead, n_arena_lines
    cdef call_t call
    cdef bench_t bench
    cdef uint8_t[::1] saved_cells, evict_cells
    cdef uint64_t[::1] line_cells, tick_cells
    if n_repeats > MAX_REPEATS:
        raise BadArgument(f"repeats must be at most {MAX_REPEATS}, not {repeats}")
    owner.enter()
    if owner.arena.path is not None:
        raise BadArgument(
            "the arena is in a file, which others may see: use an anonymous arena"
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if owner.arena.n_bytes > memory // 2:
        raise BadArgument(
            f"the arena has {owner.arena.n_bytes} bytes, which are to be copied; "
            f"this machine has {memory}: use a smaller arena"
        )
    saved = np.empty(owner.arena.n_bytes, dtype=np.uint8)
    evictor = np.zeros(EVICT_BYTES, dtype=np.uint8)
    cells = np.zeros(n_repeats, dtype=np.uint64)
    saved_cells = saved
    evict_cells = evictor
    tick_cells = cells
    prepare_call(&call, owner, verb, args, is_checked)
    n_arena_lines = owner.arena.c.n_bytes // LINE_BYTES
    bench.base = owner.arena.c.base
    bench.saved = <const char*>&saved_cells[0]
    bench.evictor = <char*>&evict_cells[0]
    bench.n_lines = 0
    memcpy(&saved_cells[0], bench.base, owner.arena.c.n_bytes)
    timed_call(owner, &call)
    lines = np.zeros(
        find_changes(bench.base, bench.saved, n_arena_lines, NULL) + 1,
        dtype=np.uint64,
    )
    line_cells = lines
    bench.lines = &line_cells[0]
    bench.n_lines = find_changes(
        bench.base, bench.saved, n_arena_lines, &line_cells[0]
    )
    overhead = clock_overhead()
    put_back(&bench)
    for i in range(WARM_UP + n_repeats):
        if is_cold:
            evict(bench.evictor)
        ticks = timed_call(owner, &call)
        put_back(&bench)
        if i >= WARM_UP:
            tick_cells[i - WARM_UP] = ticks - overhead if ticks > overhead else 0
    PyErr_CheckSignals()
    return cells
