# SPDX-License-Identifier: BSD-3-Clause
"""Pages ahead of time, and pages back: what a caller may ask of a TLSF pool.

``pool_reserve`` obtains regions before a request needs them. ``pool_shrink``
gives back every region that is wholly free, in time linear in the pool's blocks;
its steps are functions of their own, because a Python pool calls the caller's
function between them. ``region_adopt`` and ``returned_take`` are the two ends of
regions that come from such functions.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport (
    FRAME_PENDING,
    FRAME_REGION,
    arena_t,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
    frames_alloc,
    frames_head_of,
    page_of,
    page_offset,
    stretches_longest,
)
from xmem.base cimport (
    ENGINE_TLSF,
    checker_pause,
    checker_resume,
    memory_close,
    offset_t,
    put,
)
from xmem.core.control cimport pool_t
from xmem.core.regions cimport pages_left, region_add, region_cut, region_list
from xmem.core.spares cimport region_inside
from xmem.core.hardened cimport quarantine_drain
from xmem.core.quicklists cimport quick_drain
from xmem.engine cimport (
    BLOCK_FREE,
    REGION_HEAD_BYTES,
    block_word,
    freelists_remove,
    word_size,
)


# Reserving -------------------------------------------------------------------

cdef inline uint64_t pool_reserve(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Obtain up to ``n_pages`` in as few runs as there can be; how many it got.

    In one run if there is one as long, else in the longest first. Fewer pages where
    limit or arena end; none for the legacy engine.
    """
    cdef uint64_t left, taken
    cdef uint32_t page
    if pool.engine != ENGINE_TLSF:
        return 0
    if n_pages > pages_left(pool):
        n_pages = pages_left(pool)
    left = n_pages
    while left != 0:
        taken = stretches_longest(arena)
        if taken == 0:
            break
        if taken > left:
            taken = left
        page = frames_alloc(arena, taken, FRAME_PENDING, pool.number)
        region_list(arena, pool, region_add(arena, pool, page))
        left -= taken
    return n_pages - left


cdef inline uint64_t pool_keep(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """``pool_reserve`` of pages that no xfree will give back; how many it got.

    Where it gets fewer the pool keeps none. `pool_shrink`, and requests that find no
    room, give empty regions back all the same.
    """
    cdef uint64_t taken = pool_reserve(arena, pool, n_pages)
    if taken == n_pages:
        put(&pool.kept_pages, n_pages)
    return taken


cdef inline void region_adopt(
    arena_t* arena, pool_t* pool, uint32_t page
) noexcept nogil:
    """Make a region of a run of the caller's that starts at ``page``."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    put(&arena.frames[page].word, frame_pack(FRAME_PENDING, 0, pool.number, n_pages))
    memory_close(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    region_list(arena, pool, region_add(arena, pool, page))


cdef inline uint64_t returned_take(pool_t* pool) noexcept nogil:
    """Page of the region that was cut out for the caller's function, or 0."""
    cdef uint64_t page = pool.returned
    put(&pool.returned, 0)
    return page


# Shrinking -------------------------------------------------------------------

cdef inline uint64_t waiting_give(
    arena_t* arena, pool_t* pool, uint64_t n_most
) noexcept nogil:
    """Give up to ``n_most`` blocks that wait to the engine; how many have left.

    Of the quick lists the largest, of a quarantine those that have waited longest; then
    this may record damage in ``pool.hard.damage``. No region leaves the pool.
    """
    cdef uint64_t before = pool.quick_count + pool.hard.n_waiting
    checker_pause()
    quarantine_drain(arena, pool, n_most)
    quick_drain(arena, pool, n_most, ~<uint64_t>0)
    checker_resume()
    return before - pool.quick_count - pool.hard.n_waiting


cdef inline void shrink_begin(arena_t* arena, pool_t* pool) noexcept nogil:
    """Give all that waits to the engine: only then can regions be wholly free.

    In a hardened pool this may record damage in ``pool.hard.damage``.
    """
    waiting_give(arena, pool, ~<uint64_t>0)
    put(&pool.spare, 0)


cdef inline uint64_t shrink_block(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size, uint64_t* page
) noexcept nogil:
    """Give back the first region inside a listed free block; its pages, or 0.

    ``page`` becomes the one behind the region.
    """
    cdef uint32_t region = region_inside(arena, block, size, arena.n_pages)
    cdef uint64_t n_pages
    if region == 0:
        return 0
    n_pages = frame_pages(arena.frames[region].word)
    freelists_remove(arena.base, &pool.tlsf.bins, block)
    region_cut(arena, pool, region, block, size)
    page[0] = region + n_pages
    return n_pages


cdef inline uint64_t shrink_stretch(
    arena_t* arena, pool_t* pool, uint64_t* page
) noexcept nogil:
    """As `shrink_next`, in the stretch of blocks that starts at ``page``.

    Without a region to give back ``page`` becomes the one behind the stretch.
    """
    cdef offset_t block = page_offset(arena, page[0]) + REGION_HEAD_BYTES
    cdef uint64_t word = block_word(arena.base, block)
    cdef uint64_t n_pages
    while word_size(word) != 0:
        if word & BLOCK_FREE and word_size(word) >= pool.release_bytes:
            n_pages = shrink_block(arena, pool, block, word_size(word), page)
            if n_pages != 0:
                return n_pages
        block += word_size(word)
        word = block_word(arena.base, block)
    page[0] = page_of(arena, block) + 1     # behind the sentinel's
    return 0


cdef inline uint64_t shrink_next(
    arena_t* arena, pool_t* pool, uint64_t* page
) noexcept nogil:
    """Give back the next wholly free region of a TLSF pool; its pages, or 0.

    Start with ``page`` at the arena's first page, after `shrink_begin`. Between
    two calls the pool may be used in any way.
    """
    cdef uint64_t n_pages = 0
    cdef uint64_t word
    checker_pause()
    # The frames may have merged what was given back with what follows it.
    page[0] = frames_head_of(arena, page[0])
    while n_pages == 0 and page[0] != 0:
        word = arena.frames[page[0]].word
        if frame_state(word) == FRAME_REGION and frame_owner(word) == pool.number:
            n_pages = shrink_stretch(arena, pool, page)
        else:
            page[0] += frame_pages(word)    # others', and what was joined
        if n_pages == 0:
            page[0] = frames_head_of(arena, page[0])
    checker_resume()
    return n_pages


cdef inline uint64_t pool_shrink(arena_t* arena, pool_t* pool) noexcept nogil:
    """Give every wholly free region back to the arena; pages given back.

    Of a pool whose regions come from a caller's function (POOL_HOOKED) one
    region is cut out, and waits for `returned_take`.
    """
    cdef uint64_t page = arena.first_page
    cdef uint64_t total = 0
    cdef uint64_t n_pages
    if pool.engine != ENGINE_TLSF:
        return 0
    shrink_begin(arena, pool)
    while pool.returned == 0:
        n_pages = shrink_next(arena, pool, &page)
        if n_pages == 0:
            break
        total += n_pages
    return total
