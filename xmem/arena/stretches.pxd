# SPDX-License-Identifier: BSD-3-Clause
"""Finding free pages: a tree of summaries over the frame table.

A *stretch* is a free run with no free page next to it (P2). Level 0 of the tree has an
entry for each group of STRETCHES_GROUP pages: how long the longest stretch is that
starts in the group. Each level above has an entry for each group of entries of the
level below, their maximum; the last level is one entry. So the lowest stretch that is
long enough, to the page, is found by one walk down.

A stretch is counted where it starts, wherever it ends: a change of one record changes
at most one entry of each level. The last one, which ends at the arena's end, is not in
the tree: it starts at ``top``. So a heap that grows takes pages off it without changing
an entry, and where the tree has nothing it is what is left.

Work: a walk looks at STRETCHES_GROUP entries of each level at most. A cache of the
frame table: `xmem.arena.recovery` writes it anew.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.records cimport FRAME_FREE, frame_pages, frame_state
from xmem.arena.superblock cimport STRETCHES_GROUP, STRETCHES_LOG2, arena_t
from xmem.base.bits cimport align_up, bit, find_last_set
from xmem.base.journal cimport put32

cdef inline unsigned order_within(uint64_t page, uint64_t n_pages) noexcept nogil:
    """Order of the largest aligned power of two of pages in a stretch."""
    cdef unsigned order = find_last_set(n_pages)
    # Half as many pages are aligned somewhere in any stretch of that length.
    return order - (align_up(page, bit(order)) + bit(order) > page + n_pages)


cdef inline uint64_t top_pages(arena_t* arena) noexcept nogil:
    """Pages of the stretch at the arena's end, 0 if there is none."""
    return arena.n_pages - arena.super.frames.top


# Summing up ------------------------------------------------------------------

cdef inline uint64_t greater(uint64_t a, uint64_t b) noexcept nogil:
    """The greater of the two."""
    return a if a > b else b


cdef inline bint is_as_long(
    arena_t* arena, uint64_t page, uint64_t n_pages
) noexcept nogil:
    """Whether a stretch in the tree of ``n_pages`` or more starts at ``page``."""
    cdef uint64_t word = arena.frames[page].word
    # In this order: few records are those of a long run.
    return (
        frame_pages(word) >= n_pages
        and frame_state(word) == FRAME_FREE
        and page != arena.super.frames.top
    )


cdef inline uint64_t longest_of_records(
    arena_t* arena, uint64_t first
) noexcept nogil:
    """Pages of the longest stretch in the tree that a group of records heads."""
    cdef uint64_t found = 0
    cdef uint64_t page
    for page in range(first, first + STRETCHES_GROUP):
        if is_as_long(arena, page, found + 1):
            found = frame_pages(arena.frames[page].word)
    return found


cdef inline uint64_t longest_of_entries(uint32_t* longest) noexcept nogil:
    """The greatest of a group of entries."""
    cdef uint64_t found = longest[0]
    cdef unsigned i
    for i in range(1, STRETCHES_GROUP):
        found = greater(found, longest[i])
    return found


# Changing --------------------------------------------------------------------

cdef inline void stretches_raise(
    arena_t* arena, uint64_t page, uint64_t n_pages
) noexcept nogil:
    """Bring the tree up to date after a stretch appeared or grew at ``page``."""
    cdef uint64_t entry = page
    cdef unsigned level
    for level in range(arena.n_stretch_levels):
        entry >>= STRETCHES_LOG2
        if arena.longest[level][entry] >= n_pages:
            return
        put32(&arena.longest[level][entry], <uint32_t>n_pages)


cdef inline void stretches_lower(
    arena_t* arena, uint64_t page, uint64_t before
) noexcept nogil:
    """Bring the tree up to date after a stretch of ``before`` pages went or shrank.

    Those that have appeared come first: in an entry that they share with it there is
    then but one change.
    """
    cdef uint64_t entry = page >> STRETCHES_LOG2
    cdef uint64_t now
    cdef unsigned level = 0
    if arena.longest[0][entry] != before:
        return
    now = longest_of_records(arena, entry << STRETCHES_LOG2)
    while now != before:
        put32(&arena.longest[level][entry], <uint32_t>now)
        entry >>= STRETCHES_LOG2
        if level + 1 == arena.n_stretch_levels or (
            arena.longest[level + 1][entry] != before
        ):
            return
        now = longest_of_entries(arena.longest[level] + (entry << STRETCHES_LOG2))
        level += 1


# Finding ---------------------------------------------------------------------

cdef inline uint64_t stretches_longest_in_tree(arena_t* arena) noexcept nogil:
    """Pages of the longest stretch but that at the arena's end."""
    return arena.longest[arena.n_stretch_levels - 1][0]


cdef inline uint64_t stretches_longest(arena_t* arena) noexcept nogil:
    """Pages of the longest stretch, 0 where no page is free."""
    return greater(stretches_longest_in_tree(arena), top_pages(arena))


cdef inline unsigned first_as_long(uint32_t* row, uint64_t n_pages) noexcept nogil:
    """Index of the first of a group of entries with ``n_pages``, or STRETCHES_GROUP."""
    cdef unsigned i
    for i in range(STRETCHES_GROUP):
        if row[i] >= n_pages:
            return i
    return STRETCHES_GROUP


cdef inline uint64_t stretch_in_group(
    arena_t* arena, uint64_t first, uint64_t n_pages
) noexcept nogil:
    """First stretch of ``n_pages`` in the tree that a group of records heads, or 0."""
    cdef uint64_t page
    for page in range(first, first + STRETCHES_GROUP):
        if is_as_long(arena, page, n_pages):
            return page
    return 0


cdef inline uint64_t stretches_below(
    arena_t* arena, unsigned level, uint64_t entry, uint64_t n_pages
) noexcept nogil:
    """Lowest stretch of ``n_pages`` under an entry that has one; 0 if it was wrong."""
    cdef unsigned i
    while level != 0:
        level -= 1
        entry <<= STRETCHES_LOG2
        i = first_as_long(arena.longest[level] + entry, n_pages)
        if i == STRETCHES_GROUP:
            return 0
        entry += i
    return stretch_in_group(arena, entry << STRETCHES_LOG2, n_pages)


cdef inline uint64_t stretches_lowest_below_top(
    arena_t* arena, uint64_t n_pages
) noexcept nogil:
    """First page of the lowest stretch of ``n_pages`` (from 1) in the tree, or 0."""
    if stretches_longest_in_tree(arena) < n_pages:
        return 0
    return stretches_below(arena, arena.n_stretch_levels - 1, 0, n_pages)


cdef inline uint64_t stretches_longest_below_top(arena_t* arena) noexcept nogil:
    """First page of the lowest of the longest stretches in the tree, or 0."""
    cdef uint64_t n_pages = stretches_longest_in_tree(arena)
    return stretches_lowest_below_top(arena, n_pages) if n_pages != 0 else 0


cdef inline uint64_t stretches_lowest(
    arena_t* arena, uint64_t n_pages
) noexcept nogil:
    """First page of the lowest stretch of at least ``n_pages`` (from 1), or 0."""
    cdef uint64_t page = stretches_lowest_below_top(arena, n_pages)
    if page != 0:
        return page
    return arena.super.frames.top if top_pages(arena) >= n_pages else 0
