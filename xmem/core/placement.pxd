# SPDX-License-Identifier: BSD-3-Clause
"""Where a pool that joins regions puts the next one.

In the lowest stretch of free pages that holds the block, next to what the pool has
there: behind the region that ends where the stretch starts, else in front of the region
that starts where it ends. The free blocks at the ends of these regions become part of
the block, and save pages. Where no stretch is long enough alone, the longest is looked
at, with such neighbours.

The stretch at the arena's end, which is the longer the larger the arena is, comes last,
so that where a region goes does not depend on the arena's size: see extension.pxd.
"""

from libc.stdint cimport uint64_t

from xmem.arena.records cimport frame_pages
from xmem.arena.runheads cimport runheads_before
from xmem.arena.stretches cimport (
    stretches_longest_below_top,
    stretches_longest_in_tree,
    stretches_lowest_below_top,
)
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.regions cimport (
    joined_end,
    joined_start,
    pages_for,
    pages_left,
    region_length,
    region_pages_for,
)
from xmem.engine cimport (
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
)

cdef struct place_t:
    uint64_t stretch        # its first page
    uint64_t left           # that of the run on its left
    uint64_t page           # first page of the region
    uint64_t n_pages        # of the region
    offset_t start          # of the block that it makes with its neighbours,
    offset_t limit          # and its end


# Called through this, because few calls need it; see checks.pxd.
ctypedef bint (*place_below_t)(
    arena_t*, pool_t*, uint64_t, uint64_t, place_t*
) noexcept nogil

cdef extern from *:
    place_below_t outlined_place "XMEM_OUTLINED"(
        place_below_t function
    ) noexcept nogil


cdef inline uint64_t fitting_pages(
    arena_t* arena, uint64_t needed, uint64_t given
) noexcept nogil:
    """Pages that add what is missing of ``needed`` bytes to ``given``, at least 1."""
    return pages_for(arena, needed - given) if needed > given else 1


cdef inline bint place_in(
    arena_t* arena,
    pool_t* pool,
    uint64_t stretch,
    uint64_t need,
    uint64_t alignment,
    place_t* place,
) noexcept nogil:
    """Whether a block fits into a stretch and its neighbours; fills ``place``.

    At the stretch's left end, up to the region on the right if that is needed; at the
    right end if only the region there can be extended.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[stretch].word)
    cdef uint64_t most = pages_left(pool)
    cdef offset_t first = page_offset(arena, stretch)
    cdef offset_t end = page_offset(arena, stretch + n_pages)
    cdef uint64_t left = runheads_before(arena, stretch - 1)
    cdef offset_t start = joined_start(arena, pool, left, stretch)
    cdef offset_t limit = joined_end(arena, pool, stretch + n_pages)
    cdef uint64_t needed = need + aligned_gap(start, alignment)
    cdef bint is_right = limit > end and start > first
    cdef uint64_t least
    if most > n_pages:
        most = n_pages
    if is_right:
        least = fitting_pages(arena, needed + REGION_HEAD_BYTES, limit - end)
    else:
        least = fitting_pages(arena, start + needed + REGION_TAIL_BYTES, first)
        if least > n_pages and start + needed <= limit:
            least = n_pages
    if least > most:
        return False
    place.stretch = stretch
    place.left = left
    place.n_pages = region_length(pool, least, most)
    place.page = stretch
    place.start = start
    place.limit = limit
    if is_right:
        place.page += n_pages - place.n_pages
        place.start = page_offset(arena, place.page) + REGION_HEAD_BYTES
    elif place.n_pages != n_pages:
        place.limit = first + page_offset(arena, place.n_pages) - REGION_TAIL_BYTES
    return True


cdef inline bint place_below_top(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment, place_t* place
) noexcept nogil:
    """Whether a block of ``need`` bytes has a place below the last stretch.

    Fills ``place``. The longest stretch is looked at where none is long enough alone,
    or where the pool's limit does not admit so many pages.
    """
    cdef uint64_t alone = region_pages_for(arena, need, alignment)
    cdef uint64_t stretch = 0
    if alone <= pages_left(pool):
        stretch = stretches_lowest_below_top(arena, alone)
    if stretch == 0:
        stretch = stretches_longest_below_top(arena)
    return stretch != 0 and place_in(arena, pool, stretch, need, alignment, place)


cdef inline bint place_find(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment, place_t* place
) noexcept nogil:
    """As `place_below_top`, which is not called where it finds nothing."""
    return (
        stretches_longest_in_tree(arena) != 0
        and pages_left(pool) != 0
        and outlined_place(place_below_top)(arena, pool, need, alignment, place)
    )
