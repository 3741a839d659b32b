# SPDX-License-Identifier: BSD-3-Clause
"""Replay: a trace played on a pool or a heap without the GIL, each operation timed.

A *pass* plays the whole trace on a newly formatted arena. There are three kinds of
passes: one fills every live block with a pattern and verifies it, some only time
the whole, and some read the processor's clock around each operation. Of the last
the least per operation is kept: the same operation on the same heap does the same
work each time, and an interrupt does not hit it every time.

Only a verifying pass zeroes for ``calloc``: what is measured is the allocator,
not memset.

Against a heap, a trace plays as a program that was ported to its interface
(routines.pxd).
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
    reserved_pages,
)

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from xmem.arena.arena cimport Arena
from xmem.base.arguments cimport count_argument, flag_argument
from xmem.base.offset cimport offset_t
from xmem.heap cimport Heap
from xmem.measure.caches cimport EVICT_BYTES, evict
from xmem.measure.clock cimport clock_hz, clock_nanoseconds, clock_overhead
from xmem.measure.codes cimport (
    OP_REALLOC,
    SKIPPED,
    VERB_XFREE,
    VERB_XMALLOC,
    op_t,
    verb_of,
)
from xmem.measure.paths cimport path_after, path_before
from xmem.measure.pattern cimport pattern_holds
from xmem.measure.player cimport object_t, play_op, player_t
from xmem.pool cimport Pool

__all__ = ["TRACE_DTYPE", "ReplayResult", "load", "replay"]

cdef enum:
    SLICE_NS = 50000000         # return to Python about 20 times a second
    SLICE_OPS = 32              # operations between two looks at the time

    PLAIN_PASSES = 3            # without a clock per operation
    MAX_REPEATS = 1000000

cdef uint64_t NOT_PLAYED = SKIPPED

_SYSTEM_PAGE = os.sysconf("SC_PAGE_SIZE")


# Slices of a pass ------------------------------------------------------------

cdef inline void play_op_with_path(player_t* player, uint64_t i) noexcept nogil:
    """Carry out operation ``i`` on a pool and record its path."""
    cdef const op_t* op = &player.ops[i]
    cdef offset_t payload = player.objects[op.id].payload
    cdef uint64_t n_pages = player.pool.n_pages
    cdef uint64_t failed = player.failed
    cdef uint64_t path
    cdef uint64_t value
    cdef unsigned verb = verb_of(op.op)
    if verb != VERB_XMALLOC and payload == 0:
        play_op(player, op, False, False)
        return
    path = path_before(player.arena, player.pool, verb, payload)
    play_op(player, op, False, False)
    value = 1 if verb == VERB_XFREE else player.objects[op.id].payload
    if player.failed != failed:
        value = 0
    player.paths[i] = <uint8_t>(
        path
        | path_after(player.arena, player.pool, verb, payload, value, n_pages)
    )


cdef inline void play_ops(
    player_t* player, uint64_t end, bint timed, bint heaped
) noexcept nogil:
    """Carry out the operations up to ``end``."""
    cdef uint64_t i, ticks
    for i in range(player.next_op, end):
        if timed and player.cold != NULL and player.cold[i]:
            evict(player.evictor)
        ticks = play_op(player, &player.ops[i], timed, heaped)
        if timed:
            if ticks != NOT_PLAYED:
                ticks = ticks - player.overhead if ticks > player.overhead else 0
            player.ticks[i] = ticks
    player.next_op = end


cdef uint64_t play_slice(player_t* player) noexcept nogil:
    """Play on for a while, or to the end; return the nanoseconds it took."""
    cdef uint64_t start = clock_nanoseconds()
    cdef uint64_t elapsed = 0
    cdef uint64_t end
    while player.next_op < player.n_ops and elapsed < SLICE_NS:
        end = player.next_op + SLICE_OPS
        if end > player.n_ops:
            end = player.n_ops
        if player.paths != NULL:
            while player.next_op < end:
                play_op_with_path(player, player.next_op)
                player.next_op += 1
        elif player.heap != NULL:
            play_ops(player, end, player.ticks != NULL, True)
        elif player.ticks != NULL:
            play_ops(player, end, True, False)
        else:
            play_ops(player, end, False, False)
        elapsed = clock_nanoseconds() - start
    return elapsed


cdef void verify_live(
    player_t* player, const uint32_t* ids, uint64_t n
) noexcept nogil:
    """Verify every object that is live at the end of a pass."""
    cdef uint64_t i
    cdef object_t* target
    for i in range(n):
        target = &player.objects[ids[i]]
        if target.payload != 0 and not pattern_holds(
            player.arena.base + target.payload, target.size, ids[i]
        ):
            player.content_errors += 1


cdef void rewind(player_t* player) noexcept nogil:
    """Put a player back to the start of its trace, with nothing counted."""
    player.next_op = 0
    player.failed = player.skipped = player.content_errors = 0
    player.live_bytes = player.peak_live_bytes = 0
    player.live_blocks = player.peak_live_blocks = 0
    player.peak_pages = player.peak_main = player.peak_subpage = 0


# Passes ----------------------------------------------------------------------

cdef class Replayer:
    """One trace, one engine, one arena that is formatted anew for each pass.

    ``settings`` are those of the `Pool`, or those of the `Heap` if they name an
    ``interface``. Pool or heap is made anew for each pass.
    """

    cdef Arena arena
    cdef Pool pool              # of a heap, the main one
    cdef Heap heap              # None: the trace is played on the pool
    cdef player_t player
    cdef object ops, objects, aligns, routines, cold, evictor, settings, progress
    cdef uint64_t done, total

    def __init__(
        self, ops, arena, settings, passes, progress, cold=None, checked=False
    ):
        cdef const uint8_t[::1] raw
        if self.arena is not None:
            raise BadArgument("a replayer cannot be initialised twice")
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
        self.player.checked = checked
        self.allocate_tables(int(ops["id"].max()) + 1 if len(ops) else 1)
        if cold is not None and len(ops):
            self.take_cold(cold)
        if len(ops):
            raw = ops.view(np.uint8)
            self.player.ops = <const op_t*>&raw[0]
        self.player.n_ops = len(ops)
        self.player.arena = &self.arena.c
        self.player.overhead = clock_overhead()

    cdef int allocate_tables(self, Py_ssize_t n_ids) except -1:
        """Allocate what the player keeps of each object."""
        cdef uint8_t[::1] cells
        self.objects = np.zeros(n_ids * sizeof(object_t), dtype=np.uint8)
        cells = self.objects
        self.player.objects = <object_t*>&cells[0]
        self.aligns = np.zeros(n_ids, dtype=np.uint8)
        cells = self.aligns
        self.player.aligns = &cells[0]
        if "interface" in self.settings:
            self.routines = np.zeros(n_ids, dtype=np.uint8)
            cells = self.routines
            self.player.routines = &cells[0]
        return 0

    cdef int take_cold(self, cold) except -1:
        """Take the mask of the operations that find cold caches."""
        cdef uint8_t[::1] cells
        self.cold = _cold_mask(cold, len(self.ops))
        cells = self.cold
        self.player.cold = &cells[0]
        self.evictor = np.zeros(EVICT_BYTES, dtype=np.uint8)
        cells = self.evictor
        self.player.evictor = <char*>&cells[0]
        return 0

    cdef int set_outputs(self, ticks, paths) except -1:
        """Check where a pass writes its ticks and paths, and set the player's."""
        cdef uint64_t[::1] tick_cells
        cdef uint8_t[::1] path_cells
        if ticks is not None and len(ticks) != self.player.n_ops:
            raise BadArgument(
                f"ticks must have {self.player.n_ops} words, not {len(ticks)}"
            )
        if paths is not None and (
            len(paths) != self.player.n_ops
            or ticks is not None
            or self.player.routines != NULL
        ):
            raise BadArgument(
                f"paths must have {self.player.n_ops} bytes, in a pass of its own, "
                "against a pool"
            )
        self.player.ticks = NULL
        if ticks is not None and len(ticks):
            tick_cells = ticks
            self.player.ticks = &tick_cells[0]
        self.player.paths = NULL
        if paths is not None and len(paths):
            path_cells = paths
            self.player.paths = &path_cells[0]
        return 0

    cdef int make_heap(self) except -1:
        """Format the arena and make the pool or heap of a pass."""
        self.objects[:] = 0
        self.arena.enter()
        self.arena.reformat()
        if self.player.routines != NULL:
            self.heap = _Heap(self.arena, name="replay", **self.settings)
            self.pool = self.heap.main
            self.player.heap = &self.heap.c
        else:
            self.pool = _Pool(self.arena, name="replay", **self.settings)
        self.player.pool = self.pool.c
        return 0

    def run_pass(self, ticks, verify, paths=None):
        """Play the trace once; return the nanoseconds it took.

        ``ticks`` (uint64 array or None) receives the clock's ticks per operation.
        ``paths`` (uint8 array or None) receives the path of each operation, in a
        pass without ticks against a pool.
        """
        cdef uint64_t elapsed = 0
        if self.arena is None:
            raise BadArgument("the replayer was never initialised")
        self.set_outputs(ticks, paths)
        self.make_heap()
        rewind(&self.player)
        self.player.verify = verify
        while self.player.next_op < self.player.n_ops:
            with nogil:
                elapsed += play_slice(&self.player)
            PyErr_CheckSignals()
            if self.progress is not None:
                self.progress(self.done + self.player.next_op, self.total)
        self.done += self.player.n_ops
        if self.player.peak_pages != 0:
            self.heap.main.c.peak_pages = self.player.peak_main
            self.heap.subpage.c.peak_pages = self.player.peak_subpage
        return elapsed

    cdef int need_pass(self) except -1:
        """Refuse a call that makes sense only after a pass."""
        if self.pool is None:
            raise BadArgument("no pass has been played")
        return self.pool.enter()

    def verify_end(self):
        """Verify the objects that are live at the end, then the pool or heap."""
        cdef const uint32_t[::1] ids
        self.need_pass()
        ids = np.unique(self.ops["id"]).astype(np.uint32)
        if self.player.verify and ids.shape[0]:
            verify_live(&self.player, &ids[0], ids.shape[0])
        whole = self.pool if self.heap is None else self.heap
        whole.check()

    def seen(self):
        """Return what the last pass counted."""
        self.need_pass()
        whole = self.pool if self.heap is None else self.heap
        peak_pages = self.player.peak_pages
        if peak_pages == 0:
            peak_pages = self.pool.c.peak_pages
        return {
            "engine": self.pool.engine,
            "failed": self.player.failed,
            "skipped": self.player.skipped,
            "content_errors": self.player.content_errors,
            "peak_live_bytes": self.player.peak_live_bytes,
            "peak_live_blocks": self.player.peak_live_blocks,
            "peak_page_bytes": peak_pages * self.arena.c.page_bytes,
            "stats": whole.stats(),
        }


cdef object _cold_mask(object cold, Py_ssize_t n_ops):
    """Check a mask and copy it, one byte per operation."""
    if not isinstance(cold, np.ndarray) or cold.dtype != np.bool_:
        raise BadArgumentType("cold must be an array of bool, one per operation")
    if cold.shape != (n_ops,):
        raise BadArgument(
            f"cold must have the trace's {n_ops} elements, not the shape "
            f"{cold.shape}"
        )
    return np.array(cold, dtype=np.uint8)


def _refuse_unaffordable(ops, arena_bytes, verify):
    """Refuse a replay that would touch more memory than the machine has.

    Verifying a block, or moving it, touches all of it.
    """
    live = min(peak_live(ops), arena_bytes)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    moves = bool((ops["op"] == OP_REALLOC).any())
    if live > physical and (verify or moves):
        raise BadArgument(
            f"the trace has {live} bytes live at once and would touch them "
            f"({'verify' if verify else 'realloc'}); this machine has "
            f"{physical}: shorten the trace, or give a smaller arena_bytes"
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
    quick=False,
    reserved=False,
):
    """Play a trace on a pool or a heap and measure every operation.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `load` returns it.
    engine : {"tlsf", "firstfit"}, optional
        Play it on a `Pool` with this engine; ``"tlsf"`` by default.
    interface : {"strict", "array", "subpage", "legacy", "merged"}, optional
        Play it on a `Heap` with this interface instead, as a program that was
        ported to it: above the limit, ``strict`` uses page_alloc_exact and
        ``array`` xmalloc_array; up to it, ``subpage`` uses xmalloc_subpage; all
        other requests use xmalloc. Objects that xrealloc cannot resize are
        allocated anew, copied and freed.
    repeats : int
        Passes with the clock per operation, at most a million.
    arena_bytes : int, optional
        Size of the arena, which is sparse; by default ample for the trace.
    verify : bool
        Add a pass in which every live block holds a pattern derived from its id.
        The pattern is verified when the block is resized or freed and at the end,
        as are alignments, the zeros of ``calloc`` and all invariants.
    grow_pages : int, optional
        Pages that a TLSF pool obtains at a time; by default as in `Pool`, or 1
        with an ``interface``.
    max_pages : int, optional
        As in `Pool` and `Heap`.
    page_size : int, optional
        As in `Arena.anonymous`.
    progress : callable, optional
        Called about 20 times a second with (operations done, operations in all).
    cold : numpy.ndarray of bool, optional
        One per operation: whether the caches of the core are emptied before it, in
        the passes that time each operation.
    hardened : bool or collection of str
        As in `Pool` and `Heap`.
    checked : bool
        Prove each offset before it is freed or resized, and time the proof with
        the operation. Python's calls always do this; C callers may leave it out.
    paths : bool
        Add a pass, against a pool, that records the path of each operation.
    quick : bool
        As in `Pool`; not with an ``interface``.
    reserved : bool
        The pool, one of TLSF, obtains three quarters of the arena's pages before the
        clock starts, so that no call has to; not with an ``interface``.

    Returns
    -------
    ReplayResult

    Raises
    ------
    BadArgument, BadArgumentType
        An invalid argument, a trace that breaks the format, or one that would
        touch more memory than the machine has.
    HeapCorruption
        The pool or heap is not sound at the end of a verified pass.
    """
    cdef uint64_t n_timed = count_argument(repeats, "repeats", 1)
    cdef bint verifies = flag_argument(verify, "verify")
    cdef bint checks = flag_argument(checked, "checked")
    cdef bint records_paths = flag_argument(paths, "paths")
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
    settings = _settings(
        engine,
        interface,
        quick,
        records_paths,
        {"max_pages": max_pages, "hardened": hardened, "grow_pages": grow_pages},
    )
    arena = _arena_for(ops, settings, arena_bytes, page_size)
    if flag_argument(reserved, "reserved"):
        if interface is not None:
            raise BadArgument("pages are reserved for a pool: give no interface")
        settings["reserve"] = reserved_pages(arena.n_free_pages, max_pages)
    _refuse_unaffordable(ops, arena.n_bytes, verifies)
    replayer = Replayer(
        ops,
        arena,
        settings,
        min(n_timed, PLAIN_PASSES) + n_timed + verifies + records_paths,
        progress,
        cold,
        checks,
    )
    return _measure(replayer, n_timed, verifies, records_paths)


def _settings(engine, interface, quick, records_paths, common):
    """Return the parameters of the pool or heap that a replay is to use."""
    if engine is not None and interface is not None:
        raise BadArgument(
            "an interface has its own engines: give engine or interface, not both"
        )
    if interface is None:
        engine = "tlsf" if engine is None else engine
        return {**common, "engine": engine, "quick": quick}
    if records_paths:
        raise BadArgument("paths are those of an engine: give no interface")
    if flag_argument(quick, "quick"):
        raise BadArgument("quick lists are those of a pool: give no interface")
    if common["grow_pages"] is None:
        common["grow_pages"] = 1
    return {**common, "interface": interface}


def _arena_for(ops, settings, arena_bytes, page_size):
    """Make an arena of a given size, or one that is ample for the trace."""
    if arena_bytes is None:
        grow_pages = settings["grow_pages"]
        arena_bytes = ample_arena_bytes(
            ops,
            _SYSTEM_PAGE if page_size is None else page_size,
            count_argument(
                16 if grow_pages is None else grow_pages, "grow_pages", 1
            ),
        )
        if settings["hardened"]:
            # For trailers, and for the blocks in quarantine.
            arena_bytes += arena_bytes >> 1
    return _Arena.anonymous(arena_bytes, page_size=page_size)


cdef object _measure(
    Replayer replayer, uint64_t n_timed, bint verifies, bint records_paths
):
    """Play all passes of a replay and put the result together."""
    cdef Py_ssize_t n_ops = len(replayer.ops)
    content_errors = 0
    if verifies:
        replayer.run_pass(None, True)
        replayer.verify_end()
        content_errors = replayer.seen()["content_errors"]
    paths = None
    if records_paths:
        paths = np.zeros(n_ops, dtype=np.uint8)
        replayer.run_pass(None, False, paths)
    # The first pass also touches the pages, so that no later one faults.
    ns = min(
        [replayer.run_pass(None, False) for _ in range(min(n_timed, PLAIN_PASSES))]
    )
    cycles = np.full(n_ops, NOT_PLAYED, dtype=np.uint64)
    raw = np.zeros(n_ops, dtype=np.uint64)
    ticks = np.zeros(n_ops, dtype=np.uint64)
    for _ in range(n_timed):
        replayer.run_pass(ticks, False)
        np.minimum(cycles, ticks, out=cycles)
        np.maximum(raw, ticks, out=raw)
    counts = replayer.seen()
    counts["content_errors"] = content_errors
    was_run = cycles != NOT_PLAYED
    cycles[~was_run] = raw[~was_run] = 0
    n_done = n_ops - counts["skipped"]
    return ReplayResult(
        interface=replayer.settings.get("interface"),
        n_ops=n_ops,
        ns_per_op=ns / n_done if n_done else 0.0,
        was_run=was_run,
        kinds=np.ascontiguousarray(replayer.ops["op"]),
        cycles=cycles,
        raw_cycles=raw,
        arena_bytes=replayer.arena.n_bytes,
        tsc_hz=clock_hz(),
        repeats=n_timed,
        paths=paths,
        **counts,
    )
