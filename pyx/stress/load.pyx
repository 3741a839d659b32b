# SPDX-License-Identifier: BSD-3-Clause
"""Stress: operations made up and carried out without the GIL, all verified.

A `Load` makes up operations, in the trace format, out of a seed and two tables:
what sizes are asked for, how long blocks live. It does not look at the heap, so
the same seed makes the same operations whatever allocator serves them. A number
names a place for a live object and is used again after it was freed.

A `Subject` is a heap, a pool, or the page frames of an arena of its own, on which
threads carry operations out: each live object holds a pattern, which is verified
when it is resized or freed. It stops at the first operation that finds a fault.
"""

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.heap import Heap as _Heap
from xmem.pool import Pool as _Pool
from xmem.measure.trace import TRACE_DTYPE

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena.arena cimport Arena
from xmem.arena.frames cimport FRAME_RUN, frame_pages, frames_alloc, frames_free
from xmem.arena.superblock cimport page_offset
from xmem.base.arguments cimport count_argument
from xmem.base.bits cimport bit, ceil_log2
from xmem.heap cimport Heap
from xmem.measure.clock cimport clock_hz, clock_overhead, clock_ticks
from xmem.measure.pattern cimport pattern_holds, pattern_word
from xmem.measure.player cimport (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    RUN_SKIPPED,
    lock_t,
    object_t,
    op_t,
    run_lock,
    run_op,
    run_t,
    run_unlock,
)
from xmem.pool cimport Pool

__all__ = ["MAX_LIFETIME", "Load", "Subject", "ticks_per_second"]

cdef enum:
    WHEEL = 1 << 16             # lifetimes are shorter, live objects fewer
    TABLE = 4096                # entries of the two tables
    MAX_THREADS = 64
    KIND_POOL = 0
    KIND_HEAP = 1
    KIND_FRAMES = 2

cdef uint32_t NOBODY = ~<uint32_t>0

MAX_LIFETIME = WHEEL - 1


def ticks_per_second():
    """Ticks of the processor's clock in a second, of which `Subject.seen` tells.

    Returns
    -------
    float
    """
    return clock_hz()


# Made up ---------------------------------------------------------------------

cdef struct load_t:
    uint64_t state              # of the random numbers
    uint64_t now                # allocations so far
    uint32_t n_live
    uint32_t n_vacant
    uint32_t* sizes             # TABLE
    uint32_t* lifetimes         # TABLE
    uint32_t* wheel             # first object that ends in a moment
    uint32_t* next_ending       # of an object: the next that ends with it
    uint32_t* vacant            # numbers that no object has
    uint32_t* live              # numbers that objects have
    uint32_t* place             # of an object in live
    bint has_frames             # no reallocations, no alignments


cdef inline uint64_t draw(load_t* load) noexcept nogil:
    """The next random number (splitmix64, Steele et al. 2014)."""
    cdef uint64_t z
    load.state += <uint64_t>0x9E3779B97F4A7C15
    z = load.state
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline void make_end(load_t* load, op_t* op) noexcept nogil:
    """Free the next object that ends now."""
    cdef uint64_t bucket = load.now & (WHEEL - 1)
    cdef uint32_t number = load.wheel[bucket]
    cdef uint32_t last
    load.wheel[bucket] = load.next_ending[number]
    load.vacant[load.n_vacant] = number
    load.n_vacant += 1
    load.n_live -= 1
    last = load.live[load.n_live]
    load.live[load.place[number]] = last
    load.place[last] = load.place[number]
    op.op = OP_FREE
    op.align_log2 = 0
    op.id = number
    op.size = 0


cdef inline void make_start(
    load_t* load, op_t* op, uint64_t random, uint32_t size
) noexcept nogil:
    """Allocate an object, which will end when its life is over."""
    cdef uint32_t number
    cdef uint64_t bucket = (
        load.now + load.lifetimes[(random >> 12) & (TABLE - 1)]
    ) & (WHEEL - 1)
    load.n_vacant -= 1
    number = load.vacant[load.n_vacant]
    load.next_ending[number] = load.wheel[bucket]
    load.wheel[bucket] = number
    load.live[load.n_live] = number
    load.place[number] = load.n_live
    load.n_live += 1
    op.op = OP_MALLOC
    op.align_log2 = 0
    op.id = number
    op.size = size
    if load.has_frames:
        return
    if (random >> 24) & 31 == 0:
        op.op = OP_CALLOC
    elif (random >> 24) & 31 == 1:
        op.op = OP_MEMALIGN
        op.align_log2 = <uint8_t>(5 + ((random >> 32) & 7))


cdef void make_ops(load_t* load, op_t* ops, uint64_t n_ops) noexcept nogil:
    """Make up the next operations."""
    cdef uint64_t i, random
    cdef uint32_t size
    for i in range(n_ops):
        ops[i].thread = 0
        if load.wheel[load.now & (WHEEL - 1)] != NOBODY:
            make_end(load, &ops[i])
            continue
        load.now += 1
        random = draw(load)
        size = load.sizes[random & (TABLE - 1)]
        if (random >> 29) & 15 == 0 and load.n_live != 0 and not load.has_frames:
            ops[i].op = OP_REALLOC
            ops[i].align_log2 = 0
            ops[i].id = load.live[((random >> 33) * load.n_live) >> 31]
            ops[i].size = size
        else:
            make_start(load, &ops[i], random, size)


cdef class Load:
    """Operations out of a seed.

    Parameters
    ----------
    sizes : array of 4096 integers
        Bytes, or pages, that are asked for; one is drawn for each request.
    lifetimes : array of 4096 integers
        Allocations, at least 1 and at most `MAX_LIFETIME`, that an object sees.
    seed : int
        Of the random numbers.
    frames : bool
        Allocations and frees alone, as page frames have them.

    Raises
    ------
    BadArgument, BadArgumentType
        A table that cannot be meant.
    """

    cdef load_t load
    cdef object tables

    def __init__(self, sizes, lifetimes, seed, *, frames=False):
        cdef uint32_t[::1] cells
        cdef uint64_t first = count_argument(seed, "seed", 0)
        drawn = _table(sizes, "sizes", 0, NOBODY)
        lives = _table(lifetimes, "lifetimes", 1, MAX_LIFETIME)
        self.tables = [
            drawn,
            lives,
            np.full(WHEEL, NOBODY, dtype=np.uint32),
            *(np.zeros(WHEEL, dtype=np.uint32) for _ in range(4)),
        ]
        self.tables[4][:] = np.arange(WHEEL, dtype=np.uint32)[::-1]
        cells = self.tables[0]
        self.load.sizes = &cells[0]
        cells = self.tables[1]
        self.load.lifetimes = &cells[0]
        cells = self.tables[2]
        self.load.wheel = &cells[0]
        cells = self.tables[3]
        self.load.next_ending = &cells[0]
        cells = self.tables[4]
        self.load.vacant = &cells[0]
        cells = self.tables[5]
        self.load.live = &cells[0]
        cells = self.tables[6]
        self.load.place = &cells[0]
        self.load.state = first
        self.load.now = self.load.n_live = 0
        self.load.n_vacant = WHEEL
        self.load.has_frames = bool(frames)

    def make(self, n_ops):
        """Make up the next operations.

        Parameters
        ----------
        n_ops : int
            How many.

        Returns
        -------
        numpy.ndarray
            In the trace format, but for numbers that are used again.
        """
        cdef uint64_t n = count_argument(n_ops, "n_ops", 0)
        cdef uint8_t[::1] raw
        if self.tables is None:
            raise BadArgument("the load was never initialised")
        ops = np.zeros(n, dtype=TRACE_DTYPE)
        if n == 0:
            return ops
        raw = ops.view(np.uint8)
        with nogil:
            make_ops(&self.load, <op_t*>&raw[0], n)
        return ops


cdef object _table(object values, str name, uint64_t least, uint64_t most):
    """One of the two tables, copied."""
    try:
        table = np.array(values, dtype=np.int64)
    except (TypeError, ValueError):
        raise BadArgumentType(f"{name} must be integers") from None
    if table.shape != (TABLE,):
        raise BadArgument(f"{name} must be {TABLE} integers")
    if int(table.min()) < least or int(table.max()) > most:
        raise BadArgument(f"{name} must be from {least} to {most}")
    return table.astype(np.uint32)


# Carried out -----------------------------------------------------------------

cdef inline bint frames_hold(
    run_t* run, object_t* target, uint32_t id
) noexcept nogil:
    """Whether first and last word of each page of a run are as they were."""
    cdef uint64_t i
    cdef uint64_t* words
    for i in range(target.size):
        words = <uint64_t*>(
            run.arena.base + target.payload + page_offset(run.arena, i)
        )
        if words[0] != pattern_word(id, i) or (
            words[(run.arena.page_bytes >> 3) - 1] != pattern_word(id, ~i)
        ):
            return False
    return True


cdef inline void frames_fill(
    run_t* run, object_t* target, uint32_t id
) noexcept nogil:
    """Write first and last word of each page of a run."""
    cdef uint64_t i
    cdef uint64_t* words
    for i in range(target.size):
        words = <uint64_t*>(
            run.arena.base + target.payload + page_offset(run.arena, i)
        )
        words[0] = pattern_word(id, i)
        words[(run.arena.page_bytes >> 3) - 1] = pattern_word(id, ~i)


cdef inline uint64_t frames_op(run_t* run, const op_t* op) noexcept nogil:
    """One operation on page frames: sizes are pages; answers its ticks."""
    cdef object_t* target = &run.objects[op.id]
    cdef uint64_t ticks
    cdef uint32_t page = <uint32_t>(target.payload >> run.arena.page_shift)
    if op.op == OP_FREE:
        if target.payload == 0:
            run.skipped += 1
            return RUN_SKIPPED
        if not frames_hold(run, target, op.id):
            run.content_errors += 1
        run.live_blocks -= 1
        run.live_bytes -= target.size
        run_lock(run)
        if frame_pages(run.arena.frames[page].word) != target.size:
            run.content_errors += 1
        ticks = clock_ticks()
        frames_free(run.arena, page)
        ticks = clock_ticks() - ticks
        run_unlock(run)
        target.payload = 0
        return ticks
    if op.size == 0 or target.payload != 0:
        run.skipped += 1
        return RUN_SKIPPED
    run_lock(run)
    ticks = clock_ticks()
    page = frames_alloc(run.arena, op.size, FRAME_RUN, 0)
    ticks = clock_ticks() - ticks
    run_unlock(run)
    if page == 0:
        run.failed += 1
        return ticks
    # P3: a run is aligned to the power of two that holds it.
    if page & (bit(ceil_log2(op.size)) - 1):
        run.content_errors += 1
    target.payload = page_offset(run.arena, page)
    target.size = op.size
    frames_fill(run, target, op.id)
    run.live_blocks += 1
    run.live_bytes += op.size
    return ticks


cdef struct seen_t:
    uint64_t worst_alloc        # ticks
    uint64_t worst_free
    uint64_t worst_resize


cdef int64_t run_ops(
    run_t* run,
    seen_t* seen,
    const op_t* ops,
    uint64_t n_ops,
    uint64_t* turns,
    unsigned kind,
) noexcept nogil:
    """Carry operations out; the first that found a fault, or -1."""
    cdef uint64_t i, ticks
    for i in range(n_ops):
        # Freed and made again under one number: not in a trace, but here.
        if kind == KIND_FRAMES:
            ticks = frames_op(run, &ops[i])
        elif kind == KIND_HEAP:
            ticks = run_op(run, &ops[i], True, True)
        else:
            ticks = run_op(run, &ops[i], True, False)
        if turns != NULL:
            turns[i] = run.turn if ticks != RUN_SKIPPED else RUN_SKIPPED
        if run.content_errors != 0:
            return i
        if ticks == RUN_SKIPPED:
            continue
        ticks = ticks - run.overhead if ticks > run.overhead else 0
        if ops[i].op == OP_FREE:
            if ticks > seen.worst_free:
                seen.worst_free = ticks
        elif ops[i].op == OP_REALLOC:
            if ticks > seen.worst_resize:
                seen.worst_resize = ticks
        elif ticks > seen.worst_alloc:
            seen.worst_alloc = ticks
    return -1


cdef class Worker:
    """One thread's objects, and what it has seen."""

    cdef run_t run
    cdef seen_t seen
    cdef object cells
    cdef bint is_running

    def __init__(self, n_objects):
        cdef uint8_t[::1] cells
        cdef uint64_t n = max(n_objects, 1)
        memset(&self.run, 0, sizeof(run_t))
        memset(&self.seen, 0, sizeof(seen_t))
        self.cells = [
            np.zeros(n * sizeof(object_t), dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
        ]
        cells = self.cells[0]
        self.run.objects = <object_t*>&cells[0]
        cells = self.cells[1]
        self.run.aligns = &cells[0]
        cells = self.cells[2]
        self.run.routines = &cells[0]
        self.run.verify = True


cdef class Subject:
    """What is put under stress: a pool, a heap or page frames, with its threads.

    Parameters
    ----------
    kind : {"pool", "heap", "frames"}
        What.
    settings : dict
        Parameters of the `Pool` or `Heap`.
    arena_bytes : int
        Of the arena.
    threads : int
        Workers, at most 64.
    n_objects : int
        Numbers of objects that operations may have, for each worker.
    page_size : int, optional
        Of the arena.

    Raises
    ------
    BadArgument, BadArgumentType
        An argument that cannot be meant.
    """

    cdef Arena arena
    cdef Pool pool
    cdef Heap heap
    cdef lock_t lock
    cdef list workers
    cdef unsigned kind
    cdef unsigned n_running
    cdef bint is_looked_at      # a check may let other threads run
    cdef uint64_t n_objects

    def __init__(
        self, kind, settings, arena_bytes, *, threads=1, n_objects=WHEEL, page_size=None
    ):
        cdef Worker worker
        cdef uint64_t n_threads = count_argument(threads, "threads", 1)
        kinds = {"pool": KIND_POOL, "heap": KIND_HEAP, "frames": KIND_FRAMES}
        if self.arena is not None:
            raise BadArgument("a subject is initialised once")
        if kind not in kinds:
            raise BadArgument(f"kind must be 'pool', 'heap' or 'frames', not {kind!r}")
        if n_threads > MAX_THREADS:
            raise BadArgument(f"at most {MAX_THREADS} threads, not {n_threads}")
        self.n_objects = count_argument(n_objects, "n_objects", 1)
        self.kind = kinds[kind]
        self.lock.is_held = 0
        self.lock.n_turns = 0
        arena = _Arena.anonymous(arena_bytes, page_size=page_size)
        if self.kind == KIND_POOL:
            self.pool = _Pool(arena, name="stress", **settings)
        elif self.kind == KIND_HEAP:
            self.heap = _Heap(arena, name="stress", **settings)
            self.pool = self.heap.main
        self.workers = [Worker(self.n_objects) for _ in range(n_threads)]
        for worker in self.workers:
            worker.run.arena = &(<Arena>arena).c
            worker.run.overhead = clock_overhead()
            if self.pool is not None:
                worker.run.pool = self.pool.c
            if self.heap is not None:
                worker.run.heap = &self.heap.c
            if n_threads > 1:
                worker.run.lock = &self.lock
        self.arena = arena

    cdef Worker worker(self, object thread):
        cdef uint64_t number = count_argument(thread, "thread", 0)
        if self.arena is None:
            raise BadArgument("the subject was never initialised")
        if number >= <uint64_t>len(self.workers):
            raise BadArgument(f"there is no thread {number}")
        return self.workers[number]

    def run(self, thread, ops, turns=None):
        """Carry operations out, without the GIL.

        Parameters
        ----------
        thread : int
            Which worker's objects they are about. No worker can run twice at once.
        ops : numpy.ndarray
            In the trace format. Numbers may be used again once they are free.
        turns : numpy.ndarray of uint64, optional
            Receives, with several threads, the order in which the operations of
            all were carried out; 2**64 - 1 for those that had nothing to do.

        Returns
        -------
        int
            Index of the first operation that found a fault, or -1.
        """
        cdef Worker worker = self.worker(thread)
        cdef const uint8_t[::1] raw
        cdef uint64_t[::1] order
        cdef uint64_t* turn = NULL
        cdef int64_t found
        cdef uint64_t n
        if not isinstance(ops, np.ndarray) or ops.dtype != TRACE_DTYPE or ops.ndim != 1:
            raise BadArgumentType("ops must be a trace")
        n = len(ops)
        if n == 0:
            return -1
        # A copy: what is checked here is what is run.
        ops = np.array(ops, order="C", copy=True)
        if (
            int(ops["id"].max()) >= self.n_objects
            or int(ops["op"].max()) > OP_MEMALIGN
            or int(ops["align_log2"].max()) > 44
            or int(ops["size"].max()) > 1 << 44
            or _allocates_live(ops, worker)
        ):
            raise BadArgument(
                "ops has numbers, kinds, alignments or sizes that are too great, or "
                "allocates a number that is live"
            )
        raw = ops.view(np.uint8)
        if turns is not None:
            order = turns
            if <uint64_t>order.shape[0] < n:
                raise BadArgument("turns is shorter than ops")
            turn = &order[0]
        if worker.is_running or self.is_looked_at:
            raise BadArgument(f"thread {thread}, or a check, runs already")
        worker.is_running = True
        self.n_running += 1
        try:
            with nogil:
                found = run_ops(
                    &worker.run, &worker.seen, <const op_t*>&raw[0], n, turn, self.kind
                )
        finally:
            worker.is_running = False
            self.n_running -= 1
        return found

    cdef int still(self) except -1:
        """Refuse while a worker runs."""
        if self.arena is None:
            raise BadArgument("the subject was never initialised")
        if self.n_running or self.is_looked_at:
            raise BadArgument("a worker, or a check, runs")
        return 0

    def check(self):
        """Verify every invariant, and every live object.

        Returns
        -------
        int
            Objects whose contents are not what they were.

        Raises
        ------
        HeapCorruption
            An invariant does not hold.
        """
        self.still()
        self.is_looked_at = True
        try:
            return self.count_bad()
        finally:
            self.is_looked_at = False

    cdef uint64_t count_bad(self) except? 0:
        """Check all, and count objects whose contents are not what they were."""
        cdef Worker worker
        cdef uint64_t i
        cdef uint64_t n_bad = 0
        cdef object_t* target
        if self.heap is not None:
            self.heap.check()
        elif self.pool is not None:
            self.pool.check()
        self.arena.check()
        for worker in self.workers:
            for i in range(self.n_objects):
                target = &worker.run.objects[i]
                if target.payload == 0:
                    continue
                if self.kind == KIND_FRAMES:
                    n_bad += not frames_hold(&worker.run, target, <uint32_t>i)
                else:
                    n_bad += not pattern_holds(
                        self.arena.c.base + target.payload, target.size, i
                    )
        return n_bad

    def seen(self):
        """What has been seen so far.

        Returns
        -------
        dict
            ``failed`` requests, ``live`` objects and ``live_size`` (bytes, or
            pages of frames), ``worst_alloc``, ``worst_free``, ``worst_resize``
            (ticks of the processor's clock), ``n_pages`` held.
        """
        cdef Worker worker
        if self.arena is None:
            raise BadArgument("the subject was never initialised")
        found = dict.fromkeys(
            (
                "failed",
                "live",
                "live_size",
                "worst_alloc",
                "worst_free",
                "worst_resize",
            ),
            0,
        )
        for worker in self.workers:
            found["failed"] += worker.run.failed
            found["live"] += worker.run.live_blocks
            found["live_size"] += worker.run.live_bytes
            found["worst_alloc"] = max(found["worst_alloc"], worker.seen.worst_alloc)
            found["worst_free"] = max(found["worst_free"], worker.seen.worst_free)
            found["worst_resize"] = max(
                found["worst_resize"], worker.seen.worst_resize
            )
        found["n_pages"] = (
            self.arena.n_pages - self.arena.first_page - self.arena.n_free_pages
        )
        return found

    def fragmentation(self):
        """One less the largest free block's share of the free bytes; of page
        frames, the same of free pages.
        """
        self.still()
        if self.kind == KIND_FRAMES:
            n_free = self.arena.n_free_pages
            if n_free == 0:
                return 0.0
            return 1.0 - (1 << self.arena.largest_free_order) / n_free
        self.is_looked_at = True
        try:
            return self.pool.stats().fragmentation
        finally:
            self.is_looked_at = False


cdef bint _allocates_live(object ops, Worker worker):
    """Whether operations allocate a number that an object has at that moment."""
    cdef const uint8_t[::1] raw = ops.view(np.uint8)
    cdef const op_t* op = <const op_t*>&raw[0]
    cdef uint8_t[::1] cells = np.zeros(len(worker.cells[1]), dtype=np.uint8)
    cdef uint64_t i
    cdef uint64_t n = len(ops)
    # A request that failed leaves its number free: that is harmless.
    for i in range(<uint64_t>cells.shape[0]):
        cells[i] = worker.run.objects[i].payload != 0
    for i in range(n):
        if op[i].op == OP_FREE:
            cells[op[i].id] = 0
        elif op[i].op != OP_REALLOC:
            if cells[op[i].id]:
                return True
            cells[op[i].id] = 1
    return False
