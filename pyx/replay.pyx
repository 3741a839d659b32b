# SPDX-License-Identifier: BSD-3-Clause
"""Replay: a trace run against a pool, without the GIL, a clock per operation.

A *pass* runs the whole trace on a freshly formatted arena. Passes are of
three kinds: one that fills every live block with a pattern and verifies it,
some that only count the time of the whole, and some that read the processor's
clock around each operation. The last keep, per operation, the least over the
passes: the same operation on the same heap does the same work each time, and
an interrupt does not strike it every time.

Zeroing for ``calloc`` and the filling of patterns lie outside the clock.
"""

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.errors import BadArgument, BadArgumentType
from xmem.pool import Pool as _Pool
from xmem.trace import TRACE_DTYPE, ReplayResult, check_trace, load, peak_live

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport arena_t
from xmem.bits cimport bit
from xmem.block cimport offset_t
from xmem.clock cimport (
    clock_hz,
    clock_nanoseconds,
    clock_overhead,
    clock_ticks,
)
from xmem.control cimport pool_t
from xmem.pool cimport Pool
from xmem.verbs cimport pool_alloc, pool_free, pool_resize

__all__ = ["TRACE_DTYPE", "ReplayResult", "load", "replay"]

cdef enum:
    OP_MALLOC = 0
    OP_FREE = 1
    OP_REALLOC = 2
    OP_CALLOC = 3
    OP_MEMALIGN = 4

    SLICE_NS = 50000000         # return to Python about 20 times a second
    SLICE_OPS = 32              # operations between two looks at the time


cdef packed struct op_t:
    uint8_t op
    uint8_t align_log2
    uint16_t thread
    uint32_t id
    uint64_t size


cdef struct object_t:
    offset_t payload            # 0: not live
    uint64_t size


cdef struct run_t:
    # One pass: where it stands and what it has seen.
    arena_t* arena
    pool_t* pool
    const op_t* ops
    uint64_t n_ops
    uint64_t next_op
    object_t* objects
    uint64_t* ticks             # per operation, NULL in a pass without clock
    uint64_t overhead
    bint verify
    uint64_t failed
    uint64_t content_errors
    uint64_t live_bytes
    uint64_t peak_live_bytes
    uint64_t live_blocks
    uint64_t peak_live_blocks


# Patterns --------------------------------------------------------------------

cdef inline uint64_t pattern_word(uint64_t id, uint64_t i) noexcept nogil:
    """Word ``i`` of the pattern of object ``id``."""
    return ((id + 1) * <uint64_t>0x9E3779B97F4A7C15) ^ (
        (i + 1) * <uint64_t>0xC2B2AE3D27D4EB4F
    )


cdef void pattern_fill(char* start, uint64_t n_bytes, uint64_t id) noexcept nogil:
    """Fill a block with its object's pattern."""
    cdef uint64_t i
    cdef uint64_t* words = <uint64_t*>start
    for i in range(n_bytes // 8):
        words[i] = pattern_word(id, i)
    for i in range(n_bytes & ~<uint64_t>7, n_bytes):
        start[i] = <char>(pattern_word(id, i >> 3) >> (8 * (i & 7)))


cdef bint pattern_holds(
    const char* start, uint64_t n_bytes, uint64_t id
) noexcept nogil:
    """Whether a block still holds its object's pattern."""
    cdef uint64_t i
    cdef const uint64_t* words = <const uint64_t*>start
    for i in range(n_bytes // 8):
        if words[i] != pattern_word(id, i):
            return False
    for i in range(n_bytes & ~<uint64_t>7, n_bytes):
        if start[i] != <char>(pattern_word(id, i >> 3) >> (8 * (i & 7))):
            return False
    return True


# One operation ---------------------------------------------------------------

cdef inline void note_born(
    run_t* run, object_t* target, const op_t* op
) noexcept nogil:
    """Account for a new object, and zero or fill it."""
    cdef char* start = run.arena.base + target.payload
    if target.payload == 0:
        run.failed += 1
        return
    target.size = op.size
    run.live_blocks += 1
    run.live_bytes += op.size
    if run.live_blocks > run.peak_live_blocks:
        run.peak_live_blocks = run.live_blocks
    if run.live_bytes > run.peak_live_bytes:
        run.peak_live_bytes = run.live_bytes
    if op.op == OP_CALLOC:
        memset(start, 0, op.size)
    if run.verify:
        pattern_fill(start, op.size, op.id)


cdef inline void note_resized(
    run_t* run, object_t* target, const op_t* op, offset_t moved
) noexcept nogil:
    """Account for a resized object, verify what it kept, fill the rest."""
    cdef uint64_t kept = target.size if target.size < op.size else op.size
    if moved == 0:
        run.failed += 1
        return
    target.payload = moved
    run.live_bytes += op.size - target.size
    target.size = op.size
    if run.live_bytes > run.peak_live_bytes:
        run.peak_live_bytes = run.live_bytes
    if run.verify:
        if not pattern_holds(run.arena.base + moved, kept, op.id):
            run.content_errors += 1
        pattern_fill(run.arena.base + moved, op.size, op.id)


cdef inline void note_freed(
    run_t* run, object_t* target, const op_t* op
) noexcept nogil:
    """Verify an object that is about to be freed and account for it."""
    if run.verify and not pattern_holds(
        run.arena.base + target.payload, target.size, op.id
    ):
        run.content_errors += 1
    run.live_blocks -= 1
    run.live_bytes -= target.size


cdef inline uint64_t run_op(
    run_t* run, const op_t* op, bint timed
) noexcept nogil:
    """Do one operation; answers its ticks, 0 without clock."""
    cdef object_t* target = &run.objects[op.id]
    cdef uint64_t ticks = 0
    cdef uint64_t alignment
    cdef offset_t moved
    if op.op == OP_FREE:
        if target.payload == 0:
            return 0
        note_freed(run, target, op)
        if timed:
            ticks = clock_ticks()
        pool_free(run.arena, run.pool, target.payload)
        if timed:
            ticks = clock_ticks() - ticks
        target.payload = 0
    elif op.op == OP_REALLOC:
        if target.payload == 0:
            run.failed += 1
            return 0
        if timed:
            ticks = clock_ticks()
        moved = pool_resize(run.arena, run.pool, target.payload, op.size, 16)
        if timed:
            ticks = clock_ticks() - ticks
        note_resized(run, target, op, moved)
    else:
        alignment = bit(op.align_log2) if op.op == OP_MEMALIGN else 16
        if timed:
            ticks = clock_ticks()
        moved = pool_alloc(run.arena, run.pool, op.size, alignment)
        if timed:
            ticks = clock_ticks() - ticks
        target.payload = moved
        note_born(run, target, op)
    return ticks


cdef inline void run_slice_of(
    run_t* run, uint64_t end, bint timed
) noexcept nogil:
    """Do the operations up to ``end``."""
    cdef uint64_t i, ticks
    for i in range(run.next_op, end):
        ticks = run_op(run, &run.ops[i], timed)
        if timed:
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
        if run.ticks != NULL:
            run_slice_of(run, end, True)
        else:
            run_slice_of(run, end, False)
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
    """One trace, one engine, one arena that is formatted anew for each pass."""

    cdef Arena arena
    cdef Pool pool
    cdef run_t run
    cdef object ops, objects, settings, progress
    cdef uint64_t done, total

    def __init__(self, ops, arena, settings, passes, progress):
        cdef const uint8_t[::1] raw
        cdef uint8_t[::1] cells
        self.ops = ops
        self.arena = arena
        self.settings = settings
        self.progress = progress
        self.total = passes * len(ops)
        n_ids = int(ops["id"].max()) + 1 if len(ops) else 1
        self.objects = np.zeros(n_ids * sizeof(object_t), dtype=np.uint8)
        cells = self.objects
        self.run.objects = <object_t*>&cells[0]
        if len(ops):
            raw = ops.view(np.uint8)
            self.run.ops = <const op_t*>&raw[0]
        self.run.n_ops = len(ops)
        self.run.arena = &self.arena.c
        self.run.overhead = clock_overhead()

    def run_pass(self, ticks, verify):
        """Run the trace once; answers the nanoseconds it took.

        ``ticks`` (uint64 array or None) receives the clock per operation.
        """
        cdef uint64_t elapsed = 0
        cdef uint64_t[::1] cells
        self.objects[:] = 0
        self.arena.enter()
        self.arena.reformat()
        self.pool = _Pool(self.arena, name="replay", **self.settings)
        self.run.pool = self.pool.c
        self.run.ticks = NULL
        if ticks is not None and len(ticks):
            cells = ticks
            self.run.ticks = &cells[0]
        self.run.verify = verify
        self.run.next_op = 0
        self.run.failed = 0
        self.run.content_errors = 0
        self.run.live_bytes = 0
        self.run.peak_live_bytes = 0
        self.run.live_blocks = 0
        self.run.peak_live_blocks = 0
        while self.run.next_op < self.run.n_ops:
            with nogil:
                elapsed += run_slice(&self.run)
            PyErr_CheckSignals()
            if self.progress is not None:
                self.progress(self.done + self.run.next_op, self.total)
        self.done += self.run.n_ops
        return elapsed

    def verify_end(self):
        """Verify the objects that are live at the end, then the pool."""
        cdef const uint32_t[::1] ids = np.unique(self.ops["id"]).astype(np.uint32)
        if self.run.verify and ids.shape[0]:
            verify_live(&self.run, &ids[0], ids.shape[0])
        self.pool.check()

    def seen(self):
        """What the last pass counted."""
        return {
            "failed": self.run.failed,
            "content_errors": self.run.content_errors,
            "peak_live_bytes": self.run.peak_live_bytes,
            "peak_live_blocks": self.run.peak_live_blocks,
            "peak_page_bytes": self.pool.c.peak_pages * self.arena.c.page_bytes,
            "stats": self.pool.stats(),
        }


def replay(
    ops,
    *,
    engine="tlsf",
    repeats=5,
    arena_bytes=None,
    verify=False,
    grow_pages=16,
    max_pages=None,
    page_size=None,
    progress=None,
):
    """Run a trace against a pool and measure every operation.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `load` answers it.
    engine : {"tlsf", "firstfit"}
    repeats : int
        Passes with the clock per operation.
    arena_bytes : int, optional
        Size of the arena; by default ample for the trace (it is sparse).
    verify : bool
        Run one more pass in which every live block holds a pattern derived
        from its id, verified when the block is resized or freed and at the
        end, and check all invariants.
    grow_pages, max_pages
        As in `Pool`.
    page_size : int, optional
        As in `Arena.anonymous`.
    progress : callable, optional
        Called with (operations done, operations in all) some 20 times a
        second.

    Returns
    -------
    ReplayResult

    Raises
    ------
    BadArgument, BadArgumentType
        An argument that cannot be meant, or a trace that breaks the format.
    HeapCorruption
        The pool is not sound at the end of a verified pass.
    """
    cdef uint64_t ns
    ops = check_trace(ops)
    if isinstance(repeats, bool) or not isinstance(repeats, (int, np.integer)):
        raise BadArgumentType(
            f"repeats must be an integer, not {type(repeats).__name__}"
        )
    if repeats < 1:
        raise BadArgument(f"repeats must be at least 1, not {repeats}")
    n_plain = min(int(repeats), 3)
    if arena_bytes is None:
        arena_bytes = 8 * peak_live(ops) + (64 << 20)
    arena = _Arena.anonymous(arena_bytes, page_size=page_size)
    replayer = Replayer(
        ops,
        arena,
        {"engine": engine, "grow_pages": grow_pages, "max_pages": max_pages},
        n_plain + repeats + bool(verify),
        progress,
    )
    content_errors = 0
    if verify:
        replayer.run_pass(None, True)
        replayer.verify_end()
        content_errors = replayer.seen()["content_errors"]
    # The first pass also touches the pages, so that no later one faults.
    ns = min([replayer.run_pass(None, False) for _ in range(n_plain)])
    cycles = np.full(len(ops), np.iinfo(np.uint64).max, dtype=np.uint64)
    raw = np.zeros(len(ops), dtype=np.uint64)
    ticks = np.zeros(len(ops), dtype=np.uint64)
    for _ in range(repeats):
        replayer.run_pass(ticks, False)
        np.minimum(cycles, ticks, out=cycles)
        np.maximum(raw, ticks, out=raw)
    seen = replayer.seen()
    seen["content_errors"] = content_errors
    return ReplayResult(
        engine=engine,
        n_ops=len(ops),
        ns_per_op=<double>ns / len(ops) if len(ops) else 0.0,
        kinds=np.ascontiguousarray(ops["op"]),
        cycles=cycles,
        raw_cycles=raw,
        arena_bytes=arena.n_bytes,
        tsc_hz=clock_hz(),
        repeats=int(repeats),
        **seen,
    )
