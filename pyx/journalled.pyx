# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of shared pools: under the arena's lock, each store in its journal.

This module alone is compiled with ``XMEM_LOGGED`` (base/journal.pxd): the code of the
verbs is that of every other pool. Each is one transaction::

    lock, say in the slot what is under way, the verb, its answer into the slot, commit

The commit is one store: the verb has happened when the journal is empty again. Whoever
is killed before it has done nothing, and after it all.

A block that has to move is allocated in one transaction and freed in another. Its
contents are copied in between, without the lock: a copy has no bound, and its stores
are not in the journal. The slot names the new block meanwhile.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from xmem.arena.superblock cimport arena_t
from xmem.base cimport (
    LOGGED,
    claim,
    likely,
    log_commit,
    log_to,
    offset_t,
    put,
    unlikely,
)
from xmem.core cimport pool_capacity, pool_owns, pool_t
from xmem.core.plain cimport alloc_t, plain_resize_near, pool_alignment
from xmem.core.routes cimport door_t, routes_of, routes_t
from xmem.shared.area cimport (
    SHARED_ALLOC,
    SHARED_FREE,
    SHARED_PAGES,
    SHARED_RESIZE,
    slot_t,
)
from xmem.shared.lock cimport LOCK_TAKEN, lock_acquire, lock_release
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_alloc_run_patiently,
    pool_free,
    pool_lend_pages_patiently,
)

cdef extern from *:
    """
    /* Why this thread's last verb did nothing: a LOCK_ constant. */
    XMEM_TLS int xmem_cause;
    """
    int cause "xmem_cause"


cdef inline pool_t* pool_behind(pool_t* door) noexcept nogil:
    """The control block to which a door leads."""
    return (<door_t*>door).pool


cdef inline slot_t* own_slot(routes_t* routes) noexcept nogil:
    """The slot of this process."""
    return &routes.member.area.slots[routes.member.slot]


cdef bint begin(
    arena_t* arena, pool_t* door, unsigned verb, uint64_t subject
) noexcept nogil:
    """Take the lock and say what is under way; False, and ``cause``, if it cannot."""
    global cause
    cdef routes_t* routes = routes_of(arena)
    cdef slot_t* slot = own_slot(routes)
    claim(LOGGED)
    cause = lock_acquire(&routes.member)
    if unlikely(cause != LOCK_TAKEN):
        return False
    # Plain stores: they are never undone, and tell of a verb that a kill cut short.
    slot.subject = subject
    slot.pool = pool_behind(door).number
    slot.verb = verb
    slot.n_begun = slot.n_done + 1
    log_to(&routes.member.area.journal.end)
    return True


cdef void end(arena_t* arena, uint64_t answer) noexcept nogil:
    """Commit, so that no store can be undone any more, and give the lock up."""
    cdef slot_t* slot = own_slot(routes_of(arena))
    put(&slot.answer, answer)
    put(&slot.n_done, slot.n_done + 1)
    log_commit()
    lock_release(&routes_of(arena).member)


# Blocks ------------------------------------------------------------------------------

cdef inline void tell_damage(pool_t* door) noexcept nogil:
    """Show the damage that a verb has found, if any, where its caller looks."""
    door.hard.damage = pool_behind(door).hard.damage
    pool_behind(door).hard.damage.code = 0


cdef inline offset_t request(
    arena_t* arena,
    pool_t* door,
    unsigned verb,
    alloc_t serve,
    uint64_t n,
    uint64_t alignment,
) noexcept nogil:
    """What a verb that allocates ``n`` bytes or pages returns, in one transaction."""
    cdef offset_t answer
    if unlikely(not begin(arena, door, verb, n)):
        return 0
    answer = serve(arena, pool_behind(door), n, alignment)
    tell_damage(door)
    end(arena, answer)
    return answer


cdef offset_t do_alloc(
    arena_t* arena, pool_t* door, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    return request(
        arena, door, SHARED_ALLOC, pool_alloc_patiently, n_bytes, alignment
    )


cdef bint do_free(arena_t* arena, pool_t* door, offset_t payload) noexcept nogil:
    cdef bint is_owned
    if unlikely(not begin(arena, door, SHARED_FREE, payload)):
        return False
    is_owned = pool_owns(arena, pool_behind(door), payload)
    if likely(is_owned):
        pool_free(arena, pool_behind(door), payload)
    tell_damage(door)
    end(arena, is_owned)
    return is_owned


cdef bint do_owns(arena_t* arena, pool_t* door, offset_t payload) noexcept nogil:
    global cause
    cdef bint is_owned
    cause = lock_acquire(&routes_of(arena).member)
    if unlikely(cause != LOCK_TAKEN):
        return False
    is_owned = pool_owns(arena, pool_behind(door), payload)
    lock_release(&routes_of(arena).member)
    return is_owned


cdef offset_t do_resize(
    arena_t* arena, pool_t* door, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """In place, or else a new block, a copy, and the old block freed."""
    cdef pool_t* pool = pool_behind(door)
    cdef uint64_t own, capacity
    cdef offset_t moved
    if unlikely(not begin(arena, door, SHARED_RESIZE, payload)):
        return 0
    if unlikely(not pool_owns(arena, pool, payload)):
        end(arena, 0)
        return 0
    own = pool_alignment(arena, pool, payload)
    capacity = pool_capacity(arena, pool, payload)
    if alignment <= own and n_bytes <= pool.max_request:
        if plain_resize_near(arena, pool, payload, n_bytes) != 0:
            end(arena, payload)
            return payload
        alignment = own
    moved = pool_alloc_patiently(arena, pool, n_bytes, alignment)
    if moved == 0:
        # A shrink never fails: the block is large enough as it is.
        if alignment <= own and n_bytes <= capacity:
            moved = payload
        end(arena, moved)
        return moved
    put(&own_slot(routes_of(arena)).moved, moved)
    end(arena, moved)
    memcpy(
        arena.base + moved,
        arena.base + payload,
        n_bytes if n_bytes < capacity else capacity,
    )
    if unlikely(not begin(arena, door, SHARED_RESIZE, payload)):
        return 0        # the slot names the new block
    if likely(pool_owns(arena, pool, payload)):
        pool_free(arena, pool, payload)
    put(&own_slot(routes_of(arena)).moved, 0)
    end(arena, moved)
    return moved


# Pages -------------------------------------------------------------------------------

cdef offset_t do_alloc_run(
    arena_t* arena, pool_t* door, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    return request(
        arena, door, SHARED_ALLOC, pool_alloc_run_patiently, n_bytes, alignment
    )


cdef offset_t do_lend_pages(
    arena_t* arena, pool_t* door, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    return request(
        arena, door, SHARED_PAGES, pool_lend_pages_patiently, n_pages, alignment
    )


cdef int routes_fill(routes_t* routes) except -1:
    """Enter the verbs."""
    routes.alloc = do_alloc
    routes.free = do_free
    routes.owns = do_owns
    routes.resize = do_resize
    routes.alloc_run = do_alloc_run
    routes.lend_pages = do_lend_pages
    return 0


cdef int last_cause() noexcept nogil:
    """Why this thread's last verb did nothing: a LOCK_ constant."""
    return cause
