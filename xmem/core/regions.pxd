# SPDX-License-Identifier: BSD-3-Clause
"""Regions: pages of a pool that an engine has cut into blocks.

Here, and only here, blocks meet page frames: engines know no pages, frames know no
blocks. A *region* is what the frames handed over at once. A pool that joins makes one
stretch of blocks out of regions that lie side by side, and can cut a region out again
when it is wholly free.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    frame_pack,
    frame_pages,
    frame_state,
    frames_free,
    frames_head_of,
    is_region,
)
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.bits cimport ceil_log2
from xmem.base.checks cimport store_barrier
from xmem.base.memcheck cimport memory_open
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_HOOKED, POOL_JOINS, pool_t
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
    block_prev_free,
    block_size,
    block_tag_end,
    block_word,
    block_write,
    freelists_insert,
    freelists_remove,
    region_bytes_for,
    tlsf_add_region,
    tlsf_add_region_before,
    tlsf_detach,
)


cdef inline uint64_t pages_for(arena_t* arena, uint64_t n_bytes) noexcept nogil:
    """Pages that hold ``n_bytes``."""
    return (n_bytes + arena.page_bytes - 1) >> arena.page_shift


cdef inline bint may_hold(pool_t* pool, uint64_t n_pages) noexcept nogil:
    """Whether the pool's limit admits ``n_pages`` more."""
    return pool.max_pages == 0 or n_pages <= pool.max_pages - pool.n_pages


cdef inline void count_pages(pool_t* pool, uint64_t n_pages) noexcept nogil:
    """Account for pages that the pool has obtained."""
    pool.n_pages += n_pages
    if pool.n_pages > pool.peak_pages:
        pool.peak_pages = pool.n_pages


cdef inline void count_region(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Account for a region that the pool has obtained."""
    cdef uint64_t whole = (
        page_offset(arena, n_pages) - REGION_HEAD_BYTES - REGION_TAIL_BYTES
    )
    count_pages(pool, n_pages)
    pool.region_pages += n_pages
    pool.n_regions += 1
    if whole < pool.release_bytes:
        pool.release_bytes = whole


cdef inline void region_record(
    arena_t* arena, pool_t* pool, uint32_t page, unsigned state
) noexcept nogil:
    """Record pages of the pool as a region: FRAME_REGION or FRAME_JOINED."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    store_barrier()
    arena.frames[page].word = frame_pack(state, 0, pool.number, n_pages)


cdef inline bint region_follows(
    arena_t* arena, pool_t* pool, uint64_t page
) noexcept nogil:
    """Whether ``page`` is the first of a region of this pool."""
    return page < arena.n_pages and is_region(
        arena.frames[page].word, pool.number
    )


cdef inline offset_t region_join_left(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Join a fresh region to the one on its left, if that ends in free bytes.

    The left's last block takes in sentinel, head word and the new block: one
    store of its header. Returns the free block in which the region then lies.
    """
    cdef char* base = arena.base
    cdef offset_t start = page_offset(arena, page)
    cdef offset_t sentinel = start - REGION_TAIL_BYTES
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef uint32_t left_page = frames_head_of(arena, <uint64_t>page - 1)
    cdef offset_t left
    cdef uint64_t size
    if left_page == 0 or not region_follows(arena, pool, left_page):
        return block
    if not block_word(base, sentinel) & BLOCK_PREV_FREE:
        return block
    left = block_prev_free(base, sentinel)
    size = block + block_size(base, block) - left
    freelists_remove(base, &pool.tlsf.bins, left)
    freelists_remove(base, &pool.tlsf.bins, block)
    region_record(arena, pool, page, FRAME_JOINED)
    store_barrier()
    block_write(base, left, size, pool.tlsf.tag | BLOCK_FREE)
    block_tag_end(base, left, size)
    freelists_insert(base, &pool.tlsf.bins, left, size)
    return left


cdef inline offset_t region_add(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Format a pending run as a region, joined to its neighbours if asked.

    Returns the free block, on its list, in which the region lies.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t start = page_offset(arena, page)
    cdef offset_t end = page_offset(arena, page + n_pages)
    cdef offset_t block = start + REGION_HEAD_BYTES
    if pool.flags & POOL_JOINS and region_follows(arena, pool, page + n_pages):
        tlsf_add_region_before(arena.base, &pool.tlsf, start, end)
        region_record(arena, pool, page, FRAME_REGION)
        region_record(arena, pool, <uint32_t>(page + n_pages), FRAME_JOINED)
    else:
        tlsf_add_region(arena.base, &pool.tlsf, start, end)
        region_record(arena, pool, page, FRAME_REGION)
    if pool.flags & POOL_JOINS:
        block = region_join_left(arena, pool, page)
    count_region(arena, pool, n_pages)
    return block


cdef inline uint64_t region_pages_for(
    arena_t* arena, uint64_t need, uint64_t alignment
) noexcept nogil:
    """Pages of the least region that holds a block at an alignment."""
    return pages_for(
        arena,
        region_bytes_for(need + aligned_gap(REGION_HEAD_BYTES, alignment)),
    )


cdef inline void region_cut(
    arena_t* arena,
    pool_t* pool,
    uint32_t page,
    offset_t block,
    uint64_t size,
) noexcept nogil:
    """Give back the region at ``page``, inside a free block on no list.

    To the frames, or to the caller's function: then it becomes a run that
    waits in ``returned``.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t end = page_offset(arena, page + n_pages)
    cdef bint is_first = frame_state(arena.frames[page].word) == FRAME_REGION
    tlsf_detach(
        arena.base,
        &pool.tlsf,
        block,
        size,
        page_offset(arena, page),
        end,
        is_first,
    )
    if block + size > end - REGION_TAIL_BYTES:
        region_record(arena, pool, <uint32_t>(page + n_pages), FRAME_REGION)
    if pool.flags & POOL_HOOKED:
        arena.frames[page].word = frame_pack(
            FRAME_RUN, ceil_log2(n_pages), 0, n_pages
        )
        memory_open(
            arena.base + page_offset(arena, page), page_offset(arena, n_pages)
        )
        pool.returned = page
    else:
        frames_free(arena, page)
    if pool.roomy == page:
        pool.roomy = 0
    pool.n_pages -= n_pages
    pool.region_pages -= n_pages
    pool.n_regions -= 1
