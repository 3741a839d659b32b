# SPDX-License-Identifier: BSD-3-Clause
"""Bytes that become a region of the TLSF engine, and regions cut out of free blocks."""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport require, store_barrier
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_word,
    block_write,
    word_at,
    word_size,
)
from xmem.engine.freelists cimport freelists_remove
from xmem.engine.tlsf cimport clear_prev_free, tlsf_insert_rest, tlsf_t


cdef inline uint64_t region_bytes_for(uint64_t need) noexcept nogil:
    """Bytes of the smallest region that holds a block of ``need`` bytes."""
    return need + REGION_HEAD_BYTES + REGION_TAIL_BYTES


cdef inline void tlsf_add_region(
    char* base, tlsf_t* tlsf, offset_t start, offset_t end
) noexcept nogil:
    """Make the bytes from ``start`` to ``end`` a region with one free block."""
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef offset_t sentinel = end - REGION_TAIL_BYTES
    cdef uint64_t size = sentinel - block
    block_write(base, sentinel, 0, tlsf.tag | BLOCK_PREV_FREE)
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, size)


cdef inline void tlsf_add_region_before(
    char* base, tlsf_t* tlsf, offset_t start, offset_t seam
) noexcept nogil:
    """Extend the region that starts at ``seam`` leftwards to ``start``.

    The new block absorbs the words that a sentinel and a region's head would have
    used, and the old first block if that is free.
    """
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef offset_t right = seam + REGION_HEAD_BYTES
    cdef uint64_t right_word = block_word(base, right)
    cdef uint64_t size = right - block
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
        size += word_size(right_word)
    else:
        word_at(base, right)[0] = right_word | BLOCK_PREV_FREE
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, size)


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
        block_write(base, right, block_end - right, tlsf.tag | BLOCK_FREE)
        tlsf_insert_rest(base, tlsf, right, block_end - right)
    elif block_end == right:
        clear_prev_free(base, right)
    block_write(base, middle_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    if is_first:
        store_barrier()
        block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
        return
    block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
    block_write(base, left_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    store_barrier()
    block_write(base, block, left_end - block, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, left_end - block)
