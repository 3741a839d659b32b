# SPDX-License-Identifier: BSD-3-Clause
"""A player carries out a trace's operations on a pool or a heap, one at a time.

One walk through a trace is a *pass*. What a pool and a heap have in common is
written once and compiled twice: ``timed`` and ``heaped`` are constants wherever
these functions are called. Against a heap the player uses the routines of
routines.pxd.

Threads that share a pool take turns by a spin lock, which they hold for the call
alone.
"""

from libc.stdint cimport uint8_t, uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport bit, find_last_set
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.interfaces cimport heap_t, heap_zeroed
from xmem.measure.clock cimport clock_ticks
from xmem.measure.codes cimport (
    OP_CALLOC,
    OP_FREE,
    OP_MEMALIGN,
    OP_REALLOC,
    SKIPPED,
    op_t,
)
from xmem.measure.pattern cimport all_zero, pattern_fill, pattern_holds
from xmem.measure.routines cimport (
    BY_XMALLOC,
    routine_alloc,
    routine_for,
    routine_free,
    routine_owns,
    routine_resize,
)
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_free,
    pool_resize_patiently,
    pool_xzalloc,
)

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


cdef struct object_t:
    offset_t payload            # 0: not live
    uint64_t size


cdef struct lock_t:
    # Of the threads that share a pool.
    int is_held
    uint64_t n_turns            # how many calls have held it


cdef struct player_t:
    # One pass: its input, how far it has come, and what it has counted.
    lock_t* lock                # NULL: no other thread uses the pool
    uint64_t turn               # of the last operation, in the order of all threads
    arena_t* arena
    pool_t* pool
    heap_t* heap                # NULL: the trace is played on the pool itself
    uint8_t* routines           # per object of a heap: the routine it came from
    uint64_t peak_pages         # of a heap of two pools, both together
    uint64_t peak_main, peak_subpage
    const op_t* ops
    uint64_t n_ops
    uint64_t next_op
    object_t* objects
    uint8_t* aligns             # per object: log2 of the alignment requested
    uint64_t* ticks             # per operation; NULL in a pass without clock
    uint8_t* paths              # per operation; NULL in all passes but one
    const uint8_t* cold         # per operation: empty the caches first, or NULL
    char* evictor               # EVICT_BYTES to empty them with
    uint64_t overhead           # ticks of reading the clock
    bint checked                # prove each offset, as Python's calls do
    bint verify
    uint64_t failed
    uint64_t skipped            # operations on objects that do not exist
    uint64_t content_errors     # also: wrong alignment, calloc not zeroed
    uint64_t live_bytes
    uint64_t peak_live_bytes
    uint64_t live_blocks
    uint64_t peak_live_blocks


# Turns and clock -------------------------------------------------------------

cdef inline void player_lock(player_t* player) noexcept nogil:
    """Take the pool's lock, if threads share the pool."""
    if player.lock != NULL:
        spin_lock(&player.lock.is_held)
        player.turn = player.lock.n_turns
        player.lock.n_turns += 1


cdef inline void player_unlock(player_t* player) noexcept nogil:
    """Release the pool's lock."""
    if player.lock != NULL:
        spin_unlock(&player.lock.is_held)


cdef inline uint64_t call_begin(player_t* player, bint timed) noexcept nogil:
    """Take the lock, then read the clock."""
    player_lock(player)
    return clock_ticks() if timed else 0


cdef inline uint64_t call_end(
    player_t* player, bint timed, uint64_t start
) noexcept nogil:
    """Return the ticks since `call_begin` and release the lock."""
    cdef uint64_t ticks = clock_ticks() - start if timed else 0
    player_unlock(player)
    return ticks


# Accounts and verification ---------------------------------------------------

cdef inline void count_pages(player_t* player) noexcept nogil:
    """Update the peak of the pages that the two pools of a heap hold together.

    The pools' own peaks are reset before each operation. An operation allocates
    in one pool only, and before it frees, so their sum is its true peak.
    """
    cdef pool_t* main = player.heap.main
    cdef pool_t* subpage = player.heap.subpage
    cdef uint64_t n_pages
    if subpage == NULL or subpage == main:
        return
    n_pages = main.peak_pages + subpage.peak_pages
    if n_pages > player.peak_pages:
        player.peak_pages = n_pages
    if main.peak_pages > player.peak_main:
        player.peak_main = main.peak_pages
    if subpage.peak_pages > player.peak_subpage:
        player.peak_subpage = subpage.peak_pages
    main.peak_pages = main.n_pages
    subpage.peak_pages = subpage.n_pages


cdef inline bint is_aligned(
    player_t* player, object_t* target, const op_t* op
) noexcept nogil:
    """Whether an object has the alignment that was requested."""
    return (target.payload & (bit(player.aligns[op.id]) - 1)) == 0


cdef inline void count_new(
    player_t* player, object_t* target, const op_t* op
) noexcept nogil:
    """Count a new object; verify and fill it."""
    cdef char* start = player.arena.base + target.payload
    if target.payload == 0:
        player.failed += 1
        return
    target.size = op.size
    player.live_blocks += 1
    player.live_bytes += op.size
    if player.live_blocks > player.peak_live_blocks:
        player.peak_live_blocks = player.live_blocks
    if player.live_bytes > player.peak_live_bytes:
        player.peak_live_bytes = player.live_bytes
    if player.verify:
        if not is_aligned(player, target, op) or (
            op.op == OP_CALLOC and not all_zero(start, op.size)
        ):
            player.content_errors += 1
        pattern_fill(start, op.size, op.id)


cdef inline void count_resized(
    player_t* player, object_t* target, const op_t* op, offset_t moved
) noexcept nogil:
    """Count a resized object; verify the contents it kept and fill it anew."""
    cdef uint64_t kept = target.size if target.size < op.size else op.size
    if moved == 0:
        player.failed += 1
        return
    target.payload = moved
    player.live_bytes += op.size - target.size
    target.size = op.size
    if player.live_bytes > player.peak_live_bytes:
        player.peak_live_bytes = player.live_bytes
    if player.verify:
        if not is_aligned(player, target, op) or not pattern_holds(
            player.arena.base + moved, kept, op.id
        ):
            player.content_errors += 1
        pattern_fill(player.arena.base + moved, op.size, op.id)


cdef inline void count_freed(
    player_t* player, object_t* target, const op_t* op
) noexcept nogil:
    """Verify and count an object that is about to be freed."""
    if player.verify and not pattern_holds(
        player.arena.base + target.payload, target.size, op.id
    ):
        player.content_errors += 1
    player.live_blocks -= 1
    player.live_bytes -= target.size


cdef inline bint is_owned(
    player_t* player, offset_t payload, unsigned routine, bint heaped
) noexcept nogil:
    """Whether an object's memory is live and its routine takes it back."""
    if heaped:
        return routine_owns(player.heap, routine, payload)
    return pool_owns(player.arena, player.pool, payload)


# One operation ---------------------------------------------------------------

cdef inline uint64_t play_free(
    player_t* player, const op_t* op, bint timed, bint heaped
) noexcept nogil:
    """Free an object that exists."""
    cdef object_t* target = &player.objects[op.id]
    cdef uint64_t ticks
    cdef unsigned routine = BY_XMALLOC
    count_freed(player, target, op)
    if heaped:
        routine = player.routines[op.id]
    ticks = call_begin(player, timed)
    if player.checked and not is_owned(player, target.payload, routine, heaped):
        player.content_errors += 1
    elif heaped:
        routine_free(player.heap, routine, target.payload)
    else:
        pool_free(player.arena, player.pool, target.payload)
    ticks = call_end(player, timed, ticks)
    target.payload = 0
    return ticks


cdef inline uint64_t play_resize(
    player_t* player, const op_t* op, bint timed, bint heaped
) noexcept nogil:
    """Resize an object that exists."""
    cdef object_t* target = &player.objects[op.id]
    cdef uint64_t ticks
    cdef uint64_t alignment = 16
    cdef offset_t moved
    cdef unsigned old = BY_XMALLOC
    cdef unsigned new = BY_XMALLOC
    if heaped:
        old = player.routines[op.id]
        alignment = bit(player.aligns[op.id])
        new = routine_for(player.heap, op.size, alignment)
    ticks = call_begin(player, timed)
    if player.checked and not is_owned(player, target.payload, old, heaped):
        moved = 0
    elif heaped:
        moved = routine_resize(
            player.heap, target.payload, target.size, old, new, op.size, alignment
        )
    else:
        moved = pool_resize_patiently(
            player.arena, player.pool, target.payload, op.size, 16
        )
    ticks = call_end(player, timed, ticks)
    if heaped and moved != 0:
        player.routines[op.id] = <uint8_t>new
    count_resized(player, target, op, moved)
    return ticks


cdef inline uint64_t play_alloc(
    player_t* player, const op_t* op, bint timed, bint heaped
) noexcept nogil:
    """Allocate an object."""
    cdef object_t* target = &player.objects[op.id]
    cdef uint64_t ticks
    cdef uint64_t alignment = 16
    cdef offset_t payload
    cdef unsigned routine = BY_XMALLOC
    if op.op == OP_MEMALIGN:
        alignment = bit(op.align_log2)
    player.aligns[op.id] = <uint8_t>find_last_set(alignment)
    if heaped:
        routine = routine_for(player.heap, op.size, alignment)
        player.routines[op.id] = <uint8_t>routine
    ticks = call_begin(player, timed)
    if heaped:
        payload = routine_alloc(player.heap, routine, op.size, alignment)
        if player.verify and op.op == OP_CALLOC:
            heap_zeroed(player.heap, payload, op.size)
    elif player.verify and op.op == OP_CALLOC:
        payload = pool_xzalloc(player.arena, player.pool, op.size, alignment)
    else:
        payload = pool_alloc_patiently(player.arena, player.pool, op.size, alignment)
    ticks = call_end(player, timed, ticks)
    target.payload = payload
    count_new(player, target, op)
    return ticks


cdef inline uint64_t play_op(
    player_t* player, const op_t* op, bint timed, bint heaped
) noexcept nogil:
    """Carry out one operation; return its ticks, 0 without clock, or SKIPPED."""
    cdef uint64_t ticks
    if op.op == OP_FREE or op.op == OP_REALLOC:
        if player.objects[op.id].payload == 0:
            player.failed += op.op == OP_REALLOC
            player.skipped += 1
            return SKIPPED
        if op.op == OP_FREE:
            ticks = play_free(player, op, timed, heaped)
        else:
            ticks = play_resize(player, op, timed, heaped)
    else:
        ticks = play_alloc(player, op, timed, heaped)
    if heaped and player.lock == NULL:
        count_pages(player)
    return ticks
