# SPDX-License-Identifier: BSD-3-Clause
"""Peers: other allocators, and xmem's engines, on one rig.

Each is a table of functions (``struct peer`` of peer.h), so that all are called
in the same way: an allocator of a shared object that exports ``PEER``, the
malloc of a shared library or of this process, an engine of xmem at C level, or
``null``, which serves from a bump pointer and frees nothing, so that its time is
the rig's own.

A pass plays a whole trace on a new heap. Passes with a clock around each call
give the least ticks per call; passes without give the time of the whole.
"""

import os

import numpy as np

from xmem.arena import Arena as _Arena
from xmem.base.errors import BadArgument, BadArgumentType, PeerError
from xmem.pool import Pool as _Pool
from xmem.measure.trace import (
    TRACE_DTYPE,
    PeerResult,
    ample_arena_bytes,
    check_trace,
    peak_live,
    reserved_pages,
)

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport ARENA_MAX_LOG2, arena_t
from xmem.base cimport bit, count_argument, flag_argument, likely
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.engine.block cimport BLOCK_GRAIN
from xmem.measure.clock cimport clock_hz, clock_nanoseconds, clock_overhead, clock_ticks
from xmem.measure.codes cimport OP_FREE, OP_MEMALIGN, OP_REALLOC, SKIPPED, op_t
from xmem.pool cimport Pool
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_alloc_rest,
    pool_alloc_short,
    pool_free,
    pool_free_if_owned,
    pool_resize_patiently,
)

__all__ = ["Peer", "PeerResult", "measure"]

cdef extern from "xmem/measure/peer.h":
    ctypedef struct peer_t "struct peer":
        const char* name
        void* (*create)(void*, size_t) noexcept nogil
        void* (*malloc)(void*, size_t) noexcept nogil
        void (*free)(void*, void*) noexcept nogil
        void* (*realloc)(void*, void*, size_t) noexcept nogil
        void* (*memalign)(void*, size_t, size_t) noexcept nogil
        void (*destroy)(void*) noexcept nogil

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    const char* dlerror()
    int RTLD_NOW
    int RTLD_LOCAL

cdef enum:
    MAX_REPEATS = 1000000
    PLAIN_PASSES = 3
    LEAST_ARENA_BYTES = 1 << 20  # for a peer that does not use it
    SLICE_OPS = 1 << 14         # operations between two looks at signals

cdef uint64_t NOT_PLAYED = SKIPPED


cdef struct object_t:
    void* start                 # NULL: not live
    uint64_t size


# Functions of the C library's shape ------------------------------------------

cdef struct library_t:
    void* (*malloc)(size_t) noexcept nogil
    void (*free)(void*) noexcept nogil
    void* (*realloc)(void*, size_t) noexcept nogil
    void* (*aligned_alloc)(size_t, size_t) noexcept nogil


cdef void* library_malloc(void* h, size_t n) noexcept nogil:
    return (<library_t*>h).malloc(n)


cdef void library_free(void* h, void* start) noexcept nogil:
    (<library_t*>h).free(start)


cdef void* library_realloc(void* h, void* start, size_t n) noexcept nogil:
    # realloc(p, 0) may free.
    return (<library_t*>h).realloc(start, n if n != 0 else 1)


cdef void* library_memalign(void* h, size_t alignment, size_t n) noexcept nogil:
    return (<library_t*>h).aligned_alloc(
        alignment, (n + alignment - 1) & ~(alignment - 1)
    )


# Engines of xmem -------------------------------------------------------------

ctypedef void* (*malloc_t)(void*, size_t) noexcept nogil

cdef extern from *:
    malloc_t outlined_malloc "XMEM_OUTLINED"(malloc_t function) noexcept nogil


cdef struct engine_t:
    arena_t* arena
    pool_t* pool


cdef inline void* address(arena_t* arena, uint64_t offset) noexcept nogil:
    return arena.base + offset if offset != 0 else NULL


cdef void* engine_malloc_rest(void* h, size_t n) noexcept nogil:
    """`engine_malloc` of what needs a search."""
    cdef engine_t* engine = <engine_t*>h
    return address(
        engine.arena, pool_alloc_rest(engine.arena, engine.pool, n, BLOCK_GRAIN)
    )


cdef void* engine_malloc(void* h, size_t n) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    cdef char* base = engine.arena.base
    cdef uint64_t offset = pool_alloc_short(engine.arena, engine.pool, n)
    if likely(offset != 0):
        return base + offset
    return outlined_malloc(engine_malloc_rest)(h, n)


cdef void engine_free(void* h, void* start) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    pool_free(engine.arena, engine.pool, <char*>start - engine.arena.base)


cdef void* engine_realloc(void* h, void* start, size_t n) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    return address(
        engine.arena,
        pool_resize_patiently(
            engine.arena, engine.pool, <char*>start - engine.arena.base, n, 16
        ),
    )


cdef void* engine_memalign(void* h, size_t alignment, size_t n) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    return address(
        engine.arena,
        pool_alloc_patiently(engine.arena, engine.pool, n, alignment),
    )


cdef void checked_free(void* h, void* start) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    pool_free_if_owned(
        engine.arena, engine.pool, <char*>start - engine.arena.base
    )


cdef void* checked_realloc(void* h, void* start, size_t n) noexcept nogil:
    cdef engine_t* engine = <engine_t*>h
    cdef uint64_t offset = <char*>start - engine.arena.base
    if not pool_owns(engine.arena, engine.pool, offset):
        return NULL
    return address(
        engine.arena,
        pool_resize_patiently(engine.arena, engine.pool, offset, n, 16),
    )


# The rig's own share ---------------------------------------------------------

cdef struct bump_t:
    char* next
    char* end


cdef void* null_create(void* memory, size_t n_bytes) noexcept nogil:
    cdef bump_t* bump = <bump_t*>memory
    bump.next = <char*>memory + 64
    bump.end = <char*>memory + n_bytes
    return bump


cdef void* null_malloc(void* h, size_t n) noexcept nogil:
    cdef bump_t* bump = <bump_t*>h
    cdef char* start = bump.next
    if n > <size_t>(bump.end - start):
        start = <char*>bump + 64        # nothing is written there
    bump.next = start + ((n + 15) & ~<size_t>15)
    return start


cdef void null_free(void* h, void* start) noexcept nogil:
    pass


cdef void* null_realloc(void* h, void* start, size_t n) noexcept nogil:
    return start


cdef void null_destroy(void* h) noexcept nogil:
    pass


# The rig ---------------------------------------------------------------------

cdef struct rig_t:
    const peer_t* peer
    void* heap
    const op_t* ops
    uint64_t n_ops
    object_t* objects
    uint64_t* ticks             # per operation, NULL in a pass without clock
    uint64_t overhead
    bint touch                  # fill each block, so that it is resident
    uint64_t failed
    uint64_t skipped


cdef inline void* rig_alloc(rig_t* rig, const op_t* op) noexcept nogil:
    """Serve a malloc, a calloc (not zeroed) or a memalign."""
    if op.op != OP_MEMALIGN or op.align_log2 <= 4:
        return rig.peer.malloc(rig.heap, op.size)
    if rig.peer.memalign == NULL:
        return NULL
    return rig.peer.memalign(rig.heap, bit(op.align_log2), op.size)


cdef inline void* rig_resize(
    rig_t* rig, object_t* target, uint64_t n_bytes
) noexcept nogil:
    """Serve a realloc, by the peer's own or by copying."""
    cdef void* moved
    if rig.peer.realloc != NULL:
        return rig.peer.realloc(rig.heap, target.start, n_bytes)
    moved = rig.peer.malloc(rig.heap, n_bytes)
    if moved != NULL:
        memcpy(
            moved,
            target.start,
            n_bytes if n_bytes < target.size else target.size,
        )
        rig.peer.free(rig.heap, target.start)
    return moved


cdef inline uint64_t rig_op(rig_t* rig, const op_t* op, bint timed) noexcept nogil:
    """Carry out one operation; return its ticks, 0 without clock, or SKIPPED."""
    cdef object_t* target = &rig.objects[op.id]
    cdef uint64_t ticks = 0
    cdef void* start
    if (op.op == OP_FREE or op.op == OP_REALLOC) and target.start == NULL:
        rig.skipped += 1
        rig.failed += op.op == OP_REALLOC
        return NOT_PLAYED
    if timed:
        ticks = clock_ticks()
    if op.op == OP_FREE:
        rig.peer.free(rig.heap, target.start)
        start = NULL
    elif op.op == OP_REALLOC:
        start = rig_resize(rig, target, op.size)
    else:
        start = rig_alloc(rig, op)
    if timed:
        ticks = clock_ticks() - ticks
    if op.op == OP_FREE:
        target.start = NULL
        return ticks
    if start == NULL:
        rig.failed += 1
        return ticks
    target.start = start
    target.size = op.size
    if rig.touch:
        memset(start, 0xA5, op.size)
    return ticks


cdef void rig_slice(
    rig_t* rig, uint64_t first, uint64_t end, bint timed
) noexcept nogil:
    """Carry out the operations from ``first`` up to ``end``."""
    cdef uint64_t i, ticks
    if not timed:
        for i in range(first, end):
            rig_op(rig, &rig.ops[i], False)
        return
    for i in range(first, end):
        ticks = rig_op(rig, &rig.ops[i], True)
        if ticks != NOT_PLAYED:
            ticks = ticks - rig.overhead if ticks > rig.overhead else 0
        rig.ticks[i] = ticks


cdef void rig_drain(rig_t* rig, uint64_t n_objects) noexcept nogil:
    """Free the objects that are live at the end of a trace."""
    cdef uint64_t i
    for i in range(n_objects):
        if rig.objects[i].start != NULL:
            rig.peer.free(rig.heap, rig.objects[i].start)
            rig.objects[i].start = NULL


# Peers -----------------------------------------------------------------------

cdef str last_error():
    """Return the dynamic linker's message."""
    cdef const char* message = dlerror()
    return message.decode(errors="replace") if message != NULL else "unknown error"


cdef void* open_library(object path) except NULL:
    """Load a shared object; it is never unloaded, because its heaps may live on."""
    cdef bytes name = os.fsencode(path)
    cdef void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise PeerError(f"cannot load {os.fsdecode(name)}: {last_error()}")
    return library


cdef class Peer:
    """An allocator that can be put on the rig.

    Made by `Peer.load`, `Peer.library`, `Peer.system`, `Peer.engine` and
    `Peer.null`.

    Attributes
    ----------
    name : str
        Its name in tables.
    needs_arena : bool
        Whether it works in memory that it is given. Otherwise it gets its memory
        from the system, and only the growth of the process shows how much.
    """

    cdef const peer_t* functions
    cdef peer_t own             # where the functions are not those of a file
    cdef library_t libc
    cdef engine_t in_arena
    cdef Arena arena            # of an engine
    cdef Pool pool
    cdef dict settings          # of its pool
    cdef readonly str name
    cdef readonly bint needs_arena
    cdef bint reserved          # of an engine: pages are obtained at its start

    def __init__(self, *args, **kwargs):
        raise BadArgumentType(
            "a peer is made by load, library, system, engine or null"
        )

    def __repr__(self):
        return f"<xmem.measure.peers.Peer {self.name}>"

    @staticmethod
    def load(path):
        """Load a shared object that exports ``struct peer PEER``, see peer.h.

        Parameters
        ----------
        path : path-like
            The shared object; loaded into this process for good.

        Returns
        -------
        Peer

        Raises
        ------
        PeerError
            It cannot be loaded, or exports no such object, or an incomplete one.
        """
        cdef Peer peer = Peer.__new__(Peer)
        cdef const peer_t* found = <const peer_t*>dlsym(open_library(path), b"PEER")
        where = os.fsdecode(path)
        if found == NULL:
            raise PeerError(
                f"{where} exports no object PEER: see peer.h, which comes with xmem"
            )
        if (
            found.name == NULL
            or found.create == NULL
            or found.malloc == NULL
            or found.free == NULL
            or found.destroy == NULL
        ):
            raise PeerError(
                f"{where}: PEER lacks one of name, create, malloc, free and destroy"
            )
        peer.functions = found
        peer.name = found.name.decode(errors="replace")
        peer.needs_arena = True
        return peer

    cdef int bind(self, void* library) except -1:
        """Bind malloc and its family of a library, or of this process if NULL."""
        self.libc.malloc = <void* (*)(size_t) noexcept nogil>dlsym(
            library, b"malloc"
        )
        self.libc.free = <void (*)(void*) noexcept nogil>dlsym(library, b"free")
        self.libc.realloc = <void* (*)(void*, size_t) noexcept nogil>dlsym(
            library, b"realloc"
        )
        self.libc.aligned_alloc = <void* (*)(size_t, size_t) noexcept nogil>dlsym(
            library, b"aligned_alloc"
        )
        if (
            self.libc.malloc == NULL
            or self.libc.free == NULL
            or self.libc.realloc == NULL
            or self.libc.aligned_alloc == NULL
        ):
            raise PeerError(
                f"{self.name} exports no malloc, free, realloc and aligned_alloc"
            )
        self.own.malloc = library_malloc
        self.own.free = library_free
        self.own.realloc = library_realloc
        self.own.memalign = library_memalign
        self.functions = &self.own
        return 0

    @staticmethod
    def library(path, name=None):
        """Return the malloc of a shared library.

        Parameters
        ----------
        path : path-like
            Such as ``libjemalloc.so.2``; loaded into this process for good.
        name : str, optional
            Its name; the path by default.

        Returns
        -------
        Peer

        Raises
        ------
        PeerError
            It cannot be loaded, or has no such functions.
        """
        cdef Peer peer = Peer.__new__(Peer)
        peer.name = os.fsdecode(path) if name is None else name
        peer.bind(open_library(path))
        return peer

    @staticmethod
    def system(name="system"):
        """Return the malloc of this process: glibc's, unless another was preloaded.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Peer
        """
        cdef Peer peer = Peer.__new__(Peer)
        peer.name = name
        peer.bind(NULL)
        return peer

    @staticmethod
    def engine(
        engine="tlsf", *, name=None, checked=False, reserved=False, **settings
    ):
        """Return an engine of xmem, called at C level.

        Parameters
        ----------
        engine : {"tlsf", "firstfit"}
            The engine.
        name : str, optional
            Its name; ``xmem engine`` by default.
        checked : bool
            Prove each pointer before it is freed or resized.
        reserved : bool
            The pool has three quarters of the arena's pages before the clock starts,
            as a peer has all of its memory.
        **settings
            More parameters of the `Pool`.

        Returns
        -------
        Peer
        """
        cdef Peer peer = Peer.__new__(Peer)
        if flag_argument(reserved, "reserved") and engine != "tlsf":
            raise BadArgument("only the tlsf engine can reserve pages")
        peer.name = f"xmem {engine}" if name is None else name
        peer.settings = {"engine": engine, **settings}
        peer.own.malloc = engine_malloc
        peer.own.memalign = engine_memalign
        peer.own.free = engine_free
        peer.own.realloc = engine_realloc
        if flag_argument(checked, "checked"):
            peer.own.free = checked_free
            peer.own.realloc = checked_realloc
        peer.functions = &peer.own
        peer.needs_arena = True
        peer.reserved = reserved
        return peer

    @staticmethod
    def null():
        """Return the rig alone: it serves from a bump pointer and frees nothing.

        Returns
        -------
        Peer
        """
        cdef Peer peer = Peer.__new__(Peer)
        peer.name = "null"
        peer.own.create = null_create
        peer.own.malloc = null_malloc
        peer.own.free = null_free
        peer.own.realloc = null_realloc
        peer.own.destroy = null_destroy
        peer.functions = &peer.own
        peer.needs_arena = True
        return peer

    cdef void* begin(self, Arena arena) except? NULL:
        """Create a heap; return NULL if the arena is too small for one."""
        if self.settings is not None:
            arena.enter()
            arena.reformat()
            settings = self.settings
            if self.reserved:
                n_pages = reserved_pages(arena.n_free_pages, settings.get("max_pages"))
                settings = {**settings, "reserve": n_pages}
            try:
                self.pool = _Pool(arena, name="peer", **settings)
            except MemoryError:
                return NULL
            self.in_arena.arena = &arena.c
            self.in_arena.pool = self.pool.c
            return &self.in_arena
        if self.functions.create == NULL:
            return &self.libc
        return self.functions.create(arena.c.base, arena.c.n_bytes)

    cdef void end(self, void* heap) noexcept:
        """Destroy a heap."""
        if self.functions.destroy != NULL:
            self.functions.destroy(heap)


# Passes ----------------------------------------------------------------------

cdef class Rig:
    """A trace, a peer, and the arena that the peer works in."""

    cdef Peer peer
    cdef Arena arena
    cdef rig_t rig
    cdef object ops, cells
    cdef uint64_t n_objects

    def __init__(self, Peer peer not None, ops, arena):
        cdef const uint8_t[::1] raw
        cdef uint8_t[::1] cells
        self.peer = peer
        self.arena = arena
        self.ops = ops
        self.n_objects = int(ops["id"].max()) + 1 if len(ops) else 1
        self.cells = np.zeros(self.n_objects * sizeof(object_t), dtype=np.uint8)
        cells = self.cells
        self.rig.objects = <object_t*>&cells[0]
        if len(ops):
            raw = ops.view(np.uint8)
            self.rig.ops = <const op_t*>&raw[0]
        self.rig.n_ops = len(ops)
        self.rig.peer = peer.functions
        self.rig.overhead = clock_overhead()

    cdef object play(self, uint64_t* ticks, bint touch):
        """Play one pass; return its nanoseconds, or None if no heap fits."""
        cdef uint64_t first = 0
        cdef uint64_t elapsed = 0
        cdef uint64_t end, start
        self.rig.heap = self.peer.begin(self.arena)
        if self.rig.heap == NULL:
            return None
        self.rig.ticks = ticks
        self.rig.touch = touch
        self.rig.failed = self.rig.skipped = 0
        memset(self.rig.objects, 0, self.n_objects * sizeof(object_t))
        try:
            while first < self.rig.n_ops:
                end = min(first + SLICE_OPS, self.rig.n_ops)
                with nogil:
                    start = clock_nanoseconds()
                    rig_slice(&self.rig, first, end, ticks != NULL)
                    elapsed += clock_nanoseconds() - start
                first = end
                PyErr_CheckSignals()
        finally:
            if not self.peer.needs_arena:
                rig_drain(&self.rig, self.n_objects)
            self.peer.end(self.rig.heap)
        return elapsed


cdef object checked_peer(object peer):
    if not isinstance(peer, Peer):
        raise BadArgumentType(f"peer must be a Peer, not {type(peer).__name__}")
    return peer


cdef object arena_for(object ops, object arena_bytes):
    """Make an arena, by default ample for the trace."""
    if arena_bytes is None:
        arena_bytes = ample_arena_bytes(ops, os.sysconf("SC_PAGE_SIZE"), 16)
    return _Arena.anonymous(arena_bytes)


def measure(peer, ops, *, repeats=15, arena_bytes=None, progress=None):
    """Play a trace on a peer and measure every call.

    Parameters
    ----------
    peer : Peer
        The peer to measure.
    ops : numpy.ndarray
        A trace, as `xmem.measure.replay.load` returns it.
    repeats : int
        Passes with a clock per call, at most a million; the least of each call
        is kept.
    arena_bytes : int, optional
        Memory for a peer that needs an arena; ample by default.
    progress : callable, optional
        Called after each pass with (passes done, passes in all).

    Returns
    -------
    PeerResult

    Raises
    ------
    BadArgument, BadArgumentType
        An invalid argument, or a trace that breaks the format.
    PeerError
        The peer could not make a heap.

    Notes
    -----
    Ticks are those between two fenced readings of the clock, less those of two
    readings with nothing between them. `Peer.null` measures the rig's own share
    of the nanoseconds.
    """
    cdef uint64_t n_timed = count_argument(repeats, "repeats", 1)
    cdef Rig rig
    if n_timed > MAX_REPEATS:
        raise BadArgument(f"repeats must be at most {MAX_REPEATS}, not {repeats}")
    if progress is not None and not callable(progress):
        raise BadArgumentType(
            f"progress must be callable, not {type(progress).__name__}"
        )
    ops = check_trace(ops)
    rig = Rig(checked_peer(peer), ops, arena_for(ops, arena_bytes))
    ns, cycles, raw = play_passes(rig, n_timed, progress)
    was_run = cycles != NOT_PLAYED
    cycles[~was_run] = raw[~was_run] = 0
    n_done = len(ops) - rig.rig.skipped
    return PeerResult(
        engine=peer.name,
        n_ops=len(ops),
        failed=rig.rig.failed,
        skipped=rig.rig.skipped,
        was_run=was_run,
        ns_per_op=ns / n_done if n_done else 0.0,
        kinds=np.ascontiguousarray(ops["op"]),
        cycles=cycles,
        raw_cycles=raw,
        peak_live_bytes=peak_live(ops),
        tsc_hz=clock_hz(),
        repeats=n_timed,
    )


cdef tuple play_passes(Rig rig, uint64_t n_timed, progress):
    """Play all passes.

    Returns the nanoseconds of the fastest pass without clock, and per operation
    the least and the greatest ticks.
    """
    cdef uint64_t[::1] cells
    cdef uint64_t i
    n_ops = len(rig.ops)
    cycles = np.full(n_ops, NOT_PLAYED, dtype=np.uint64)
    raw = np.zeros(n_ops, dtype=np.uint64)
    ticks = np.zeros(max(n_ops, 1), dtype=np.uint64)
    cells = ticks
    least = None
    for i in range(PLAIN_PASSES + n_timed):
        ns = rig.play(NULL if i < PLAIN_PASSES else &cells[0], False)
        if ns is None:
            raise PeerError(
                f"{rig.peer.name} could not make a heap in {rig.arena.n_bytes} bytes"
            )
        if i < PLAIN_PASSES:
            least = ns if least is None else min(least, ns)
        else:
            np.minimum(cycles, ticks[:n_ops], out=cycles)
            np.maximum(raw, ticks[:n_ops], out=raw)
        if progress is not None:
            progress(i + 1, PLAIN_PASSES + n_timed)
    return least, cycles, raw


# Memory ----------------------------------------------------------------------

def serves(peer, ops, n_bytes):
    """Whether a peer serves every request of a trace in ``n_bytes``.

    Parameters
    ----------
    peer : Peer
        One that needs an arena.
    ops : numpy.ndarray
        A trace.
    n_bytes : int
        Size of the arena.

    Returns
    -------
    bool

    Raises
    ------
    BadArgument, BadArgumentType
        As `measure`.
    """
    cdef Rig rig
    if not checked_peer(peer).needs_arena:
        raise BadArgument(
            f"{peer.name} gets its memory from the system, not from an arena"
        )
    rig = Rig(peer, check_trace(ops), _Arena.anonymous(n_bytes))
    return rig.play(NULL, False) is not None and rig.rig.failed == 0


cdef bint are_sound(const op_t* ops, uint64_t n_ops) noexcept nogil:
    """Whether operations are of known kinds and have possible sizes."""
    cdef uint64_t i
    for i in range(n_ops):
        if (
            ops[i].op > OP_MEMALIGN
            or ops[i].align_log2 > ARENA_MAX_LOG2
            or ops[i].size > bit(ARENA_MAX_LOG2)
        ):
            return False
    return True


def play_touched(peer, ops, started=None):
    """Play a trace once, and touch every byte that it requests.

    Parameters
    ----------
    peer : Peer
        The peer.
    ops : numpy.ndarray
        A trace.
    started : callable, optional
        Called once all memory that the rig itself needs has been touched.

    Returns
    -------
    int
        Requests that failed.
    """
    cdef Rig rig
    cdef const uint8_t[::1] raw
    cdef uint64_t n_ids
    if not isinstance(ops, np.ndarray) or ops.dtype != TRACE_DTYPE or ops.ndim != 1:
        raise BadArgumentType("ops must be a trace, as load() returns it")
    # One copy, without the temporaries that a full check leaves in the heap.
    ops = np.array(ops, copy=True)
    n_ids = int(ops["id"].max()) + 1 if len(ops) else 0
    if len(ops):
        raw = ops.view(np.uint8)
        if n_ids > 16 * <uint64_t>len(ops) + 1024 or not are_sound(
            <const op_t*>&raw[0], len(ops)
        ):
            raise BadArgument("ops breaks the format of traces: see check_trace()")
    rig = Rig(
        checked_peer(peer),
        ops,
        arena_for(ops, None if peer.needs_arena else LEAST_ARENA_BYTES),
    )
    rig.cells[:] = 0
    if started is not None:
        started()
    rig.play(NULL, True)
    return rig.rig.failed
