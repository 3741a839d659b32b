# SPDX-License-Identifier: BSD-3-Clause
"""The pattern that fills live blocks, so that stray writes are noticed.

It is derived from the object's id; the patterns of two objects share no word.
"""

from libc.stdint cimport uint64_t


cdef inline uint64_t pattern_word(uint64_t id, uint64_t i) noexcept nogil:
    """Return word ``i`` of the pattern of object ``id``."""
    return ((id + 1) * <uint64_t>0x9E3779B97F4A7C15) ^ (
        (i + 1) * <uint64_t>0xC2B2AE3D27D4EB4F
    )


cdef inline void pattern_fill(
    char* start, uint64_t n_bytes, uint64_t id
) noexcept nogil:
    """Fill a block with its object's pattern."""
    cdef uint64_t i
    cdef uint64_t* words = <uint64_t*>start
    for i in range(n_bytes >> 3):
        words[i] = pattern_word(id, i)
    for i in range(n_bytes & ~<uint64_t>7, n_bytes):
        start[i] = <char>(pattern_word(id, i >> 3) >> (8 * (i & 7)))


cdef inline bint pattern_holds(
    const char* start, uint64_t n_bytes, uint64_t id
) noexcept nogil:
    """Whether a block still holds its object's pattern."""
    cdef uint64_t i
    cdef const uint64_t* words = <const uint64_t*>start
    for i in range(n_bytes >> 3):
        if words[i] != pattern_word(id, i):
            return False
    for i in range(n_bytes & ~<uint64_t>7, n_bytes):
        if start[i] != <char>(pattern_word(id, i >> 3) >> (8 * (i & 7))):
            return False
    return True


cdef inline bint all_zero(
    const char* start, uint64_t n_bytes
) noexcept nogil:
    """Whether memory is zero."""
    cdef uint64_t i
    for i in range(n_bytes):
        if start[i] != 0:
            return False
    return True
