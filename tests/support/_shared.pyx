# SPDX-License-Identifier: BSD-3-Clause
"""Pools that processes share, at C level, for tests: joined by a run of their arena.

`share` makes the pool of an arena in a file one whose verbs take the lock of the arena
and note their stores. The shared area lies in a run of the arena's own pages.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from xmem.arena.arena cimport Arena
from xmem.arena.check cimport check_frames
from xmem.arena.superblock cimport SUPERBLOCK_FIXED_BYTES, arena_t
from xmem.base.finding cimport finding_t
from xmem.check cimport census_t, check_pool
from xmem.core.routes cimport door_init, door_t, routes_t
from xmem.journalled cimport last_cause, routes_fill
from xmem.pool cimport Pool
from xmem.shared.area cimport (
    AREA_JOURNAL_ENTRIES,
    AREA_N_SLOTS,
    area_init,
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
    lock_acquire,
    lock_release,
    lock_slot,
    lock_word,
)
from xmem.shared.undo cimport journal_start, journal_undo
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_free_if_owned,
    pool_resize_patiently,
)

import os

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

    cdef routes_t* routes
    cdef door_t* door
    cdef area_t* area
    cdef readonly object arena, pool
    cdef readonly uint64_t area_offset

    def __init__(self, Arena arena, Pool pool, uint64_t area_offset, fd, timeout_ns):
        cdef member_t* member
        stat = os.fstat(fd)
        self.arena = arena
        self.pool = pool
        self.area_offset = area_offset
        self.routes = <routes_t*>calloc(1, sizeof(routes_t))
        self.door = <door_t*>calloc(1, sizeof(door_t))
        self.area = <area_t*>(arena.c.base + area_offset)
        memset(self.area, 0, sizeof(area_t))
        area_init(self.area)
        member = &self.routes.member
        member.base = arena.c.base
        member.area = self.area
        member.n_bytes = arena.c.n_bytes
        member.fixed_bytes = SUPERBLOCK_FIXED_BYTES + 8
        member.timeout_ns = timeout_ns
        member.device = stat.st_dev
        member.inode = stat.st_ino
        member.fd = fd
        member.slot = AREA_N_SLOTS
        routes_fill(self.routes)
        door_init(self.door, pool.c)
        arena.c.routes = self.routes
        pool.c = &self.door.stub

    def join(self, unsigned slot, page_bytes=4096):
        """Own a slot, whose byte nobody has locked; False if somebody has."""
        cdef member_t* member = &self.routes.member
        cdef void* page = identity_map(member.fd, slot, page_bytes)
        cdef slot_t* own = &self.area.slots[slot]
        if page == NULL:
            return False
        member.identity = page
        member.slot = slot
        own.epoch += 1
        own.pid = os.getpid()
        own.is_joined = True
        member.mine = lock_word(slot, own.epoch)
        return True

    def is_alive(self, unsigned slot):
        """What a question through this process's descriptor says: 1, 0, or -1."""
        cdef member_t* member = &self.routes.member
        return identity_asked(member.fd, slot, member.device, member.inode)

    def set_timeout(self, uint64_t timeout_ns):
        self.routes.member.timeout_ns = timeout_ns

    def lock(self):
        """Own the lock: TAKEN, BUSY or DAMAGED."""
        cdef int result
        with nogil:
            result = lock_acquire(&self.routes.member)
        return result

    def unlock(self):
        lock_release(&self.routes.member)

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

    def cause(self):
        return last_cause()

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
        cdef member_t member = self.routes.member
        member.base = <char*>&copy[0]
        member.area = <area_t*>(member.base + self.area_offset)
        return journal_undo(&member)
