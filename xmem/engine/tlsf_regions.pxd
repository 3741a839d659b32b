# SPDX-License-Identifier: BSD-3-Clause
"""Bytes that become a region of the TLSF engine, and regions cut out of free blocks."""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport require, store_barrier
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_tag_end,
    block_word,
    block_write,
    word_at,
    word_size,
)
from xmem.engine.freelists cimport (
    freelists_insert,
    freelists_remove,
    outlined_insert,
    outlined_remove,
)
from xmem.engine.tlsf cimport clear_prev_free, tlsf_t


cdef inline uint64_t region_bytes_for(uint64_t need) noexcept nogil:
    """Bytes of the smallest region that holds a block of ``need`` bytes."""
    return need + REGION_HEAD_BYTES + REGION_TAIL_BYTES


cdef inline offset_t tlsf_region_limit(
    char* base, offset_t end, bint is_followed
) noexcept nogil:
    """Where the last block of a new region ends that ends at ``end``.

    At its sentinel; if blocks follow without one, behind the first word of the region
    on the right, or behind the free block with which that begins.
    """
    cdef offset_t right = end + REGION_HEAD_BYTES
    cdef uint64_t word
    if not is_followed:
        return end - REGION_TAIL_BYTES
    word = block_word(base, right)
    return right + word_size(word) if word & BLOCK_FREE else right


cdef inline void tlsf_region_end(
    char* base, tlsf_t* tlsf, offset_t end, offset_t limit
) noexcept nogil:
    """Prepare what is behind a new region's last block, which will be free.

    ``limit`` is where that ends, of `tlsf_region_limit`.
    """
    cdef offset_t right = end + REGION_HEAD_BYTES
    if limit < end:
        block_write(base, limit, 0, tlsf.tag | BLOCK_PREV_FREE)
    elif limit > right:
        outlined_remove(freelists_remove)(base, &tlsf.bins, right)
    else:
        put(word_at(base, right), word_at(base, right)[0] | BLOCK_PREV_FREE)


cdef inline void tlsf_region_block(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t size
) noexcept nogil:
    """Make one free block of ``size`` bytes, by one store of its header, on no list."""
    store_barrier()
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    block_tag_end(base, block, size)


cdef inline void tlsf_region_list(
    char* base, tlsf_t* tlsf, offset_t block
) noexcept nogil:
    """Put a block of `tlsf_region_block` on its list."""
    outlined_insert(freelists_insert)(
        base, &tlsf.bins, block, word_size(block_word(base, block))
    )


cdef inline bint can_detach(
    offset_t block, uint64_t size, offset_t start, offset_t end, bint is_first
) noexcept nogil:
    """Whether the bytes ``start`` to ``end`` can be cut out of the free block.

    On either side nothing, or enough for a block, must remain. ``is_first`` says that
    the region starts at ``start``.
    """
    cdef offset_t left_end = start - REGION_TAIL_BYTES
    cdef offset_t right = end + REGION_HEAD_BYTES
    cdef offset_t block_end = block + size
    if is_first:
        if block != start + REGION_HEAD_BYTES:
            return False
    elif block + BLOCK_MIN_BYTES > left_end:
        return False
    return (
        block_end == end - REGION_TAIL_BYTES
        or block_end == right
        or block_end >= right + BLOCK_MIN_BYTES
    )


cdef inline void tlsf_detach(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t size,
    offset_t start,
    offset_t end,
    bint is_first,
) noexcept nogil:
    """Cut the bytes ``start`` to ``end`` out of a free block on no list.

    The left part gets a sentinel and the right part becomes a region of its own; at
    most two insertions. The bytes cut out are an empty region until their frames are
    returned.
    Requires ``can_detach``.
    """
    cdef offset_t middle = start + REGION_HEAD_BYTES
    cdef offset_t left_end = start - REGION_TAIL_BYTES
    cdef offset_t middle_end = end - REGION_TAIL_BYTES
    cdef offset_t right = end + REGION_HEAD_BYTES
    cdef offset_t block_end = block + size
    require(can_detach(block, size, start, end, is_first))
    if block_end > right:
        tlsf_region_block(base, tlsf, right, block_end - right)
        tlsf_region_list(base, tlsf, right)
    elif block_end == right:
        clear_prev_free(base, right)
    block_write(base, middle_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    if is_first:
        store_barrier()
        block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
        return
    block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
    block_write(base, left_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    tlsf_region_block(base, tlsf, block, left_end - block)
    tlsf_region_list(base, tlsf, block)
