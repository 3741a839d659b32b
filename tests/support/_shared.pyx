# SPDX-License-Identifier: BSD-3-Clause
"""Shared arenas at C level, for tests: the lock, the slots, the journal, the verbs."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.mman cimport munmap

from xmem.arena cimport arena_t, page_offset
from xmem.arena.arena cimport Arena
from xmem.arena.check cimport check_frames
from xmem.base cimport ENGINE_TLSF, finding_t
from xmem.check cimport census_t, check_pool
from xmem.core cimport (
    CREATION_SHARED,
    pool_create,
    pool_destroy,
    pool_keep,
    pool_reserve,
    pool_shrink,
    pool_t,
    released_t,
    settings_t,
    waiting_give,
)
from xmem.interfaces cimport (
    heap_alloc,
    heap_lends,
    heap_page_free,
    heap_resize,
    heap_t,
    heap_xfree,
)
from xmem.journalled cimport (
    last_cause,
    limit_wait,
    shared_begin,
    shared_commit,
    shared_create,
    shared_give,
    shared_give_waiting,
    shared_put,
    shared_release_next,
    shared_reserve,
    shared_retire,
    shared_set_root,
    shared_shrink_next,
    shared_take,
)
from xmem.measure.callees cimport verb_t
from xmem.pool cimport Pool
from xmem.shared.area cimport (
    AREA_JOURNAL_ENTRIES,
    area_t,
    journal_t,
    slot_t,
)
from xmem.shared.identity cimport identity_asked, identity_map, member_t
from xmem.shared.lock cimport (
    LOCK_BUSY,
    LOCK_DAMAGED,
    LOCK_HANDED,
    LOCK_TAKEN,
    lock_enter,
    lock_leave,
    lock_slot,
)
from xmem.shared.undo cimport journal_undo
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_free_if_owned,
    pool_lend_pages_patiently,
    pool_resize_patiently,
)

AREA_BYTES = sizeof(area_t)
BUSY, DAMAGED, TAKEN = LOCK_BUSY, LOCK_DAMAGED, LOCK_TAKEN
#: Places in the area, bytes.
SLOTS_AT = <uint64_t>&(<area_t*>NULL).slots
JOURNAL_AT = <uint64_t>&(<area_t*>NULL).journal
ENTRIES_AT = <uint64_t>&(<journal_t*>NULL).entries
#: Place in a slot.
DONE_AT = <uint64_t>&(<slot_t*>NULL).n_done
N_ENTRIES = AREA_JOURNAL_ENTRIES


cdef class Shared:
    """This process's share in an arena, and a pool in it."""

    cdef area_t* area
    cdef member_t* member
    cdef uint64_t timeout_ns
    cdef readonly object arena, pool
    cdef readonly uint64_t area_offset

    def __init__(self, Arena arena, Pool pool):
        self.arena = arena
        self.pool = pool
        self.member = arena.member
        self.area = self.member.area
        self.area_offset = <char*>self.area - arena.c.base
        self.timeout_ns = 10 * 10**9
        limit_wait(~<uint64_t>0)    # of this thread, whatever tests before have set

    @property
    def my_slot(self):
        return self.member.slot

    def could_join(self, unsigned slot, page_bytes=4096):
        """Whether nobody has locked the byte of a slot."""
        cdef void* page = identity_map(self.member.fd, slot, page_bytes)
        if page == NULL:
            return False
        munmap(page, page_bytes)
        return True

    def is_alive(self, unsigned slot):
        """What a question through this process's descriptor says: 1, 0, or -1."""
        cdef member_t* member = self.member
        return identity_asked(member.fd, slot, member.device, member.inode)

    def set_timeout(self, uint64_t timeout_ns):
        self.timeout_ns = timeout_ns
        limit_wait(timeout_ns)

    def lock(self):
        """Own the lock: TAKEN, BUSY or DAMAGED."""
        cdef int result
        with nogil:
            result = lock_enter(self.member, self.timeout_ns)
        return result

    def unlock(self):
        lock_leave(self.member)

    def alloc(self, uint64_t n, uint64_t alignment=16):
        cdef Pool pool = self.pool
        cdef Arena arena = self.arena
        return pool_alloc_patiently(&arena.c, pool.c, n, alignment)

    def free(self, uint64_t payload):
        cdef Pool pool = self.pool
        cdef Arena arena = self.arena
        return pool_free_if_owned(&arena.c, pool.c, payload)

    def resize(self, uint64_t payload, uint64_t n, uint64_t alignment=16):
        cdef Pool pool = self.pool
        cdef Arena arena = self.arena
        return pool_resize_patiently(&arena.c, pool.c, payload, n, alignment)

    def give(self, uint64_t offset):
        """Free a run of the arena's own; False if none starts there."""
        cdef Arena arena = self.arena
        return shared_give(&arena.c, offset)

    def cause(self):
        return last_cause()

    def begin(self):
        """Begin a transaction of the caller's."""
        cdef Arena arena = self.arena
        return shared_begin(&arena.c)

    def put(self, uint64_t offset, uint64_t value):
        """Store into a word of the arena, in a transaction."""
        cdef Arena arena = self.arena
        shared_put(&arena.c, <uint64_t*>(arena.c.base + offset), value)

    def commit(self):
        cdef Arena arena = self.arena
        shared_commit(&arena.c)

    def create_past_the_journal(self):
        """What a compiled user gets who makes a pool without Python: CREATION_SHARED."""
        cdef Arena arena = self.arena
        cdef settings_t settings
        cdef uint32_t number = 0
        memset(&settings, 0, sizeof(settings_t))
        settings.engine = ENGINE_TLSF
        return pool_create(&arena.c, b"past", 4, &settings, &number) == CREATION_SHARED

    def change_past_the_journal(self):
        """Everything that changes a pool and is no verb, called on a door."""
        cdef Arena arena = self.arena
        cdef Pool pool = self.pool
        got = pool_reserve(&arena.c, pool.c, 3) + pool_keep(&arena.c, pool.c, 3)
        got += pool_shrink(&arena.c, pool.c) + waiting_give(&arena.c, pool.c, 3)
        pool_destroy(&arena.c, pool.c)
        return got

    def check(self):
        """The first broken invariant as text, or None; the caller owns the lock."""
        cdef Pool pool = self.pool
        cdef Arena arena = self.arena
        cdef census_t census
        cdef finding_t finding
        if check_frames(&arena.c, &finding) and (
            check_pool(&arena.c, pool.control, &census, &finding)
        ):
            return None
        return f"{finding.code} at {finding.offset:#x}: {finding.found:#x}"

    def owner(self):
        """Slot of the process that is in the section, or None."""
        cdef uint32_t word = self.area.word
        return None if word == 0 or word & LOCK_HANDED else lock_slot(word)

    def serial(self, unsigned number):
        """Serial of a pool in the directory."""
        cdef Arena arena = self.arena
        return arena.c.directory[number - 1].serial

    def slot(self, unsigned i):
        """A slot's words."""
        return self.area.slots[i]

    def empty(self, unsigned i):
        """Forget what a dead process has left in a slot; the caller owns the lock."""
        cdef slot_t* slot = &self.area.slots[i]
        cdef uint32_t epoch = slot.epoch
        memset(slot, 0, sizeof(slot_t))
        slot.epoch = epoch

    def figures(self):
        """Takeovers, those that undid something, and the longest wait in ns."""
        return (
            self.area.n_takeovers, self.area.n_undone, self.area.longest_wait_ns
        )

    def undo(self, uint8_t[::1] copy not None):
        """Undo what the journal in a copy of the arena says; False if it is damaged."""
        cdef member_t member = self.member[0]
        member.base = <char*>&copy[0]
        member.area = <area_t*>(member.base + self.area_offset)
        return journal_undo(&member)


# Verbs that are stepped ----------------------------------------------------------

cdef unsigned interface = 0


def set_interface(unsigned number):
    """Choose the interface of the heap whose verbs are stepped."""
    global interface
    interface = number


cdef heap_t heap_of(arena_t* arena, pool_t* pool) noexcept nogil:
    cdef heap_t heap
    heap.arena = arena
    heap.main = heap.subpage = pool
    heap.interface = interface
    return heap


cdef uint64_t step_heap_xmalloc(
    arena_t* arena, pool_t* pool, uint64_t n, uint64_t alignment, uint64_t _c
) noexcept nogil:
    cdef heap_t heap = heap_of(arena, pool)
    return heap_alloc(&heap, n, alignment, True)


cdef uint64_t step_heap_xfree(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t _b, uint64_t _c
) noexcept nogil:
    cdef heap_t heap = heap_of(arena, pool)
    heap_xfree(&heap, payload)
    return 1


cdef uint64_t step_heap_xrealloc(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t n, uint64_t _c
) noexcept nogil:
    cdef heap_t heap = heap_of(arena, pool)
    return heap_resize(&heap, payload, n, 16, True)


cdef uint64_t step_page_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t alignment, uint64_t _c
) noexcept nogil:
    return pool_lend_pages_patiently(arena, pool, n_pages, alignment)


cdef uint64_t step_page_free(
    arena_t* arena, pool_t* pool, uint64_t offset, uint64_t _b, uint64_t _c
) noexcept nogil:
    cdef heap_t heap = heap_of(arena, pool)
    if not heap_lends(&heap, offset):
        return 0
    heap_page_free(&heap, offset)
    return 1


cdef uint64_t step_take(
    arena_t* arena, pool_t* _pool, uint64_t n_pages, uint64_t order, uint64_t _c
) noexcept nogil:
    return page_offset(arena, shared_take(arena, n_pages, <unsigned>order))


cdef uint64_t step_give(
    arena_t* arena, pool_t* _pool, uint64_t offset, uint64_t _b, uint64_t _c
) noexcept nogil:
    return shared_give(arena, offset)


cdef uint64_t step_set_root(
    arena_t* arena, pool_t* _pool, uint64_t offset, uint64_t _b, uint64_t _c
) noexcept nogil:
    return shared_set_root(arena, offset)


cdef uint64_t step_reserve(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t keeps, uint64_t _c
) noexcept nogil:
    return shared_reserve(arena, pool, n_pages, keeps != 0)


cdef uint64_t step_drain(
    arena_t* arena, pool_t* pool, uint64_t n_most, uint64_t _b, uint64_t _c
) noexcept nogil:
    return shared_give_waiting(arena, pool, n_most)


cdef uint64_t step_shrink(
    arena_t* arena, pool_t* pool, uint64_t _a, uint64_t _b, uint64_t _c
) noexcept nogil:
    cdef uint64_t page = arena.first_page
    return shared_shrink_next(arena, pool, &page)


cdef uint64_t step_create(
    arena_t* arena, pool_t* _pool, uint64_t quick, uint64_t _b, uint64_t _c
) noexcept nogil:
    cdef settings_t settings
    cdef uint32_t number = 0
    memset(&settings, 0, sizeof(settings_t))
    settings.engine = ENGINE_TLSF
    settings.has_quicklists = quick != 0
    shared_create(arena, b"other", 5, &settings, &number)
    return number


cdef uint64_t step_retire(
    arena_t* arena, pool_t* pool, uint64_t _a, uint64_t _b, uint64_t _c
) noexcept nogil:
    return shared_retire(arena, pool)


cdef uint64_t step_release(
    arena_t* arena, pool_t* _pool, uint64_t number, uint64_t serial, uint64_t _c
) noexcept nogil:
    cdef uint32_t page = arena.first_page
    cdef released_t released
    return shared_release_next(
        arena, <uint32_t>number, <uint32_t>serial, &page, &released
    )


cdef uint64_t step_publish(
    arena_t* arena, pool_t* pool, uint64_t link, uint64_t n, uint64_t _c
) noexcept nogil:
    """A new block, written and linked in one transaction of the caller's."""
    cdef uint64_t payload
    if not shared_begin(arena):
        return 0
    payload = pool_alloc_patiently(arena, pool, n, 16)
    if payload != 0:
        memset(arena.base + payload, 0x5A, n)
        shared_put(arena, <uint64_t*>(arena.base + link), payload)
    shared_commit(arena)
    return payload


cdef object capsule(verb_t function):
    return PyCapsule_New(<void*>function, "xmem.verb_t", NULL)


#: What `xmem.measure.insn.Steps` takes for each.
STEPS = {
    "heap xmalloc": capsule(step_heap_xmalloc),
    "heap xfree": capsule(step_heap_xfree),
    "heap xrealloc": capsule(step_heap_xrealloc),
    "page_alloc": capsule(step_page_alloc),
    "page_free": capsule(step_page_free),
    "take": capsule(step_take),
    "give": capsule(step_give),
    "root": capsule(step_set_root),
    "reserve": capsule(step_reserve),
    "drain": capsule(step_drain),
    "shrink": capsule(step_shrink),
    "create": capsule(step_create),
    "retire": capsule(step_retire),
    "release": capsule(step_release),
    "publish": capsule(step_publish),
}
