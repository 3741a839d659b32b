# SPDX-License-Identifier: BSD-3-Clause
"""A large block where no run of pages is long enough for it.

A pool that joins regions can make one out of pages that lie side by side: free runs and
its own free blocks. The search starts at one of the longest free runs and looks at what
lies next to it, page frames on the right and on the left. It changes nothing until it
knows that the block fits, and it looks at GATHER_LOOKS neighbours at most, whatever the
arena holds.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_REGION,
    frame_pages,
    frame_state,
    frames_claim,
    frames_head_of,
    is_region,
)
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.bits cimport bit, find_last_set
from xmem.base.checks cimport store_barrier
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.regions cimport count_region, region_record
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
    word_at,
    word_size,
)

cdef enum:
    GATHER_LOOKS = 4


cdef struct stretch_t:
    uint64_t first      # page at which the free pages and wholly free regions start
    uint64_t end        # page behind them
    offset_t start      # of the block that they make with the free blocks next to them
    offset_t limit      # its end
    uint64_t n_left     # pages that may still be taken from the frames


cdef inline bint stretch_right(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Add what lies on the right; False if nothing further can follow it."""
    cdef uint64_t page = stretch.end
    cdef uint64_t word, n_pages
    cdef offset_t block
    if page >= arena.n_pages:
        return False
    word = arena.frames[page].word
    n_pages = frame_pages(word)
    if frame_state(word) == FRAME_FREE:
        if n_pages > stretch.n_left:
            return False
        stretch.n_left -= n_pages
        stretch.end = page + n_pages
        stretch.limit = page_offset(arena, stretch.end) - REGION_TAIL_BYTES
        return True
    if not is_region(word, pool.number):
        return False
    # The region's first word and the sentinel in front of it go into the block.
    block = page_offset(arena, page) + REGION_HEAD_BYTES
    stretch.limit = block
    word = block_word(arena.base, block)
    if not word & BLOCK_FREE:
        return False
    stretch.limit = block + word_size(word)
    if block_size(arena.base, stretch.limit) != 0:
        return False
    stretch.end = page_of(arena, stretch.limit) + 1
    return True


cdef inline bint stretch_left(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Add what lies on the left; False if nothing further can precede it."""
    cdef uint64_t page = frames_head_of(arena, stretch.first - 1)
    cdef uint64_t word = arena.frames[page].word
    cdef offset_t sentinel = page_offset(arena, stretch.first) - REGION_TAIL_BYTES
    if page == 0:
        return False
    if frame_state(word) == FRAME_FREE:
        if frame_pages(word) > stretch.n_left:
            return False
        stretch.n_left -= frame_pages(word)
        stretch.first = page
        stretch.start = page_offset(arena, page) + REGION_HEAD_BYTES
        return True
    if not is_region(word, pool.number) or (
        not block_word(arena.base, sentinel) & BLOCK_PREV_FREE
    ):
        return False
    stretch.start = block_prev_free(arena.base, sentinel)
    page = page_of(arena, stretch.start)
    if stretch.start != page_offset(arena, page) + REGION_HEAD_BYTES or (
        frame_state(arena.frames[page].word) != FRAME_REGION
    ):
        return False
    stretch.first = page
    return True


cdef inline bint stretch_find(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    uint64_t need,
    uint64_t alignment,
    stretch_t* stretch,
    unsigned* n_looks,
) noexcept nogil:
    """Whether a block of ``need`` bytes can be made around the free run at ``page``.

    If the limit does not admit the whole run, of its first pages.
    """
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef bint is_open_right = True
    cdef bint is_open_left = True
    if n_pages > stretch.n_left:
        n_pages = stretch.n_left
        is_open_right = False
    stretch.n_left -= n_pages
    stretch.first = page
    stretch.end = page + n_pages
    stretch.start = page_offset(arena, page) + REGION_HEAD_BYTES
    stretch.limit = page_offset(arena, stretch.end) - REGION_TAIL_BYTES
    while stretch.limit - stretch.start < need + aligned_gap(stretch.start, alignment):
        if n_looks[0] == 0:
            return False
        n_looks[0] -= 1
        if is_open_right:
            is_open_right = stretch_right(arena, pool, stretch)
        elif is_open_left:
            is_open_left = stretch_left(arena, pool, stretch)
        else:
            return False
    return True


cdef inline void stretch_take_run(
    arena_t* arena, pool_t* pool, uint64_t page, uint64_t n_pages, bint is_first
) noexcept nogil:
    """Make a region out of the first ``n_pages`` of a free run, its block on no list.

    It is sound by itself until the block of the stretch covers it.
    """
    cdef offset_t block = page_offset(arena, page) + REGION_HEAD_BYTES
    cdef offset_t sentinel = page_offset(arena, page + n_pages) - REGION_TAIL_BYTES
    frames_claim(arena, page, n_pages, FRAME_PENDING, pool.number)
    block_write(arena.base, sentinel, 0, pool.tlsf.tag | BLOCK_PREV_FREE)
    block_write(arena.base, block, sentinel - block, pool.tlsf.tag | BLOCK_FREE)
    region_record(
        arena, pool, <uint32_t>page, FRAME_REGION if is_first else FRAME_JOINED
    )
    count_region(arena, pool, n_pages)


cdef inline void stretch_take_right(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Join the region on the right, of which at most the first block is free."""
    cdef offset_t block = page_offset(arena, stretch.end) + REGION_HEAD_BYTES
    if stretch.limit < block:
        return
    if stretch.limit > block:
        freelists_remove(arena.base, &pool.tlsf.bins, block)
    else:
        word_at(arena.base, block)[0] |= BLOCK_PREV_FREE
    region_record(arena, pool, <uint32_t>stretch.end, FRAME_JOINED)


cdef inline offset_t stretch_take(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Make the block of a stretch and list it."""
    cdef char* base = arena.base
    cdef uint64_t page = stretch.first
    cdef uint64_t size = stretch.limit - stretch.start
    cdef uint64_t word, n_pages
    cdef offset_t block
    if stretch.start < page_offset(arena, page):
        freelists_remove(base, &pool.tlsf.bins, stretch.start)
    while page < stretch.end:
        block = page_offset(arena, page) + REGION_HEAD_BYTES
        word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE:
            n_pages = frame_pages(word)
            if n_pages > stretch.end - page:
                n_pages = stretch.end - page
            stretch_take_run(arena, pool, page, n_pages, block == stretch.start)
            page += n_pages
        else:
            freelists_remove(base, &pool.tlsf.bins, block)
            if block != stretch.start:
                region_record(arena, pool, <uint32_t>page, FRAME_JOINED)
            page = page_of(arena, block + block_size(base, block)) + 1
    stretch_take_right(arena, pool, stretch)
    # One store makes one block of all.
    store_barrier()
    block_write(base, stretch.start, size, pool.tlsf.tag | BLOCK_FREE)
    block_tag_end(base, stretch.start, size)
    freelists_insert(base, &pool.tlsf.bins, stretch.start, size)
    return stretch.start


cdef inline offset_t region_gather(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need``, where no run of pages has it, or 0.

    The longest free runs are tried in the order of their lists, as long as there are
    neighbours to look at.
    """
    cdef uint64_t orders = arena.super.frames.order_bitmap
    cdef uint64_t n_may = arena.super.frames.n_free_pages
    cdef unsigned n_looks = GATHER_LOOKS
    cdef unsigned order
    cdef uint32_t page = 0
    cdef stretch_t stretch
    if pool.max_pages != 0 and n_may > pool.max_pages - pool.n_pages:
        n_may = pool.max_pages - pool.n_pages
    while n_may != 0 and n_looks != 0:
        if page == 0:
            if orders == 0:
                break
            order = find_last_set(orders)
            orders ^= bit(order)
            page = arena.super.frames.heads[order]
        stretch.n_left = n_may
        if stretch_find(arena, pool, page, need, alignment, &stretch, &n_looks):
            return stretch_take(arena, pool, &stretch)
        page = arena.frames[page].next
    return 0
