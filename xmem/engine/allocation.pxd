# SPDX-License-Identifier: BSD-3-Clause
"""Allocation: a block in use for a request, or 0 when none fits.

Small requests, up to SMALL_MAX_BYTES, have bins that hold one size each: a block from
the request's own bin fits exactly, and where there is none the remainder is cut.
"""

from libc.stdint cimport uint64_t

from xmem.base.bits cimport align_up, bit
from xmem.base.checks cimport assume, store_barrier, unlikely
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    block_size,
    block_write,
    breaks_page_rule,
    payload_of,
)
from xmem.engine.freelists cimport (
    freelists_find,
    freelists_first,
    freelists_remove,
    freelists_search,
    freelists_take,
)
from xmem.engine.mapping cimport (
    MAPPING_GRAIN_LOG2,
    level_bin,
    mapping_level,
    mapping_search,
)
from xmem.engine.remainder cimport (
    SMALL_MAX_BYTES,
    tlsf_cut_aside,
    tlsf_place_aside,
    tlsf_refill,
    tlsf_use_aside,
)
from xmem.engine.tlsf cimport (
    align_bits,
    clear_prev_free,
    tlsf_find,
    tlsf_insert_rest,
    tlsf_place,
    tlsf_t,
)


cdef inline offset_t tlsf_alloc_small(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """A block in use of ``need`` bytes, at most SMALL_MAX_BYTES, or 0.

    A listed block of exactly this size, else the first bytes of the remainder.
    """
    cdef uint64_t index = need >> MAPPING_GRAIN_LOG2
    cdef offset_t block = freelists_first(base, &tlsf.bins, index)
    if block != 0:
        freelists_take(base, &tlsf.bins, index, block)
        block_write(base, block, need, tlsf.tag)
        clear_prev_free(base, block + need)
        put(&tlsf.used_bytes, tlsf.used_bytes + need)
        put(&tlsf.n_used, tlsf.n_used + 1)
        return block
    return tlsf_cut_aside(base, tlsf, need)


cdef inline offset_t tlsf_alloc_large(
    char* base, tlsf_t* tlsf, uint64_t need, bint sets_aside
) noexcept nogil:
    """A block in use of ``need`` bytes out of a listed one or the remainder, or 0.

    Searches as ``tlsf_find`` does, but knows the bin when it takes the block off its
    list. One removal, at most one insertion, at most three bit scans. The rest of the
    block is listed, or, if it ``sets_aside``, becomes the remainder.
    """
    cdef unsigned level = mapping_level(need)
    cdef uint64_t index = level_bin(level, need)
    cdef offset_t block = freelists_first(base, &tlsf.bins, index)
    if block == 0 or block_size(base, block) < need:
        index = freelists_search(
            &tlsf.bins,
            level_bin(level, need - 1) + 1,
        )
        if unlikely(index == 0):
            return tlsf_use_aside(base, tlsf, need)
        block = freelists_first(base, &tlsf.bins, index)
        assume(block != 0)
    freelists_take(base, &tlsf.bins, index, block)
    if sets_aside:
        tlsf_place_aside(base, tlsf, block, need)
    else:
        tlsf_place(base, tlsf, block, need, 0)
    return block


cdef inline offset_t tlsf_alloc(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """A block in use of ``need`` bytes (header included), or 0.

    Requires ``need`` is a block size that the bins can hold.
    """
    cdef offset_t block
    if need > SMALL_MAX_BYTES:
        return tlsf_alloc_large(base, tlsf, need, False)
    block = tlsf_alloc_small(base, tlsf, need)
    if block == 0:
        block = tlsf_refill(base, tlsf, need)
    return block


# Aligned allocation ----------------------------------------------------------

cdef inline uint64_t aligned_gap(
    offset_t block, uint64_t alignment
) noexcept nogil:
    """Bytes to leave free on the left so that the payload is aligned: 0 or >= 32."""
    cdef offset_t payload = align_up(payload_of(block), alignment)
    if 0 < payload - payload_of(block) < BLOCK_MIN_BYTES:
        payload += alignment
    if breaks_page_rule(payload - BLOCK_HEADER_BYTES):
        payload += alignment
    return payload - payload_of(block)


cdef inline uint64_t aligned_slack(uint64_t alignment) noexcept nogil:
    """Greatest value of ``aligned_gap``."""
    return 2 * alignment + BLOCK_GRAIN


cdef inline bint fits_aligned(
    char* base, offset_t block, uint64_t need, uint64_t alignment
) noexcept nogil:
    """Whether ``block`` is a block that has room for an aligned request."""
    return block != 0 and (
        block_size(base, block) >= need + aligned_gap(block, alignment)
    )


cdef inline offset_t tlsf_find_aligned(
    char* base, tlsf_t* tlsf, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need`` aligned bytes, or 0.

    Three probes: the head of the request's own bin, then the first larger block,
    which may fit; then a block with room for any gap, which always does.
    """
    cdef unsigned level = mapping_level(need)
    cdef uint64_t padded = need + aligned_slack(alignment)
    cdef offset_t block = freelists_first(
        base, &tlsf.bins, level_bin(level, need)
    )
    if fits_aligned(base, block, need, alignment):
        return block
    block = freelists_find(base, &tlsf.bins, mapping_search(need))
    if fits_aligned(base, block, need, alignment):
        return block
    block = freelists_find(base, &tlsf.bins, mapping_search(padded))
    if block == 0 and fits_aligned(base, tlsf.bins.aside, need, alignment):
        return tlsf.bins.aside
    return block


cdef inline offset_t tlsf_carve(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t need,
    uint64_t alignment,
) noexcept nogil:
    """Use ``need`` aligned bytes of a listed free block that has room for them.

    One removal, at most two insertions. The alignment is kept in the header.
    """
    freelists_remove(base, &tlsf.bins, block)
    return tlsf_carve_off(base, tlsf, block, need, alignment)


cdef inline offset_t tlsf_carve_off(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t need,
    uint64_t alignment,
) noexcept nogil:
    """As ``tlsf_carve``, of a free block that is on no list."""
    cdef uint64_t gap = aligned_gap(block, alignment)
    cdef uint64_t bits = align_bits(alignment)
    cdef uint64_t size
    if gap != 0:
        size = block_size(base, block)
        block_write(base, block + gap, size - gap, tlsf.tag | BLOCK_FREE)
        store_barrier()
        block_write(base, block, gap, tlsf.tag | BLOCK_FREE)
        tlsf_insert_rest(base, tlsf, block, gap)
        block += gap
        bits |= BLOCK_PREV_FREE
    tlsf_place(base, tlsf, block, need, bits)
    return block


cdef inline offset_t tlsf_alloc_aligned(
    char* base, tlsf_t* tlsf, uint64_t need, uint64_t alignment
) noexcept nogil:
    """As ``tlsf_alloc``, with the payload at a multiple of ``alignment`` (32 to 2048).

    One removal, at most two insertions.
    """
    cdef offset_t block = tlsf_find_aligned(base, tlsf, need, alignment)
    if block == 0:
        return 0
    return tlsf_carve(base, tlsf, block, need, alignment)
