# SPDX-License-Identifier: BSD-3-Clause
"""The checker of a TLSF pool's blocks and free lists: B1 to B7, F1 to F5, V1, H1 to H3.

Nothing here writes to the arena, and no word read from it is trusted: every offset is
tested before it is followed, and every loop is bounded by the arena's size, so that it
ends on any bytes. The frame table must have passed ``check_frames``.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport (
    FRAME_JOINED,
    arena_t,
    frame_owner,
    frame_pages,
    frame_state,
    page_offset,
)
from xmem.base cimport finding_t, invariant, offset_t, report
from xmem.check.census cimport census_t, count_block, count_starts
from xmem.core.control cimport POOL_POISON, pool_t
from xmem.core.hardening cimport (
    BLOCK_POISONED,
    check_back_link,
    check_poison,
    check_seal,
    check_waiting,
    is_lost,
    is_quarantined,
)
from xmem.core.quicklists cimport seems_waiting, waiting_mark
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_TAG_MASK,
    FREELISTS_MAX_WORDS,
    LINK_BACK,
    LINK_NEXT,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_word,
    breaks_page_rule,
    mapping_insert,
    payload_of,
    word_alignment,
    word_at,
    word_size,
)


cdef struct stretch_t:
    # Adjacent regions of one pool that one chain of blocks covers.
    offset_t start
    offset_t limit                  # end of the last region reached so far
    uint64_t n_regions


# Stretches of blocks ---------------------------------------------------------

cdef inline bint extend_stretch(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Extend the stretch by the joined region behind it; False if there is none."""
    cdef uint64_t page = stretch.limit >> arena.page_shift
    cdef uint64_t word
    if page >= arena.n_pages:
        return False
    word = arena.frames[page].word
    if (
        frame_state(word) != FRAME_JOINED
        or frame_owner(word) != pool.number
        or frame_pages(word) == 0
        or frame_pages(word) > arena.n_pages - page
    ):
        return False
    stretch.limit += frame_pages(word) << arena.page_shift
    stretch.n_regions += 1
    return True


cdef inline bint check_free_block(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t size,
    finding_t* finding,
) noexcept nogil:
    """B6, B7, F4 and H2 for one free block."""
    cdef uint64_t mark = block_word(arena.base, block) & BLOCK_ALIGN_MASK
    cdef offset_t tag = word_at(arena.base, block + size - 8)[0]
    if tag != block:
        return report(finding, invariant(c"B", 6), block, tag, block)
    if not check_back_link(arena, block, finding):
        return False
    if mark != 0 and (mark != BLOCK_POISONED or not pool.flags & POOL_POISON):
        return report(finding, invariant(c"B", 7), block, mark, 0)
    return check_poison(arena, block, finding)


cdef inline bint check_block(
    arena_t* arena,
    pool_t* pool,
    stretch_t* stretch,
    offset_t block,
    bint prev_free,
    finding_t* finding,
) noexcept nogil:
    """B1 to B7, V1, H1 to H3 for one block, whose header is in bounds."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef uint64_t size = word_size(word)
    cdef bint is_free = (word & BLOCK_FREE) != 0
    cdef bint lost = is_lost(arena, pool, block)
    if (word & BLOCK_TAG_MASK) != pool.tlsf.tag and not lost:
        return report(finding, invariant(c"B", 7), block, word, pool.tlsf.tag)
    if ((word & BLOCK_PREV_FREE) != 0) != prev_free:
        return report(finding, invariant(c"B", 5), block, word, prev_free)
    if size == 0:
        if is_free:
            return report(finding, invariant(c"B", 1), block, word, 0)
        return True
    if size < BLOCK_MIN_BYTES or size & (BLOCK_GRAIN - 1):
        return report(finding, invariant(c"B", 1), block, size, BLOCK_MIN_BYTES)
    if block & (BLOCK_GRAIN - 1) != 8:
        return report(finding, invariant(c"B", 2), block, block, 8)
    if breaks_page_rule(block):
        return report(finding, invariant(c"B", 3), block, block, 0)
    if size > arena.n_bytes - block:
        return report(finding, invariant(c"B", 1), block, size, 0)
    while block + size > stretch.limit - REGION_TAIL_BYTES:
        if not extend_stretch(arena, pool, stretch):
            return report(
                finding,
                invariant(c"B", 1),
                block,
                block + size,
                stretch.limit - REGION_TAIL_BYTES,
            )
    if is_free and prev_free:
        return report(finding, invariant(c"B", 4), block, word, 0)
    if lost:
        return True
    if start_test(arena, payload_of(block)) == is_free and (
        is_free
        or not (
            is_quarantined(pool, block)
            or seems_waiting(pool, word)
        )
    ):
        return report(finding, invariant(c"V", 1), block, is_free, not is_free)
    if is_free:
        return check_free_block(arena, pool, block, size, finding)
    if payload_of(block) & (word_alignment(word) - 1):
        return report(
            finding, invariant(c"B", 7), block, word, word_alignment(word)
        )
    return check_seal(arena, pool, block, finding) and (
        start_test(arena, payload_of(block))
        or check_waiting(arena, pool, block, finding)
    )


cdef inline bint check_stretch(
    arena_t* arena,
    pool_t* pool,
    stretch_t* stretch,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """Walk one stretch from its first block to its sentinel."""
    cdef offset_t block = stretch.start + REGION_HEAD_BYTES
    cdef bint prev_free = False
    cdef uint64_t word
    while True:
        if not check_block(arena, pool, stretch, block, prev_free, finding):
            return False
        word = block_word(arena.base, block)
        if word_size(word) == 0:
            break
        prev_free = (word & BLOCK_FREE) != 0
        count_block(census, word_size(word), prev_free)
        census.n_lost += is_lost(arena, pool, block)
        if pool.quicklists != 0 and not prev_free and not start_test(
            arena, payload_of(block)
        ):
            census.n_waiting += 1
            census.waiting += waiting_mark(payload_of(block))
        block += word_size(word)
    if block != stretch.limit - REGION_TAIL_BYTES:
        return report(
            finding,
            invariant(c"B", 1),
            block,
            0,
            stretch.limit - REGION_TAIL_BYTES,
        )
    census.n_stretches += 1
    census.n_starts += count_starts(arena, stretch.start, stretch.limit)
    return True


# Free lists ------------------------------------------------------------------

cdef inline bint may_be_listed(arena_t* arena, offset_t block) noexcept nogil:
    """Whether the header and links of a free block can be read at ``block``."""
    return (
        block & (BLOCK_GRAIN - 1) == 8
        and block >= page_offset(arena, arena.first_page)
        and block <= arena.n_bytes - BLOCK_MIN_BYTES
    )


cdef inline bint check_bin(
    arena_t* arena,
    pool_t* pool,
    uint64_t index,
    uint64_t* n_left,
    finding_t* finding,
) noexcept nogil:
    """F1 to F4 for one bin; subtracts its blocks from ``n_left``."""
    cdef char* base = arena.base
    cdef offset_t back = pool.tlsf.bins.heads + index * 8
    cdef offset_t block = word_at(base, back)[0]
    cdef bint marked = (pool.tlsf.bins.lower[index >> 6] >> (index & 63)) & 1
    cdef uint64_t word
    if marked != (block != 0):
        return report(finding, invariant(c"F", 3), back, marked, block)
    while block != 0:
        if not may_be_listed(arena, block) or n_left[0] == 0:
            return report(finding, invariant(c"F", 1), back, block, 0)
        word = block_word(base, block)
        if not word & BLOCK_FREE or word_size(word) == 0:
            return report(finding, invariant(c"F", 1), block, word, BLOCK_FREE)
        if mapping_insert(word_size(word)) != index:
            return report(
                finding,
                invariant(c"F", 2),
                block,
                index,
                mapping_insert(word_size(word)),
            )
        if word_at(base, block + LINK_BACK)[0] != back:
            return report(
                finding,
                invariant(c"F", 4),
                block,
                word_at(base, block + LINK_BACK)[0],
                back,
            )
        n_left[0] -= 1
        back = block + LINK_NEXT
        block = word_at(base, back)[0]
    return True


cdef inline bint check_aside(
    arena_t* arena,
    pool_t* pool,
    uint64_t* n_left,
    finding_t* finding,
) noexcept nogil:
    """F1, F4 and F5 for the remainder; subtracts it from ``n_left``."""
    cdef offset_t back = <char*>&pool.tlsf.bins.aside - arena.base
    cdef offset_t block = pool.tlsf.bins.aside
    cdef uint64_t word
    if block == 0:
        return True
    if not may_be_listed(arena, block):
        return report(finding, invariant(c"F", 5), back, block, 0)
    word = block_word(arena.base, block)
    if not word & BLOCK_FREE or word_size(word) == 0 or n_left[0] == 0:
        return report(finding, invariant(c"F", 1), block, word, BLOCK_FREE)
    if word_at(arena.base, block + LINK_BACK)[0] != back:
        return report(
            finding,
            invariant(c"F", 4),
            block,
            word_at(arena.base, block + LINK_BACK)[0],
            back,
        )
    if word_at(arena.base, block + LINK_NEXT)[0] != 0:
        return report(
            finding,
            invariant(c"F", 5),
            block,
            word_at(arena.base, block + LINK_NEXT)[0],
            0,
        )
    n_left[0] -= 1
    return True


cdef inline bint check_bins(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_free,
    finding_t* finding,
) noexcept nogil:
    """Bins and remainder are exactly the ``n_free`` free blocks that a walk found."""
    cdef uint64_t n_left = n_free
    cdef uint64_t i
    for i in range(FREELISTS_MAX_WORDS):
        if (
            ((pool.tlsf.bins.upper >> i) & 1) != (pool.tlsf.bins.lower[i] != 0)
        ):
            return report(
                finding,
                invariant(c"F", 3),
                i,
                pool.tlsf.bins.upper,
                pool.tlsf.bins.lower[i],
            )
    for i in range(64 * FREELISTS_MAX_WORDS):
        if i < pool.tlsf.bins.n_bins:
            if not check_bin(arena, pool, i, &n_left, finding):
                return False
        elif (pool.tlsf.bins.lower[i >> 6] >> (i & 63)) & 1:
            return report(
                finding, invariant(c"F", 3), i, 1, pool.tlsf.bins.n_bins
            )
    if pool.tlsf.bins.upper >> FREELISTS_MAX_WORDS:
        return report(
            finding, invariant(c"F", 3), 0, pool.tlsf.bins.upper, 0
        )
    if not check_aside(arena, pool, &n_left, finding):
        return False
    if n_left != 0:
        return report(
            finding, invariant(c"F", 1), 0, n_free - n_left, n_free
        )
    return True
