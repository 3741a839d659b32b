# SPDX-License-Identifier: BSD-3-Clause
"""Arithmetic on unsigned words: bit scans and rounding to powers of two."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef XMEM_BITS
    #define XMEM_BITS
    #include <stdint.h>
    /* One instruction for each operation, where compilers would build masks and
       widen results. The portable versions below define what they compute. */
    #if defined(__x86_64__) && defined(__GNUC__)
    static inline uint64_t xmem_with_bit(uint64_t word, uint64_t index)
    {
        __asm__("btsq %1, %0" : "+r"(word) : "r"(index) : "cc");
        return word;
    }
    static inline uint64_t xmem_without_bit(uint64_t word, uint64_t index)
    {
        __asm__("btrq %1, %0" : "+r"(word) : "r"(index) : "cc");
        return word;
    }
    static inline uint64_t xmem_first_set(uint64_t word)
    {
        uint64_t index;
        __asm__("rep bsfq %1, %0" : "=r"(index) : "r"(word) : "cc");
        return index;
    }
    #else
    static inline uint64_t xmem_with_bit(uint64_t word, uint64_t index)
    {
        return word | (uint64_t)1 << (index & 63);
    }
    static inline uint64_t xmem_without_bit(uint64_t word, uint64_t index)
    {
        return word & ~((uint64_t)1 << (index & 63));
    }
    static inline uint64_t xmem_first_set(uint64_t word)
    {
        return (uint64_t)__builtin_ctzll(word);
    }
    #endif
    #endif
    """
    # The word with bit ``index`` modulo 64 set, or clear.
    uint64_t with_bit "xmem_with_bit"(uint64_t word, uint64_t index) noexcept nogil
    uint64_t without_bit "xmem_without_bit"(
        uint64_t word, uint64_t index
    ) noexcept nogil
    uint64_t _first_set "xmem_first_set"(uint64_t word) noexcept nogil
    int _clz64 "__builtin_clzll"(unsigned long long word) noexcept nogil


cdef inline uint64_t bit(uint64_t index) noexcept nogil:
    """Word with bit ``index`` (0 to 63) set."""
    return <uint64_t>1 << index


cdef inline unsigned find_last_set(uint64_t word) noexcept nogil:
    """Index of the highest set bit; ``word`` is not 0."""
    # xor, not subtraction: the compiler then uses the scan's result as it is.
    return 63 ^ <unsigned>_clz64(word)


cdef inline uint64_t find_first_set(uint64_t word) noexcept nogil:
    """Index of the lowest set bit; ``word`` is not 0."""
    return _first_set(word)


cdef inline uint64_t align_up(uint64_t value, uint64_t alignment) noexcept nogil:
    """Least multiple of ``alignment`` (a power of two) that is >= ``value``."""
    return (value + alignment - 1) & ~(alignment - 1)


cdef inline uint64_t align_down(uint64_t value, uint64_t alignment) noexcept nogil:
    """Greatest multiple of ``alignment`` (a power of two) that is <= ``value``."""
    return value & ~(alignment - 1)


cdef inline bint is_power_of_two(uint64_t value) noexcept nogil:
    """Whether exactly one bit is set."""
    return value != 0 and (value & (value - 1)) == 0


cdef inline unsigned exact_log2(uint64_t value) noexcept nogil:
    """log2 of a power of two; 0 of any other number."""
    return find_last_set(value) if is_power_of_two(value) else 0


cdef inline unsigned ceil_log2(uint64_t value) noexcept nogil:
    """Least ``k`` with ``2**k >= value``; ``value`` is at least 1."""
    return 0 if value <= 1 else find_last_set(value - 1) + 1
