# SPDX-License-Identifier: BSD-3-Clause
"""How a pool gets pages from the frames and gives them back.

Runs that are handed out whole, regions for either engine. Every function does one
allocation or one release of frames and a bounded number of list operations.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    FRAME_PENDING,
    FRAME_REGION,
    frame_pages,
    frames_alloc,
    frames_free,
    frames_shrink,
)
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.bits cimport bit, find_first_set, find_last_set
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_ADAPTS, POOL_HOOKED, POOL_JOINS, pool_t
from xmem.core.gather cimport region_gather
from xmem.core.regions cimport (
    count_pages,
    may_hold,
    pages_for,
    region_add,
    region_pages_for,
    region_record,
)
from xmem.core.spares cimport has_room, make_room, may_make_room, spare_drop
from xmem.engine cimport firstfit_take


# Page runs: blocks of whole pages --------------------------------------------


cdef inline uint32_t run_alloc(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_pages,
    uint64_t alignment,
    unsigned state,
) noexcept nogil:
    """First page of a run that the pool hands out whole, or 0.

    FRAME_WHOLE: a block; FRAME_RUN: pages of a heap's page_alloc. At most the arena's
    pages may be asked for.
    ``alignment`` (bytes) is only recorded: a run is aligned to the power of
    two that holds it.
    """
    cdef uint32_t page
    if not make_room(arena, pool, n_pages):
        return 0
    page = frames_alloc(arena, n_pages, state, pool.number)
    if page != 0:
        count_pages(pool, n_pages)
        pool.run_pages += n_pages
        pool.n_runs += 1
        arena.frames[page].next = find_first_set(alignment)
    return page


cdef inline void run_free(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Free a run of ``run_alloc``."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    frames_free(arena, page)
    pool.n_pages -= n_pages
    pool.run_pages -= n_pages
    pool.n_runs -= 1


cdef inline void run_shrink(
    arena_t* arena, pool_t* pool, uint32_t page, uint64_t n_pages
) noexcept nogil:
    """Give back the pages behind the first ``n_pages`` of a pool's run."""
    cdef uint64_t given = frame_pages(arena.frames[page].word) - n_pages
    frames_shrink(arena, page, n_pages)
    pool.n_pages -= given
    pool.run_pages -= given


# TLSF regions ----------------------------------------------------------------

cdef inline uint64_t grown_pages(pool_t* pool) noexcept nogil:
    """Pages of the next region, if the request does not ask for more.

    Of a pool that adapts: the power of two in a quarter of its regions. Regions
    that grow with the pool leave the frames in runs as large as what the pool
    will ask for.
    """
    cdef uint64_t quarter = pool.region_pages >> 2
    if pool.flags & POOL_ADAPTS and quarter > pool.grow_pages:
        return bit(find_last_set(quarter))
    return pool.grow_pages


cdef inline uint32_t region_run(
    arena_t* arena, pool_t* pool, uint64_t least
) noexcept nogil:
    """A pending run for a region of at least ``least`` pages, for which there is room.

    Of ``grown_pages``, or as many as the block needs, or as few as the limit and the
    frames leave.
    """
    cdef uint64_t n_pages = grown_pages(pool)
    cdef uint64_t largest
    cdef uint32_t page
    if n_pages < least:
        n_pages = least
    if not may_hold(pool, n_pages):
        n_pages = pool.max_pages - pool.n_pages
    page = frames_alloc(arena, n_pages, FRAME_PENDING, pool.number)
    if page != 0:
        return page
    # No run of that order is free, but one of the least is.
    largest = bit(find_last_set(arena.super.frames.order_bitmap))
    if n_pages <= pool.grow_pages or largest < least or not may_hold(pool, largest):
        largest = least
    return frames_alloc(arena, largest, FRAME_PENDING, pool.number)


cdef inline offset_t region_grow(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need`` bytes in a region added for it, or 0.

    Where there is no run for the block, a pool that joins regions makes one out of
    those that it has and what is left. Where the limit leaves no room, and in a pool
    that does not join, an empty region is given back, and the next call may find room.
    """
    cdef uint64_t least = region_pages_for(arena, need, alignment)
    if pool.flags & POOL_HOOKED:
        return 0
    if not has_room(arena, pool, least):
        if not may_make_room(arena, pool, pages_for(arena, need)):
            return 0
        if pool.flags & POOL_JOINS and (
            may_hold(pool, least) or not spare_drop(arena, pool)
        ):
            return region_gather(arena, pool, need, alignment)
        if not pool.flags & POOL_JOINS:
            spare_drop(arena, pool)
        return 0
    return region_add(arena, pool, region_run(arena, pool, least))


cdef inline bint region_give(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Give an empty region back for ``n_pages``; False if none would help.

    For a pool that joins and could not gather a block: its request leaves the empty
    regions where they are, but longer runs of free pages may come of them.
    """
    return may_make_room(arena, pool, n_pages) and spare_drop(arena, pool)


# Legacy engine ---------------------------------------------------------------

cdef inline offset_t page_take(
    arena_t* arena, pool_t* pool, uint64_t need
) noexcept nogil:
    """A block of ``need`` bytes at the start of a new page, or 0."""
    cdef uint32_t page
    cdef offset_t start
    if not may_hold(pool, 1):
        return 0
    page = frames_alloc(arena, 1, FRAME_PENDING, pool.number)
    if page == 0:
        return 0
    start = page_offset(arena, page)
    firstfit_take(arena.base, &pool.firstfit, start, arena.page_bytes, need)
    region_record(arena, pool, page, FRAME_REGION)
    count_pages(pool, 1)
    pool.region_pages += 1
    pool.n_regions += 1
    return start


cdef inline void page_release(
    arena_t* arena, pool_t* pool, offset_t start
) noexcept nogil:
    """Give back a page that became whole."""
    frames_free(arena, <uint32_t>page_of(arena, start))
    pool.n_pages -= 1
    pool.region_pages -= 1
    pool.n_regions -= 1
