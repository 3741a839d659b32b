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
    frame_t,
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


# Rare paths are called through these; see checks.pxd.
ctypedef void (*uncover_t)(arena_t*, uint64_t, uint64_t, uint64_t) noexcept nogil

cdef extern from *:
    uncover_t outlined_uncover "XMEM_OUTLINED"(uncover_t function) noexcept nogil


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


cdef inline uint64_t word_doubled(uint64_t word) noexcept nogil:
    """Record of a free run of twice the pages, so of the next order."""
    return word + bit(FRAME_ORDER_SHIFT) + (
        frame_pages(word) << FRAME_PAGES_SHIFT
    )


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
    cdef frame_t* frames = arena.frames
    cdef uint32_t next_page = frames[page].next
    cdef uint32_t prev_page = frames[page].prev
    if next_page != 0:
        frames[next_page].prev = prev_page
    if prev_page != 0:
        frames[prev_page].next = next_page
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
    """Free the pages from ``page`` to ``end``, the end of a power of two.

    They fall into runs as their number falls into powers of two.
    """
    cdef frame_t* frames = arena.frames
    cdef uint32_t* heads = arena.super.frames.heads
    cdef uint32_t head
    cdef unsigned order
    arena.super.frames.order_bitmap |= end - page
    while page < end:
        order = find_first_set(page)
        head = heads[order]
        frames[page].word = free_word(order)
        frames[page].next = head
        frames[page].prev = 0
        if head != 0:
            frames[head].prev = <uint32_t>page
        heads[order] = <uint32_t>page
        page += bit(order)


cdef inline void frames_put_halves(
    arena_t* arena, uint64_t source, unsigned order, unsigned found
) noexcept nogil:
    """Free the halves from ``order`` up that splitting a run of ``found`` leaves.

    But not the last, which starts where the run does. Their lists are empty.
    """
    cdef frame_t* frames = arena.frames
    cdef uint32_t* heads = arena.super.frames.heads
    cdef uint64_t end = source + bit(found)
    cdef uint64_t word = free_word(order)
    cdef uint64_t n_pages
    arena.super.frames.order_bitmap |= bit(found) - bit(order)
    while order + 1 < found:
        n_pages = frame_pages(word)
        source = end - 2 * n_pages
        frames[source].word = word
        frames[source].next = 0
        frames[source].prev = 0
        heads[order] = <uint32_t>source
        word = word_doubled(word)
        order += 1


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
    cdef unsigned order, found
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
        if found > order + 1:
            frames_put_halves(arena, source, order, found)
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


cdef inline void frames_claim(
    arena_t* arena, uint64_t page, uint64_t n_pages, unsigned state, unsigned owner
) noexcept nogil:
    """Take the first ``n_pages`` of the free run that starts at ``page``.

    The rest of the run stays free.
    """
    cdef unsigned order = frame_order(arena.frames[page].word)
    require(arena.frames[page].word == free_word(order) and n_pages <= bit(order))
    frames_unlink(arena, <uint32_t>page, order)
    frames_put_tail(arena, page + n_pages, page + bit(order))
    store_barrier()
    arena.frames[page].word = frame_pack(state, order, owner, n_pages)
    arena.super.frames.n_free_pages -= n_pages


# Freeing ---------------------------------------------------------------------

cdef inline unsigned piece_order(uint64_t page, uint64_t end) noexcept nogil:
    """Order of the largest aligned run that starts at ``page`` within ``end``."""
    cdef unsigned order = find_first_set(page)
    cdef unsigned room = find_last_set(end - page)
    return order if order < room else room


cdef inline void frames_merge(
    arena_t* arena, uint64_t page, unsigned order
) noexcept nogil:
    """List a free run after merging it with its free buddies.

    A run in the tables' pages is none of them. No record is that of a run that would
    reach beyond the arena.
    """
    cdef frame_t* frames = arena.frames
    cdef uint64_t first_page = arena.first_page
    cdef uint64_t n_pages = arena.n_pages - first_page
    cdef uint64_t word = free_word(order)
    cdef uint64_t buddy = page ^ frame_pages(word)
    while buddy - first_page < n_pages and frames[buddy].word == word:
        frames_unlink(arena, <uint32_t>buddy, order)
        order += 1
        word = word_doubled(word)
        frames[page & buddy].word = word
        store_barrier()
        frames[page | buddy].word = 0
        page &= buddy
        buddy = page ^ frame_pages(word)
    frames_link(arena, <uint32_t>page, order)


cdef inline void frames_put_down(
    arena_t* arena, uint64_t page, uint64_t end
) noexcept nogil:
    """Free the pages from ``page`` to ``end``, from right to left.

    They have no free buddies, and the power of two that holds ``end`` starts at
    ``page`` or before it.
    """
    cdef unsigned order
    while end != page:
        order = find_first_set(end)
        if end - bit(order) < page:
            frames_put_tail(arena, page, end)
            return
        end -= bit(order)
        store_barrier()
        frames_put(arena, <uint32_t>end, order)


cdef inline void frames_clear(
    arena_t* arena, uint64_t page, uint64_t orders
) noexcept nogil:
    """Clear the records of adjacent runs, of ascending orders, that were absorbed."""
    cdef uint64_t n_pages
    while orders != 0:
        n_pages = orders & (0 - orders)
        store_barrier()
        arena.frames[page].word = 0
        page += n_pages
        orders ^= n_pages


cdef inline void frames_uncover_whole(
    arena_t* arena, uint64_t page, uint64_t end, uint64_t absorbed, unsigned order
) noexcept nogil:
    """Free a run that has become, with those absorbed behind it, one of ``order``."""
    store_barrier()
    arena.frames[page].word = free_word(order)
    frames_clear(arena, end, absorbed)
    frames_merge(arena, page, order)


cdef inline void frames_uncover(
    arena_t* arena, uint64_t page, uint64_t n_kept, uint64_t n_pages
) noexcept nogil:
    """Free the pages of a run in use of ``n_pages`` behind its first ``n_kept``.

    The freed pages fall into runs as their number falls into powers of two. Only the
    last of these, the smallest, can have a free buddy outside; what it becomes by
    that merges with the next, and so on: at each order one run is unlinked, listed,
    or neither.

    All records are written while the run still covers them, the one that uncovers
    them last.
    """
    cdef uint64_t start = page + n_pages        # of what has been merged
    cdef uint64_t end = start                   # and its end
    cdef uint64_t first = page + n_kept
    cdef uint64_t absorbed = 0                  # orders of the runs behind the end
    cdef uint64_t word = arena.frames[page].word
    cdef unsigned order = find_first_set(n_pages)
    cdef uint64_t n_piece = bit(order)
    cdef uint64_t buddy = free_word(order)      # the record that it has
    require(frame_state(word) > FRAME_FREE and n_kept < n_pages)
    if start - n_piece >= first:
        start -= n_piece
        while start != page:
            if start & n_piece:
                if start - n_piece < first:
                    break
                start -= n_piece
            else:
                if end >= arena.n_pages or arena.frames[end].word != buddy:
                    break
                frames_unlink(arena, <uint32_t>end, order)
                absorbed |= n_piece
                end += n_piece
            order += 1
            n_piece += n_piece
            buddy = word_doubled(buddy)
        if start == page:
            frames_uncover_whole(arena, page, page + n_pages, absorbed, order)
            return
        frames_put(arena, <uint32_t>start, order)
    frames_put_down(arena, first, start)
    if n_kept != 0:
        store_barrier()
        arena.frames[page].word = frame_pack(
            frame_state(word), ceil_log2(n_kept), frame_owner(word), n_kept
        )
    frames_clear(arena, page + n_pages, absorbed)


cdef inline void frames_free(arena_t* arena, uint32_t page) noexcept nogil:
    """Free the run in use that starts at ``page``."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    memory_close(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    arena.super.frames.n_free_pages += n_pages
    if n_pages & (n_pages - 1):
        outlined_uncover(frames_uncover)(arena, page, 0, n_pages)
    else:
        require(frame_state(arena.frames[page].word) > FRAME_FREE)
        arena.frames[page].word = free_word(find_first_set(n_pages))
        frames_merge(arena, page, find_first_set(n_pages))


cdef inline void frames_shrink(
    arena_t* arena, uint32_t page, uint64_t n_pages
) noexcept nogil:
    """Free what lies behind the first ``n_pages`` of a run in use."""
    cdef uint64_t n_now = frame_pages(arena.frames[page].word)
    require(0 < n_pages <= n_now)
    if n_pages == n_now:
        return
    memory_close(
        arena.base + page_offset(arena, page + n_pages),
        page_offset(arena, n_now - n_pages),
    )
    arena.super.frames.n_free_pages += n_now - n_pages
    outlined_uncover(frames_uncover)(arena, page, n_pages, n_now)


# Questions -------------------------------------------------------------------

cdef inline uint32_t frames_head_of(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """First page of the run that contains ``page``; 0 for a page of the tables.

    A run starts at a multiple of the power of two that holds it (P2, P3), and records
    inside it are zero (P1): so one probe for each bit that is set in ``page``.
    """
    cdef frame_t* frames = arena.frames
    cdef uint64_t first_page = arena.first_page
    cdef uint64_t head = page
    if page >= arena.n_pages:
        return 0
    while head >= first_page and frames[head].word == 0:
        head &= head - 1
    if head < first_page or page - head >= frame_pages(frames[head].word):
        return 0
    return <uint32_t>head


cdef inline uint32_t frames_head_within(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """As `frames_head_of`, for a page of which the caller knows that a run holds it."""
    require(frames_head_of(arena, page) != 0)
    while arena.frames[page].word == 0:
        page &= page - 1
    return <uint32_t>page


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
