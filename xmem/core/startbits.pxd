# SPDX-License-Identifier: BSD-3-Clause
"""The start bitmap: one bit per 16 bytes of the arena.

V1  the bit of a 16-byte grain is set if and only if the payload of a live
    block starts there

In-band headers cannot prove that an integer is a block: any payload can hold
bytes that look like one. The bitmap can, in one load. It is a cache: walking
the headers rebuilds it.
"""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport with_bit, without_bit
from xmem.base.offset cimport offset_t


cdef inline void start_set(arena_t* arena, offset_t payload) noexcept nogil:
    """Record that a live block's payload starts at ``payload``."""
    cdef uint64_t* word = &arena.start_bits[payload >> 10]
    word[0] = with_bit(word[0], payload >> 4)


cdef inline void start_clear(arena_t* arena, offset_t payload) noexcept nogil:
    """Record that it does no longer."""
    cdef uint64_t* word = &arena.start_bits[payload >> 10]
    word[0] = without_bit(word[0], payload >> 4)


cdef inline bint start_test(arena_t* arena, offset_t payload) noexcept nogil:
    """Whether a live block's payload starts at ``payload``, any integer."""
    return (
        payload < arena.n_bytes
        and (payload & 15) == 0
        and (arena.start_bits[payload >> 10] >> ((payload >> 4) & 63)) & 1
    )
