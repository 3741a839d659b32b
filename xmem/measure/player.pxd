# SPDX-License-Identifier: BSD-3-Clause
"""One operation of a trace, against a pool or a heap, verified as it goes.

What a pool and a heap have in common is written once, and compiled twice:
``heaped`` is a constant in both. Against a heap a trace runs as a program that was
ported to its interface: each request takes the routine that the interface has for
it, each object is freed by the routine that it came from.

Threads that share a pool take turns by a lock that spins, for the call alone.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport bit, find_last_set
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.growth cimport pages_for
from xmem.core.plain cimport pool_owns
from xmem.interfaces cimport (
    HEAP_ARRAY,
    HEAP_STRICT,
    HEAP_SUBPAGE,
    heap_alloc,
    heap_lends,
    heap_owns,
    heap_owns_subpage,
    heap_page_alloc,
    heap_page_free,
    heap_resize,
    heap_small_max,
    heap_t,
    heap_xfree,
    heap_xfree_subpage,
    heap_xmalloc_subpage,
    heap_zeroed,
)
from xmem.measure.clock cimport clock_ticks
from xmem.measure.pattern cimport all_zero, pattern_fill, pattern_holds
from xmem.verbs cimport pool_alloc, pool_free, pool_resize, pool_xzalloc

cdef extern from *:
    """
    #ifndef XMEM_SPIN
    #define XMEM_SPIN
    static inline void xmem_spin_lock(int *held)
    {
        while (__atomic_exchange_n(held, 1, __ATOMIC_ACQUIRE)) {
            while (__atomic_load_n(held, __ATOMIC_RELAXED)) {
    #if defined(__x86_64__)
                __builtin_ia32_pause();
    #endif
            }
        }
    }
    static inline void xmem_spin_unlock(int *held)
    {
        __atomic_store_n(held, 0, __ATOMIC_RELEASE);
    }
    #endif
    """
    void spin_lock "xmem_spin_lock"(int* held) noexcept nogil
    void spin_unlock "xmem_spin_unlock"(int* held) noexcept nogil

cdef enum:
    OP_MALLOC = 0
    OP_FREE = 1
    OP_REALLOC = 2
    OP_CALLOC = 3
    OP_MEMALIGN = 4

    BY_XMALLOC = 0              # and xmalloc_array; freed by xfree
    BY_SUBPAGE = 1              # xmalloc_subpage; xfree_subpage
    BY_PAGES = 2                # page_alloc_exact; page_free

cdef extern from *:
    """
    #define XMEM_RUN_SKIPPED (~(uint64_t)0)
    """
    # Ticks of an operation without object.
    const uint64_t RUN_SKIPPED "XMEM_RUN_SKIPPED"


cdef packed struct op_t:
    uint8_t op
    uint8_t align_log2
    uint16_t thread
    uint32_t id
    uint64_t size


cdef struct object_t:
    offset_t payload            # 0: not live
    uint64_t size


cdef struct lock_t:
    # Of threads that share a pool: who has it, and how many had it before.
    int is_held
    uint64_t n_turns


cdef struct run_t:
    # One pass: where it stands and what it has seen.
    lock_t* lock                # NULL: nobody else is there
    uint64_t turn               # which one the last operation had
    arena_t* arena
    pool_t* pool
    heap_t* heap                # NULL: the trace runs against the pool itself
    uint8_t* routines           # per object of a heap, what it came from
    uint64_t peak_pages         # of a heap of two pools, both together
    uint64_t peak_main, peak_subpage
    const op_t* ops
    uint64_t n_ops
    uint64_t next_op
    object_t* objects
    uint8_t* aligns             # per object, log2 of what was asked for
    uint64_t* ticks             # per operation, NULL in a pass without clock
    uint8_t* paths              # per operation, NULL in all passes but one
    const uint8_t* cold         # per operation: empty the caches first, or NULL
    char* evictor               # EVICT_BYTES to empty them with
    uint64_t overhead
    bint checked                # prove each offset, as Python's calls do
    bint verify
    uint64_t failed
    uint64_t skipped            # operations on objects that were never made
    uint64_t content_errors     # also: not aligned, not zeroed
    uint64_t live_bytes
    uint64_t peak_live_bytes
    uint64_t live_blocks
    uint64_t peak_live_blocks


cdef inline void run_lock(run_t* run) noexcept nogil:
    """Wait for the pool, if others use it."""
    if run.lock != NULL:
        spin_lock(&run.lock.is_held)
        run.turn = run.lock.n_turns
        run.lock.n_turns += 1


cdef inline void run_unlock(run_t* run) noexcept nogil:
    """Let others have the pool."""
    if run.lock != NULL:
        spin_unlock(&run.lock.is_held)


# Against a heap --------------------------------------------------------------

cdef inline unsigned routine_for(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """The routine that a ported program asks for so many bytes."""
    cdef bint is_small = n_bytes <= heap_small_max(heap, alignment)
    if heap.interface == HEAP_STRICT and not is_small:
        return BY_PAGES
    if heap.interface == HEAP_SUBPAGE and is_small:
        return BY_SUBPAGE
    return BY_XMALLOC


cdef inline uint64_t run_pages_for(
    arena_t* arena, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Pages of the shortest run that holds and aligns so many bytes."""
    cdef uint64_t n_pages = pages_for(arena, n_bytes if n_bytes != 0 else 1)
    cdef uint64_t half = alignment >> (arena.page_shift + 1)
    return n_pages if n_pages > half else half + 1


cdef inline offset_t routine_alloc(
    heap_t* heap, unsigned routine, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Memory by a routine, or 0."""
    if routine == BY_PAGES:
        return heap_page_alloc(
            heap, run_pages_for(heap.arena, n_bytes, alignment)
        )
    if routine == BY_SUBPAGE:
        return heap_xmalloc_subpage(heap, n_bytes, alignment)
    return heap_alloc(heap, n_bytes, alignment, heap.interface == HEAP_ARRAY)


cdef inline void routine_free(
    heap_t* heap, unsigned routine, offset_t payload
) noexcept nogil:
    """Give memory back by the routine that matches the one it came from."""
    if routine == BY_PAGES:
        heap_page_free(heap, payload)
    elif routine == BY_SUBPAGE:
        heap_xfree_subpage(heap, payload)
    else:
        heap_xfree(heap, payload)


cdef inline offset_t routine_resize(
    heap_t* heap,
    object_t* target,
    unsigned old,
    unsigned new,
    uint64_t n_bytes,
    uint64_t alignment,
) noexcept nogil:
    """Resize an object of routine ``old`` to what ``new`` gives, or 0.

    Only xmalloc has an xrealloc: elsewhere the program allocates, copies and
    frees, but for a run that keeps its number of pages.
    """
    cdef offset_t moved
    if old == BY_XMALLOC and new == BY_XMALLOC:
        return heap_resize(
            heap,
            target.payload,
            n_bytes,
            alignment,
            heap.interface == HEAP_ARRAY,
        )
    if old == BY_PAGES and new == BY_PAGES and (
        run_pages_for(heap.arena, n_bytes, alignment)
        == run_pages_for(heap.arena, target.size, alignment)
    ):
        return target.payload
    moved = routine_alloc(heap, new, n_bytes, alignment)
    if moved != 0:
        memcpy(
            heap.arena.base + moved,
            heap.arena.base + target.payload,
            n_bytes if n_bytes < target.size else target.size,
        )
        routine_free(heap, old, target.payload)
    return moved


cdef inline void note_pages(run_t* run) noexcept nogil:
    """Account for the pages that two pools held at once in an operation.

    The pools' own peaks are those of the operation alone meanwhile: an
    operation allocates in one of the pools, and before it frees.
    """
    cdef pool_t* main = run.heap.main
    cdef pool_t* subpage = run.heap.subpage
    cdef uint64_t n_pages
    if subpage == NULL or subpage == main:
        return
    n_pages = main.peak_pages + subpage.peak_pages
    if n_pages > run.peak_pages:
        run.peak_pages = n_pages
    if main.peak_pages > run.peak_main:
        run.peak_main = main.peak_pages
    if subpage.peak_pages > run.peak_subpage:
        run.peak_subpage = subpage.peak_pages
    main.peak_pages = main.n_pages
    subpage.peak_pages = subpage.n_pages


# One operation ---------------------------------------------------------------

cdef inline bint is_aligned(
    run_t* run, object_t* target, const op_t* op
) noexcept nogil:
    """Whether an object has the alignment that it was asked for with."""
    return (target.payload & (bit(run.aligns[op.id]) - 1)) == 0


cdef inline void note_born(
    run_t* run, object_t* target, const op_t* op
) noexcept nogil:
    """Account for a new object, and verify and fill it."""
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
    if run.verify:
        if not is_aligned(run, target, op) or (
            op.op == OP_CALLOC and not all_zero(start, op.size)
        ):
            run.content_errors += 1
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
        if not is_aligned(run, target, op) or not pattern_holds(
            run.arena.base + moved, kept, op.id
        ):
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


cdef inline bint is_owned(
    run_t* run, offset_t payload, unsigned routine, bint heaped
) noexcept nogil:
    """Whether an object's memory is what its routine takes back."""
    if not heaped:
        return pool_owns(run.arena, run.pool, payload)
    if routine == BY_PAGES:
        return heap_lends(run.heap, payload)
    if routine == BY_SUBPAGE:
        return heap_owns_subpage(run.heap, payload) or heap_owns(
            run.heap, payload
        )
    return heap_owns(run.heap, payload) or heap_lends(run.heap, payload)


cdef inline uint64_t run_op(
    run_t* run, const op_t* op, bint timed, bint heaped
) noexcept nogil:
    """Do one operation; answers its ticks, 0 without clock, or RUN_SKIPPED."""
    cdef object_t* target = &run.objects[op.id]
    cdef uint64_t ticks = 0
    cdef uint64_t alignment = 16
    cdef offset_t moved
    cdef unsigned old = BY_XMALLOC
    cdef unsigned new = BY_XMALLOC
    if op.op == OP_FREE:
        if target.payload == 0:
            run.skipped += 1
            return RUN_SKIPPED
        note_freed(run, target, op)
        if heaped:
            old = run.routines[op.id]
        run_lock(run)
        if timed:
            ticks = clock_ticks()
        if run.checked and not is_owned(run, target.payload, old, heaped):
            run.content_errors += 1
        elif heaped:
            routine_free(run.heap, old, target.payload)
        else:
            pool_free(run.arena, run.pool, target.payload)
        if timed:
            ticks = clock_ticks() - ticks
        run_unlock(run)
        target.payload = 0
    elif op.op == OP_REALLOC:
        if target.payload == 0:
            run.failed += 1
            run.skipped += 1
            return RUN_SKIPPED
        if heaped:
            old = run.routines[op.id]
            alignment = bit(run.aligns[op.id])
            new = routine_for(run.heap, op.size, alignment)
        run_lock(run)
        if timed:
            ticks = clock_ticks()
        if run.checked and not is_owned(run, target.payload, old, heaped):
            moved = 0
        elif heaped:
            moved = routine_resize(
                run.heap, target, old, new, op.size, alignment
            )
        else:
            moved = pool_resize(
                run.arena, run.pool, target.payload, op.size, 16
            )
        if timed:
            ticks = clock_ticks() - ticks
        run_unlock(run)
        if heaped and moved != 0:
            run.routines[op.id] = <uint8_t>new
        note_resized(run, target, op, moved)
    else:
        if op.op == OP_MEMALIGN:
            alignment = bit(op.align_log2)
        run.aligns[op.id] = <uint8_t>find_last_set(alignment)
        if heaped:
            new = routine_for(run.heap, op.size, alignment)
            run.routines[op.id] = <uint8_t>new
        run_lock(run)
        if timed:
            ticks = clock_ticks()
        if heaped:
            moved = routine_alloc(run.heap, new, op.size, alignment)
            if run.verify and op.op == OP_CALLOC:
                heap_zeroed(run.heap, moved, op.size)
        elif run.verify and op.op == OP_CALLOC:
            moved = pool_xzalloc(run.arena, run.pool, op.size, alignment)
        else:
            moved = pool_alloc(run.arena, run.pool, op.size, alignment)
        if timed:
            ticks = clock_ticks() - ticks
        run_unlock(run)
        target.payload = moved
        note_born(run, target, op)
    if heaped and run.lock == NULL:
        note_pages(run)
    return ticks
