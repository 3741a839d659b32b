# SPDX-License-Identifier: BSD-3-Clause
"""The start bitmap: one bit per 16 bytes of the arena.

V1  the bit of a 16-byte grain is set if and only if the payload of a live
    block starts there

In-band headers cannot prove that an integer is a block: any payload can hold
bytes that look like one. The bitmap can, in one load.

The bitmap is truth, not a cache: it alone tells a live block from one that waits in the
quarantine or on a quick list, or that a call which was cut short had not handed out
yet. So a bit is set by the last store that makes a block, after its header and its
seal, and cleared by the first that ends one. Where xrealloc moves a block to the left,
the bit of the new payload is set before the header that makes it a block in use, and
that of the old one is cleared last. check/repair.pxd relies on this order.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from xmem.arena cimport arena_t, page_offset
from xmem.base cimport (
    GRAINS_BYTE_LOG2,
    GRAINS_WORD_LOG2,
    GRAIN_BYTES,
    GRAIN_LOG2,
    bit,
    find_first_set,
    find_last_set,
    grain_clear,
    grain_set,
    grain_test,
    offset_t,
    store_barrier,
)
from xmem.engine cimport PAGE_RULE_BYTES


cdef inline void start_set(arena_t* arena, offset_t payload) noexcept nogil:
    """Record that a live block's payload starts at ``payload``, all stores before."""
    store_barrier()
    grain_set(arena.start_bits, payload)


cdef inline void start_clear(arena_t* arena, offset_t payload) noexcept nogil:
    """Record that no live block's payload starts at ``payload``, before all stores."""
    grain_clear(arena.start_bits, payload)
    store_barrier()


cdef inline bint start_test(arena_t* arena, offset_t payload) noexcept nogil:
    """Whether a live block's payload starts at ``payload``, any integer."""
    return grain_test(arena.start_bits, arena.n_bytes, payload)


cdef inline void start_clear_pages(
    arena_t* arena, offset_t start, uint64_t n_bytes
) noexcept nogil:
    """Record that no live block starts in whole pages."""
    memset(
        &arena.start_bits[start >> GRAINS_WORD_LOG2], 0, n_bytes >> GRAINS_BYTE_LOG2
    )


cdef inline uint64_t starts_repeated(
    arena_t* arena, const offset_t* payloads, uint64_t n
) noexcept nogil:
    """Index of the first of ``n`` live payloads that occurs before, or ``n``.

    Bits are cleared one after the other, and then set again: a bit that is clear
    already belongs to a payload seen before. Blocks of whole pages, which have no
    bit, are passed over.
    """
    cdef uint64_t i
    cdef uint64_t first = n
    for i in range(n):
        if payloads[i] & (PAGE_RULE_BYTES - 1) == 0:
            continue
        if not start_test(arena, payloads[i]):
            first = i
            break
        start_clear(arena, payloads[i])
    for i in range(first):
        if payloads[i] & (PAGE_RULE_BYTES - 1):
            start_set(arena, payloads[i])
    return first


# Scanning --------------------------------------------------------------------

cdef inline uint64_t bits_below(offset_t payload) noexcept nogil:
    """In the word of ``payload``, the bits of the grains below it."""
    return bit((payload >> GRAIN_LOG2) & 63) - 1


cdef inline offset_t start_before(
    arena_t* arena, offset_t payload
) noexcept nogil:
    """Greatest payload below ``payload``, an offset, whose bit is set, or 0."""
    cdef uint64_t i = payload >> GRAINS_WORD_LOG2
    cdef uint64_t least = page_offset(arena, arena.first_page) >> GRAINS_WORD_LOG2
    cdef uint64_t word = arena.start_bits[i] & bits_below(payload)
    while word == 0:
        if i <= least:
            return 0
        i -= 1
        word = arena.start_bits[i]
    return (i << GRAINS_WORD_LOG2) + (
        <uint64_t>find_last_set(word) << GRAIN_LOG2
    )


cdef inline offset_t start_from(
    arena_t* arena, offset_t payload, offset_t end, uint64_t* n_words
) noexcept nogil:
    """Least payload from ``payload`` on whose bit is set; ``end`` if none is.

    Takes each further word of the bitmap that it looks at from ``n_words``;
    when those are used up it returns the offset at which to go on. ``end`` is
    page-aligned.
    """
    cdef uint64_t i = payload >> GRAINS_WORD_LOG2
    cdef uint64_t word
    if payload >= end:
        return end
    word = arena.start_bits[i] & ~bits_below(payload)
    while word == 0:
        i += 1
        n_words[0] -= 1
        if (i << GRAINS_WORD_LOG2) >= end:
            return end
        if n_words[0] == 0:
            return i << GRAINS_WORD_LOG2
        word = arena.start_bits[i]
    return (i << GRAINS_WORD_LOG2) + (
        find_first_set(word) << GRAIN_LOG2
    )


cdef inline offset_t start_after(
    arena_t* arena, offset_t payload
) noexcept nogil:
    """Least payload above ``payload``, an offset, whose bit is set, or 0."""
    cdef uint64_t no_limit = ~<uint64_t>0
    payload = start_from(arena, payload + GRAIN_BYTES, arena.n_bytes, &no_limit)
    return payload if payload < arena.n_bytes else 0
