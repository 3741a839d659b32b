# SPDX-License-Identifier: BSD-3-Clause
"""How a pool that joins regions takes pages from the last stretch.

In a pool that adapts, a region that ends where that starts, in a free block, is
extended by exactly the pages that the request needs. So the pool is the same in an
arena of any size, until a request needs pages that the arena does not have: more page
frames never fail where fewer serve. Pages are taken ahead of need only where nothing
can be extended, or in a pool that was told how many; and fewer where the arena ends.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport frames_take, frames_take_top
from xmem.arena.records cimport (
    FRAME_JOINED,
    FRAME_PENDING,
    frame_pages,
    is_region,
)
from xmem.arena.runheads cimport runheads_before
from xmem.arena.stretches cimport top_pages
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_ADAPTS, pool_t
from xmem.core.placement cimport fitting_pages
from xmem.core.regions cimport (
    count_pages,
    joined_start,
    pages_left,
    region_length,
    region_make,
    region_merge,
)
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
    block_write,
    freelists_remove,
    outlined_remove,
    tlsf_region_block,
)


# Called through this, because two calls would make two copies; see checks.pxd.
ctypedef offset_t (*make_t)(
    arena_t*, pool_t*, uint32_t, uint64_t, offset_t, offset_t
) noexcept nogil

cdef extern from *:
    make_t outlined_make "XMEM_OUTLINED"(make_t function) noexcept nogil


cdef inline uint64_t region_before_top(arena_t* arena, pool_t* pool) noexcept nogil:
    """First page of the run that ends where the last stretch starts, or 0.

    Mostly that is the region that was extended last, as its record proves.
    """
    cdef uint64_t page = pool.last_region
    cdef uint64_t word = arena.frames[page].word
    if is_region(word, pool.number) and (
        page + frame_pages(word) == arena.super.frames.top
    ):
        return page
    return runheads_before(arena, arena.super.frames.top - 1)


cdef inline offset_t region_extend(
    arena_t* arena, pool_t* pool, uint64_t region, offset_t block, uint64_t n_pages
) noexcept nogil:
    """Extend a region that ends in a free ``block`` by the first of the last pages.

    As `region_make`, which it leaves out: the block is taken off its list, and the
    store of its header makes the pages part of it.
    """
    cdef uint64_t page = arena.super.frames.top
    cdef offset_t start = page_offset(arena, page) + REGION_HEAD_BYTES
    cdef offset_t limit = page_offset(arena, page + n_pages) - REGION_TAIL_BYTES
    block_write(arena.base, limit, 0, pool.tlsf.tag | BLOCK_PREV_FREE)
    block_write(arena.base, start, limit - start, pool.tlsf.tag | BLOCK_FREE)
    frames_take_top(arena, n_pages, FRAME_JOINED, pool.number)
    outlined_remove(freelists_remove)(arena.base, &pool.tlsf.bins, block)
    tlsf_region_block(arena.base, &pool.tlsf, block, limit - block)
    count_pages(pool, n_pages)
    put(&pool.region_pages, pool.region_pages + n_pages)
    region_merge(arena, pool, region, page)
    return block


cdef inline offset_t region_at_top(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block on no list with room for ``need`` bytes in the last pages, or 0."""
    cdef uint64_t top = arena.super.frames.top
    cdef offset_t first = page_offset(arena, top)
    cdef uint64_t most = pages_left(pool)
    cdef uint64_t least, region
    cdef offset_t start
    if most > top_pages(arena):
        most = top_pages(arena)
    if most == 0:
        return 0
    region = region_before_top(arena, pool)
    start = joined_start(arena, pool, region, top)
    least = fitting_pages(
        arena, start + need + aligned_gap(start, alignment) + REGION_TAIL_BYTES, first
    )
    if least > most:
        return 0
    if start < first and pool.flags & POOL_ADAPTS:
        return region_extend(arena, pool, region, start, least)
    most = region_length(pool, least, most)
    frames_take(arena, top, top, most, FRAME_PENDING, pool.number)
    return outlined_make(region_make)(
        arena,
        pool,
        <uint32_t>top,
        region,
        start,
        first + page_offset(arena, most) - REGION_TAIL_BYTES,
    )
