# SPDX-License-Identifier: BSD-3-Clause
"""The processor's clock, read around one operation.

On x86-64 it is the time-stamp counter, fenced on both sides so that only the
operation's own instructions lie between two readings; its unit is called a cycle.
On aarch64 it is the virtual counter, and elsewhere the monotonic clock in
nanoseconds. These are coarser, but called ticks as well.
"""

cimport cython
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef XMEM_CLOCK
    #define XMEM_CLOCK
    #include <stdint.h>
    #include <time.h>
    static inline uint64_t xmem_nanoseconds(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    #if defined(__x86_64__)
    static inline uint64_t xmem_ticks(void)
    {
        uint32_t low, high;
        __asm__ __volatile__("lfence\\n\\trdtsc\\n\\tlfence"
                             : "=a"(low), "=d"(high) : : "memory");
        return ((uint64_t)high << 32) | low;
    }
    #elif defined(__aarch64__)
    static inline uint64_t xmem_ticks(void)
    {
        uint64_t ticks;
        __asm__ __volatile__("isb\\n\\tmrs %0, cntvct_el0\\n\\tisb"
                             : "=r"(ticks) : : "memory");
        return ticks;
    }
    #else
    #define xmem_ticks xmem_nanoseconds
    #endif
    #endif
    """
    uint64_t clock_ticks "xmem_ticks"() noexcept nogil
    uint64_t clock_nanoseconds "xmem_nanoseconds"() noexcept nogil


cdef inline uint64_t clock_overhead() noexcept nogil:
    """Return the ticks between two readings with nothing between them."""
    cdef uint64_t least = ~<uint64_t>0
    cdef uint64_t before, ticks
    cdef int _i
    for _i in range(20000):
        before = clock_ticks()
        ticks = clock_ticks() - before
        if ticks < least:
            least = ticks
    return least


@cython.cdivision(True)
cdef inline double per_second(uint64_t count, uint64_t ns) noexcept nogil:
    """Return the rate of ``count`` in ``ns`` nanoseconds, which are not 0."""
    return count * 1e9 / ns


cdef inline double clock_hz() noexcept nogil:
    """Return the ticks per second, measured over 20 ms."""
    cdef uint64_t start_ns = clock_nanoseconds()
    cdef uint64_t start = clock_ticks()
    cdef uint64_t now_ns = start_ns
    while now_ns - start_ns < 20000000:
        now_ns = clock_nanoseconds()
    return per_second(clock_ticks() - start, now_ns - start_ns)
