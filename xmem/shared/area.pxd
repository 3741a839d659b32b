# SPDX-License-Identifier: BSD-3-Clause
"""The shared area: what the processes of an arena have in common besides its heap.

An arena that processes share has one::

    0             64                        + 64 x 62
    | lock line   | a slot for each process | journal |

A process that has the arena open owns a slot and writes what it is about there. The
lock line says who works in the arena, and the journal how to undo what it has done so
far.

J1  the journal has no entries while nobody owns the lock; each is of an aligned word of
    the arena that may change: not of the fixed part of the superblock, nor of the area
    but for the slots
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from xmem.base.checks cimport claim

cdef enum:
    AREA_ALIGNMENT = 64             # bytes: a cache line
    AREA_N_SLOTS = 62
    AREA_JOURNAL_ENTRIES = 1024     # of one transaction
    UNDO_LOG2 = 4                   # of the bytes of an entry
    UNDO_BYTES = 1 << UNDO_LOG2

    # Verbs, as slots name them.
    SHARED_ALLOC = 1
    SHARED_FREE = 2
    SHARED_RESIZE = 3
    SHARED_PAGES = 4
    SHARED_GIVE = 5                 # pages
    SHARED_ROOT = 6
    SHARED_CREATE = 7               # a pool
    SHARED_DESTROY = 8
    SHARED_RESERVE = 9
    SHARED_DRAIN = 10
    SHARED_SHRINK = 11


cdef struct slot_t:                 # a cache line
    uint32_t epoch                  # counts the processes that had it
    uint32_t is_joined              # and has not left: it lives, or was killed
    uint32_t pid                    # for people to read; nothing trusts it
    uint32_t verb                   # begun last: a SHARED_ constant
    uint64_t subject                # what it is about: a payload, bytes, or pages
    uint64_t pool                   # and its pool's number, or 0
    uint64_t n_begun                # verbs; more than n_done: one was cut short
    uint64_t n_done
    uint64_t answer                 # what the last one done returned
    uint64_t moved                  # new half of a block that moves, or 0


cdef struct undo_t:
    int64_t at                      # of the word, from the journal's start, bytes
    uint64_t was


cdef struct journal_t:
    uint64_t end                    # of the entries, from the journal's start, bytes
    uint64_t reserved
    undo_t entries[AREA_JOURNAL_ENTRIES]


cdef struct area_t:
    uint32_t word                   # of the lock; see lock.pxd
    uint32_t reserved
    uint64_t starving               # bit i: slot i has slept for the lock
    uint64_t n_takeovers            # of a dead owner's lock
    uint64_t n_undone               # takeovers that found entries
    uint64_t longest_wait_ns        # for the lock, of those who got it
    uint64_t room[3]
    slot_t slots[AREA_N_SLOTS]
    journal_t journal


cdef inline void area_claims() noexcept nogil:
    """The places that docs/format.md states."""
    claim(sizeof(slot_t) == AREA_ALIGNMENT)
    claim(sizeof(undo_t) == UNDO_BYTES)
    claim(<uint64_t>&(<area_t*>NULL).starving == 8)
    claim(<uint64_t>&(<area_t*>NULL).slots == 64)
    claim(<uint64_t>&(<area_t*>NULL).journal == 64 + 64 * AREA_N_SLOTS)
    claim(<uint64_t>&(<journal_t*>NULL).entries == 2 * sizeof(uint64_t))


cdef inline void area_init(area_t* area) noexcept nogil:
    """Complete an area of zeros."""
    area_claims()
    area.journal.end = <uint64_t>&(<journal_t*>NULL).entries
