# SPDX-License-Identifier: BSD-3-Clause
"""The checker in slices, for programs that cannot wait for a whole check.

The pool is used between two slices, so the place where one slice ended may be in the
middle of a block when the next begins. A slice therefore ends in front of a live block;
if that block has been freed, the next slice begins at the next start bit, where there
is a block. One unit of work is a block verified, a run of page frames passed over, or a
word of the start bitmap (64 grains) without a bit.

Of each block a slice verifies what ``check_pool`` verifies of it alone (B1 to B7, F4,
V1, H1 to H3; L1 to L3 of a legacy page), and that no other block starts inside it.
Counters, and whether the lists hold every free block, need the whole check.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport (
    FRAME_REGION,
    arena_t,
    check_record,
    frame_pages,
    frame_state,
    frames_head_of,
    is_region,
    page_of,
    page_offset,
)
from xmem.base cimport (
    ENGINE_TLSF,
    GRAINS_WORD_LOG2,
    GRAIN_LOG2,
    bit,
    finding_t,
    invariant,
    offset_t,
    report,
)
from xmem.check.census cimport census_clear, census_t
from xmem.check.firstfit cimport check_page
from xmem.check.tlsf cimport check_block, stretch_t
from xmem.core.control cimport pool_t
from xmem.core.hardening cimport check_next_link
from xmem.core.startbits cimport start_from, start_test
from xmem.engine cimport (
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
    SLICE_STARTS = 64           # words of start bits read at each end of a long block
    SLICE_BEYOND = 64           # blocks without start bit passed to end at one with it


cdef enum slice_t:
    SLICE_MORE = 0
    SLICE_END = 1
    SLICE_DAMAGE = 2


cdef inline bint holds_start(
    arena_t* arena, offset_t first, offset_t end
) noexcept nogil:
    """Whether a start bit is set from ``first`` to ``end``, both in one block.

    In a block longer than 2 * SLICE_STARTS words of the bitmap only the two ends are
    looked at.
    """
    cdef uint64_t i = first >> GRAINS_WORD_LOG2
    cdef uint64_t last = (end - BLOCK_GRAIN) >> GRAINS_WORD_LOG2
    cdef uint64_t middle = i + SLICE_STARTS
    cdef uint64_t seen = arena.start_bits[i] & ~(bit((first >> GRAIN_LOG2) & 63) - 1)
    if first >= end:
        return False
    while i < last:
        if seen != 0:
            return True
        i += 1
        if i == middle and last - i > SLICE_STARTS:
            i = last - SLICE_STARTS
        seen = arena.start_bits[i]
    return (seen << (63 - (((end - BLOCK_GRAIN) >> GRAIN_LOG2) & 63))) != 0


cdef inline bint slice_blocks(
    arena_t* arena,
    pool_t* pool,
    offset_t* at,
    offset_t end,
    uint64_t* left,
    finding_t* finding,
) noexcept nogil:
    """Verify TLSF blocks from ``at``, a block's header; False for damage.

    Goes beyond the work that is left to the next live block, past SLICE_BEYOND others
    at most: behind so many that wait side by side the next slice finds the next start.
    """
    cdef stretch_t stretch
    cdef offset_t block = at[0]
    cdef uint64_t word = block_word(arena.base, block)
    cdef bint prev_free = (word & BLOCK_PREV_FREE) != 0
    cdef unsigned n_beyond = 0
    stretch.start = block
    stretch.limit = end
    stretch.n_regions = 1
    while left[0] > 0 or (
        n_beyond < SLICE_BEYOND and not start_test(arena, payload_of(block))
    ):
        if not check_block(arena, pool, &stretch, block, prev_free, finding):
            return False
        word = block_word(arena.base, block)
        if left[0] > 0:
            left[0] -= 1
        else:
            n_beyond += 1
        if word_size(word) == 0:
            at[0] = stretch.limit
            if block == stretch.limit - REGION_TAIL_BYTES:
                return True
            return report(
                finding, invariant(c"B", 1), block, 0, stretch.limit
            )
        prev_free = (word & BLOCK_FREE) != 0
        if prev_free and not check_next_link(arena, block, finding):
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


cdef inline slice_t check_slice(
    arena_t* arena,
    pool_t* pool,
    offset_t* place,
    uint64_t n_blocks,
    finding_t* finding,
) noexcept nogil:
    """Verify from ``place`` (0: the beginning) on, and advance it.

    Of the frame table only the records met are trusted, after they have been
    verified.
    """
    cdef offset_t at = place[0]
    cdef offset_t end, payload
    cdef uint64_t left = n_blocks
    cdef uint64_t page, word
    cdef census_t census
    if at < page_offset(arena, arena.first_page):
        at = page_offset(arena, arena.first_page)
    while left > 0:
        if at >= arena.n_bytes:
            place[0] = 0
            return SLICE_END
        page = frames_head_of(arena, page_of(arena, at))
        if page == 0:
            report(finding, invariant(c"P", 1), at, 0, 0)
            return SLICE_DAMAGE
        if not check_record(arena, page, finding):
            return SLICE_DAMAGE
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
                return SLICE_DAMAGE
            left -= census.n_used + census.n_free if (
                census.n_used + census.n_free < left
            ) else left
            at = end
        else:
            if frame_state(word) == FRAME_REGION and at == page_offset(arena, page):
                at += REGION_HEAD_BYTES
            elif not start_test(arena, payload_of(at)):
                payload = start_from(arena, payload_of(at), end, &left)
                at = block_of(payload) if payload < end else end
                continue
            if not slice_blocks(arena, pool, &at, end, &left, finding):
                return SLICE_DAMAGE
    place[0] = at
    return SLICE_MORE
