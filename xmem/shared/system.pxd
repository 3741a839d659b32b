# SPDX-License-Identifier: BSD-3-Clause
"""What the lock needs of the processor and of the kernel.

Atomic operations on words that other processes change, and waiting until one changes.
The C code stands here and not in a file of its own, so that a package which cimports
xmem needs no include path.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef XMEM_SHARED_SYSTEM
    #define XMEM_SHARED_SYSTEM
    #include <limits.h>
    #include <stdint.h>
    #include <pthread.h>
    #include <time.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #endif

    static inline uint32_t xmem_load32(const uint32_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline uint64_t xmem_load64(const uint64_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline int xmem_cas32(uint32_t *word, uint32_t expected, uint32_t desired)
    {
        return __atomic_compare_exchange_n(
            word, &expected, desired, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED
        );
    }
    static inline uint32_t xmem_swap32(uint32_t *word, uint32_t desired)
    {
        return __atomic_exchange_n(word, desired, __ATOMIC_RELEASE);
    }
    static inline void xmem_set_bits(uint64_t *word, uint64_t bits)
    {
        __atomic_fetch_or(word, bits, __ATOMIC_SEQ_CST);
    }
    static inline void xmem_clear_bits(uint64_t *word, uint64_t bits)
    {
        __atomic_fetch_and(word, ~bits, __ATOMIC_SEQ_CST);
    }
    static inline void xmem_pause(void)
    {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("yield" ::: "memory");
    #endif
    }
    static inline uint64_t xmem_now_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    /* A number of the calling thread's own in its process, and not 0. */
    static inline uint64_t xmem_this_thread(void)
    {
        return (uint64_t)(uintptr_t)pthread_self();
    }
    /* Sleep while the word has the value, until woken for one of the bits, or until a
       moment of xmem_now_ns. It may return early: the caller looks again. */
    static inline void xmem_wait(
        uint32_t *word, uint32_t value, uint32_t bits, uint64_t until_ns
    ) {
        struct timespec until;
        until.tv_sec = (time_t)(until_ns / 1000000000u);
        until.tv_nsec = (long)(until_ns % 1000000000u);
    #if defined(__linux__)
        syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &until, NULL, bits);
    #else
        (void)word; (void)value; (void)bits;
        usleep(200);
    #endif
    }
    /* Wake up to n_most who wait for one of the bits. */
    static inline void xmem_wake(uint32_t *word, int n_most, uint32_t bits)
    {
    #if defined(__linux__)
        syscall(SYS_futex, word, FUTEX_WAKE_BITSET, n_most, NULL, NULL, bits);
    #else
        (void)word; (void)n_most; (void)bits;
    #endif
    }
    #endif
    """
    uint32_t load32 "xmem_load32"(const uint32_t* word) noexcept nogil
    uint64_t load64 "xmem_load64"(const uint64_t* word) noexcept nogil
    bint cas32 "xmem_cas32"(
        uint32_t* word, uint32_t expected, uint32_t desired
    ) noexcept nogil
    uint32_t swap32 "xmem_swap32"(uint32_t* word, uint32_t desired) noexcept nogil
    void set_bits "xmem_set_bits"(uint64_t* word, uint64_t bits) noexcept nogil
    void clear_bits "xmem_clear_bits"(uint64_t* word, uint64_t bits) noexcept nogil
    void pause "xmem_pause"() noexcept nogil
    uint64_t this_thread "xmem_this_thread"() noexcept nogil
    uint64_t now_ns "xmem_now_ns"() noexcept nogil
    void wait_for "xmem_wait"(
        uint32_t* word, uint32_t value, uint32_t bits, uint64_t until_ns
    ) noexcept nogil
    void wake "xmem_wake"(uint32_t* word, int n_most, uint32_t bits) noexcept nogil
    int INT_MAX
