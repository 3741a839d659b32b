# SPDX-License-Identifier: BSD-3-Clause
"""Empty regions: which one a pool keeps, and when it gives one back.

A pool keeps at most one empty region in hand (with joins: one is returned only while a
free block as large as a region remains), so that a pool at the edge of a region does
not thrash. It leaves when limit or arena would otherwise refuse a request. A region
that was returned never keeps the pool from serving the size just freed once more: the
region that was emptied last stays, or the frames can surely give one back.

A pool that was told its size keeps that many pages (``kept_pages``): no xfree leaves it
with fewer. A call that finds no room still gives an empty region back.

A call gives back one region at most. A pool can have more empty ones, for example after
`Pool.reserve`: each call that finds no room gives back the next.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    frames_absorb,
    frames_can,
    frames_head_within,
)
from xmem.arena.records cimport FRAME_REGION, frame_pages, frame_state
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.engines cimport ENGINE_TLSF
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_HOOKED, POOL_JOINS, pool_t
from xmem.core.regions cimport may_hold, region_cut
from xmem.engine cimport (
    BLOCK_FREE,
    MAPPING_SL_LOG2,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_size,
    block_word,
    can_detach,
    freelists_find,
    freelists_largest,
    freelists_remove,
    mapping_insert,
    outlined_remove,
    region_bytes_for,
    tlsf_find,
    tlsf_list_aside,
    tlsf_t,
    word_size,
)


# Called through this, because it is rare; see checks.pxd.
ctypedef void (*list_aside_t)(char*, tlsf_t*) noexcept nogil

cdef extern from *:
    list_aside_t outlined_list_aside "XMEM_OUTLINED"(
        list_aside_t function
    ) noexcept nogil


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
    arena_t* arena, offset_t block, uint64_t size, uint64_t most_pages
) noexcept nogil:
    """Leftmost region of ``most_pages`` that can be cut out of a free block, or 0.

    It is the one in which the block starts, the next, or, when too little
    for a block would stay on the left of that, the one after it. Of longer ones no more
    than these are passed over.
    """
    cdef uint64_t page = frames_head_within(arena, page_of(arena, block))
    cdef unsigned _i
    for _i in range(3):
        if frame_pages(arena.frames[page].word) <= most_pages and (
            region_fits_hole(arena, <uint32_t>page, block, size)
        ):
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
    uint64_t page,
    uint64_t n_pages,
    offset_t block,
    uint64_t size,
    uint64_t freed,
) noexcept nogil:
    """Whether a pool that joins has enough left without some pages of its regions.

    The ``n_pages`` at ``page`` lie inside a free block on no list. A free block as
    large as a region has to remain, next to them or elsewhere, where one of the same
    list does; as large as ``freed``, the block just freed, where these pages alone
    would not hold that again.
    """
    cdef offset_t left_end = page_offset(arena, page) - REGION_TAIL_BYTES
    cdef offset_t right = page_offset(arena, page + n_pages) + REGION_HEAD_BYTES
    cdef uint64_t least = pool.release_bytes
    cdef bint is_sure = region_bytes_for(freed) <= page_offset(arena, n_pages)
    # With the slack above which a search finds a block for sure.
    freed += freed >> MAPPING_SL_LOG2
    if not is_sure and freed > least:
        least = freed
    if block + least <= left_end or right + least <= block + size:
        return True
    if not is_sure:
        return tlsf_find(arena.base, &pool.tlsf, least) != 0
    return freelists_find(arena.base, &pool.tlsf.bins, mapping_insert(least)) != 0


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
    if spare != block and has_spare(arena, pool) and (
        frame_pages(arena.frames[page_of(arena, spare)].word)
        <= pool.region_pages - pool.kept_pages
    ):
        outlined_remove(freelists_remove)(arena.base, &pool.tlsf.bins, spare)
        region_cut(
            arena,
            pool,
            <uint32_t>page_of(arena, spare),
            spare,
            block_size(arena.base, spare),
        )
    put(&pool.spare, block)


cdef inline uint32_t region_empty_in(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """A region that can leave with a free block, or with a part of it, or 0."""
    cdef uint64_t size = block_size(arena.base, block)
    if pool.flags & POOL_JOINS:
        return region_inside(arena, block, size, arena.n_pages)
    if is_whole_region(arena, block, size):
        return <uint32_t>page_of(arena, block)
    return 0


cdef inline bint spare_drop(arena_t* arena, pool_t* pool) noexcept nogil:
    """Give back an empty region; False if none is found.

    The one in hand, else one in the first block of the least list that can have one,
    else one in that of the greatest.
    """
    cdef uint32_t page = 0
    cdef offset_t block = pool.spare
    outlined_list_aside(tlsf_list_aside)(arena.base, &pool.tlsf)
    if has_spare(arena, pool):
        page = <uint32_t>page_of(arena, block)
        put(&pool.spare, 0)
    else:
        block = freelists_find(
            arena.base, &pool.tlsf.bins, mapping_insert(pool.release_bytes)
        )
        if block == 0:
            return False
        page = region_empty_in(arena, pool, block)
        if page == 0:
            block = freelists_largest(arena.base, &pool.tlsf.bins)
            page = region_empty_in(arena, pool, block)
        if page == 0:
            return False
    outlined_remove(freelists_remove)(arena.base, &pool.tlsf.bins, block)
    region_cut(arena, pool, page, block, block_size(arena.base, block))
    return True


cdef inline bint has_room(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether limit and frames admit a run of ``n_pages`` more, at any page."""
    return may_hold(pool, n_pages) and frames_can(arena, n_pages)


cdef inline bint is_waiting(pool_t* pool) noexcept nogil:
    """Whether freed blocks wait on quick lists or in quarantine."""
    return (pool.quick_bytes | pool.hard.n_waiting) != 0


cdef inline bint is_hopeless(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether ``n_pages`` would find no room even if all empty regions had left."""
    cdef uint64_t n_used = pool.run_pages + (
        pool.tlsf.used_bytes >> arena.page_shift
    )
    return (
        n_pages > arena.super.frames.n_free_pages + pool.region_pages
        or (pool.max_pages != 0 and n_used + n_pages > pool.max_pages)
    )


cdef inline bint may_make_room(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether a call may give an empty region back so that ``n_pages`` find room.

    Freed blocks that wait come first: the caller frees some of them and tries again.
    """
    return not (
        pool.engine != ENGINE_TLSF
        or pool.flags & POOL_HOOKED
        or is_waiting(pool)
        or is_hopeless(arena, pool, n_pages)
    )


cdef inline bint is_in_roomy(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size
) noexcept nogil:
    """Whether a free block lies in the roomy region, and is smaller than it.

    Then no region lies inside the block. Most blocks that are as large as the least
    region lie in one that is larger, and one call after the other merges with them: the
    roomy region is the one in which the last such block started.
    """
    cdef uint64_t page = pool.roomy
    cdef offset_t start = page_offset(arena, page)
    cdef uint64_t n_bytes = page_offset(arena, frame_pages(arena.frames[page].word))
    return (
        block >= start
        and block + size <= start + n_bytes + REGION_HEAD_BYTES
        and size < n_bytes - REGION_HEAD_BYTES - REGION_TAIL_BYTES
    )


cdef inline void region_widen(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    offset_t block,
    uint64_t size,
    uint64_t freed,
) noexcept nogil:
    """Make one region of that at ``page`` and the next, if both can leave at once.

    A block that is freed can be the last one in two.
    """
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t next_page = page + frame_pages(word)
    cdef uint64_t n_pages
    if page_offset(arena, next_page) >= block + size:
        return
    n_pages = next_page + frame_pages(arena.frames[next_page].word) - page
    if (
        n_pages <= pool.region_pages - pool.kept_pages
        and can_detach(
            block,
            size,
            page_offset(arena, page),
            page_offset(arena, page + n_pages),
            frame_state(word) == FRAME_REGION,
        )
        and leaves_spare(arena, pool, page, n_pages, block, size, freed)
    ):
        if pool.roomy == next_page:
            put(&pool.roomy, 0)
        frames_absorb(arena, page, next_page)
        put(&pool.n_regions, pool.n_regions - 1)


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
    if is_in_roomy(arena, pool, block, size) or pool.returned != 0 or (
        pool.region_pages <= pool.kept_pages
    ):
        return False
    if not pool.flags & POOL_JOINS:
        if is_whole_region(arena, block, size):
            spare_replace(arena, pool, block)
        return False
    page = region_inside(
        arena, block, size, pool.region_pages - pool.kept_pages
    )
    if page == 0:
        put(&pool.roomy, frames_head_within(arena, page_of(arena, block)))
        return False
    if not leaves_spare(
        arena, pool, page, frame_pages(arena.frames[page].word), block, size, freed
    ):
        return False
    if not pool.flags & POOL_HOOKED:
        region_widen(arena, pool, page, block, size, freed)
    region_cut(arena, pool, page, block, size)
    return True
