# SPDX-License-Identifier: BSD-3-Clause
"""The remainder: what is left of the block that was split last.

It is a free block, but on no bin's list (F5): small requests for which no block of
their size is listed are cut off its front, without a search and without a change to any
list or bitmap. Its links name the word in the control block that names it, so whatever
takes a free block off its list, a neighbour's merge above all, takes it as well.

When it is too small, the least listed block with some bytes to spare serves the
request. The rest of that becomes the remainder, and the old one goes on its list.

Source: the designated victim of Lea's malloc (version 2.8). That its links make every
removal take it is ours.
"""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport assume, store_barrier, unlikely
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_MIN_BYTES,
    block_size,
    block_split_at,
    block_tag_end,
    block_write,
)
from xmem.engine.freelists cimport (
    freelists_first,
    freelists_insert,
    freelists_search,
    freelists_set_aside,
    freelists_take,
)
from xmem.engine.mapping cimport MAPPING_GRAIN_LOG2, MAPPING_LINEAR_BYTES
from xmem.engine.tlsf cimport clear_prev_free, tlsf_t

cdef enum:
    REFILL_MORE_BYTES = 64      # so that the rest serves another small request
    SMALL_MAX_BYTES = MAPPING_LINEAR_BYTES - BLOCK_GRAIN    # with bins of one size


cdef inline offset_t tlsf_cut(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t size, uint64_t need
) noexcept nogil:
    """Use the first ``need`` of the ``size`` bytes of the remainder.

    The rest of it remains, so it must be large enough for a block, with 16 bytes to
    spare. Nothing is searched, and no list changes.
    """
    need = block_split_at(block, need)
    size -= need
    block_write(base, block + need, size, tlsf.tag | BLOCK_FREE)
    block_tag_end(base, block + need, size)
    freelists_set_aside(base, &tlsf.bins, block + need)
    store_barrier()
    block_write(base, block, need, tlsf.tag)
    put(&tlsf.used_bytes, tlsf.used_bytes + need)
    put(&tlsf.n_used, tlsf.n_used + 1)
    return block


cdef inline offset_t tlsf_cut_aside(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """Use ``need`` bytes of the remainder; 0 if it is too small to leave a rest."""
    cdef offset_t block = tlsf.bins.aside
    cdef uint64_t size
    if block == 0:
        return 0
    size = block_size(base, block)
    if size < need + BLOCK_GRAIN + BLOCK_MIN_BYTES:
        return 0
    return tlsf_cut(base, tlsf, block, size, need)


cdef inline void tlsf_place_aside(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need
) noexcept nogil:
    """``tlsf_place``, but the rest becomes the remainder, and the old one is listed.

    Where there is no rest, the old remainder stays.
    """
    cdef uint64_t size = block_size(base, block)
    cdef offset_t aside = tlsf.bins.aside
    need = block_split_at(block, need)
    if size >= need + BLOCK_MIN_BYTES:
        block_write(base, block + need, size - need, tlsf.tag | BLOCK_FREE)
        block_tag_end(base, block + need, size - need)
        freelists_set_aside(base, &tlsf.bins, block + need)
        store_barrier()
        block_write(base, block, need, tlsf.tag)
        if aside != 0:
            freelists_insert(base, &tlsf.bins, aside, block_size(base, aside))
    else:
        need = size
        block_write(base, block, size, tlsf.tag)
        clear_prev_free(base, block + size)
    put(&tlsf.used_bytes, tlsf.used_bytes + need)
    put(&tlsf.n_used, tlsf.n_used + 1)


cdef inline void tlsf_list_aside(char* base, tlsf_t* tlsf) noexcept nogil:
    """Put the remainder, if there is one, on the list of its size."""
    cdef offset_t block = tlsf.bins.aside
    if block != 0:
        put(&tlsf.bins.aside, 0)
        freelists_insert(base, &tlsf.bins, block, block_size(base, block))


cdef inline offset_t tlsf_use_aside(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """Use the remainder for a request that no listed block serves, or return 0."""
    cdef offset_t block = tlsf.bins.aside
    if block == 0 or block_size(base, block) < need:
        return 0
    put(&tlsf.bins.aside, 0)
    tlsf_place_aside(base, tlsf, block, need)
    return block


cdef inline offset_t tlsf_refill(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """Use ``need`` bytes of a listed block, or else of the remainder, or return 0.

    At most one removal and one insertion.
    Requires ``need`` is at most SMALL_MAX_BYTES, and the bin of its size is empty.
    """
    cdef uint64_t least = need + REFILL_MORE_BYTES
    cdef uint64_t index
    cdef offset_t block
    if least > SMALL_MAX_BYTES:
        least = SMALL_MAX_BYTES
    index = freelists_search(&tlsf.bins, least >> MAPPING_GRAIN_LOG2)
    if index == 0:
        index = freelists_search(&tlsf.bins, need >> MAPPING_GRAIN_LOG2)
    if unlikely(index == 0):
        return tlsf_use_aside(base, tlsf, need)
    block = freelists_first(base, &tlsf.bins, index)
    assume(block != 0)
    freelists_take(base, &tlsf.bins, index, block)
    tlsf_place_aside(base, tlsf, block, need)
    return block
