# SPDX-License-Identifier: BSD-3-Clause
"""Start bits where no block starts, and what repairs of both engines count.

`clear_starts` clears a range of the start bitmap, `clear_strays` all of it that stands
for pages in which no pool keeps blocks (V1).
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport arena_t, frame_pages, page_offset
from xmem.base cimport GRAINS_WORD_LOG2, GRAIN_LOG2, bit, offset_t
from xmem.check.census cimport popcount
from xmem.check.pool cimport holds_blocks


cdef struct repair_t:
    uint64_t n_returned     # blocks and runs in use, but not live, given back
    uint64_t n_starts       # start bits cleared
    uint64_t n_lost         # blocks found damaged in the quarantine
    uint64_t n_unsealed     # live blocks with a broken seal
    uint64_t n_poison       # marks of poison dropped
    offset_t unsealed       # the last of those with a broken seal


cdef inline uint64_t clear_starts(
    arena_t* arena, offset_t first, offset_t end
) noexcept nogil:
    """Clear the start bits from ``first`` to ``end``; how many were set."""
    cdef uint64_t i = first >> GRAINS_WORD_LOG2
    cdef uint64_t last = end >> GRAINS_WORD_LOG2
    cdef uint64_t mask = ~(bit((first >> GRAIN_LOG2) & 63) - 1)
    cdef uint64_t count = 0
    while first < end and i <= last:
        if i == last:
            mask &= bit((end >> GRAIN_LOG2) & 63) - 1
        if mask != 0 and arena.start_bits[i] & mask:
            count += popcount(arena.start_bits[i] & mask)
            arena.start_bits[i] &= ~mask
        mask = ~<uint64_t>0
        i += 1
    return count


cdef inline uint64_t clear_strays(arena_t* arena) noexcept nogil:
    """Clear the start bits of tables, control blocks and pages of no pool."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t count = clear_starts(arena, 0, page_offset(arena, page))
    cdef uint64_t word
    while page < arena.n_pages:
        word = arena.frames[page].word
        if not holds_blocks(word):
            count += clear_starts(
                arena,
                page_offset(arena, page),
                page_offset(arena, page + frame_pages(word)),
            )
        page += frame_pages(word)
    return count
