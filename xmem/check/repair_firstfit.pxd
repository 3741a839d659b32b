# SPDX-License-Identifier: BSD-3-Clause
"""The repair of the legacy engine's blocks; see repair.pxd.

The alignment of a block in use says where its payload starts. It is written before the
start bit, so a block whose payload has none is not live, and no other start bit lies
inside it. If one does, the header is damaged and nothing is written.

A page or a run that nobody uses is recorded as FRAME_PENDING, for the recovery of the
page frames to free.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport (
    FRAME_PENDING,
    FRAME_REGION,
    FRAME_WHOLE,
    arena_t,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
    is_region,
    page_offset,
)
from xmem.base cimport finding_t, invariant, offset_t, report, store_barrier
from xmem.check.firstfit cimport check_tag
from xmem.check.strays cimport clear_starts, repair_t
from xmem.core.control cimport pool_t
from xmem.core.startbits cimport start_from, start_test
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_SIZE_SHIFT,
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    block_word,
    block_write,
    firstfit_link,
    word_at,
    word_size,
)


cdef inline offset_t firstfit_live_payload(
    arena_t* arena, offset_t block, uint64_t size
) noexcept nogil:
    """Payload of a block in use that is live, or 0."""
    cdef uint64_t alignment = word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    cdef offset_t payload
    if alignment == 0 or alignment & (alignment - 1) or alignment > arena.n_bytes:
        return 0
    payload = (block + FIRSTFIT_LINE + alignment - 1) & ~(alignment - 1)
    if payload >= block + size or not start_test(arena, payload):
        return 0
    return payload


cdef inline bint survey_place(
    arena_t* arena, offset_t block, uint64_t size, finding_t* finding
) noexcept nogil:
    """Whether a block that is not live holds no start bit."""
    cdef uint64_t no_limit = ~<uint64_t>0
    cdef offset_t start = start_from(arena, block, block + size, &no_limit)
    return start >= block + size or report(
        finding, invariant(c"L", 1), block, start, 0
    )


cdef inline bint survey_page(
    arena_t* arena, pool_t* pool, offset_t start, finding_t* finding
) noexcept nogil:
    """Whether the headers of a page can be walked."""
    cdef offset_t block = start
    cdef offset_t end = start + arena.page_bytes
    cdef uint64_t word, size
    while block < end:
        word = block_word(arena.base, block)
        size = word_size(word)
        if not check_tag(pool, block, word, finding):
            return False
        if size == 0 or size & (FIRSTFIT_LINE - 1) or size > end - block:
            return report(finding, invariant(c"L", 1), block, size, end - block)
        if (
            not word & BLOCK_FREE
            and firstfit_live_payload(arena, block, size) == 0
            and not survey_place(arena, block, size, finding)
        ):
            return False
        block += size
    return True


cdef inline bint is_live_run(
    arena_t* arena, pool_t* pool, uint64_t page
) noexcept nogil:
    """Whether a run of whole pages is a live block."""
    cdef offset_t start = page_offset(arena, page)
    cdef uint64_t size = page_offset(arena, frame_pages(arena.frames[page].word))
    return block_word(arena.base, start) == (
        (size << BLOCK_SIZE_SHIFT) | pool.firstfit.tag
    ) and firstfit_live_payload(arena, start, size) != 0


cdef inline bint survey_firstfit(
    arena_t* arena, pool_t* pool, finding_t* finding
) noexcept nogil:
    """Whether the headers of a legacy pool can be walked."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t word
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number):
            if frame_pages(word) != 1:
                return report(
                    finding, invariant(c"L", 1), page_offset(arena, page), word, 1
                )
            if not survey_page(arena, pool, page_offset(arena, page), finding):
                return False
        elif (
            frame_owner(word) == pool.number
            and frame_state(word) == FRAME_WHOLE
            and not is_live_run(arena, pool, page)
            and not survey_place(
                arena,
                page_offset(arena, page),
                page_offset(arena, frame_pages(word)),
                finding,
            )
        ):
            return False
        page += frame_pages(word)
    return True


cdef inline void abandon(arena_t* arena, pool_t* pool, uint64_t page) noexcept nogil:
    """Record pages as such that nobody uses."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    store_barrier()
    arena.frames[page].word = frame_pack(FRAME_PENDING, 0, pool.number, n_pages)


cdef inline void keep_live(
    arena_t* arena,
    offset_t block,
    uint64_t size,
    offset_t payload,
    repair_t* repair,
) noexcept nogil:
    """Clear the start bits inside a live block other than its own."""
    repair.n_starts += clear_starts(arena, block, payload)
    repair.n_starts += clear_starts(arena, payload + BLOCK_GRAIN, block + size)


cdef inline void repair_page(
    arena_t* arena, pool_t* pool, uint64_t page, repair_t* repair
) noexcept nogil:
    """Write everything anew that follows from the headers of a surveyed page."""
    cdef offset_t block = page_offset(arena, page)
    cdef offset_t end = block + arena.page_bytes
    cdef offset_t free = 0
    cdef uint64_t free_size = 0
    cdef uint64_t size, word
    cdef offset_t payload
    while block < end:
        word = block_word(arena.base, block)
        size = word_size(word)
        payload = 0
        if not word & BLOCK_FREE:
            payload = firstfit_live_payload(arena, block, size)
            repair.n_returned += payload == 0
        if payload != 0:
            keep_live(arena, block, size, payload, repair)
            pool.firstfit.used_bytes += size
            pool.firstfit.n_used += 1
            if free_size != 0:
                firstfit_link(arena.base, &pool.firstfit, free)
            free_size = 0
        else:
            repair.n_starts += clear_starts(arena, block, block + size)
            if free_size == 0:
                free = block
            free_size += size
            block_write(
                arena.base, free, free_size, pool.firstfit.tag | BLOCK_FREE
            )
        block += size
    if free_size == arena.page_bytes:
        abandon(arena, pool, page)
        return
    if free_size != 0:
        firstfit_link(arena.base, &pool.firstfit, free)
    arena.frames[page].word = frame_pack(FRAME_REGION, 0, pool.number, 1)
    pool.n_regions += 1
    pool.region_pages += 1


cdef inline void repair_run(
    arena_t* arena, pool_t* pool, uint64_t page, repair_t* repair
) noexcept nogil:
    """A run of whole pages: a live block, or one that nobody uses."""
    cdef offset_t start = page_offset(arena, page)
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef uint64_t size = page_offset(arena, n_pages)
    if is_live_run(arena, pool, page):
        keep_live(
            arena, start, size, firstfit_live_payload(arena, start, size), repair
        )
        pool.n_runs += 1
        pool.run_pages += n_pages
    else:
        repair.n_returned += 1
        abandon(arena, pool, page)
