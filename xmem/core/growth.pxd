# SPDX-License-Identifier: BSD-3-Clause
"""How a pool gets pages from the frames and gives them back.

Here, and only here, blocks meet page frames: engines know no pages, frames
know no blocks. Every function does one allocation or one release of frames
and a bounded number of list operations.

A *region* is what the frames handed over at once. A pool that joins makes one
stretch of blocks out of regions that lie side by side, and can cut a region
out again when it is wholly free. At most one empty region is kept in hand
(with joins: one is returned only while a free block as large as a region
remains), so that a pool at the edge of a region does not thrash. It leaves
when limit or arena would otherwise refuse a request. A region that was returned never
keeps the pool from serving the size just freed once more: the region that was
emptied last stays, or the frames can surely give one back.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_REGION,
    FRAME_RUN,
    frame_pack,
    frame_pages,
    frame_state,
    frames_alloc,
    frames_can,
    frames_free,
    frames_head_of,
    frames_shrink,
    is_region,
)
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.bits cimport bit, ceil_log2, find_first_set, find_last_set
from xmem.base.checks cimport store_barrier
from xmem.base.engines cimport ENGINE_TLSF
from xmem.base.memcheck cimport memory_open
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_ADAPTS, POOL_HOOKED, POOL_JOINS, pool_t
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    MAPPING_SL_LOG2,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    aligned_gap,
    block_prev_free,
    block_size,
    block_tag_end,
    block_word,
    block_write,
    can_detach,
    firstfit_take,
    fits_aligned,
    freelists_find,
    freelists_insert,
    freelists_remove,
    mapping_insert,
    mapping_level,
    region_bytes_for,
    tlsf_add_region,
    tlsf_add_region_before,
    tlsf_detach,
    tlsf_find,
    word_size,
)


cdef enum:
    # A pool without joins has one empty region in hand, one that joins may
    # have a few: what one request does about them is bounded.
    DROPS = 4
    DROP_PROBES = 8
    GATHERS = 4             # runs that one request may join to what there is


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


# Page runs: blocks of whole pages --------------------------------------------

cdef inline uint32_t run_alloc(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_pages,
    uint64_t alignment,
    unsigned state,
) noexcept nogil:
    """First page of a run that the pool hands out whole, or 0.

    FRAME_WHOLE: a block; FRAME_RUN: pages of a heap's page_alloc.
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
    cdef uint64_t whole = end - start - REGION_HEAD_BYTES - REGION_TAIL_BYTES
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
    count_pages(pool, n_pages)
    pool.region_pages += n_pages
    pool.n_regions += 1
    if whole < pool.release_bytes:
        pool.release_bytes = whole
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
    pool.n_pages -= n_pages
    pool.region_pages -= n_pages
    pool.n_regions -= 1


cdef inline void region_ungather(
    arena_t* arena,
    pool_t* pool,
    uint32_t* pages,
    offset_t* blocks,
    unsigned n_taken,
) noexcept nogil:
    """Give back what a gathering took, the last first."""
    cdef uint64_t size
    while n_taken > 0:
        n_taken -= 1
        size = block_size(arena.base, blocks[n_taken])
        freelists_remove(arena.base, &pool.tlsf.bins, blocks[n_taken])
        region_cut(arena, pool, pages[n_taken], blocks[n_taken], size)


cdef inline offset_t region_gather(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need``, where no run of pages has it, or 0.

    The largest free runs, at most GATHERS of them, join the regions that they
    are next to; one free block of the result may be large enough. If none is,
    they are given back.
    """
    cdef uint32_t pages[GATHERS]
    cdef offset_t blocks[GATHERS]
    cdef uint64_t peak_pages = pool.peak_pages
    cdef uint64_t release_bytes = pool.release_bytes
    cdef uint64_t n_pages
    cdef unsigned n_taken = 0
    while n_taken < GATHERS and arena.super.frames.order_bitmap != 0:
        n_pages = bit(find_last_set(arena.super.frames.order_bitmap))
        if not may_hold(pool, n_pages):
            n_pages = pool.max_pages - pool.n_pages
            if n_pages == 0:
                break
        pages[n_taken] = frames_alloc(arena, n_pages, FRAME_PENDING, pool.number)
        blocks[n_taken] = region_add(arena, pool, pages[n_taken])
        if fits_aligned(arena.base, blocks[n_taken], need, alignment):
            return blocks[n_taken]
        n_taken += 1
    region_ungather(arena, pool, pages, blocks, n_taken)
    pool.peak_pages = peak_pages
    pool.release_bytes = release_bytes
    return 0


cdef inline bint may_gather(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether a block of ``n_pages`` could come of the pool's regions and of all
    that it may take.
    """
    cdef uint64_t n_free = arena.super.frames.n_free_pages
    if pool.max_pages != 0 and n_free > pool.max_pages - pool.n_pages:
        n_free = pool.max_pages - pool.n_pages
    return n_free != 0 and n_pages <= pool.region_pages + n_free


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


cdef inline offset_t region_grow(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need`` bytes in a region added for it, or 0.

    Of ``grown_pages``, or as many as the block needs, or as few as the limit
    and the frames leave. Where there is no run for the block, a pool that
    joins regions makes one out of those that it has and what is left.
    """
    cdef uint64_t least = region_pages_for(arena, need, alignment)
    cdef uint64_t n_pages = grown_pages(pool)
    cdef uint64_t largest
    cdef uint32_t page
    if n_pages < least:
        n_pages = least
    if pool.flags & POOL_HOOKED:
        return 0
    if not make_room(arena, pool, least):
        if pool.flags & POOL_JOINS and may_gather(arena, pool, least):
            return region_gather(arena, pool, need, alignment)
        return 0
    if not may_hold(pool, n_pages):
        n_pages = pool.max_pages - pool.n_pages
    page = frames_alloc(arena, n_pages, FRAME_PENDING, pool.number)
    if page == 0:
        # No run of that order is free, but one of the least is.
        largest = bit(find_last_set(arena.super.frames.order_bitmap))
        if n_pages <= pool.grow_pages or largest < least or (
            not may_hold(pool, largest)
        ):
            largest = least
        page = frames_alloc(arena, largest, FRAME_PENDING, pool.number)
    if page == 0:
        return 0
    return region_add(arena, pool, page)


cdef inline bint region_fits_hole(
    arena_t* arena,
    uint32_t page,
    offset_t block,
    uint64_t size,
) noexcept nogil:
    """Whether the region at ``page`` can be cut out of a free block."""
    cdef uint64_t word = arena.frames[page].word
    return can_detach(
        block,
        size,
        page_offset(arena, page),
        page_offset(arena, page + frame_pages(word)),
        frame_state(word) == FRAME_REGION,
    )


cdef inline uint32_t region_inside(
    arena_t* arena, offset_t block, uint64_t size
) noexcept nogil:
    """Leftmost region that can be cut out of a free block, or 0.

    It is the one in which the block starts, the next, or, when too little
    for a block would stay on the left of that, the one after it.
    """
    cdef uint64_t page = frames_head_of(arena, page_of(arena, block))
    cdef unsigned _i
    for _i in range(3):
        if region_fits_hole(arena, <uint32_t>page, block, size):
            return <uint32_t>page
        page += frame_pages(arena.frames[page].word)
        if page_offset(arena, page) >= block + size:
            break
    return 0


cdef inline bint has_spare(arena_t* arena, pool_t* pool) noexcept nogil:
    """Whether a pool without joins has an empty region in hand."""
    cdef uint64_t word
    if pool.spare == 0:
        return False
    word = block_word(arena.base, pool.spare)
    return (word & BLOCK_FREE) != 0 and word_size(
        block_word(arena.base, pool.spare + word_size(word))
    ) == 0


cdef inline bint leaves_spare(
    arena_t* arena,
    pool_t* pool,
    uint32_t page,
    offset_t block,
    uint64_t size,
    uint64_t freed,
) noexcept nogil:
    """Whether a pool that joins has enough left without the region at ``page``.

    The region lies inside a free block on no list. A free block as large as a
    region has to remain, beside the region or elsewhere; as large as
    ``freed``, the block just freed, where the frames might not give a region
    for that again: they surely have the largest power of two of these pages.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t left_end = page_offset(arena, page) - REGION_TAIL_BYTES
    cdef offset_t right = page_offset(arena, page + n_pages) + REGION_HEAD_BYTES
    cdef uint64_t least = pool.release_bytes
    if region_bytes_for(freed) > page_offset(arena, bit(find_last_set(n_pages))):
        # With the slack above which a search finds a block for sure.
        freed += freed >> MAPPING_SL_LOG2
        if freed > least:
            least = freed
    return (
        block + least <= left_end
        or right + least <= block + size
        or tlsf_find(arena.base, &pool.tlsf, least) != 0
    )


cdef inline bint is_whole_region(
    arena_t* arena, offset_t block, uint64_t size
) noexcept nogil:
    """Whether a free block fills a stretch from its head to its sentinel.

    The frame table is asked: a block may also start behind the first word of
    a page inside a region.
    """
    cdef uint64_t page = page_of(arena, block)
    return (
        block == page_offset(arena, page) + REGION_HEAD_BYTES
        and frame_state(arena.frames[page].word) == FRAME_REGION
        and word_size(block_word(arena.base, block + size)) == 0
    )


cdef inline void spare_replace(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Keep the empty region of ``block`` in hand and return the one before."""
    cdef offset_t spare = pool.spare
    if spare != block and has_spare(arena, pool):
        freelists_remove(arena.base, &pool.tlsf.bins, spare)
        region_cut(
            arena,
            pool,
            <uint32_t>page_of(arena, spare),
            spare,
            block_size(arena.base, spare),
        )
    pool.spare = block


cdef inline uint32_t region_empty_in(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size
) noexcept nogil:
    """A region that can leave with a free block, or with a part of it, or 0."""
    if pool.flags & POOL_JOINS:
        return region_inside(arena, block, size)
    if is_whole_region(arena, block, size):
        return <uint32_t>page_of(arena, block)
    return 0


cdef inline bint spare_drop(arena_t* arena, pool_t* pool) noexcept nogil:
    """Give back an empty region; False if none is found.

    The one in hand, else one that holds the first block of one of the
    DROP_PROBES next lists.
    """
    cdef uint64_t size = pool.release_bytes
    cdef uint32_t page = 0
    cdef unsigned n_left = DROP_PROBES
    cdef offset_t block = pool.spare
    if has_spare(arena, pool):
        page = <uint32_t>page_of(arena, block)
    while page == 0:
        block = freelists_find(
            arena.base, &pool.tlsf.bins, mapping_insert(size)
        )
        if block == 0 or n_left == 0:
            return False
        n_left -= 1
        size = block_size(arena.base, block)
        page = region_empty_in(arena, pool, block, size)
        # Where the next list begins.
        size += bit(mapping_level(size) - MAPPING_SL_LOG2)
    if block == pool.spare:
        pool.spare = 0
    freelists_remove(arena.base, &pool.tlsf.bins, block)
    region_cut(arena, pool, page, block, block_size(arena.base, block))
    return True


cdef inline bint make_room(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether limit and frames admit a run of ``n_pages`` more.

    If they do not, empty regions in hand are given back, at most DROPS of
    them: a region kept for later must not make a request fail now, and every
    request takes a bounded time.
    """
    cdef unsigned n_tries = DROPS
    if n_pages > arena.n_pages or (
        pool.max_pages != 0 and n_pages > pool.max_pages
    ):
        return False
    while not may_hold(pool, n_pages) or not frames_can(arena, n_pages):
        if (
            n_tries == 0
            or pool.engine != ENGINE_TLSF
            or pool.flags & POOL_HOOKED
            or not spare_drop(arena, pool)
        ):
            return False
        n_tries -= 1
    return True


cdef inline bint region_release(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t size,
    uint64_t freed,
) noexcept nogil:
    """Give a region back if a coalesced block has emptied one.

    The block is on no list; ``freed`` bytes of it have just been freed. When
    the result is True, the rest of the block has been listed; when it is
    False, the block is unchanged and still has to be listed.
    """
    cdef uint32_t page
    if pool.returned != 0:
        return False
    if not pool.flags & POOL_JOINS:
        if is_whole_region(arena, block, size):
            spare_replace(arena, pool, block)
        return False
    page = region_inside(arena, block, size)
    if page == 0 or not leaves_spare(arena, pool, page, block, size, freed):
        return False
    region_cut(arena, pool, page, block, size)
    return True


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
