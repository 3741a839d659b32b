# SPDX-License-Identifier: BSD-3-Clause
"""Bitmaps with one bit per grain, which is 16 bytes of an arena.

The bit of an offset is bit ``offset / 16 % 64`` of word ``offset / 1024``. What a
set bit means is for the owner of the bitmap to say.
"""

from libc.stdint cimport uint64_t

from xmem.base.bits cimport with_bit, without_bit
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t

cdef enum:
    GRAIN_BYTES = 16
    GRAIN_LOG2 = 4
    GRAINS_BYTE_LOG2 = 7    # bytes of the arena for which a byte of bits stands
    GRAINS_WORD_LOG2 = 10   # bytes of the arena for which a word of bits stands


cdef inline void grain_set(uint64_t* bits, offset_t offset) noexcept nogil:
    """Set the bit of the grain at ``offset``."""
    cdef uint64_t* word = &bits[offset >> GRAINS_WORD_LOG2]
    put(word, with_bit(word[0], offset >> GRAIN_LOG2))


cdef inline void grain_clear(uint64_t* bits, offset_t offset) noexcept nogil:
    """Clear the bit of the grain at ``offset``."""
    cdef uint64_t* word = &bits[offset >> GRAINS_WORD_LOG2]
    put(word, without_bit(word[0], offset >> GRAIN_LOG2))


cdef inline bint grain_test(
    uint64_t* bits, uint64_t n_bytes, offset_t offset
) noexcept nogil:
    """Whether a grain starts at ``offset``, any integer, and its bit is set.

    ``n_bytes`` is the size of the arena.
    """
    return (
        offset < n_bytes
        and (offset & (GRAIN_BYTES - 1)) == 0
        and (bits[offset >> GRAINS_WORD_LOG2] >> ((offset >> GRAIN_LOG2) & 63)) & 1
    )
