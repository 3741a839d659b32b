# SPDX-License-Identifier: BSD-3-Clause
"""Resizing blocks where they lie, to the right or to the left."""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport require, store_barrier
from xmem.base.grains cimport grain_set
from xmem.base.journal cimport LOGGED, put
from xmem.base.memcheck cimport engine_move
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_HEADER_BYTES,
    BLOCK_PREV_FREE,
    block_prev_free,
    block_size,
    block_split_size,
    block_word,
    block_write,
    payload_of,
    word_size,
)
from xmem.engine.freelists cimport freelists_remove
from xmem.engine.tlsf cimport (
    clear_prev_free,
    set_prev_free,
    tlsf_insert_rest,
    tlsf_t,
    word_alignment,
)


cdef inline void tlsf_fit(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t total,
    uint64_t need,
    uint64_t bits,
    bint right_knows_free,
) noexcept nogil:
    """Let a block in use keep ``need`` of the ``total`` bytes from its header on.

    The rest becomes free if it is large enough for a block. ``right_knows_free`` says
    that PREV_FREE is set in the header behind ``total``.
    """
    cdef uint64_t keep = block_split_size(block, total, need)
    cdef offset_t right = block + total
    if keep < total:
        block_write(base, block + keep, total - keep, tlsf.tag | BLOCK_FREE)
        store_barrier()
        block_write(base, block, keep, tlsf.tag | bits)
        tlsf_insert_rest(base, tlsf, block + keep, total - keep)
        if not right_knows_free:
            set_prev_free(base, right)
    else:
        block_write(base, block, total, tlsf.tag | bits)
        if right_knows_free:
            clear_prev_free(base, right)
    put(&tlsf.used_bytes, tlsf.used_bytes + keep)


cdef inline bint tlsf_resize(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need
) noexcept nogil:
    """Shrink or grow a block in place; False when there is no room.

    Absorbs the right neighbour if it is free: one removal and one insertion.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef uint64_t bits = word & (BLOCK_PREV_FREE | BLOCK_ALIGN_MASK)
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef uint64_t total = size
    require((word & BLOCK_FREE) == 0)
    if right_word & BLOCK_FREE:
        total += word_size(right_word)
    if total < need:
        return False
    # Too little to split off, and nothing to absorb: nothing changes.
    if need <= size and block_split_size(block, total, need) >= size:
        return True
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
    put(&tlsf.used_bytes, tlsf.used_bytes - size)
    tlsf_fit(base, tlsf, block, total, need, bits, (right_word & BLOCK_FREE) != 0)
    return True


cdef inline offset_t tlsf_resize_left(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need, uint64_t* starts
) noexcept nogil:
    """Grow a block into its free left neighbour, moving the payload, or return 0.

    Work is bounded except for the copy of the payload. The block keeps the alignment
    with which it was allocated; if the left payload lacks it, the result is 0. So it is
    where stores are logged, for those of the moved payload would not be. In
    ``starts`` the grain of the new payload is marked before the block becomes one;
    the caller unmarks that of the old payload.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef uint64_t bits = word & BLOCK_ALIGN_MASK
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef offset_t left
    cdef uint64_t total
    if LOGGED or not word & BLOCK_PREV_FREE:
        return 0
    left = block_prev_free(base, block)
    total = size + block_size(base, left)
    if right_word & BLOCK_FREE:
        total += word_size(right_word)
    if total < need or payload_of(left) & (word_alignment(word) - 1):
        return 0
    freelists_remove(base, &tlsf.bins, left)
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
    grain_set(starts, payload_of(left))
    store_barrier()
    # One store makes the three one block in use, before the payload moves over
    # the header between them.
    block_write(base, left, total, tlsf.tag | bits)
    store_barrier()
    engine_move(
        base + payload_of(left), base + payload_of(block), size - BLOCK_HEADER_BYTES
    )
    store_barrier()
    put(&tlsf.used_bytes, tlsf.used_bytes - size)
    tlsf_fit(base, tlsf, left, total, need, bits, (right_word & BLOCK_FREE) != 0)
    return left
