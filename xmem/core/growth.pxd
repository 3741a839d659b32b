# SPDX-License-Identifier: BSD-3-Clause
"""How a pool gets pages from the frames and gives them back.

Runs that are handed out whole, regions for either engine. Every function does one
allocation or one release of frames and a bounded number of list operations.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    frames_alloc,
    frames_find,
    frames_free,
    frames_longest,
    frames_shrink,
    frames_take,
)
from xmem.arena.records cimport FRAME_PENDING, FRAME_REGION, frame_pages
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base cimport align_up, bit, find_first_set, offset_t, put, put32
from xmem.core.control cimport POOL_HOOKED, POOL_JOINS, pool_t
from xmem.core.extension cimport outlined_make, region_at_top
from xmem.core.placement cimport place_find, place_t
from xmem.core.regions cimport (
    count_pages,
    may_hold,
    page_order,
    pages_for,
    pages_left,
    region_add,
    region_length,
    region_make,
    region_pages_for,
    region_record,
)
from xmem.core.spares cimport may_make_room, spare_drop
from xmem.engine cimport firstfit_take


# Page runs: blocks of whole pages --------------------------------------------


cdef inline uint64_t run_find(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    """A stretch with room for a run, if the pool's limit admits it, or 0.

    ``alignment`` is in bytes.
    """
    if not may_hold(pool, n_pages):
        return 0
    return frames_find(arena, n_pages, page_order(arena, alignment))


cdef inline uint32_t run_take(
    arena_t* arena,
    pool_t* pool,
    uint64_t stretch,
    uint64_t n_pages,
    uint64_t alignment,
    unsigned state,
) noexcept nogil:
    """First page of a run that the pool hands out whole, out of what `run_find` found.

    FRAME_WHOLE: a block; FRAME_RUN: pages of a heap's page_alloc.
    """
    cdef uint64_t page = align_up(stretch, bit(page_order(arena, alignment)))
    frames_take(arena, stretch, page, n_pages, state, pool.number)
    count_pages(pool, n_pages)
    put(&pool.run_pages, pool.run_pages + n_pages)
    put(&pool.n_runs, pool.n_runs + 1)
    put32(&arena.frames[page].next, find_first_set(alignment))
    return <uint32_t>page


cdef inline uint32_t run_alloc(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_pages,
    uint64_t alignment,
    unsigned state,
) noexcept nogil:
    """First page of a run, as `run_take`; without room 0, and an empty region leaves.

    Then the next call may find room: a region kept for later must not make a request
    fail for ever. A call does not take pages as well, so that its work is that of one
    run.
    """
    cdef uint64_t stretch = run_find(arena, pool, n_pages, alignment)
    if stretch != 0:
        return run_take(arena, pool, stretch, n_pages, alignment, state)
    if may_make_room(arena, pool, n_pages):
        spare_drop(arena, pool)
    return 0


cdef inline void run_free(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Free a run of ``run_alloc``."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    frames_free(arena, page)
    put(&pool.n_pages, pool.n_pages - n_pages)
    put(&pool.run_pages, pool.run_pages - n_pages)
    put(&pool.n_runs, pool.n_runs - 1)


cdef inline void run_shrink(
    arena_t* arena, pool_t* pool, uint32_t page, uint64_t n_pages
) noexcept nogil:
    """Give back the pages behind the first ``n_pages`` of a pool's run."""
    cdef uint64_t given = frame_pages(arena.frames[page].word) - n_pages
    frames_shrink(arena, page, n_pages)
    put(&pool.n_pages, pool.n_pages - given)
    put(&pool.run_pages, pool.run_pages - given)


# TLSF regions ----------------------------------------------------------------

cdef inline uint32_t region_run(
    arena_t* arena, pool_t* pool, uint64_t least
) noexcept nogil:
    """A pending run for a region of at least ``least`` pages, or 0.

    Of a pool that does not join: as long as a region is to be, or as the limit and the
    frames leave.
    """
    cdef uint64_t most = frames_longest(arena)
    if most > pages_left(pool):
        most = pages_left(pool)
    if most < least:
        return 0
    return frames_alloc(
        arena, region_length(pool, least, most), FRAME_PENDING, pool.number
    )


cdef inline offset_t region_grow(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block on no list with room for ``need`` bytes, in a new region, or 0.

    Where neither frames nor limit leave room an empty region is given back, and the
    next call may find some.
    """
    cdef uint32_t page
    cdef place_t place
    cdef offset_t block
    if pool.flags & POOL_HOOKED:
        return 0
    if not pool.flags & POOL_JOINS:
        page = region_run(arena, pool, region_pages_for(arena, need, alignment))
        if page != 0:
            return region_add(arena, pool, page)
    elif place_find(arena, pool, need, alignment, &place):
        page = <uint32_t>place.page
        frames_take(
            arena, place.stretch, page, place.n_pages, FRAME_PENDING, pool.number
        )
        return outlined_make(region_make)(
            arena, pool, page, place.left, place.start, place.limit
        )
    else:
        block = region_at_top(arena, pool, need, alignment)
        if block != 0:
            return block
    if may_make_room(arena, pool, pages_for(arena, need)):
        spare_drop(arena, pool)
    return 0


cdef inline bint region_give(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Give an empty region back for ``n_pages``; False if none would help.

    Longer stretches of free pages may come of it.
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
    put(&pool.region_pages, pool.region_pages + 1)
    put(&pool.n_regions, pool.n_regions + 1)
    return start


cdef inline void page_release(
    arena_t* arena, pool_t* pool, offset_t start
) noexcept nogil:
    """Give back a page that became whole."""
    frames_free(arena, <uint32_t>page_of(arena, start))
    put(&pool.n_pages, pool.n_pages - 1)
    put(&pool.region_pages, pool.region_pages - 1)
    put(&pool.n_regions, pool.n_regions - 1)
