# SPDX-License-Identifier: BSD-3-Clause
"""The legacy engine: Xen's first-fit ``xmalloc`` as it was before October 2008.

It serves for comparison. Blocks are cut from single pages; header and sizes are
multiples of a cache line; one unordered list, last in first out, holds every free
block of every page::

    page   +64       ...                                      page end
    | header | payload | header | payload | header | payload       |

The header is one cache line. Word 0 is as in block.pxd (size, tag, FREE); words 1 and
2 are the links of the free list; word 3 is the alignment asked for. In a block in use
word 7 repeats the tag, so that in both engines the word in front of a payload names
its pool. A payload aligned to more than a cache line has a second header right in
front of it, with that word 7; word 0 of the second header carries FIRSTFIT_PADDED and
the distance in bytes to the first.

``firstfit_alloc`` takes the first block that is large enough and splits it when at
least two cache lines remain. ``firstfit_coalesce`` walks the **whole** list and merges
the freed block with its neighbours in the same page. Both are linear in the length of
the list: that is the behaviour under study.

L1  blocks tile each page, sizes are multiples of 64; a second header leads to
    the first; the tag is in front of each payload
L2  a block is on the list if and only if its FREE bit is set
L3  no two adjacent blocks of a page are both free
"""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport require, store_barrier
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_HEADER_BYTES,
    block_size,
    block_word,
    block_write,
    word_at,
    word_size,
)

cdef enum:
    FIRSTFIT_LINE = 64              # cache line and header, bytes
    FIRSTFIT_PADDED = 2             # word 0 of a second header (block's bit 1)
    FIRSTFIT_NEXT = 8
    FIRSTFIT_PREV = 16
    FIRSTFIT_ALIGNMENT = 24


cdef struct firstfit_t:
    uint64_t tag
    uint64_t used_bytes             # blocks in use, headers included
    uint64_t n_used
    uint64_t n_free                 # length of the list
    offset_t head                   # first free block, 0 = none
    uint64_t page_bytes


cdef inline void firstfit_init(
    firstfit_t* ff, uint64_t tag, uint64_t page_bytes
) noexcept nogil:
    """Make an engine without pages."""
    ff.tag = tag
    ff.used_bytes = 0
    ff.n_used = 0
    ff.n_free = 0
    ff.head = 0
    ff.page_bytes = page_bytes


cdef inline uint64_t firstfit_bytes_for(uint64_t payload_bytes) noexcept nogil:
    """Size of the block that holds ``payload_bytes`` (0 counts as 1)."""
    cdef uint64_t bytes = payload_bytes if payload_bytes != 0 else 1
    return (bytes + 2 * FIRSTFIT_LINE - 1) & ~<uint64_t>(FIRSTFIT_LINE - 1)


cdef inline offset_t firstfit_block_of(
    char* base, offset_t payload
) noexcept nogil:
    """Block whose payload, aligned or not, is at ``payload``."""
    cdef offset_t block = payload - FIRSTFIT_LINE
    cdef uint64_t word = block_word(base, block)
    if word & FIRSTFIT_PADDED:
        return block - word_size(word)
    return block


cdef inline void firstfit_link(
    char* base, firstfit_t* ff, offset_t block
) noexcept nogil:
    """Put a free block first on the list."""
    cdef offset_t head = ff.head
    word_at(base, block + FIRSTFIT_NEXT)[0] = head
    word_at(base, block + FIRSTFIT_PREV)[0] = 0
    if head != 0:
        word_at(base, head + FIRSTFIT_PREV)[0] = block
    ff.head = block
    ff.n_free += 1


cdef inline void firstfit_unlink(
    char* base, firstfit_t* ff, offset_t block
) noexcept nogil:
    """Take a free block off the list."""
    cdef offset_t next_block = word_at(base, block + FIRSTFIT_NEXT)[0]
    cdef offset_t prev_block = word_at(base, block + FIRSTFIT_PREV)[0]
    if next_block != 0:
        word_at(base, next_block + FIRSTFIT_PREV)[0] = prev_block
    if prev_block != 0:
        word_at(base, prev_block + FIRSTFIT_NEXT)[0] = next_block
    else:
        ff.head = next_block
    ff.n_free -= 1


cdef inline void firstfit_take(
    char* base, firstfit_t* ff, offset_t block, uint64_t size, uint64_t need
) noexcept nogil:
    """Use ``need`` of the ``size`` bytes of a block that is on no list."""
    if size - need >= 2 * FIRSTFIT_LINE:
        block_write(base, block + need, size - need, ff.tag | BLOCK_FREE)
        store_barrier()
        firstfit_link(base, ff, block + need)
    else:
        need = size
    block_write(base, block, need, ff.tag)
    ff.used_bytes += need
    ff.n_used += 1


cdef inline offset_t firstfit_alloc(
    char* base, firstfit_t* ff, uint64_t need
) noexcept nogil:
    """The first free block of at least ``need`` bytes, in use, or 0."""
    cdef offset_t block = ff.head
    cdef uint64_t size
    while block != 0:
        size = block_size(base, block)
        if size >= need:
            firstfit_unlink(base, ff, block)
            firstfit_take(base, ff, block, size, need)
            return block
        block = word_at(base, block + FIRSTFIT_NEXT)[0]
    return 0


cdef inline void firstfit_shrink(
    char* base, firstfit_t* ff, offset_t block, uint64_t need
) noexcept nogil:
    """Cut a block in use down to ``need`` bytes and free the rest.

    The rest absorbs the right neighbour if it is free. That is found by its position,
    without a walk of the list.
    """
    cdef uint64_t size = block_size(base, block)
    cdef offset_t right = block + size
    cdef uint64_t rest = size - need
    if right & (ff.page_bytes - 1) and block_word(base, right) & BLOCK_FREE:
        firstfit_unlink(base, ff, right)
        rest += block_size(base, right)
    block_write(base, block + need, rest, ff.tag | BLOCK_FREE)
    store_barrier()
    block_write(base, block, need, ff.tag)
    firstfit_link(base, ff, block + need)
    ff.used_bytes -= size - need


cdef inline uint64_t firstfit_coalesce(
    char* base, firstfit_t* ff, offset_t* freed
) noexcept nogil:
    """Free a block and merge it, walking the whole list; returns its new size.

    ``freed`` becomes the merged block, which is on no list: the caller links it or
    returns the page.
    """
    cdef offset_t block = freed[0]
    cdef uint64_t size = block_size(base, block)
    cdef uint64_t page_mask = ~(ff.page_bytes - 1)
    cdef offset_t other = ff.head
    cdef offset_t next_block
    cdef uint64_t other_size
    require((block_word(base, block) & BLOCK_FREE) == 0)
    ff.used_bytes -= size
    ff.n_used -= 1
    block_write(base, block, size, ff.tag | BLOCK_FREE)
    while other != 0:
        next_block = word_at(base, other + FIRSTFIT_NEXT)[0]
        if (other ^ block) & page_mask == 0:
            other_size = block_size(base, other)
            if other + other_size == block:
                firstfit_unlink(base, ff, other)
                size += other_size
                block = other
                block_write(base, block, size, ff.tag | BLOCK_FREE)
            elif block + size == other:
                firstfit_unlink(base, ff, other)
                size += other_size
                block_write(base, block, size, ff.tag | BLOCK_FREE)
        other = next_block
    freed[0] = block
    return size


cdef inline offset_t firstfit_payload(
    char* base, firstfit_t* ff, offset_t block, uint64_t alignment
) noexcept nogil:
    """Payload of a block in use at ``alignment``; writes a second header if needed.

    Requires a block of ``payload_bytes + alignment`` where the alignment is more than
    a cache line.
    """
    cdef offset_t payload = block + FIRSTFIT_LINE
    cdef offset_t aligned = (payload + alignment - 1) & ~(alignment - 1)
    word_at(base, block + FIRSTFIT_ALIGNMENT)[0] = alignment
    if aligned != payload:
        block_write(
            base,
            aligned - FIRSTFIT_LINE,
            aligned - payload,
            ff.tag | FIRSTFIT_PADDED,
        )
    # The word there may be stale, even a header of the other engine.
    word_at(base, aligned - BLOCK_HEADER_BYTES)[0] = ff.tag
    return aligned
