# SPDX-License-Identifier: BSD-3-Clause
"""The page-frame allocator: a binary buddy system over the frame table.

One record per page. Only the first page of a run has a record that is not zero::

    63            32 31      16 15     8 7      0
    | pages of the run | owner | order | state |

The owner is 0 for a run of Arena.page_alloc, else the number of a pool. The free runs
of each order form a doubly linked list through the records; one bitmap says which lists
are not empty. Runs are split from the upper end, so that a pool that grows gradually
gets adjacent pages.

P1  runs tile the page frames; records inside a run are zero; every state is
    known, and every owner a pool's number where the state asks for one
P2  a free run of order k starts at a multiple of 2**k and is on list k
P3  a run of n pages in use starts at a multiple of the power of two >= n
P4  no free run has a free buddy of its order
P5  a bit of the order bitmap is set if and only if its list is not empty
P6  n_free_pages is the sum over the free runs

Work: one bit scan, and at most FRAMES_N_ORDERS splits or merges; a run whose length is
not a power of two adds one list operation for each piece of its tail. One store of a
record turns a run from free to in use or back: the records that it uncovers are
written before it.

This header knows nothing of blocks. Source of the returned tail: Xen b829a0ff57.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.superblock cimport (
    FRAMES_N_ORDERS,
    arena_t,
    frames_t,
    page_offset,
)
from xmem.base.bits cimport bit, ceil_log2, find_first_set, find_last_set
from xmem.base.checks cimport require, store_barrier
from xmem.base.memcheck cimport MEMCHECKED, memory_close, memory_open

cdef enum:
    # States; 0 in a record that is not the first of a run.
    FRAME_FREE = 1
    FRAME_RUN = 2           # of page_alloc
    FRAME_REGION = 3        # cut into blocks by an engine
    FRAME_CONTROL = 4       # a pool's control block
    FRAME_JOINED = 5        # a region whose blocks continue from the one on its left
    FRAME_PENDING = 6       # obtained by a pool, which has not formatted it yet
    FRAME_WHOLE = 7         # a pool's block of whole pages

    FRAME_ORDER_SHIFT = 8
    FRAME_OWNER_SHIFT = 16
    FRAME_PAGES_SHIFT = 32


cdef inline uint64_t frame_pack(
    uint64_t state, uint64_t order, uint64_t owner, uint64_t n_pages
) noexcept nogil:
    """Record of the first page of a run."""
    return (
        state
        | (order << FRAME_ORDER_SHIFT)
        | (owner << FRAME_OWNER_SHIFT)
        | (n_pages << FRAME_PAGES_SHIFT)
    )


cdef inline unsigned frame_state(uint64_t word) noexcept nogil:
    return <unsigned>(word & 0xFF)


cdef inline unsigned frame_order(uint64_t word) noexcept nogil:
    return <unsigned>((word >> FRAME_ORDER_SHIFT) & 0xFF)


cdef inline unsigned frame_owner(uint64_t word) noexcept nogil:
    return <unsigned>((word >> FRAME_OWNER_SHIFT) & 0xFFFF)


cdef inline uint64_t frame_pages(uint64_t word) noexcept nogil:
    return word >> FRAME_PAGES_SHIFT


cdef inline bint is_region(uint64_t word, unsigned owner) noexcept nogil:
    """Whether a record is that of a region of pool ``owner``."""
    return frame_owner(word) == owner and (
        frame_state(word) == FRAME_REGION or frame_state(word) == FRAME_JOINED
    )


cdef inline uint64_t free_word(unsigned order) noexcept nogil:
    """Record of a free run of ``order``."""
    return frame_pack(FRAME_FREE, order, 0, bit(order))


# Lists -----------------------------------------------------------------------

cdef inline void frames_link(
    arena_t* arena, uint32_t page, unsigned order
) noexcept nogil:
    """Put a free run first on the list of its order."""
    cdef frames_t* lists = &arena.super.frames
    cdef uint32_t head = lists.heads[order]
    arena.frames[page].next = head
    arena.frames[page].prev = 0
    if head != 0:
        arena.frames[head].prev = page
    lists.heads[order] = page
    lists.order_bitmap |= bit(order)


cdef inline void frames_unlink(
    arena_t* arena, uint32_t page, unsigned order
) noexcept nogil:
    """Take a free run off the list of its order."""
    cdef frames_t* lists = &arena.super.frames
    cdef uint32_t next_page = arena.frames[page].next
    cdef uint32_t prev_page = arena.frames[page].prev
    if next_page != 0:
        arena.frames[next_page].prev = prev_page
    if prev_page != 0:
        arena.frames[prev_page].next = next_page
        return
    lists.heads[order] = next_page
    if next_page == 0:
        lists.order_bitmap &= ~bit(order)


# Allocation ------------------------------------------------------------------

cdef inline void frames_put(
    arena_t* arena, uint32_t page, unsigned order
) noexcept nogil:
    """Record and list a free run that has no free buddy."""
    arena.frames[page].word = free_word(order)
    frames_link(arena, page, order)


cdef inline void frames_put_tail(
    arena_t* arena, uint64_t page, uint64_t end
) noexcept nogil:
    """Free the pages from ``page`` to ``end``, the end of a power of two."""
    cdef unsigned order
    while page < end:
        order = find_first_set(page)
        frames_put(arena, <uint32_t>page, order)
        page += bit(order)


cdef inline bint frames_can(arena_t* arena, uint64_t n_pages) noexcept nogil:
    """Whether a run of ``n_pages``, at most the arena's, can be allocated."""
    return arena.super.frames.order_bitmap >> ceil_log2(n_pages) != 0


cdef inline uint32_t frames_alloc(
    arena_t* arena, uint64_t n_pages, unsigned state, unsigned owner
) noexcept nogil:
    """First page of a run of ``n_pages`` (at least 1), or 0.

    The run is aligned to the power of two that holds it; the rest of that power of
    two stays free.
    """
    cdef frames_t* lists = &arena.super.frames
    cdef unsigned order, found, i
    cdef uint64_t candidates
    cdef uint32_t source, page
    if n_pages > arena.n_pages:
        return 0
    order = ceil_log2(n_pages)
    candidates = lists.order_bitmap & (~<uint64_t>0 << order)
    if candidates == 0:
        return 0
    found = find_first_set(candidates)
    source = lists.heads[found]
    frames_unlink(arena, source, found)
    page = <uint32_t>(source + bit(found) - bit(order))
    # The records inside the source are written while its own record still covers
    # them; the last store uncovers them.
    frames_put_tail(arena, page + n_pages, page + bit(order))
    if found != order:
        for i in range(order, found - 1):
            frames_put(arena, <uint32_t>(source + bit(found) - bit(i + 1)), i)
        arena.frames[page].word = frame_pack(state, order, owner, n_pages)
        store_barrier()
        frames_put(arena, source, found - 1)
    else:
        store_barrier()
        arena.frames[page].word = frame_pack(state, order, owner, n_pages)
    lists.n_free_pages -= n_pages
    if MEMCHECKED and state == FRAME_RUN:
        memory_open(
            arena.base + page_offset(arena, page), page_offset(arena, n_pages)
        )
    return page


# Freeing ---------------------------------------------------------------------

cdef inline unsigned piece_order(uint64_t page, uint64_t end) noexcept nogil:
    """Order of the largest aligned run that starts at ``page`` within ``end``."""
    cdef unsigned order = find_first_set(page)
    cdef unsigned room = find_last_set(end - page)
    return order if order < room else room


cdef inline void frames_merge(
    arena_t* arena, uint64_t page, unsigned order
) noexcept nogil:
    """List a free run after merging it with its free buddies."""
    cdef uint64_t buddy
    while order + 1 < FRAMES_N_ORDERS:
        buddy = page ^ bit(order)
        if buddy < arena.first_page or buddy + bit(order) > arena.n_pages:
            break
        if arena.frames[buddy].word != free_word(order):
            break
        frames_unlink(arena, <uint32_t>buddy, order)
        order += 1
        if buddy < page:
            arena.frames[buddy].word = free_word(order)
            store_barrier()
            arena.frames[page].word = 0
            page = buddy
        else:
            arena.frames[page].word = free_word(order)
            store_barrier()
            arena.frames[buddy].word = 0
    frames_link(arena, <uint32_t>page, order)


cdef inline void frames_free(arena_t* arena, uint32_t page) noexcept nogil:
    """Free the run in use that starts at ``page``."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef uint64_t left = n_pages
    cdef uint64_t first = page
    cdef unsigned order
    require(frame_state(arena.frames[page].word) > FRAME_FREE)
    memory_close(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    # The records of the pieces after the first are written while the run covers them.
    order = find_last_set(left)
    left -= bit(order)
    first += bit(order)
    while left != 0:
        order = find_last_set(left)
        arena.frames[first].word = free_word(order)
        left -= bit(order)
        first += bit(order)
    store_barrier()
    arena.frames[page].word = free_word(find_last_set(n_pages))
    # From left to right: the right buddy of a piece is smaller or already listed.
    left = n_pages
    first = page
    while left != 0:
        order = find_last_set(left)
        left -= bit(order)
        frames_merge(arena, first, order)
        first += bit(order)
    arena.super.frames.n_free_pages += n_pages


cdef inline void frames_shrink(
    arena_t* arena, uint32_t page, uint64_t n_pages
) noexcept nogil:
    """Free what lies behind the first ``n_pages`` of a run in use."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t end = page + frame_pages(word)
    cdef uint64_t first = page + n_pages
    cdef unsigned order
    require(0 < n_pages <= frame_pages(word))
    memory_close(
        arena.base + page_offset(arena, first), page_offset(arena, end - first)
    )
    while first < end:
        order = piece_order(first, end)
        arena.frames[first].word = free_word(order)
        first += bit(order)
    store_barrier()
    arena.frames[page].word = frame_pack(
        frame_state(word), ceil_log2(n_pages), frame_owner(word), n_pages
    )
    first = page + n_pages
    while first < end:
        order = piece_order(first, end)
        frames_merge(arena, first, order)
        first += bit(order)
    arena.super.frames.n_free_pages += frame_pages(word) - n_pages


# Questions -------------------------------------------------------------------

cdef inline uint32_t frames_head_of(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """First page of the run that contains ``page``; 0 for a page of the tables.

    At most one probe per order: a run starts at a multiple of the power of
    two that holds it (P2, P3).
    """
    cdef unsigned order
    cdef uint64_t head, word
    if page < arena.first_page or page >= arena.n_pages:
        return 0
    for order in range(FRAMES_N_ORDERS):
        head = page & ~(bit(order) - 1)
        if head < arena.first_page:
            return 0
        word = arena.frames[head].word
        if word != 0 and page < head + frame_pages(word):
            return <uint32_t>head
    return 0


cdef inline void frames_init(arena_t* arena) noexcept nogil:
    """Make all page frames free. The records are all zero."""
    cdef uint64_t page = arena.first_page
    cdef unsigned order, i
    memory_close(
        arena.base + page_offset(arena, page),
        page_offset(arena, arena.n_pages - page),
    )
    arena.super.frames.order_bitmap = 0
    arena.super.frames.n_free_pages = arena.n_pages - arena.first_page
    for i in range(FRAMES_N_ORDERS):
        arena.super.frames.heads[i] = 0
    while page < arena.n_pages:
        order = piece_order(page, arena.n_pages)
        frames_put(arena, <uint32_t>page, order)
        page += bit(order)
