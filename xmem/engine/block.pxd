# SPDX-License-Identifier: BSD-3-Clause
"""A block of the TLSF engine: header word, payload, links and boundary tag.

A block is identified by the offset of its header from the arena's base. ``base``
is the address at which this process mapped the arena; nothing stored depends on it::

    block          +8               +16              +24        size - 8
      | header word | payload ...                                      |   in use
      | header word | next free     | link to this  | ...     | block  |   free
                      (offset,        (offset of the           boundary
                       0 = none)      word that holds          tag
                                      this block's offset)

Header word, 64 bits::

    63                     20 19        5 4     2     1        0
    | size in bytes (44 bits) | pool tag | align | PREV_FREE | FREE |

``align`` is log2(alignment) - 4 of the alignment (16 to 2048 bytes) with which the
block was allocated, so that a reallocation can keep it; it is 0 in a free block. The
tag is the pool's number, so that a live block proves which pool it belongs to.

Invariants, numbered as in docs/format.md; check/tlsf.pxd verifies them:

B1  the size is a multiple of 16 and at least 32; 0 only in a sentinel
B2  a block offset is 8 modulo 16, so payloads are aligned to 16
B3  no payload is page-aligned (4096): page-aligned offsets are page runs
B4  no two physically adjacent blocks are both free
B5  PREV_FREE of a block equals FREE of its left neighbour
B6  the last 8 bytes of a free block hold the block's own offset
B7  every header carries its pool's tag; a block in use is aligned as ``align``
    says, which in a free block is 0 or a mark of core/hardening.pxd

Stores are ordered so that a walk by header sizes sees whole blocks after any
prefix of them. This header knows nothing of bins.
"""

from libc.stdint cimport uint64_t

from xmem.base.checks cimport require
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t

cdef enum:
    BLOCK_FREE = 1          # bit 0: the block is on a free list
    BLOCK_PREV_FREE = 2     # bit 1: so is its left neighbour
    BLOCK_ALIGN_SHIFT = 2
    BLOCK_ALIGN_MASK = 7 << 2
    BLOCK_TAG_SHIFT = 5
    BLOCK_TAG_MASK = 0x7FFF << 5
    BLOCK_SIZE_SHIFT = 20

    BLOCK_HEADER_BYTES = 8
    BLOCK_GRAIN = 16        # sizes and payload offsets are multiples of it
    BLOCK_MIN_BYTES = 32    # header, two links, boundary tag
    BLOCK_ALIGN_MAX = 2048  # greater alignments are whole pages
    PAGE_RULE_BYTES = 4096  # the smallest page size; see B3

    # A region starts with one unused word, so that payloads are aligned, and
    # ends with the sentinel's header.
    REGION_HEAD_BYTES = 8
    REGION_TAIL_BYTES = 8

    # Bytes of a region that its largest payload cannot use: head, header and
    # sentinel. The proposal's DELTA.
    REGION_OVERHEAD_BYTES = (
        REGION_HEAD_BYTES + BLOCK_HEADER_BYTES + REGION_TAIL_BYTES
    )


cdef inline uint64_t* word_at(char* base, offset_t offset) noexcept nogil:
    """Address of the word at ``offset``."""
    return <uint64_t*>(base + offset)


cdef inline uint64_t word_size(uint64_t word) noexcept nogil:
    """Size in bytes in a header word."""
    return word >> BLOCK_SIZE_SHIFT


cdef inline uint64_t block_word(char* base, offset_t block) noexcept nogil:
    """Header word of ``block``."""
    return word_at(base, block)[0]


cdef inline uint64_t block_size(char* base, offset_t block) noexcept nogil:
    """Size of ``block`` in bytes, header included."""
    return word_size(block_word(base, block))


cdef inline offset_t block_of(offset_t payload) noexcept nogil:
    """Block whose payload is at ``payload``."""
    return payload - BLOCK_HEADER_BYTES


cdef inline offset_t payload_of(offset_t block) noexcept nogil:
    """Payload of ``block``."""
    return block + BLOCK_HEADER_BYTES


cdef inline offset_t block_prev_free(char* base, offset_t block) noexcept nogil:
    """Free left neighbour of ``block``, whose PREV_FREE is set."""
    require((block_word(base, block) & BLOCK_PREV_FREE) != 0)
    return word_at(base, block - 8)[0]


cdef inline void block_tag_end(
    char* base, offset_t block, uint64_t size
) noexcept nogil:
    """Write the boundary tag of a free block of ``size`` bytes (B6)."""
    put(word_at(base, block + size - 8), block)


cdef inline void block_write(
    char* base, offset_t block, uint64_t size, uint64_t bits
) noexcept nogil:
    """Write a whole header: size in bytes, tag and flags in ``bits``."""
    require((size & (BLOCK_GRAIN - 1)) == 0)
    put(word_at(base, block), (size << BLOCK_SIZE_SHIFT) | bits)


cdef inline bint breaks_page_rule(offset_t block) noexcept nogil:
    """Whether the payload of a block placed here would be page-aligned (B3)."""
    return ((block + BLOCK_HEADER_BYTES) & (PAGE_RULE_BYTES - 1)) == 0


cdef inline uint64_t block_bytes_for(uint64_t payload_bytes) noexcept nogil:
    """Size of the block that holds ``payload_bytes``, at most 2**44 of them."""
    cdef uint64_t size = (
        payload_bytes + BLOCK_HEADER_BYTES + BLOCK_GRAIN - 1
    ) & ~<uint64_t>(BLOCK_GRAIN - 1)
    return size if size > BLOCK_MIN_BYTES else BLOCK_MIN_BYTES


cdef inline uint64_t block_split_at(offset_t block, uint64_t need) noexcept nogil:
    """``need``, or 16 more where a remainder's payload would be page-aligned (B3)."""
    return need + BLOCK_GRAIN if breaks_page_rule(block + need) else need


cdef inline uint64_t block_split_size(
    offset_t block, uint64_t size, uint64_t need
) noexcept nogil:
    """Bytes that the left part keeps when ``need`` of ``size`` are to be used.

    As many as ``block_split_at`` says, or all of ``size`` where the remainder would be
    too small for a block.
    """
    need = block_split_at(block, need)
    return need if size >= need + BLOCK_MIN_BYTES else size
