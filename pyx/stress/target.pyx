# SPDX-License-Identifier: BSD-3-Clause
"""The target of a stress test: a pool, a heap, or page frames, each with an arena.

Threads carry out operations on it without the GIL. Each live object holds a pattern,
which is verified when the object is resized or freed; the first operation that finds
a fault ends the batch.
"""

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.base.errors import BadArgument, BadArgumentType
from xmem.heap import Heap as _Heap
from xmem.measure.trace import TRACE_DTYPE
from xmem.pool import Pool as _Pool
from xmem.stress.generator import MAX_IDS

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport ARENA_MAX_LOG2
from xmem.base.arguments cimport count_argument
from xmem.base.bits cimport bit
from xmem.heap cimport Heap
from xmem.measure.clock cimport clock_hz, clock_overhead
from xmem.measure.codes cimport OP_FREE, OP_MEMALIGN, OP_REALLOC, SKIPPED, op_t
from xmem.measure.pattern cimport pattern_holds
from xmem.measure.player cimport lock_t, object_t, play_op, player_t
from xmem.pool cimport Pool
from xmem.stress.frames cimport frames_hold, play_frames_op

__all__ = ["NO_TURN", "HeapTarget", "ticks_per_second"]

cdef enum:
    MAX_THREADS = 64
    KIND_POOL = 0
    KIND_HEAP = 1
    KIND_FRAMES = 2

#: Turn of an operation that had nothing to do.
NO_TURN = SKIPPED


def ticks_per_second():
    """Return the rate of the processor's clock, whose ticks `HeapTarget.stats` has.

    Returns
    -------
    float
    """
    return clock_hz()


# A batch of operations -------------------------------------------------------

cdef struct worst_t:
    # Ticks of the slowest calls.
    uint64_t worst_alloc
    uint64_t worst_free
    uint64_t worst_resize


cdef inline void keep_worst(
    worst_t* worst, unsigned op, uint64_t ticks
) noexcept nogil:
    """Keep the ticks of a call if it was the slowest of its verb."""
    if op == OP_FREE:
        if ticks > worst.worst_free:
            worst.worst_free = ticks
    elif op == OP_REALLOC:
        if ticks > worst.worst_resize:
            worst.worst_resize = ticks
    elif ticks > worst.worst_alloc:
        worst.worst_alloc = ticks


cdef int64_t play_batch(
    player_t* player,
    worst_t* worst,
    const op_t* ops,
    uint64_t n_ops,
    uint64_t* turns,
    unsigned kind,
) noexcept nogil:
    """Carry out operations; return the first that found a fault, or -1."""
    cdef uint64_t i, ticks
    for i in range(n_ops):
        if kind == KIND_FRAMES:
            ticks = play_frames_op(player, &ops[i])
        elif kind == KIND_HEAP:
            ticks = play_op(player, &ops[i], True, True)
        else:
            ticks = play_op(player, &ops[i], True, False)
        if turns != NULL:
            turns[i] = player.turn if ticks != SKIPPED else SKIPPED
        if player.content_errors != 0:
            return i
        if ticks != SKIPPED:
            ticks = ticks - player.overhead if ticks > player.overhead else 0
            keep_worst(worst, ops[i].op, ticks)
    return -1


# Workers ---------------------------------------------------------------------

cdef class Worker:
    """One thread's objects and counts."""

    cdef player_t player
    cdef worst_t worst
    cdef object cells
    cdef bint is_running

    def __init__(self, n_objects):
        cdef uint8_t[::1] cells
        cdef uint64_t n = max(n_objects, 1)
        self.cells = [
            np.zeros(n * sizeof(object_t), dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
            np.zeros(n, dtype=np.uint8),
        ]
        cells = self.cells[0]
        self.player.objects = <object_t*>&cells[0]
        cells = self.cells[1]
        self.player.aligns = &cells[0]
        cells = self.cells[2]
        self.player.routines = &cells[0]
        self.player.verify = True


cdef class HeapTarget:
    """A pool, a heap or page frames under stress, with the workers that use it.

    Parameters
    ----------
    kind : {"pool", "heap", "frames"}
        What operations are carried out on.
    settings : dict
        Parameters of the `Pool` or `Heap`.
    arena_bytes : int
        Size of the arena.
    threads : int
        Number of workers, at most 64.
    n_objects : int
        Ids that the operations of each worker may have.
    page_size : int, optional
        Page size of the arena.

    Raises
    ------
    BadArgument, BadArgumentType
        An argument is invalid.
    """

    cdef Arena arena
    cdef Pool pool
    cdef Heap heap
    cdef lock_t lock
    cdef list workers
    cdef unsigned kind
    cdef unsigned n_running
    cdef bint is_checking       # a check may let other threads run
    cdef uint64_t n_objects

    def __init__(
        self,
        kind,
        settings,
        arena_bytes,
        *,
        threads=1,
        n_objects=MAX_IDS,
        page_size=None,
    ):
        cdef Worker worker
        cdef uint64_t n_threads = count_argument(threads, "threads", 1)
        kinds = {"pool": KIND_POOL, "heap": KIND_HEAP, "frames": KIND_FRAMES}
        if self.arena is not None:
            raise BadArgument("a target cannot be initialised twice")
        if kind not in kinds:
            raise BadArgument(f"kind must be 'pool', 'heap' or 'frames', not {kind!r}")
        if n_threads > MAX_THREADS:
            raise BadArgument(
                f"threads must be at most {MAX_THREADS}, not {n_threads}"
            )
        self.n_objects = count_argument(n_objects, "n_objects", 1)
        self.kind = kinds[kind]
        self.workers = [Worker(self.n_objects) for _ in range(n_threads)]
        self.make_heap(settings, arena_bytes, page_size)
        for worker in self.workers:
            worker.player.arena = &self.arena.c
            worker.player.overhead = clock_overhead()
            if self.pool is not None:
                worker.player.pool = self.pool.c
            if self.heap is not None:
                worker.player.heap = &self.heap.c
            if n_threads > 1:
                worker.player.lock = &self.lock

    cdef int make_heap(self, dict settings, arena_bytes, page_size) except -1:
        """Make the arena, and the pool or heap in it."""
        arena = _Arena.anonymous(arena_bytes, page_size=page_size)
        if self.kind == KIND_POOL:
            self.pool = _Pool(arena, name="stress", **settings)
        elif self.kind == KIND_HEAP:
            self.heap = _Heap(arena, name="stress", **settings)
            self.pool = self.heap.main
        self.arena = arena
        return 0

    cdef Worker worker(self, object thread):
        cdef uint64_t number = count_argument(thread, "thread", 0)
        if self.arena is None:
            raise BadArgument("the target was never initialised")
        if number >= <uint64_t>len(self.workers):
            raise BadArgument(f"there is no thread {number}")
        return self.workers[number]

    def execute(self, thread, ops, turns=None):
        """Carry out operations without the GIL.

        Parameters
        ----------
        thread : int
            The worker whose objects the operations are on. A worker cannot do two
            batches at once.
        ops : numpy.ndarray
            In the trace format. Ids may be used again once they are free.
        turns : numpy.ndarray of uint64, optional
            With several threads, receives the order in which the operations of all
            were carried out; `NO_TURN` for those that had nothing to do.

        Returns
        -------
        int
            Index of the first operation that found a fault, or -1.

        Raises
        ------
        BadArgument, BadArgumentType
            An argument is invalid, or the worker or a check is running.
        """
        cdef Worker worker = self.worker(thread)
        cdef const uint8_t[::1] raw
        cdef uint64_t[::1] order
        cdef uint64_t* turn = NULL
        cdef int64_t fault
        cdef uint64_t n
        ops = self.take_ops(ops, worker)
        n = len(ops)
        if n == 0:
            return -1
        raw = ops.view(np.uint8)
        if turns is not None:
            order = turns
            if <uint64_t>order.shape[0] < n:
                raise BadArgument("turns is shorter than ops")
            turn = &order[0]
        if worker.is_running or self.is_checking:
            raise BadArgument(f"thread {thread} or a check is running")
        worker.is_running = True
        self.n_running += 1
        try:
            with nogil:
                fault = play_batch(
                    &worker.player,
                    &worker.worst,
                    <const op_t*>&raw[0],
                    n,
                    turn,
                    self.kind,
                )
        finally:
            worker.is_running = False
            self.n_running -= 1
        return fault

    cdef object take_ops(self, object ops, Worker worker):
        """Return a copy of operations that are safe to carry out."""
        if not isinstance(ops, np.ndarray) or ops.dtype != TRACE_DTYPE or ops.ndim != 1:
            raise BadArgumentType("ops must be a trace")
        # A copy: what is checked here is what is carried out.
        ops = np.array(ops, order="C", copy=True)
        if len(ops) and (
            int(ops["id"].max()) >= self.n_objects
            or int(ops["op"].max()) > OP_MEMALIGN
            or int(ops["align_log2"].max()) > ARENA_MAX_LOG2
            or int(ops["size"].max()) > bit(ARENA_MAX_LOG2)
            or _allocates_live(ops, worker)
        ):
            raise BadArgument(
                "ops has ids, kinds, alignments or sizes that are too large, or "
                "allocates an id that is live"
            )
        return ops

    cdef int require_idle(self) except -1:
        """Refuse while a worker or a check is running."""
        if self.arena is None:
            raise BadArgument("the target was never initialised")
        if self.n_running or self.is_checking:
            raise BadArgument("a worker or a check is running")
        return 0

    def check(self):
        """Verify every invariant and every live object.

        Returns
        -------
        int
            Objects whose contents have changed.

        Raises
        ------
        HeapCorruption
            An invariant does not hold.
        """
        self.require_idle()
        self.is_checking = True
        try:
            return self.count_bad()
        finally:
            self.is_checking = False

    cdef uint64_t count_bad(self) except? 0:
        """Verify every invariant, and count objects whose contents have changed."""
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
                target = &worker.player.objects[i]
                if target.payload == 0:
                    continue
                if self.kind == KIND_FRAMES:
                    n_bad += not frames_hold(&worker.player, target, <uint32_t>i)
                else:
                    n_bad += not pattern_holds(
                        self.arena.c.base + target.payload, target.size, i
                    )
        return n_bad

    def stats(self):
        """Return what has been counted so far.

        Returns
        -------
        dict
            ``failed`` requests; ``live`` objects and ``live_size`` (bytes, or
            pages for page frames); ``worst_alloc``, ``worst_free`` and
            ``worst_resize`` (ticks of the processor's clock); ``n_pages`` held.
        """
        cdef Worker worker
        if self.arena is None:
            raise BadArgument("the target was never initialised")
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
            found["failed"] += worker.player.failed
            found["live"] += worker.player.live_blocks
            found["live_size"] += worker.player.live_bytes
            found["worst_alloc"] = max(found["worst_alloc"], worker.worst.worst_alloc)
            found["worst_free"] = max(found["worst_free"], worker.worst.worst_free)
            found["worst_resize"] = max(
                found["worst_resize"], worker.worst.worst_resize
            )
        found["n_pages"] = (
            self.arena.n_pages - self.arena.first_page - self.arena.n_free_pages
        )
        return found

    def fragmentation(self):
        """Return 1 less the largest free block's share of the free bytes.

        For page frames, the same of free pages.
        """
        self.require_idle()
        if self.kind == KIND_FRAMES:
            n_free = self.arena.n_free_pages
            if n_free == 0:
                return 0.0
            return 1.0 - (1 << self.arena.largest_free_order) / n_free
        self.is_checking = True
        try:
            return self.pool.stats().fragmentation
        finally:
            self.is_checking = False


cdef bint _allocates_live(object ops, Worker worker):
    """Whether operations allocate an id that an object has at that moment."""
    cdef const uint8_t[::1] raw = ops.view(np.uint8)
    cdef const op_t* op = <const op_t*>&raw[0]
    cdef uint8_t[::1] cells = np.zeros(len(worker.cells[1]), dtype=np.uint8)
    cdef uint64_t i
    cdef uint64_t n = len(ops)
    # A request that fails leaves its id free, which is harmless.
    for i in range(<uint64_t>cells.shape[0]):
        cells[i] = worker.player.objects[i].payload != 0
    for i in range(n):
        if op[i].op == OP_FREE:
            cells[op[i].id] = 0
        elif op[i].op != OP_REALLOC:
            if cells[op[i].id]:
                return True
            cells[op[i].id] = 1
    return False
