# SPDX-License-Identifier: BSD-3-Clause
"""Joining a shared arena and leaving it: slots, who lives, who is alone.

A process joins by locking the byte of a slot (shared/identity.pxd), and then fills the
slot under the arena's lock. It leaves in the reverse order. A slot that says it is
joined while its byte is free is that of a process that was killed; what it says is kept
until `member_reap`, or until no other slot is left for one who joins.

Every member holds the file's `flock` in shared mode, by the description that locks its
byte. Whoever gets it in exclusive mode is alone: he may verify and repair.
"""

import os

from xmem.base.errors import ArenaBusy, TooManyProcesses, corruption
from xmem.base.slots import SlotInfo

from libc.errno cimport EACCES, EAGAIN, EBUSY, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xmem.arena.superblock cimport SUPERBLOCK_FIXED_BYTES, arena_t, area_of
from xmem.arena.vm cimport vm_error, vm_forks, vm_page_bytes
from xmem.base.finding cimport invariant
from xmem.shared.area cimport (
    AREA_N_SLOTS,
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
    area_init,
    area_t,
    slot_t,
)
from xmem.shared.identity cimport (
    identity_map,
    identity_unmap,
    member_t,
    slot_is_alive,
)
from xmem.shared.lock cimport (
    LOCK_BROKEN,
    LOCK_SLOT_MASK,
    LOCK_TAKEN,
    lock_enter,
    lock_leave,
    lock_slot,
    lock_word,
)
from xmem.shared.system cimport load32
from xmem.shared.undo cimport journal_commit, journal_start, journal_undo

#: What slots call the verbs.
cdef dict VERBS = {
    SHARED_ALLOC: "alloc",
    SHARED_FREE: "free",
    SHARED_RESIZE: "resize",
    SHARED_PAGES: "page_alloc",
    SHARED_GIVE: "page_free",
    SHARED_ROOT: "root",
    SHARED_CREATE: "create",
    SHARED_DESTROY: "destroy",
    SHARED_RESERVE: "reserve",
    SHARED_DRAIN: "drain",
    SHARED_SHRINK: "shrink",
}
#: Verbs whose answer is memory that only their caller knows of.
cdef tuple GIVE_MEMORY = ("alloc", "resize", "page_alloc")


cdef int area_begin(char* area) except -1:
    """Make a new shared area in memory, whatever was there."""
    memset(area, 0, sizeof(area_t))
    area_init(<area_t*>area)
    return 0


cdef int member_begin(member_t* member, arena_t* arena, int fd) except -1:
    """Fill in where the arena is. ``fd`` is its file, in which no byte is locked."""
    found = os.fstat(fd)
    member.base = arena.base
    member.area = area_of(arena)
    member.n_bytes = arena.n_bytes
    member.fixed_bytes = SUPERBLOCK_FIXED_BYTES + 8
    member.device = found.st_dev
    member.inode = found.st_ino
    member.fd = fd
    member.slot = AREA_N_SLOTS
    member.forks = vm_forks
    return 0


cdef int member_settle(member_t* member, bint discards) except -1:
    """Undo what the dead have left half done, for one who is alone.

    A journal that is damaged is refused, or discarded by one who repairs the arena.
    """
    if not journal_undo(member):
        if discards:
            journal_commit(member)
        else:
            raise damaged_error(member)
    member.area.word = 0
    member.area.starving = 0
    return 0


cdef object damaged_error(member_t* member):
    """The error for a journal that cannot be obeyed (J1)."""
    return corruption(
        invariant(c"J", 1),
        <uint64_t>(<char*>&member.area.journal - member.base),
        member.area.journal.end,
        journal_start(),
    )


# Verified, and where ----------------------------------------------------------------

cdef bytes boot_id():
    """Sixteen bytes that name the running of this kernel; zeros where it has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read().decode().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


cdef bint is_where_verified(member_t* member, arena_t* arena) except -1:
    """Whether this is the file that was verified last, and since this kernel started.

    A copy is another file. After the machine has stopped a file may be a mixture of
    what it was at several moments.
    """
    cdef bytes boot = boot_id()
    cdef bytes held = (<char*>arena.super.boot)[:16]
    return (
        boot == held
        and any(boot)
        and arena.super.device == member.device
        and arena.super.inode == member.inode
    )


cdef int verified_here(member_t* member, arena_t* arena) except -1:
    """Record that this file has been verified while this kernel runs."""
    cdef bytes boot = boot_id()
    memcpy(arena.super.boot, <char*>boot, 16)
    arena.super.device = member.device
    arena.super.inode = member.inode
    return 0


# Slots -------------------------------------------------------------------------------

cdef void slot_clear(slot_t* slot) noexcept nogil:
    """Empty a slot; its epoch stays."""
    cdef uint32_t epoch = slot.epoch
    memset(slot, 0, sizeof(slot_t))
    slot.epoch = epoch


cdef int member_forget(member_t* member) except -1:
    """Empty all slots of a file that is not the one in which they were joined."""
    cdef unsigned slot
    for slot in range(AREA_N_SLOTS):
        slot_clear(&member.area.slots[slot])
    return 0


cdef int try_slot(
    member_t* member, unsigned slot, uint64_t timeout_ns, str name
) except -1:
    """Join in a slot: 1, or 0 if another has it; 2 if one has the whole file."""
    cdef slot_t* own = &member.area.slots[slot]
    cdef void* page = identity_map(member.fd, slot, vm_page_bytes())
    cdef int result
    if page == NULL:
        if errno == EBUSY:
            return 2
        if errno == EAGAIN or errno == EACCES:
            return 0
        raise vm_error(f"{name}: no lock of this process's own")
    own.epoch += 1
    member.identity = page
    member.slot = slot
    member.mine = lock_word(slot, own.epoch)
    with nogil:
        result = lock_enter(member, timeout_ns)
    if result != LOCK_TAKEN:
        member_end(member)
        raise busy_error(member, name)
    slot_clear(own)
    own.pid = os.getpid()
    own.is_joined = True
    lock_leave(member)
    return 1


cdef bint member_join(member_t* member, uint64_t timeout_ns, str name) except -1:
    """Join the arena; False if somebody has its file for himself.

    In a slot that nobody left behind, as long as there is one.
    """
    cdef unsigned slot
    cdef int result
    for left_behind in (False, True):
        for slot in range(AREA_N_SLOTS):
            if bool(member.area.slots[slot].is_joined) != left_behind:
                continue
            result = try_slot(member, slot, timeout_ns, name)
            if result:
                return result == 1
    raise TooManyProcesses(
        f"{name}: {AREA_N_SLOTS} processes have this arena open, which is the most"
    )


cdef int member_leave(member_t* member, uint64_t timeout_ns) except -1:
    """Give the slot up; without the lock, others will find it left behind."""
    cdef int result
    with nogil:
        result = lock_enter(member, timeout_ns)
    if result == LOCK_TAKEN:
        slot_clear(&member.area.slots[member.slot])
        lock_leave(member)
    return member_end(member)


cdef int member_end(member_t* member) except -1:
    """Free the byte of the slot."""
    if member.identity != NULL:
        identity_unmap(member.identity, vm_page_bytes())
        member.identity = NULL
    member.slot = AREA_N_SLOTS
    return 0


cdef object slot_info(member_t* member, unsigned slot):
    """What a slot says."""
    cdef slot_t* held = &member.area.slots[slot]
    cdef bint is_cut = held.n_begun > held.n_done
    cdef bint is_alive = slot_is_alive(member, slot)
    verb = VERBS.get(held.verb)
    left = ()
    if not is_alive:
        if held.moved:
            left = (held.moved,)
        elif not is_cut and verb in GIVE_MEMORY and held.answer:
            left = (held.answer,)
    return SlotInfo(
        slot=slot,
        pid=held.pid,
        is_alive=is_alive,
        verb=verb,
        subject=held.subject,
        pool_id=held.pool or None,
        is_cut_short=is_cut and not is_alive,
        answer=held.answer,
        left=left,
    )


cdef tuple member_slots(member_t* member):
    """What each slot says that has a process, or had one that was killed."""
    cdef unsigned slot
    return tuple(
        [
            slot_info(member, slot)
            for slot in range(AREA_N_SLOTS)
            if member.area.slots[slot].is_joined
        ]
    )


cdef unsigned member_count(member_t* member) except? 0:
    """Processes that have the arena open; the caller owns the lock."""
    cdef unsigned slot
    cdef unsigned n = 0
    for slot in range(AREA_N_SLOTS):
        n += member.area.slots[slot].is_joined and slot_is_alive(member, slot)
    return n


cdef tuple member_reap(member_t* member):
    """Empty the slots of those who were killed; what they said."""
    cdef unsigned slot
    found = []
    for slot in range(AREA_N_SLOTS):
        if member.area.slots[slot].is_joined and not slot_is_alive(member, slot):
            found.append(slot_info(member, slot))
            slot_clear(&member.area.slots[slot])
    return tuple(found)


cdef object busy_error(member_t* member, str name):
    """The error for a lock that was not to be had."""
    cdef uint32_t word = load32(&member.area.word)
    cdef unsigned slot
    if word == 0:
        return ArenaBusy(f"{name}: its lock was not to be had in time; it is free now")
    if word & LOCK_SLOT_MASK == LOCK_BROKEN:
        return damaged_error(member)
    slot = lock_slot(word)
    if slot >= AREA_N_SLOTS:
        return ArenaBusy(f"{name}: its lock is damaged ({word:#x})")
    return ArenaBusy(
        f"{name}: process {member.area.slots[slot].pid} (slot {slot}) has held its "
        "lock for longer than lock_timeout; it may be stopped"
    )
