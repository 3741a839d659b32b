# SPDX-License-Identifier: BSD-3-Clause
"""The page-frame allocator: runs of pages, taken from the lowest stretch that fits.

Free pages that lie side by side are one run, a *stretch*; its order is that of the
largest aligned power of two of pages in it. A run of exact length starts at any page;
one that is asked for with an alignment starts at a multiple of that, and what it leaves
on its left stays free. Where a run goes depends on the free pages alone, never on the
arena's size.

P1  runs tile the page frames; records inside a run are zero; every state is
    known, and every owner a pool's number where the state asks for one
P2  no two free runs are adjacent, and the order of each is right
P3  the run heads have a bit for each run and no other, in every level
P4  the tree of stretches says how long the longest is, in every level
P5  the lists hold each stretch by its order, and a bit is set for each that has one
P6  n_free_pages is the sum over the free runs; ``top`` is where the one starts that
    ends at the arena's end, and is neither in the tree nor on a list

Work: a walk down the tree, or a bit scan; a path up that is raised and one that is
lowered; at most two lists, and two bits of the run heads. One store of a record turns a
run from free to in use or back: the records that it uncovers are written before it,
those that it covers cleared after it.

This header knows nothing of blocks. Source of the returned tail: Xen b829a0ff57.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.orders cimport orders_find, orders_link, orders_unlink, orders_largest
from xmem.arena.records cimport (
    FRAME_FREE,
    FRAME_PAGES_SHIFT,
    FRAME_RUN,
    frame_order,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
)
from xmem.arena.runheads cimport runheads_before, runheads_clear, runheads_set
from xmem.arena.stretches cimport (
    order_within,
    stretches_longest,
    stretches_lower,
    stretches_lowest,
    stretches_raise,
)
from xmem.arena.superblock cimport arena_t, frame_t, page_offset
from xmem.base.bits cimport align_up, bit, ceil_log2
from xmem.base.checks cimport require, store_barrier
from xmem.base.journal cimport put, put32
from xmem.base.memcheck cimport MEMCHECKED, memory_close, memory_open

# Called through these, so that what only now and then needs pages stays short; see
# checks.pxd.
ctypedef void (*take_t)(
    arena_t*, uint64_t, uint64_t, uint64_t, uint64_t
) noexcept nogil
ctypedef void (*release_run_t)(arena_t*, uint64_t) noexcept nogil
ctypedef void (*shorten_t)(arena_t*, uint64_t, uint64_t) noexcept nogil
ctypedef uint64_t (*find_t)(arena_t*, uint64_t, unsigned) noexcept nogil

cdef extern from *:
    take_t outlined_take "XMEM_OUTLINED"(take_t function) noexcept nogil
    release_run_t outlined_release_run "XMEM_OUTLINED"(
        release_run_t function
    ) noexcept nogil
    shorten_t outlined_shorten "XMEM_OUTLINED"(shorten_t function) noexcept nogil
    find_t outlined_find "XMEM_OUTLINED"(find_t function) noexcept nogil


cdef inline uint64_t free_word(uint64_t page, uint64_t n_pages) noexcept nogil:
    """Record of a stretch of ``n_pages`` that starts at ``page``."""
    return frame_pack(FRAME_FREE, order_within(page, n_pages), 0, n_pages)


# Finding ---------------------------------------------------------------------

cdef inline uint64_t frames_find_aligned(
    arena_t* arena, uint64_t n_pages, unsigned order
) noexcept nogil:
    """A stretch with room for ``n_pages`` aligned to ``2**order``, or 0.

    One with an aligned power of two of pages that holds them, of the least order. For a
    power of two of pages aligned to their number that is all. Otherwise the lowest that
    is long enough wherever it starts, else the lowest with ``n_pages`` if the alignment
    is right there.
    """
    cdef uint64_t aligned, page
    if n_pages > arena.n_pages or bit(order) > arena.n_pages:
        return 0
    aligned = bit(order)
    page = orders_find(arena, order if n_pages <= aligned else ceil_log2(n_pages))
    if page != 0 or n_pages == aligned:
        return page
    page = stretches_lowest(arena, n_pages + aligned - 1)
    if page != 0:
        return page
    page = stretches_lowest(arena, n_pages)
    if page != 0 and align_up(page, aligned) + n_pages > (
        page + frame_pages(arena.frames[page].word)
    ):
        return 0
    return page


cdef inline uint64_t frames_find(
    arena_t* arena, uint64_t n_pages, unsigned order
) noexcept nogil:
    """A stretch with room for ``n_pages`` (from 1) aligned to ``2**order``, or 0."""
    if order == 0:
        return stretches_lowest(arena, n_pages)
    return outlined_find(frames_find_aligned)(arena, n_pages, order)


cdef inline bint frames_can(arena_t* arena, uint64_t n_pages) noexcept nogil:
    """Whether a run of ``n_pages`` at any page can be allocated."""
    return stretches_longest(arena) >= n_pages


# Stretches that come and go --------------------------------------------------

cdef inline void stretch_appears(arena_t* arena, uint64_t page) noexcept nogil:
    """Enter a stretch that is not the last into the tree and on its list."""
    cdef uint64_t word = arena.frames[page].word
    stretches_raise(arena, page, frame_pages(word))
    orders_link(arena, page, frame_order(word))


cdef inline void stretch_changes(
    arena_t* arena, uint64_t page, uint64_t before
) noexcept nogil:
    """Enter a stretch whose record was ``before`` anew: longer, shorter, or gone.

    ``page`` may be that of the last stretch now, or of a run in use.
    """
    cdef uint64_t word = arena.frames[page].word
    cdef bint stays = frame_state(word) == FRAME_FREE and (
        page != arena.super.frames.top
    )
    if not stays or frame_order(word) != frame_order(before):
        orders_unlink(arena, page, frame_order(before))
        if stays:
            orders_link(arena, page, frame_order(word))
    if stays and frame_pages(word) > frame_pages(before):
        stretches_raise(arena, page, frame_pages(word))
    else:
        stretches_lower(arena, page, frame_pages(before))


# Allocation ------------------------------------------------------------------

cdef inline void stretch_cut(
    arena_t* arena, uint64_t stretch, uint64_t page, uint64_t n_pages, uint64_t word
) noexcept nogil:
    """Make ``n_pages`` from ``page`` on, in a stretch, the run that ``word`` says."""
    cdef frame_t* frames = arena.frames
    cdef uint64_t end = page + n_pages
    cdef uint64_t n_left = page - stretch
    cdef uint64_t before = frames[stretch].word
    cdef uint64_t n_right = stretch + frame_pages(before) - end
    cdef unsigned state = frame_state(word)
    require(frame_state(before) == FRAME_FREE)
    require(n_left + n_pages + n_right == frame_pages(before))
    # What is inside the stretch is written while its record still covers it; the last
    # store uncovers it.
    if n_right != 0:
        put(&frames[end].word, free_word(end, n_right))
        runheads_set(arena, end)
    if n_left != 0:
        put(&frames[page].word, word)
        runheads_set(arena, page)
        word = free_word(stretch, n_left)
    store_barrier()
    put(&frames[stretch].word, word)
    put(&arena.super.frames.n_free_pages, arena.super.frames.n_free_pages - n_pages)
    if stretch == arena.super.frames.top:
        put(&arena.super.frames.top, end)
        if n_left != 0:
            stretch_appears(arena, stretch)
    else:
        if n_right != 0:
            stretch_appears(arena, end)
        stretch_changes(arena, stretch, before)
    put32(&frames[page].next, 0)
    put32(&frames[page].prev, 0)
    if MEMCHECKED and state == FRAME_RUN:
        memory_open(
            arena.base + page_offset(arena, page), page_offset(arena, n_pages)
        )


cdef inline void frames_take(
    arena_t* arena,
    uint64_t stretch,
    uint64_t page,
    uint64_t n_pages,
    unsigned state,
    unsigned owner,
) noexcept nogil:
    """Take ``n_pages`` from ``page`` on out of the stretch that holds them."""
    outlined_take(stretch_cut)(
        arena,
        stretch,
        page,
        n_pages,
        frame_pack(state, ceil_log2(n_pages), owner, n_pages),
    )


cdef inline void frames_take_top(
    arena_t* arena, uint64_t n_pages, unsigned state, unsigned owner
) noexcept nogil:
    """Take the first ``n_pages`` of the stretch at the arena's end.

    As `frames_take`, in few instructions: no summary changes.
    """
    cdef uint64_t top = arena.super.frames.top
    cdef uint64_t end = top + n_pages
    require(end <= arena.n_pages)
    if end != arena.n_pages:
        put(&arena.frames[end].word, free_word(end, arena.n_pages - end))
        runheads_set(arena, end)
    store_barrier()
    put(&arena.frames[top].word, frame_pack(state, 0, owner, n_pages))
    put(&arena.super.frames.n_free_pages, arena.super.frames.n_free_pages - n_pages)
    put(&arena.super.frames.top, end)


cdef inline int frames_largest_order(arena_t* arena) noexcept nogil:
    """Greatest order of an aligned run that is free, -1 if no page is."""
    return orders_largest(arena)


cdef inline uint32_t frames_alloc_aligned(
    arena_t* arena, uint64_t n_pages, unsigned order, unsigned state, unsigned owner
) noexcept nogil:
    """First page of a run of ``n_pages`` (from 1) aligned to ``2**order``, or 0."""
    cdef uint64_t stretch = frames_find(arena, n_pages, order)
    cdef uint64_t page
    if stretch == 0:
        return 0
    page = align_up(stretch, bit(order))
    frames_take(arena, stretch, page, n_pages, state, owner)
    return <uint32_t>page


cdef inline uint32_t frames_alloc(
    arena_t* arena, uint64_t n_pages, unsigned state, unsigned owner
) noexcept nogil:
    """First page of a run of ``n_pages`` (at least 1) at any page, or 0."""
    cdef uint64_t stretch = stretches_lowest(arena, n_pages)
    if stretch != 0:
        frames_take(arena, stretch, stretch, n_pages, state, owner)
    return <uint32_t>stretch


# Freeing ---------------------------------------------------------------------

cdef inline void frames_forget(arena_t* arena, uint64_t page) noexcept nogil:
    """Clear the record of a run that another has absorbed."""
    store_barrier()
    put(&arena.frames[page].word, 0)
    runheads_clear(arena, page)


cdef inline bint is_free(arena_t* arena, uint64_t page) noexcept nogil:
    """Whether a stretch starts at ``page``, where a run ends."""
    return page < arena.n_pages and frame_state(arena.frames[page].word) == FRAME_FREE


cdef inline void frames_put(
    arena_t* arena, uint64_t stretch, uint64_t end, uint64_t before
) noexcept nogil:
    """Enter a stretch that has grown up to ``end``, and that which it meets there.

    Its record says already how long they are together; ``before`` is what it was, 0 for
    a new one.
    """
    cdef uint64_t word
    if end == arena.super.frames.top:
        # The stretch at the arena's end, even if there was none.
        put(&arena.super.frames.top, stretch)
        if end != arena.n_pages:
            frames_forget(arena, end)
        if before != 0:
            stretch_changes(arena, stretch, before)
        return
    if before != 0:
        stretch_changes(arena, stretch, before)
    else:
        stretch_appears(arena, stretch)
    word = arena.frames[end].word
    if frame_state(word) == FRAME_FREE:
        frames_forget(arena, end)
        stretch_changes(arena, end, word)


cdef inline void run_release(arena_t* arena, uint64_t page) noexcept nogil:
    """Free the run in use that starts at ``page``."""
    cdef frame_t* frames = arena.frames
    cdef uint64_t n_pages = frame_pages(frames[page].word)
    cdef uint64_t end = page + n_pages
    cdef uint64_t first = runheads_before(arena, page - 1)
    cdef uint64_t left = frames[first].word     # of page 0, which is none, 0
    require(frame_state(frames[page].word) > FRAME_FREE)
    memory_close(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    put(&arena.super.frames.n_free_pages, arena.super.frames.n_free_pages + n_pages)
    if frame_state(left) != FRAME_FREE:
        first = page
    n_pages = end - first
    if is_free(arena, end):
        n_pages += frame_pages(frames[end].word)
    store_barrier()
    put(&frames[first].word, free_word(first, n_pages))
    if first != page:
        frames_forget(arena, page)
    else:
        left = 0
    frames_put(arena, first, end, left)


cdef inline void frames_free(arena_t* arena, uint32_t page) noexcept nogil:
    """Free the run in use that starts at ``page``."""
    outlined_release_run(run_release)(arena, page)


cdef inline void run_shorten(
    arena_t* arena, uint64_t page, uint64_t n_pages
) noexcept nogil:
    """Free what lies behind the first ``n_pages`` of a run in use."""
    cdef frame_t* frames = arena.frames
    cdef uint64_t word = frames[page].word
    cdef uint64_t first = page + n_pages
    cdef uint64_t end = page + frame_pages(word)
    cdef uint64_t n_freed = end - first
    require(0 < n_pages <= frame_pages(word))
    if n_freed == 0:
        return
    memory_close(
        arena.base + page_offset(arena, first), page_offset(arena, n_freed)
    )
    put(&arena.super.frames.n_free_pages, arena.super.frames.n_free_pages + n_freed)
    if is_free(arena, end):
        n_freed += frame_pages(frames[end].word)
    put(&frames[first].word, free_word(first, n_freed))
    runheads_set(arena, first)
    store_barrier()
    put(
        &frames[page].word,
        frame_pack(frame_state(word), ceil_log2(n_pages), frame_owner(word), n_pages),
    )
    frames_put(arena, first, end, 0)


cdef inline void frames_shrink(
    arena_t* arena, uint32_t page, uint64_t n_pages
) noexcept nogil:
    """Free what lies behind the first ``n_pages`` of a run in use."""
    outlined_shorten(run_shorten)(arena, page, n_pages)


cdef inline void frames_absorb(
    arena_t* arena, uint64_t page, uint64_t absorbed
) noexcept nogil:
    """Make one run of two adjacent ones in use, as the left one's record says."""
    cdef uint64_t n_pages = frame_pages(arena.frames[absorbed].word)
    require(page + frame_pages(arena.frames[page].word) == absorbed)
    store_barrier()
    put(
        &arena.frames[page].word,
        arena.frames[page].word + (n_pages << FRAME_PAGES_SHIFT),
    )
    frames_forget(arena, absorbed)


cdef inline void frames_divide(
    arena_t* arena, uint64_t page, uint64_t n_pages, unsigned state
) noexcept nogil:
    """Make two runs of one in use: the first ``n_pages``, and the rest in ``state``."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t rest = frame_pages(word) - n_pages
    require(0 < n_pages < frame_pages(word))
    put(
        &arena.frames[page + n_pages].word,
        frame_pack(state, 0, frame_owner(word), rest),
    )
    runheads_set(arena, page + n_pages)
    store_barrier()
    put(&arena.frames[page].word, word - (rest << FRAME_PAGES_SHIFT))


# Questions -------------------------------------------------------------------

cdef inline uint64_t frames_longest(arena_t* arena) noexcept nogil:
    """Pages of the longest free run, 0 where no page is free."""
    return stretches_longest(arena)


cdef inline uint32_t frames_head_of(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """First page of the run that contains ``page``; 0 for a page of the tables."""
    cdef uint64_t head
    if page >= arena.n_pages or page < arena.first_page:
        return 0
    head = runheads_before(arena, page)
    # The bitmap is a cache: its result is proved by the record.
    if head < arena.first_page or (
        page - head >= frame_pages(arena.frames[head].word)
    ):
        return 0
    return <uint32_t>head


cdef inline uint32_t frames_head_within(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """As `frames_head_of`, for a page of which the caller knows that a run holds it."""
    require(frames_head_of(arena, page) != 0)
    return <uint32_t>runheads_before(arena, page)


cdef inline void frames_init(arena_t* arena) noexcept nogil:
    """Make all page frames one stretch. The tables are all zero."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t n_pages = arena.n_pages - page
    memory_close(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    arena.super.frames.n_free_pages = n_pages
    arena.frames[page].word = free_word(page, n_pages)
    runheads_set(arena, page)
    arena.super.frames.top = page
