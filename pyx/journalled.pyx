# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of shared pools: under the arena's lock, each store in its journal.

This module alone is compiled with ``XMEM_LOGGED`` (base/journal.pxd): the code of the
verbs is that of every other pool. Each is one transaction::

    lock, say in the slot what is under way, the verb, its answer into the slot, commit

The commit is one store: the verb has happened when the journal is empty again. Whoever
is killed before it has done nothing, and after it all. A verb of a thread that holds
the lock already is part of what that does.

A thread waits for the lock as long as `limit_wait` says, at first without end.

A block that has to move is allocated in one transaction and freed in another. Its
contents are copied in between, without the lock: a copy has no bound, and its stores
are not in the journal. The slot names the new block meanwhile.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from xmem.arena cimport (
    ENTRY_DESTROYING,
    ENTRY_EMPTY,
    FRAME_RUN,
    arena_t,
    directory_entry,
    entry_t,
    frame_owner,
    frame_pages,
    frames_alloc_aligned,
    frames_free,
    frames_head_of,
    page_of,
    page_offset,
)
from xmem.arena.arena cimport arena_share_by, sharing_t
from xmem.arena.vm cimport vm_forks
from xmem.base cimport (
    LOGGED,
    claim,
    likely,
    log_commit,
    log_to,
    offset_t,
    put,
    put32,
    store_barrier,
    unlikely,
)
from xmem.core cimport (
    CREATION_DONE,
    creation_t,
    is_run,
    pool_capacity,
    pool_create,
    pool_keep,
    pool_owns,
    pool_release_next,
    pool_reserve,
    pool_retire,
    pool_t,
    released_t,
    run_free,
    settings_t,
    shrink_next,
    waiting_give,
)
from xmem.core.plain cimport (
    alloc_t,
    is_run_of,
    plain_resize_near,
    pool_alignment,
)
from xmem.core.routes cimport door_t, leads_nowhere, routes_of, routes_t
from xmem.interfaces cimport (
    heap_alloc,
    heap_has_whole,
    heap_owns,
    heap_small_max,
    heap_t,
    is_whole,
)
from xmem.shared.area cimport (
    SHARED_ALLOC,
    SHARED_CREATE,
    SHARED_DESTROY,
    SHARED_DRAIN,
    SHARED_FREE,
    SHARED_GIVE,
    SHARED_PAGES,
    SHARED_RESERVE,
    SHARED_RESIZE,
    SHARED_ROOT,
    SHARED_SHRINK,
    slot_t,
)
from xmem.shared.lock cimport (
    LOCK_FORKED,
    LOCK_GONE,
    LOCK_TAKEN,
    lock_enter,
    lock_leave,
)
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_alloc_run_patiently,
    pool_free,
    pool_lend_pages_patiently,
    pool_resize_run,
)

cdef enum:
    DRAIN_SLICE = 8             # blocks: the journal has room for what they change
    RELEASE_LOOKS = 1000        # runs in one hold of the lock


cdef extern from *:
    """
    /* Why this thread's last verb did nothing: a LOCK_ constant. */
    XMEM_TLS int xmem_cause;
    /* How long this thread waits for a lock, less one: 0 is without end. */
    XMEM_TLS uint64_t xmem_limit;
    """
    int cause "xmem_cause"
    uint64_t limit "xmem_limit"


cdef inline pool_t* pool_behind(pool_t* door) noexcept nogil:
    """The control block to which a door leads."""
    return (<door_t*>door).pool


cdef inline slot_t* own_slot(routes_t* routes) noexcept nogil:
    """The slot of this process."""
    return &routes.member.area.slots[routes.member.slot]


cdef inline int enter(routes_t* routes) noexcept nogil:
    """Own the lock of the arena, or say why not."""
    if unlikely(routes.member.forks != vm_forks):
        return LOCK_FORKED
    return lock_enter(&routes.member, limit - 1)


cdef bint begin(
    arena_t* arena, pool_t* door, unsigned verb, uint64_t subject
) noexcept nogil:
    """Take the lock and say what is under way; False, and ``cause``, if it cannot.

    ``door`` is NULL for what is no pool's.
    """
    global cause
    cdef routes_t* routes = routes_of(arena)
    cdef slot_t* slot = own_slot(routes)
    claim(LOGGED)
    cause = enter(routes)
    if unlikely(cause != LOCK_TAKEN):
        return False
    if unlikely(door != NULL and leads_nowhere(door)):
        lock_leave(&routes.member)
        cause = LOCK_GONE
        return False
    # Plain stores: they are never undone, and tell of a verb that a kill cut short.
    # First that one has begun: else the last one's answer would be taken for its own.
    slot.n_begun = slot.n_done + 1
    store_barrier()
    slot.subject = subject
    slot.pool = 0 if door == NULL else pool_behind(door).number
    slot.verb = verb
    log_to(&routes.member.area.journal.end)
    return True


cdef void end(arena_t* arena, uint64_t answer) noexcept nogil:
    """Commit, so that no store can be undone any more, and give the lock up.

    In a transaction of the caller's its end commits.
    """
    cdef routes_t* routes = routes_of(arena)
    cdef slot_t* slot = own_slot(routes)
    put(&slot.answer, answer)
    put(&slot.n_done, slot.n_done + 1)
    if likely(not routes.member.in_transaction):
        log_commit()
    lock_leave(&routes.member)


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
    if unlikely(routes_of(arena).member.in_transaction) and answer != 0:
        note_contents(arena, answer, pool_capacity(arena, pool_behind(door), answer))
    end(arena, answer)
    return answer


cdef void note_contents(
    arena_t* arena, offset_t payload, uint64_t capacity
) noexcept nogil:
    """Note the words of a new block that the engine uses while it is free.

    Its owner may write them before the transaction ends.
    """
    cdef uint64_t* first = <uint64_t*>(arena.base + payload)
    cdef uint64_t* last = <uint64_t*>(arena.base + payload + (capacity & ~<uint64_t>7))
    if payload & (arena.page_bytes - 1) == 0:
        return          # pages: a free one has no contents
    put(first, first[0])
    put(first + 1, first[1])
    put(last - 1, last[-1])


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
    cause = enter(routes_of(arena))
    if unlikely(cause != LOCK_TAKEN):
        return False
    is_owned = not leads_nowhere(door) and (
        pool_owns(arena, pool_behind(door), payload)
    )
    lock_leave(&routes_of(arena).member)
    return is_owned


cdef offset_t move(
    arena_t* arena, pool_t* door, offset_t payload, offset_t moved, uint64_t n_bytes
) noexcept nogil:
    """End a resize that has allocated ``moved``: copy, and free the old block."""
    put(&own_slot(routes_of(arena)).moved, moved)
    end(arena, moved)
    memcpy(arena.base + moved, arena.base + payload, n_bytes)
    if unlikely(not begin(arena, door, SHARED_RESIZE, payload)):
        return 0        # the slot names the new block
    if likely(pool_owns(arena, pool_behind(door), payload)):
        pool_free(arena, pool_behind(door), payload)
    put(&own_slot(routes_of(arena)).moved, 0)
    end(arena, moved)
    return moved


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
    if moved != 0:
        return move(
            arena, door, payload, moved, n_bytes if n_bytes < capacity else capacity
        )
    # A shrink never fails: the block is large enough as it is.
    if alignment <= own and n_bytes <= capacity:
        moved = payload
    end(arena, moved)
    return moved


# Pages -------------------------------------------------------------------------------

cdef offset_t serve_run(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """A block of whole pages, or 0: a door does not know the most that is served."""
    if n_bytes > pool.max_request:
        return 0
    return pool_alloc_run_patiently(arena, pool, n_bytes, alignment)


cdef offset_t do_alloc_run(
    arena_t* arena, pool_t* door, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    return request(arena, door, SHARED_ALLOC, serve_run, n_bytes, alignment)


cdef bint do_lends(arena_t* arena, pool_t* door, offset_t offset) noexcept nogil:
    global cause
    cdef bint is_lent
    cause = enter(routes_of(arena))
    if unlikely(cause != LOCK_TAKEN):
        return False
    is_lent = not leads_nowhere(door) and (
        is_run(arena, pool_behind(door), offset, FRAME_RUN)
    )
    lock_leave(&routes_of(arena).member)
    return is_lent


cdef bint do_free_pages(arena_t* arena, pool_t* door, offset_t offset) noexcept nogil:
    cdef bint is_lent
    if unlikely(not begin(arena, door, SHARED_GIVE, offset)):
        return False
    is_lent = is_run(arena, pool_behind(door), offset, FRAME_RUN)
    if likely(is_lent):
        run_free(arena, pool_behind(door), <uint32_t>page_of(arena, offset))
    end(arena, is_lent)
    return is_lent


cdef offset_t do_lend_pages(
    arena_t* arena, pool_t* door, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    return request(
        arena, door, SHARED_PAGES, pool_lend_pages_patiently, n_pages, alignment
    )


cdef uint32_t shared_take(
    arena_t* arena, uint64_t n_pages, unsigned order
) noexcept nogil:
    """First page of a run of the arena's own, aligned to ``2**order`` pages, or 0."""
    cdef uint32_t page
    if unlikely(not begin(arena, NULL, SHARED_PAGES, n_pages)):
        return 0
    page = frames_alloc_aligned(arena, n_pages, order, FRAME_RUN, 0)
    end(arena, page_offset(arena, page))
    return page


cdef bint shared_give(arena_t* arena, offset_t offset) noexcept nogil:
    """Free a run of the arena's own; False if none starts there."""
    cdef bint is_own
    if unlikely(not begin(arena, NULL, SHARED_GIVE, offset)):
        return False
    is_own = is_run_of(arena, 0, offset, FRAME_RUN)
    if likely(is_own):
        frames_free(arena, <uint32_t>page_of(arena, offset))
    end(arena, is_own)
    return is_own


cdef bint shared_set_root(arena_t* arena, uint64_t offset) noexcept nogil:
    """Keep an offset of the user's choice; False without the lock."""
    if unlikely(not begin(arena, NULL, SHARED_ROOT, offset)):
        return False
    put(&arena.super.root, offset)
    end(arena, offset)
    return True


# Heaps -------------------------------------------------------------------------------

cdef inline bint heap_stays(
    heap_t* heap,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint is_array,
) noexcept nogil:
    """Resize a block where it is, if it can keep its kind: within a page, or whole."""
    if n_bytes <= heap_small_max(heap, alignment):
        return not is_whole(heap, payload) and (
            plain_resize_near(heap.arena, heap.main, payload, n_bytes) != 0
        )
    return (
        heap_has_whole(heap, is_array)
        and is_whole(heap, payload)
        and pool_resize_run(heap.arena, heap.main, payload, n_bytes)
    )


cdef inline bint heap_keeps(
    heap_t* heap, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Whether a block for which there is no other shrinks, or is large enough."""
    if n_bytes > heap_small_max(heap, alignment):
        return False
    if is_whole(heap, payload):
        return pool_resize_run(heap.arena, heap.main, payload, n_bytes)
    return n_bytes <= pool_capacity(heap.arena, heap.main, payload)


cdef offset_t do_resize_heap(
    arena_t* arena,
    pool_t* door,
    unsigned interface,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint is_array,
) noexcept nogil:
    """`heap_resize`, with the copy between two transactions."""
    cdef heap_t heap
    cdef uint64_t own, capacity
    cdef offset_t moved = 0
    heap.arena = arena
    heap.main = heap.subpage = pool_behind(door)
    heap.interface = interface
    if unlikely(not begin(arena, door, SHARED_RESIZE, payload)):
        return 0
    if unlikely(not heap_owns(&heap, payload)):
        end(arena, 0)
        return 0
    own = pool_alignment(arena, heap.main, payload)
    if alignment <= own and heap_stays(&heap, payload, n_bytes, own, is_array):
        end(arena, payload)
        return payload
    capacity = pool_capacity(arena, heap.main, payload)
    moved = heap_alloc(
        &heap, n_bytes, alignment if alignment > own else own, is_array
    )
    if moved != 0:
        return move(
            arena, door, payload, moved, n_bytes if n_bytes < capacity else capacity
        )
    if alignment <= own and heap_keeps(&heap, payload, n_bytes, own):
        moved = payload
    end(arena, moved)
    return moved


# Pools -------------------------------------------------------------------------------

cdef creation_t shared_create(
    arena_t* arena,
    const char* name,
    uint64_t name_bytes,
    settings_t* settings,
    uint32_t* number,
) noexcept nogil:
    """`pool_create` in a shared arena; with number 0 see `last_cause`."""
    cdef creation_t reason
    number[0] = 0
    if unlikely(not begin(arena, NULL, SHARED_CREATE, 0)):
        return CREATION_DONE
    reason = pool_create(arena, name, name_bytes, settings, number)
    end(arena, number[0])
    return reason


cdef bint shared_retire(arena_t* arena, pool_t* door) noexcept nogil:
    """Take a pool out of the directory; False if it cannot."""
    if unlikely(not begin(arena, door, SHARED_DESTROY, 0)):
        return False
    pool_retire(arena, pool_behind(door))
    end(arena, True)
    return True


cdef bint shared_release_next(
    arena_t* arena,
    uint32_t number,
    uint32_t serial,
    uint32_t* page,
    released_t* released,
) noexcept nogil:
    """`pool_release_next`, a transaction of its own; the last frees the number.

    Several may do it together. At most RELEASE_LOOKS runs are looked at:
    ``released.n_pages`` is 0 if none of them was the pool's.
    """
    cdef entry_t* entry = directory_entry(arena, number)
    cdef bint is_more
    cdef unsigned _i
    released.n_pages = released.n_bytes = 0
    if unlikely(not begin(arena, NULL, SHARED_DESTROY, page[0])):
        return False
    if entry.state != ENTRY_DESTROYING or entry.serial != serial:
        end(arena, False)
        return False
    # The frames may have merged what was given back with what precedes it.
    page[0] = frames_head_of(arena, page[0])
    for _i in range(RELEASE_LOOKS):
        if page[0] == 0 or frame_owner(arena.frames[page[0]].word) == number:
            break
        page[0] = frames_head_of(
            arena, page[0] + frame_pages(arena.frames[page[0]].word)
        )
    is_more = page[0] != 0
    if is_more and frame_owner(arena.frames[page[0]].word) == number:
        pool_release_next(arena, number, False, page, released)
    elif not is_more:
        put32(&entry.state, ENTRY_EMPTY)
    end(arena, is_more)
    return is_more


cdef bint release(
    arena_t* arena, uint32_t number, uint32_t serial, uint32_t* page
) noexcept nogil:
    """`shared_release_next` for one who has no handle of the pool."""
    cdef released_t released
    return shared_release_next(arena, number, serial, page, &released)


cdef uint64_t shared_reserve(
    arena_t* arena, pool_t* door, uint64_t n_pages, bint keeps
) noexcept nogil:
    """`pool_reserve` or `pool_keep`; how many pages it got."""
    cdef uint64_t taken
    if unlikely(not begin(arena, door, SHARED_RESERVE, n_pages)):
        return 0
    if keeps:
        taken = pool_keep(arena, pool_behind(door), n_pages)
    else:
        taken = pool_reserve(arena, pool_behind(door), n_pages)
    end(arena, taken)
    return taken


cdef uint64_t shared_give_waiting(
    arena_t* arena, pool_t* door, uint64_t n_most
) noexcept nogil:
    """`waiting_give`, in transactions of DRAIN_SLICE blocks."""
    cdef uint64_t given = 0
    cdef uint64_t n, part
    while given < n_most:
        if unlikely(not begin(arena, door, SHARED_DRAIN, n_most)):
            break
        n = n_most - given
        part = waiting_give(
            arena, pool_behind(door), n if n < DRAIN_SLICE else DRAIN_SLICE
        )
        end(arena, part)
        given += part
        if part == 0:
            break
    return given


cdef uint64_t shared_shrink_next(
    arena_t* arena, pool_t* door, uint64_t* page
) noexcept nogil:
    """`shrink_next`, a transaction of its own."""
    cdef uint64_t n_pages
    if unlikely(not begin(arena, door, SHARED_SHRINK, page[0])):
        return 0
    put(&pool_behind(door).spare, 0)
    n_pages = shrink_next(arena, pool_behind(door), page)
    end(arena, n_pages)
    return n_pages


# A caller's own transactions ---------------------------------------------------------

cdef bint shared_begin(arena_t* arena) noexcept nogil:
    """Begin a transaction; False, and `last_cause` says why, if it cannot."""
    global cause
    cdef routes_t* routes = routes_of(arena)
    cause = enter(routes)
    if unlikely(cause != LOCK_TAKEN):
        return False
    log_to(&routes.member.area.journal.end)
    routes.member.in_transaction += 1
    return True


cdef void shared_put(arena_t* arena, uint64_t* word, uint64_t value) noexcept nogil:
    """Store into a word of the arena; undone if the transaction is not committed."""
    put(word, value)


cdef void shared_commit(arena_t* arena) noexcept nogil:
    """End a transaction: all of it has happened."""
    cdef routes_t* routes = routes_of(arena)
    routes.member.in_transaction -= 1
    if routes.member.in_transaction == 0:
        log_commit()
    lock_leave(&routes.member)


# The way here ------------------------------------------------------------------------

cdef void* make_routes() noexcept nogil:
    """The routes of a shared arena of this process, or NULL."""
    cdef routes_t* routes = <routes_t*>calloc(1, sizeof(routes_t))
    if routes == NULL:
        return NULL
    routes.alloc = do_alloc
    routes.free = do_free
    routes.owns = do_owns
    routes.resize = do_resize
    routes.alloc_run = do_alloc_run
    routes.lend_pages = do_lend_pages
    routes.lends = do_lends
    routes.free_pages = do_free_pages
    routes.resize_heap = do_resize_heap
    return routes


cdef int last_cause() noexcept nogil:
    """Why this thread's last verb did nothing: a LOCK_ constant."""
    return cause


cdef void limit_wait(uint64_t most_ns) noexcept nogil:
    """How long this thread waits for the lock of an arena; ~0: without end."""
    global limit
    limit = most_ns + 1


cdef sharing_t verbs
verbs.make = make_routes
verbs.take = shared_take
verbs.give = shared_give
verbs.set_root = shared_set_root
verbs.release = release
arena_share_by(&verbs)
