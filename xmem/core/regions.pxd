# SPDX-License-Identifier: BSD-3-Clause
"""Regions: pages of a pool that an engine has cut into blocks.

Here, and only here, blocks meet page frames: engines know no pages, frames know no
blocks. A *region* is what the frames handed over at once. A pool that joins makes one
stretch of blocks out of regions that lie side by side, and can cut a region out again
when it is wholly free.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport frames_absorb, frames_divide, frames_free
from xmem.arena.records cimport (
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    frame_pack,
    frame_pages,
    frame_state,
    is_region,
)
from xmem.arena.runheads cimport runheads_before
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.bits cimport ceil_log2, find_last_set
from xmem.base.checks cimport store_barrier
from xmem.base.journal cimport put
from xmem.base.memcheck cimport memory_open
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_ADAPTS, POOL_HOOKED, POOL_JOINS, pool_t
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
    block_prev_free,
    block_word,
    block_write,
    freelists_remove,
    outlined_remove,
    region_bytes_for,
    tlsf_detach,
    tlsf_region_block,
    tlsf_region_end,
    tlsf_region_limit,
    tlsf_region_list,
)


cdef enum:
    REGION_SHARE_LOG2 = 3   # a pool that adapts grows by this part of its regions


cdef inline uint64_t pages_for(arena_t* arena, uint64_t n_bytes) noexcept nogil:
    """Pages that hold ``n_bytes``."""
    return (n_bytes + arena.page_bytes - 1) >> arena.page_shift


cdef inline unsigned page_order(arena_t* arena, uint64_t alignment) noexcept nogil:
    """log2 of the pages in an alignment in bytes; 0 below a page."""
    return find_last_set(alignment >> arena.page_shift | 1)


cdef inline uint64_t pages_left(pool_t* pool) noexcept nogil:
    """Pages that the pool's limit admits yet."""
    return pool.max_pages - pool.n_pages if pool.max_pages != 0 else ~<uint64_t>0


cdef inline bint may_hold(pool_t* pool, uint64_t n_pages) noexcept nogil:
    """Whether the pool's limit admits ``n_pages`` more."""
    return n_pages <= pages_left(pool)


cdef inline uint64_t grown_pages(pool_t* pool) noexcept nogil:
    """Pages of the next region, if the request does not ask for more.

    Of a pool that adapts an eighth of what its regions have: then the number of regions
    is a logarithm of their pages.
    """
    cdef uint64_t share = pool.region_pages >> REGION_SHARE_LOG2
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


cdef inline void count_pages(pool_t* pool, uint64_t n_pages) noexcept nogil:
    """Account for pages that the pool has obtained."""
    put(&pool.n_pages, pool.n_pages + n_pages)
    if pool.n_pages > pool.peak_pages:
        put(&pool.peak_pages, pool.n_pages)


cdef inline void count_region(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Account for a region, the pages of which are counted."""
    cdef uint64_t whole = (
        page_offset(arena, n_pages) - REGION_HEAD_BYTES - REGION_TAIL_BYTES
    )
    put(&pool.n_regions, pool.n_regions + 1)
    if whole < pool.release_bytes:
        put(&pool.release_bytes, whole)


cdef inline void region_record(
    arena_t* arena, pool_t* pool, uint32_t page, unsigned state
) noexcept nogil:
    """Record pages of the pool as a region: FRAME_REGION or FRAME_JOINED."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    store_barrier()
    put(&arena.frames[page].word, frame_pack(state, 0, pool.number, n_pages))


cdef inline bint region_follows(
    arena_t* arena, pool_t* pool, uint64_t page
) noexcept nogil:
    """Whether ``page`` is the first of a region of this pool."""
    return page < arena.n_pages and is_region(
        arena.frames[page].word, pool.number
    )


cdef inline offset_t joined_start(
    arena_t* arena, pool_t* pool, uint64_t left, uint64_t page
) noexcept nogil:
    """Where the first block of a region starts that is made at ``page``.

    In a pool that joins, that is the free block in which the region on the left ends,
    if there is one; ``left`` is the first page of the run there.
    """
    cdef offset_t start = page_offset(arena, page)
    if (
        pool.flags & POOL_JOINS
        and left != 0
        and is_region(arena.frames[left].word, pool.number)
        and block_word(arena.base, start - REGION_TAIL_BYTES) & BLOCK_PREV_FREE
    ):
        return block_prev_free(arena.base, start - REGION_TAIL_BYTES)
    return start + REGION_HEAD_BYTES


cdef inline offset_t joined_end(
    arena_t* arena, pool_t* pool, uint64_t page
) noexcept nogil:
    """Where the last block of a region ends that is made up to ``page``."""
    return tlsf_region_limit(
        arena.base,
        page_offset(arena, page),
        (pool.flags & POOL_JOINS) != 0 and region_follows(arena, pool, page),
    )


cdef inline void region_merge(
    arena_t* arena, pool_t* pool, uint64_t left, uint64_t page
) noexcept nogil:
    """Count a joined region, if it is short, as a part of the one on its left.

    Once that is twice as long as a region is to be, its end becomes a region again.
    """
    cdef uint64_t n_pages = grown_pages(pool)
    cdef uint64_t n_joined
    put(&pool.last_region, page)
    if frame_pages(arena.frames[page].word) >= n_pages or pool.flags & POOL_HOOKED:
        count_region(arena, pool, frame_pages(arena.frames[page].word))
        return
    put(&pool.last_region, left)
    frames_absorb(arena, left, page)
    n_joined = frame_pages(arena.frames[left].word)
    if n_joined >= 2 * n_pages:
        frames_divide(arena, left, n_joined - n_pages, FRAME_JOINED)
        count_region(arena, pool, n_pages)
        put(&pool.last_region, pool.last_region + (n_joined - n_pages))


cdef inline offset_t region_make(
    arena_t* arena,
    pool_t* pool,
    uint32_t page,
    uint64_t left,
    offset_t start,
    offset_t limit,
) noexcept nogil:
    """Make a region of a pending run, and one free block from ``start`` to ``limit``.

    These are where the block starts and ends that the region makes with the free ones
    next to it; see `joined_start` and `joined_end`. ``left`` is the first page of the
    run on the left. The block is on no list. One store of a header makes one block of
    all; what is joined on the left is longer from then on.
    """
    cdef char* base = arena.base
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t end = page_offset(arena, page + n_pages)
    cdef offset_t block = page_offset(arena, page) + REGION_HEAD_BYTES
    tlsf_region_end(base, &pool.tlsf, end, limit)
    block_write(base, block, limit - block, pool.tlsf.tag | BLOCK_FREE)
    if start != block:
        outlined_remove(freelists_remove)(base, &pool.tlsf.bins, start)
    region_record(
        arena, pool, page, FRAME_JOINED if start != block else FRAME_REGION
    )
    if limit > end:
        region_record(arena, pool, <uint32_t>(page + n_pages), FRAME_JOINED)
    tlsf_region_block(base, &pool.tlsf, start, limit - start)
    count_pages(pool, n_pages)
    put(&pool.region_pages, pool.region_pages + n_pages)
    if start != block:
        region_merge(arena, pool, left, page)
    else:
        count_region(arena, pool, n_pages)
    return start


cdef inline offset_t region_add(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Make a region of a pending run, joined to its neighbours in a pool that joins.

    Returns the free block, on no list, in which the region lies.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef uint64_t left = runheads_before(arena, <uint64_t>page - 1)
    return region_make(
        arena,
        pool,
        page,
        left,
        joined_start(arena, pool, left, page),
        joined_end(arena, pool, page + n_pages),
    )


cdef inline void region_list(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Put the block of ``region_add`` on its list."""
    tlsf_region_list(arena.base, &pool.tlsf, block)


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
        put(
            &arena.frames[page].word,
            frame_pack(FRAME_RUN, ceil_log2(n_pages), 0, n_pages),
        )
        memory_open(
            arena.base + page_offset(arena, page), page_offset(arena, n_pages)
        )
        put(&pool.returned, page)
    else:
        frames_free(arena, page)
    if pool.roomy == page:
        put(&pool.roomy, 0)
    put(&pool.n_pages, pool.n_pages - n_pages)
    put(&pool.region_pages, pool.region_pages - n_pages)
    put(&pool.n_regions, pool.n_regions - 1)
