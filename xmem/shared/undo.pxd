# SPDX-License-Identifier: BSD-3-Clause
"""Undoing what a dead process has left half done.

The entries of the journal are obeyed from the last to the first, and counted off one by
one: whoever is killed meanwhile leaves a journal that leads back all the same. Work is
bounded by the journal's room, whatever the size of the heap. Before the first store all
entries are proved: a damaged journal is not obeyed.
"""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport store_barrier
from xmem.shared.area cimport (
    AREA_N_SLOTS,
    UNDO_BYTES,
    UNDO_LOG2,
    area_t,
    journal_t,
    slot_t,
    undo_t,
)
from xmem.shared.identity cimport member_t


cdef inline uint64_t journal_start() noexcept nogil:
    """Value of ``end`` of a journal without entries."""
    return <uint64_t>&(<journal_t*>NULL).entries


cdef inline void journal_commit(member_t* member) noexcept nogil:
    """Let nothing that has been stored be undone any more: one store."""
    store_barrier()
    member.area.journal.end = journal_start()
    store_barrier()


cdef inline bint may_change(member_t* member, uint64_t offset) noexcept nogil:
    """Whether a journal may name the word at an offset."""
    cdef uint64_t area = <uint64_t>(<char*>member.area - member.base)
    if offset & 7 or offset < member.fixed_bytes or offset > member.n_bytes - 8:
        return False
    if offset < area or offset >= area + sizeof(area_t):
        return True
    offset -= area + <uint64_t>&(<area_t*>NULL).slots
    return offset < AREA_N_SLOTS * sizeof(slot_t)


cdef inline bint journal_is_sound(member_t* member) noexcept nogil:
    """Whether every entry can be obeyed."""
    cdef journal_t* journal = &member.area.journal
    cdef uint64_t end = journal.end
    cdef uint64_t here = <uint64_t>(<char*>journal - member.base)
    cdef uint64_t n_entries, i
    if end < journal_start() or end > sizeof(journal_t):
        return False
    if (end - journal_start()) & (UNDO_BYTES - 1) != 0:
        return False
    n_entries = (end - journal_start()) >> UNDO_LOG2
    for i in range(n_entries):
        if not may_change(member, here + <uint64_t>journal.entries[i].at):
            return False
    return True


cdef inline bint journal_undo(member_t* member) noexcept nogil:
    """Undo what the entries say; False, and nothing is stored, if they are damaged."""
    cdef journal_t* journal = &member.area.journal
    cdef undo_t* entry
    if not journal_is_sound(member):
        return False
    while journal.end > journal_start():
        entry = <undo_t*>(<char*>journal + journal.end) - 1
        (<uint64_t*>(<char*>journal + entry.at))[0] = entry.was
        store_barrier()
        journal.end -= sizeof(undo_t)
        store_barrier()
    return True
