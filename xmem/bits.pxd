# SPDX-License-Identifier: BSD-3-Clause
"""Arithmetic on unsigned words: bit scans and rounding to powers of two.

Nothing here knows a block, a page or an arena.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    int _clz64 "__builtin_clzll"(unsigned long long word) noexcept nogil
    int _ctz64 "__builtin_ctzll"(unsigned long long word) noexcept nogil


cdef inline uint64_t bit(uint64_t index) noexcept nogil:
    """Word with bit ``index`` (0 to 63) set."""
    return <uint64_t>1 << index


cdef inline unsigned find_last_set(uint64_t word) noexcept nogil:
    """Index of the highest set bit; ``word`` is not 0."""
    # xor, not subtraction: the compiler then uses the scan's result as it is.
    return 63 ^ <unsigned>_clz64(word)


cdef inline unsigned find_first_set(uint64_t word) noexcept nogil:
    """Index of the lowest set bit; ``word`` is not 0."""
    return <unsigned>_ctz64(word)


cdef inline uint64_t align_up(uint64_t value, uint64_t alignment) noexcept nogil:
    """Least multiple of ``alignment`` (a power of two) that is >= ``value``."""
    return (value + alignment - 1) & ~(alignment - 1)


cdef inline uint64_t align_down(uint64_t value, uint64_t alignment) noexcept nogil:
    """Greatest multiple of ``alignment`` (a power of two) that is <= ``value``."""
    return value & ~(alignment - 1)


cdef inline bint is_power_of_two(uint64_t value) noexcept nogil:
    """Whether exactly one bit is set."""
    return value != 0 and (value & (value - 1)) == 0


cdef inline unsigned ceil_log2(uint64_t value) noexcept nogil:
    """Least ``k`` with ``2**k >= value``; ``value`` is at least 1."""
    return 0 if value <= 1 else find_last_set(value - 1) + 1
