# SPDX-License-Identifier: BSD-3-Clause
"""The way from the verbs to a pool that several processes share.

In a shared arena whoever works in a pool holds the arena's lock and notes each store in
its journal: the verbs that do so are compiled apart (pyx/journalled.pyx). What a
program holds instead of the pool's control block is a *door*: a control block of this
process's own that can serve nothing. It looks like that of a hardened pool without
memory, in which no block is sound. So every verb comes to the point where it refuses,
and there, only there, it asks whether this is a door and goes on through the routes.
Verbs of other pools ask nothing that they would not ask anyway, and no compiled program
can store into a shared pool past the journal.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena.superblock cimport ENTRY_READY, arena_t, entry_t
from xmem.base cimport ENGINE_TLSF, LOGGED, offset_t
from xmem.core.control cimport (
    POOL_HOOKED,
    POOL_MAGIC,
    POOL_SAFE_LINKS,
    POOL_SHARED,
    pool_t,
)
from xmem.shared.identity cimport member_t


cdef struct routes_t:               # of a shared arena, this process's own
    member_t member
    offset_t (*alloc)(arena_t*, pool_t*, uint64_t, uint64_t) noexcept nogil
    bint (*free)(arena_t*, pool_t*, offset_t) noexcept nogil
    offset_t (*resize)(
        arena_t*, pool_t*, offset_t, uint64_t, uint64_t
    ) noexcept nogil
    bint (*owns)(arena_t*, pool_t*, offset_t) noexcept nogil
    offset_t (*alloc_run)(arena_t*, pool_t*, uint64_t, uint64_t) noexcept nogil
    offset_t (*lend_pages)(arena_t*, pool_t*, uint64_t, uint64_t) noexcept nogil
    bint (*lends)(arena_t*, pool_t*, offset_t) noexcept nogil
    bint (*free_pages)(arena_t*, pool_t*, offset_t) noexcept nogil
    # The number is the interface of a heap.
    offset_t (*resize_heap)(
        arena_t*, pool_t*, unsigned, offset_t, uint64_t, uint64_t, bint
    ) noexcept nogil


cdef struct door_t:
    pool_t stub                     # what the verbs see
    pool_t* pool                    # the control block in the arena
    entry_t* entry                  # of the directory
    uint32_t serial                 # that it has as long as the pool is there


cdef inline void door_init(
    door_t* door, pool_t* pool, entry_t* entry
) noexcept nogil:
    """Make a door to a pool of a shared arena."""
    memset(door, 0, sizeof(door_t))
    door.pool = pool
    door.entry = entry
    door.serial = entry.serial
    door.stub.magic = POOL_MAGIC
    door.stub.engine = ENGINE_TLSF
    door.stub.flags = POOL_SHARED | POOL_SAFE_LINKS | POOL_HOOKED
    # No alignment is small enough, and no number of bytes for a resize; no page may be
    # taken, no region given; no run has the owner 0, and no block the tag 0.
    door.stub.max_request = 7
    door.stub.release_bytes = ~<uint64_t>0
    door.stub.max_pages = 1
    door.stub.n_pages = 1


cdef inline bint leads_nowhere(pool_t* door) noexcept nogil:
    """Whether the pool behind a door has been destroyed; the caller owns the lock."""
    return (
        (<door_t*>door).entry.serial != (<door_t*>door).serial
        or (<door_t*>door).entry.state != ENTRY_READY
    )


cdef inline bint is_door(arena_t* arena, pool_t* pool) noexcept nogil:
    """Whether a verb has to go on through the routes.

    An arena that is not shared has none, whatever the flags of a damaged pool say.
    """
    return not LOGGED and (pool.flags & POOL_SHARED) != 0 and arena.routes != NULL


cdef inline routes_t* routes_of(arena_t* arena) noexcept nogil:
    """The routes of a shared arena."""
    return <routes_t*>arena.routes


cdef inline offset_t routed_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` where that has refused: by the routes, or 0."""
    if is_door(arena, pool):
        return routes_of(arena).alloc(arena, pool, n_bytes, alignment)
    return 0


cdef inline bint routed_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` where that has refused: by the routes, or not at all."""
    return is_door(arena, pool) and routes_of(arena).free(arena, pool, payload)


cdef inline offset_t routed_resize(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_resize`` where that has refused: by the routes, or 0."""
    if is_door(arena, pool):
        return routes_of(arena).resize(arena, pool, payload, n_bytes, alignment)
    return 0


cdef inline bint routed_owns(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_owns`` where that has said no: what the routes say, or no."""
    return is_door(arena, pool) and routes_of(arena).owns(arena, pool, payload)


cdef inline offset_t routed_run(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc_run`` where that has refused: by the routes, or 0."""
    if is_door(arena, pool):
        return routes_of(arena).alloc_run(arena, pool, n_bytes, alignment)
    return 0


cdef inline offset_t routed_pages(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    """``pool_lend_pages`` where that has refused: by the routes, or 0."""
    if is_door(arena, pool):
        return routes_of(arena).lend_pages(arena, pool, n_pages, alignment)
    return 0


cdef inline bint routed_lends(
    arena_t* arena, pool_t* pool, offset_t offset
) noexcept nogil:
    """Whether a run of page_alloc starts there, where the pool has none."""
    return is_door(arena, pool) and routes_of(arena).lends(arena, pool, offset)
