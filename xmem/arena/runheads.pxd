# SPDX-License-Identifier: BSD-3-Clause
"""Which pages are the first of a run: a bitmap, and summaries of its words.

Level 0 has a bit for each page. Each level above has a bit for each word of the level
below, set if that word is not 0; the last level is one word. So the run of any page is
found by at most one scan down to the left, one word for each level up and one for each
down, however long the run is: RUNHEADS_MAX_LEVELS in the greatest arena, 3 in one of a
gigabyte.

A cache of the frame table: `xmem.arena.recovery` writes it anew.
"""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport find_last_set, with_bit, without_bit
from xmem.base.journal cimport put


cdef inline void runheads_set(arena_t* arena, uint64_t page) noexcept nogil:
    """Record that a run starts at ``page``."""
    cdef unsigned level
    cdef uint64_t word
    for level in range(arena.n_runhead_levels):
        word = arena.runheads[level][page >> 6]
        put(&arena.runheads[level][page >> 6], with_bit(word, page))
        if word != 0:
            return
        page >>= 6


cdef inline void runheads_clear(arena_t* arena, uint64_t page) noexcept nogil:
    """Record that no run starts at ``page`` any more."""
    cdef unsigned level
    cdef uint64_t word
    for level in range(arena.n_runhead_levels):
        word = without_bit(arena.runheads[level][page >> 6], page)
        put(&arena.runheads[level][page >> 6], word)
        if word != 0:
            return
        page >>= 6


cdef inline uint64_t runheads_before(arena_t* arena, uint64_t page) noexcept nogil:
    """Last page up to ``page`` at which a run starts, or 0.

    Whatever the bitmap holds, the result is at most ``page``.
    """
    cdef unsigned level = 0
    cdef uint64_t word = arena.runheads[0][page >> 6] << (63 - (page & 63))
    if word != 0:
        return page - 63 + find_last_set(word)
    while word == 0:
        page >>= 6
        level += 1
        if level == arena.n_runhead_levels:
            return 0
        if page & 63:
            word = arena.runheads[level][page >> 6] << (64 - (page & 63))
    page += find_last_set(word)
    page -= 64
    while level != 0 and arena.runheads[level - 1][page] != 0:
        level -= 1
        page = (page << 6) + find_last_set(arena.runheads[level][page])
    return page if level == 0 else 0
