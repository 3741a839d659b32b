# SPDX-License-Identifier: BSD-3-Clause
"""Replay: a trace run against a pool or a heap, no GIL, a clock per operation.

A *pass* runs the whole trace on a freshly formatted arena. Passes are of
three kinds: one that fills every live block with a pattern and verifies it,
some that only count the time of the whole, and some that read the processor's
clock around each operation. The last keep, per operation, the least over the
passes: the same operation on the same heap does the same work each time, and
an interrupt does not strike it every time.

Only a verifying pass zeroes for ``calloc``: what is measured is the allocator,
not memset.

Against a heap a trace runs as a program that was ported to its interface: each
request takes the routine that the interface has for it, each object is freed by
the routine that it came from (run.pxd).
"""

import os

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.heap import Heap as _Heap
from xmem.pool import Pool as _Pool
from xmem.measure.trace import (
    TRACE_DTYPE,
    ReplayResult,
    ample_arena_bytes,
    check_trace,
    load,
    peak_live,
)

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.base.arguments cimport count_argument, flag_argument
from xmem.base.offset cimport offset_t
from xmem.heap cimport Heap
from xmem.measure.clock cimport clock_hz, clock_nanoseconds, clock_overhead
from xmem.measure.paths cimport (
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
    path_after,
    path_before,
)
from xmem.measure.pattern cimport pattern_holds
from xmem.measure.player cimport (
    OP_FREE,
    OP_REALLOC,
    RUN_SKIPPED,
    object_t,
    op_t,
    run_op,
    run_t,
)
from xmem.pool cimport Pool

__all__ = ["TRACE_DTYPE", "ReplayResult", "load", "replay"]

cdef enum:
    SLICE_NS = 50000000         # return to Python about 20 times a second
    SLICE_OPS = 32              # operations between two looks at the time

    MAX_REPEATS = 1000000
    EVICT_BYTES = 32 << 20      # several times the caches of one core
    LINE_BYTES = 64

cdef uint64_t SKIPPED = RUN_SKIPPED


cdef inline void run_op_with_path(run_t* run, uint64_t i) noexcept nogil:
    """Do operation ``i`` against a pool and note its path."""
    cdef const op_t* op = &run.ops[i]
    cdef offset_t payload = run.objects[op.id].payload
    cdef uint64_t n_pages = run.pool.n_pages
    cdef uint64_t failed = run.failed
    cdef uint64_t path
    cdef unsigned verb = VERB_XMALLOC
    if op.op == OP_FREE:
        verb = VERB_XFREE
    elif op.op == OP_REALLOC:
        verb = VERB_XREALLOC
    if verb != VERB_XMALLOC and payload == 0:
        run_op(run, op, False, False)
        return
    path = path_before(run.arena, run.pool, verb, payload)
    run_op(run, op, False, False)
    run.paths[i] = <uint8_t>(
        path
        | path_after(
            run.arena,
            run.pool,
            verb,
            payload,
            0 if run.failed != failed else (
                1 if verb == VERB_XFREE else run.objects[op.id].payload
            ),
            n_pages,
        )
    )


cdef void evict(char* buffer) noexcept nogil:
    """Fill the core's caches, and its translations, with other memory."""
    cdef uint64_t i
    for i in range(EVICT_BYTES // LINE_BYTES):
        buffer[i * LINE_BYTES] += 1


cdef inline void run_slice_of(
    run_t* run, uint64_t end, bint timed, bint heaped
) noexcept nogil:
    """Do the operations up to ``end``."""
    cdef uint64_t i, ticks
    for i in range(run.next_op, end):
        if timed and run.cold != NULL and run.cold[i]:
            evict(run.evictor)
        ticks = run_op(run, &run.ops[i], timed, heaped)
        if timed:
            if ticks != SKIPPED:
                ticks = ticks - run.overhead if ticks > run.overhead else 0
            run.ticks[i] = ticks
    run.next_op = end


cdef uint64_t run_slice(run_t* run) noexcept nogil:
    """Go on for a while or to the end; answers the nanoseconds it took."""
    cdef uint64_t start = clock_nanoseconds()
    cdef uint64_t elapsed = 0
    cdef uint64_t end
    while run.next_op < run.n_ops and elapsed < SLICE_NS:
        end = run.next_op + SLICE_OPS
        if end > run.n_ops:
            end = run.n_ops
        if run.paths != NULL:
            while run.next_op < end:
                run_op_with_path(run, run.next_op)
                run.next_op += 1
        elif run.heap != NULL:
            run_slice_of(run, end, run.ticks != NULL, True)
        elif run.ticks != NULL:
            run_slice_of(run, end, True, False)
        else:
            run_slice_of(run, end, False, False)
        elapsed = clock_nanoseconds() - start
    return elapsed


cdef void verify_live(run_t* run, const uint32_t* ids, uint64_t n) noexcept nogil:
    """Verify every object that is live at the end of a pass."""
    cdef uint64_t i
    cdef object_t* target
    for i in range(n):
        target = &run.objects[ids[i]]
        if target.payload != 0 and not pattern_holds(
            run.arena.base + target.payload, target.size, ids[i]
        ):
            run.content_errors += 1


# Passes ----------------------------------------------------------------------

cdef class Replayer:
    """One trace, one engine, one arena that is formatted anew for each pass.

    ``settings`` are those of the `Pool`, or, where they name an
    ``interface``, of the `Heap` that is made for each pass.
    """

    cdef Arena arena
    cdef Pool pool              # of a heap, the main one
    cdef Heap heap              # None: the trace runs against the pool
    cdef run_t run
    cdef object ops, objects, aligns, routines, cold, evictor, settings, progress
    cdef uint64_t done, total

    def __init__(
        self, ops, arena, settings, passes, progress, cold=None, checked=False
    ):
        cdef const uint8_t[::1] raw
        cdef uint8_t[::1] cells
        if self.arena is not None:
            raise BadArgument("a replayer is initialised once")
        ops = check_trace(ops)
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        self.ops = ops
        self.arena = arena
        self.settings = settings
        self.progress = progress
        self.total = passes * len(ops)
        self.run.checked = checked
        n_ids = int(ops["id"].max()) + 1 if len(ops) else 1
        self.objects = np.zeros(n_ids * sizeof(object_t), dtype=np.uint8)
        cells = self.objects
        self.run.objects = <object_t*>&cells[0]
        self.aligns = np.zeros(n_ids, dtype=np.uint8)
        cells = self.aligns
        self.run.aligns = &cells[0]
        if cold is not None and len(ops):
            self.cold = _cold_mask(cold, len(ops))
            cells = self.cold
            self.run.cold = &cells[0]
            self.evictor = np.zeros(EVICT_BYTES, dtype=np.uint8)
            cells = self.evictor
            self.run.evictor = <char*>&cells[0]
        if "interface" in settings:
            self.routines = np.zeros(n_ids, dtype=np.uint8)
            cells = self.routines
            self.run.routines = &cells[0]
        if len(ops):
            raw = ops.view(np.uint8)
            self.run.ops = <const op_t*>&raw[0]
        self.run.n_ops = len(ops)
        self.run.arena = &self.arena.c
        self.run.overhead = clock_overhead()

    def run_pass(self, ticks, verify, paths=None):
        """Run the trace once; answers the nanoseconds it took.

        ``ticks`` (uint64 array or None) receives the clock per operation;
        ``paths`` (uint8 array or None), in a pass without ticks and against a
        pool, the path that each took.
        """
        cdef uint8_t[::1] path_cells
        cdef uint64_t elapsed = 0
        cdef uint64_t[::1] cells
        if self.arena is None:
            raise BadArgument("the replayer was never initialised")
        if ticks is not None and len(ticks) != self.run.n_ops:
            raise BadArgument(
                f"ticks must have {self.run.n_ops} words, not {len(ticks)}"
            )
        if paths is not None and (
            len(paths) != self.run.n_ops
            or ticks is not None
            or self.run.routines != NULL
        ):
            raise BadArgument(
                f"paths must have {self.run.n_ops} bytes, in a pass of its own, "
                "against a pool"
            )
        self.objects[:] = 0
        self.arena.enter()
        self.arena.reformat()
        if self.run.routines != NULL:
            self.heap = _Heap(self.arena, name="replay", **self.settings)
            self.pool = self.heap.main
            self.run.heap = &self.heap.c
        else:
            self.pool = _Pool(self.arena, name="replay", **self.settings)
        self.run.pool = self.pool.c
        self.run.ticks = NULL
        if ticks is not None and len(ticks):
            cells = ticks
            self.run.ticks = &cells[0]
        self.run.paths = NULL
        if paths is not None and len(paths):
            path_cells = paths
            self.run.paths = &path_cells[0]
        self.run.verify = verify
        self.run.next_op = 0
        self.run.failed = 0
        self.run.skipped = 0
        self.run.content_errors = 0
        self.run.live_bytes = 0
        self.run.peak_live_bytes = 0
        self.run.live_blocks = 0
        self.run.peak_live_blocks = 0
        self.run.peak_pages = 0
        self.run.peak_main = 0
        self.run.peak_subpage = 0
        while self.run.next_op < self.run.n_ops:
            with nogil:
                elapsed += run_slice(&self.run)
            PyErr_CheckSignals()
            if self.progress is not None:
                self.progress(self.done + self.run.next_op, self.total)
        self.done += self.run.n_ops
        if self.run.peak_pages != 0:
            self.heap.main.c.peak_pages = self.run.peak_main
            self.heap.subpage.c.peak_pages = self.run.peak_subpage
        return elapsed

    cdef int need_pass(self) except -1:
        """Refuse a question that only a pass can answer."""
        if self.pool is None:
            raise BadArgument("no pass has been run")
        return self.pool.enter()

    def verify_end(self):
        """Verify the objects that are live at the end, then pool or heap."""
        cdef const uint32_t[::1] ids
        self.need_pass()
        ids = np.unique(self.ops["id"]).astype(np.uint32)
        if self.run.verify and ids.shape[0]:
            verify_live(&self.run, &ids[0], ids.shape[0])
        whole = self.pool if self.heap is None else self.heap
        whole.check()

    def seen(self):
        """What the last pass counted."""
        self.need_pass()
        whole = self.pool if self.heap is None else self.heap
        peak_pages = self.run.peak_pages
        if peak_pages == 0:
            peak_pages = self.pool.c.peak_pages
        return {
            "engine": self.pool.engine,
            "failed": self.run.failed,
            "skipped": self.run.skipped,
            "content_errors": self.run.content_errors,
            "peak_live_bytes": self.run.peak_live_bytes,
            "peak_live_blocks": self.run.peak_live_blocks,
            "peak_page_bytes": peak_pages * self.arena.c.page_bytes,
            "stats": whole.stats(),
        }


_SYSTEM_PAGE = os.sysconf("SC_PAGE_SIZE")


cdef object _cold_mask(object cold, Py_ssize_t n_ops):
    """One byte per operation, in an array of our own."""
    if not isinstance(cold, np.ndarray) or cold.dtype != np.bool_:
        raise BadArgumentType("cold must be an array of bool, one per operation")
    if cold.shape != (n_ops,):
        raise BadArgument(
            f"cold must have the trace's {n_ops} elements, not the shape "
            f"{cold.shape}"
        )
    return np.array(cold, dtype=np.uint8)


def _refuse_unaffordable(ops, arena_bytes, verify):
    """Refuse a replay that must touch more memory than the machine has.

    Blocks are touched whole where they are verified and where they move.
    """
    live = min(peak_live(ops), arena_bytes)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    moves = bool((ops["op"] == OP_REALLOC).any())
    if live > physical and (verify or moves):
        raise BadArgument(
            f"the trace has {live} bytes live at once and would touch them "
            f"({'verify' if verify else 'realloc'}); this machine has "
            f"{physical}: cut the trace, or give less by arena_bytes"
        )


def replay(
    ops,
    *,
    engine=None,
    interface=None,
    repeats=5,
    arena_bytes=None,
    verify=False,
    grow_pages=None,
    max_pages=None,
    page_size=None,
    progress=None,
    cold=None,
    hardened=False,
    checked=False,
    paths=False,
    quick=0,
):
    """Run a trace against a pool or a heap and measure every operation.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `load` answers it.
    engine : {"tlsf", "firstfit"}, optional
        Run it against a `Pool` with this engine; ``"tlsf"`` by default.
    interface : {"strict", "array", "subpage", "legacy", "merged"}, optional
        Run it against a `Heap` with this interface instead, as a program that
        was ported to it: above the limit, ``strict`` takes pages of
        page_alloc_exact and ``array`` those of xmalloc_array; up to it,
        ``subpage`` takes xmalloc_subpage; all else is xmalloc's. What
        xrealloc cannot resize is allocated anew, copied and freed.
    repeats : int
        Passes with the clock per operation, at most a million.
    arena_bytes : int, optional
        Size of the arena; by default ample for the trace (it is sparse).
    verify : bool
        Run one more pass in which every live block holds a pattern derived
        from its id, verified when the block is resized or freed and at the
        end, verify alignments and the zeros of ``calloc``, and check all
        invariants.
    grow_pages : int, optional
        Pages that TLSF's pool obtains at a time: by default as in `Pool`, and
        1 with an ``interface``.
    max_pages : int, optional
        As in `Pool` and `Heap`.
    page_size : int, optional
        As in `Arena.anonymous`.
    progress : callable, optional
        Called with (operations done, operations in all) some 20 times a
        second.
    cold : numpy.ndarray of bool, optional
        One per operation: before these, in the passes with the clock per
        operation, the caches of the core are emptied.
    hardened : bool or collection of str
        As in `Pool` and `Heap`.
    checked : bool
        Prove each offset before it is freed or resized, as Python's calls do,
        in the time of the operation. C callers may leave it out.
    paths : bool
        Run one more pass, against a pool, that notes the path of each
        operation.
    quick : int
        As in `Pool`; for an engine, not an interface.

    Returns
    -------
    ReplayResult

    Raises
    ------
    BadArgument, BadArgumentType
        An argument that cannot be meant, a trace that breaks the format, or
        one that would touch more memory than the machine has.
    HeapCorruption
        The pool or heap is not sound at the end of a verified pass.
    """
    cdef uint64_t ns
    cdef uint64_t n_timed = count_argument(repeats, "repeats", 1)
    cdef uint64_t n_plain = min(n_timed, 3)
    cdef bint verifies = flag_argument(verify, "verify")
    cdef bint checks = flag_argument(checked, "checked")
    cdef bint notes_paths = flag_argument(paths, "paths")
    cdef uint64_t n_done
    if page_size is not None:
        page_size = count_argument(page_size, "page_size", 1)
    if n_timed > MAX_REPEATS:
        raise BadArgument(
            f"repeats must be at most {MAX_REPEATS}, not {repeats}"
        )
    if progress is not None and not callable(progress):
        raise BadArgumentType(
            f"progress must be callable, not {type(progress).__name__}"
        )
    ops = check_trace(ops)
    if engine is not None and interface is not None:
        raise BadArgument(
            "an interface has its own engines: give engine or interface, not both"
        )
    if notes_paths and interface is not None:
        raise BadArgument("paths are those of an engine: give no interface")
    if interface is not None and count_argument(quick, "quick", 0):
        raise BadArgument("quick lists are those of a pool: give no interface")
    settings = {"max_pages": max_pages, "hardened": hardened}
    if interface is None:
        settings["engine"] = "tlsf" if engine is None else engine
        settings["grow_pages"] = grow_pages
        settings["quick"] = quick
    else:
        settings["interface"] = interface
        settings["grow_pages"] = 1 if grow_pages is None else grow_pages
    if arena_bytes is None:
        arena_bytes = ample_arena_bytes(
            ops,
            _SYSTEM_PAGE if page_size is None else page_size,
            count_argument(
                16 if settings["grow_pages"] is None else settings["grow_pages"],
                "grow_pages",
                1,
            ),
        )
        if hardened:
            # Trailers, and what waits in quarantine.
            arena_bytes += arena_bytes >> 1
    arena = _Arena.anonymous(arena_bytes, page_size=page_size)
    _refuse_unaffordable(ops, arena.n_bytes, verifies)
    replayer = Replayer(
        ops,
        arena,
        settings,
        n_plain + n_timed + verifies + notes_paths,
        progress,
        cold,
        checks,
    )
    content_errors = 0
    if verifies:
        replayer.run_pass(None, True)
        replayer.verify_end()
        content_errors = replayer.seen()["content_errors"]
    noted = None
    if notes_paths:
        noted = np.zeros(len(ops), dtype=np.uint8)
        replayer.run_pass(None, False, noted)
    # The first pass also touches the pages, so that no later one faults.
    ns = min([replayer.run_pass(None, False) for _ in range(n_plain)])
    cycles = np.full(len(ops), SKIPPED, dtype=np.uint64)
    raw = np.zeros(len(ops), dtype=np.uint64)
    ticks = np.zeros(len(ops), dtype=np.uint64)
    for _ in range(n_timed):
        replayer.run_pass(ticks, False)
        np.minimum(cycles, ticks, out=cycles)
        np.maximum(raw, ticks, out=raw)
    seen = replayer.seen()
    seen["content_errors"] = content_errors
    was_run = cycles != SKIPPED
    cycles[~was_run] = raw[~was_run] = 0
    n_done = len(ops) - seen["skipped"]
    return ReplayResult(
        interface=interface,
        n_ops=len(ops),
        ns_per_op=<double>ns / n_done if n_done else 0.0,
        was_run=was_run,
        kinds=np.ascontiguousarray(ops["op"]),
        cycles=cycles,
        raw_cycles=raw,
        arena_bytes=arena.n_bytes,
        tsc_hz=clock_hz(),
        repeats=n_timed,
        paths=noted,
        **seen,
    )
