# SPDX-License-Identifier: BSD-3-Clause
"""The checker in slices, for programs that cannot wait for a whole walk.

Between two slices the pool is used: the place where one stopped may be the
middle of a block by the next. So a slice ends in front of a live block and
begins, if that is gone, at the next start bit: what stands there is a block.
One unit of work is a block verified, a run of page frames passed over, or a
word of the start bitmap (64 places) without a bit.

Verified of each block is what ``check_pool`` verifies of it alone (B1 to B7,
F4, V1, H1 to H3; L1 to L3 of a legacy page), and that no other block starts
inside it; counters, and that the lists hold every free block, need the whole
walk.
"""

from libc.stdint cimport uint64_t

from xmem.arena.check cimport check_record
from xmem.arena.frames cimport (
    FRAME_REGION,
    frame_pages,
    frame_state,
    frames_head_of,
    is_region,
)
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.bits cimport bit, find_first_set
from xmem.base.finding cimport finding_t, invariant, report
from xmem.base.offset cimport offset_t
from xmem.check.walk cimport census_clear, census_t, check_block, check_page, stretch_t
from xmem.core.control cimport ENGINE_TLSF, pool_t
from xmem.core.hardening cimport check_links
from xmem.core.startbits cimport start_test
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_of,
    block_word,
    payload_of,
    word_size,
)


cdef enum:
    STEP_STARTS = 64            # words of start bits seen at a block's ends


cdef enum step_t:
    STEP_MORE = 0
    STEP_END = 1
    STEP_DAMAGE = 2


cdef inline offset_t next_start(
    arena_t* arena, offset_t at, offset_t end, uint64_t* left
) noexcept nogil:
    """Header of the first live block from ``at`` on, or how far it came."""
    cdef uint64_t i = payload_of(at) >> 10
    cdef uint64_t word = arena.start_bits[i] & ~(
        bit((payload_of(at) >> 4) & 63) - 1
    )
    while word == 0:
        i += 1
        left[0] -= 1
        if (i << 10) >= end:
            return end
        if left[0] == 0:
            # The place in front of the word's first payload.
            return block_of(i << 10)
        word = arena.start_bits[i]
    at = block_of((i << 10) + (<uint64_t>find_first_set(word) << 4))
    return at if at < end else end


cdef inline bint holds_start(
    arena_t* arena, offset_t first, offset_t end
) noexcept nogil:
    """Whether a start bit is set for ``first`` to ``end``, both in one block.

    Of a block longer than 2 * STEP_STARTS words of the bitmap, its two ends
    are looked at.
    """
    cdef uint64_t i = first >> 10
    cdef uint64_t last = (end - BLOCK_GRAIN) >> 10
    cdef uint64_t middle = i + STEP_STARTS
    cdef uint64_t seen = arena.start_bits[i] & ~(bit((first >> 4) & 63) - 1)
    if first >= end:
        return False
    while i < last:
        if seen != 0:
            return True
        i += 1
        if i == middle and last - i > STEP_STARTS:
            i = last - STEP_STARTS
        seen = arena.start_bits[i]
    return (seen << (63 - (((end - BLOCK_GRAIN) >> 4) & 63))) != 0


cdef inline bint step_blocks(
    arena_t* arena,
    pool_t* pool,
    offset_t* at,
    offset_t end,
    uint64_t* left,
    finding_t* finding,
) noexcept nogil:
    """Verify TLSF blocks from ``at``, a block's header; False for damage.

    Goes on behind the work that is left as far as the next live block, which
    is not far: no two free blocks are adjacent, and few wait in quarantine.
    """
    cdef stretch_t stretch
    cdef offset_t block = at[0]
    cdef uint64_t word = block_word(arena.base, block)
    cdef bint prev_free = (word & BLOCK_PREV_FREE) != 0
    stretch.start = block
    stretch.limit = end
    stretch.n_regions = 1
    while left[0] > 0 or not start_test(arena, payload_of(block)):
        if not check_block(arena, pool, &stretch, block, prev_free, finding):
            return False
        word = block_word(arena.base, block)
        if left[0] > 0:
            left[0] -= 1
        if word_size(word) == 0:
            at[0] = stretch.limit
            if block == stretch.limit - REGION_TAIL_BYTES:
                return True
            return report(
                finding, invariant(c"B", 1), block, 0, stretch.limit
            )
        prev_free = (word & BLOCK_FREE) != 0
        if prev_free and not check_links(arena, block, finding):
            return False
        if holds_start(
            arena, payload_of(block) + BLOCK_GRAIN, payload_of(block + word_size(word))
        ):
            return report(finding, invariant(c"V", 1), block, word, 0)
        block += word_size(word)
    at[0] = block
    word = block_word(arena.base, block)
    if ((word & BLOCK_PREV_FREE) != 0) != prev_free:
        return report(finding, invariant(c"B", 5), block, word, prev_free)
    return True


cdef inline step_t check_step(
    arena_t* arena,
    pool_t* pool,
    offset_t* place,
    uint64_t n_blocks,
    finding_t* finding,
) noexcept nogil:
    """Verify from ``place`` (0: the beginning) on; moves it.

    Of the frame table only the records that are met are trusted, once they
    have been verified.
    """
    cdef offset_t at = place[0]
    cdef offset_t end
    cdef uint64_t left = n_blocks
    cdef uint64_t page, word
    cdef census_t census
    if at < page_offset(arena, arena.first_page):
        at = page_offset(arena, arena.first_page)
    while left > 0:
        if at >= arena.n_bytes:
            place[0] = 0
            return STEP_END
        page = frames_head_of(arena, page_of(arena, at))
        if page == 0:
            report(finding, invariant(c"P", 1), at, 0, 0)
            return STEP_DAMAGE
        if not check_record(arena, page, finding):
            return STEP_DAMAGE
        word = arena.frames[page].word
        end = page_offset(arena, page + frame_pages(word))
        if not is_region(word, pool.number) or (
            pool.engine != ENGINE_TLSF and at != page_offset(arena, page)
        ):
            at = end
            left -= 1
        elif pool.engine != ENGINE_TLSF:
            census_clear(&census)
            if not check_page(arena, pool, at, &census, finding):
                return STEP_DAMAGE
            left -= census.n_used + census.n_free if (
                census.n_used + census.n_free < left
            ) else left
            at = end
        else:
            if frame_state(word) == FRAME_REGION and at == page_offset(arena, page):
                at += REGION_HEAD_BYTES
            elif not start_test(arena, payload_of(at)):
                at = next_start(arena, at, end, &left)
                continue
            if not step_blocks(arena, pool, &at, end, &left, finding):
                return STEP_DAMAGE
    place[0] = at
    return STEP_MORE
