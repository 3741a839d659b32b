# SPDX-License-Identifier: BSD-3-Clause
"""Where a pool that joins regions puts the next one.

In the lowest stretch of free pages that holds the block, next to what the pool has
there: behind the region that ends where the stretch starts, else in front of the region
that starts where it ends. The free blocks at the ends of these regions become part of
the block, and save pages. Where no stretch is long enough alone, the longest is looked
at, with such neighbours.

The stretch at the arena's end, which is the longer the larger the arena is, comes last,
so that where a region goes does not depend on the arena's size. How long it is does,
where fewer pages are left at the end than a pool obtains at once.
"""

from libc.stdint cimport uint64_t

from xmem.arena.records cimport frame_pages
from xmem.arena.stretches cimport (
    stretches_longest_below_top,
    stretches_lowest_below_top,
    top_pages,
)
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_ADAPTS, pool_t
from xmem.core.regions cimport (
    joined_end,
    joined_start,
    pages_for,
    pages_left,
    region_pages_for,
)
from xmem.engine cimport (
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
)

cdef enum:
    PLACE_SHARE_LOG2 = 3    # a pool that adapts grows by this part of its regions


cdef struct place_t:
    uint64_t stretch        # its first page
    uint64_t page           # first page of the region
    uint64_t n_pages        # of the region
    offset_t start          # of the block that it makes with its neighbours,
    offset_t limit          # and its end


# Called through these, because two calls would make two copies; see checks.pxd.
ctypedef bint (*place_in_t)(
    arena_t*, pool_t*, uint64_t, uint64_t, uint64_t, place_t*
) noexcept nogil

cdef extern from *:
    place_in_t outlined_place_in "XMEM_OUTLINED"(place_in_t function) noexcept nogil


cdef inline uint64_t grown_pages(pool_t* pool) noexcept nogil:
    """Pages of the next region, if the request does not ask for more.

    Of a pool that adapts an eighth of what its regions have: then the number of regions
    is a logarithm of their pages.
    """
    cdef uint64_t share = pool.region_pages >> PLACE_SHARE_LOG2
    if pool.flags & POOL_ADAPTS and share > pool.grow_pages:
        return share
    return pool.grow_pages


cdef inline uint64_t region_length(
    pool_t* pool, uint64_t least, uint64_t most
) noexcept nogil:
    """Pages of the next region: ``grown_pages``, but from ``least`` to ``most``."""
    cdef uint64_t n_pages = grown_pages(pool)
    if n_pages < least:
        n_pages = least
    return n_pages if n_pages < most else most


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
    cdef offset_t start = joined_start(arena, pool, stretch)
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


cdef inline bint place_with_help(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment, place_t* place
) noexcept nogil:
    """As `place_find`, where no stretch but the last is long enough alone.

    Or where the pool's limit does not admit so many pages.
    """
    cdef uint64_t stretch = stretches_longest_below_top(arena)
    if stretch != 0 and outlined_place_in(place_in)(
        arena, pool, stretch, need, alignment, place
    ):
        return True
    return top_pages(arena) != 0 and outlined_place_in(place_in)(
        arena, pool, arena.super.frames.top, need, alignment, place
    )


cdef inline bint place_find(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment, place_t* place
) noexcept nogil:
    """Whether there is a place for a block of ``need`` bytes; fills ``place``."""
    cdef uint64_t alone = region_pages_for(arena, need, alignment)
    cdef uint64_t stretch = 0
    if pages_left(pool) == 0:
        return False
    if alone <= pages_left(pool):
        stretch = stretches_lowest_below_top(arena, alone)
    if stretch == 0:
        return place_with_help(arena, pool, need, alignment, place)
    return outlined_place_in(place_in)(arena, pool, stretch, need, alignment, place)
