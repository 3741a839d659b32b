# SPDX-License-Identifier: BSD-3-Clause
"""Reports to memory checkers, in a checked build (XMEM_CHECKED).

AddressSanitizer and valgrind see the arena as one mapping. Told which of its bytes
belong to nobody, they catch a program where it runs over the end of a block,
touches a header or uses freed memory:

    memory_allocated, memory_freed     a payload, which the caller may touch
    memory_defined               a payload that keeps its contents: it was resized
    memory_open, memory_close    page runs of the caller's own

ASan is told when its runtime is in the process, preloaded or the program's own.
Code compiled with ``-fsanitize=address``, and libc's functions called by any other
code, then stop at the first wrong byte. Valgrind is told by requests that cost next
to nothing when it is absent; blocks are chunks of a memory pool, so that its reports
name them. Engines may touch everything: they call ``checker_pause`` first, and copy
and fill by loops that ASan does not intercept.

In a release build ``MEMCHECKED`` is 0 and none of this generates code.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef XMEM_MEMCHECK
    #define XMEM_MEMCHECK
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #if defined(XMEM_CHECKED) && !defined(XMEM_NO_MEMCHECK) \\
        && !defined(__SANITIZE_ADDRESS__)
    #include <stddef.h>
    #define XMEM_MEMCHECKED 1
    #if defined(__has_include)
    #if __has_include(<valgrind/memcheck.h>)
    #include <valgrind/memcheck.h>
    #endif
    #endif
    #ifndef VALGRIND_CREATE_MEMPOOL
    #define VALGRIND_CREATE_MEMPOOL(pool, redzone, zeroed) ((void)0)
    #define VALGRIND_DESTROY_MEMPOOL(pool) ((void)0)
    #define VALGRIND_MEMPOOL_EXISTS(pool) 1
    #define VALGRIND_MEMPOOL_ALLOC(pool, start, n) ((void)0)
    #define VALGRIND_MEMPOOL_FREE(pool, start) ((void)0)
    #define VALGRIND_DISABLE_ERROR_REPORTING ((void)0)
    #define VALGRIND_ENABLE_ERROR_REPORTING ((void)0)
    #define VALGRIND_MAKE_MEM_DEFINED(start, n) 0
    #define VALGRIND_MAKE_MEM_NOACCESS(start, n) 0
    #define RUNNING_ON_VALGRIND 0
    #endif

    void __asan_poison_memory_region(void const volatile *, size_t)
        __attribute__((weak));
    void __asan_unpoison_memory_region(void const volatile *, size_t)
        __attribute__((weak));

    static inline void xmem_memory_open(void *start, size_t n)
    {
        if (__asan_unpoison_memory_region)
            __asan_unpoison_memory_region(start, n);
        if (RUNNING_ON_VALGRIND)
            (void)VALGRIND_MAKE_MEM_DEFINED(start, n);
    }
    static inline void xmem_memory_close(void *start, size_t n)
    {
        if (__asan_poison_memory_region)
            __asan_poison_memory_region(start, n);
        if (RUNNING_ON_VALGRIND)
            (void)VALGRIND_MAKE_MEM_NOACCESS(start, n);
    }
    static inline void xmem_memory_allocated(void *pool, void *start, size_t n)
    {
        xmem_memory_open(start, n);
        if (RUNNING_ON_VALGRIND) {
            if (!VALGRIND_MEMPOOL_EXISTS(pool))
                VALGRIND_CREATE_MEMPOOL(pool, 0, 0);
            VALGRIND_MEMPOOL_ALLOC(pool, start, n);
        }
    }
    static inline void xmem_memory_freed(void *pool, void *start, size_t n)
    {
        if (RUNNING_ON_VALGRIND && VALGRIND_MEMPOOL_EXISTS(pool))
            VALGRIND_MEMPOOL_FREE(pool, start);
        xmem_memory_close(start, n);
    }
    static inline void xmem_memory_defined(void *start, size_t n)
    {
        if (RUNNING_ON_VALGRIND)
            (void)VALGRIND_MAKE_MEM_DEFINED(start, n);
    }
    static inline void xmem_memory_pool_destroyed(void *pool)
    {
        if (RUNNING_ON_VALGRIND && VALGRIND_MEMPOOL_EXISTS(pool))
            VALGRIND_DESTROY_MEMPOOL(pool);
    }
    static inline void xmem_checker_pause(void)
    {
        VALGRIND_DISABLE_ERROR_REPORTING;
    }
    static inline void xmem_checker_resume(void)
    {
        VALGRIND_ENABLE_ERROR_REPORTING;
    }
    __attribute__((unused, optimize("no-tree-loop-distribute-patterns")))
    static void xmem_move(void *to, const void *from, size_t n)
    {
        volatile char *a = to;
        const volatile char *b = from;
        if (a < b)
            for (size_t i = 0; i < n; i++)
                a[i] = b[i];
        else
            while (n-- > 0)
                a[n] = b[n];
    }
    __attribute__((unused, optimize("no-tree-loop-distribute-patterns")))
    static void xmem_fill(void *start, int value, size_t n)
    {
        volatile char *a = start;
        while (n-- > 0)
            a[n] = (char)value;
    }
    #define xmem_copy xmem_move
    static inline uint64_t xmem_audit_start(void)
    {
        const char *set = getenv("XMEM_AUDIT");
        return set != NULL && strcmp(set, "0") == 0 ? UINT64_MAX : 0;
    }
    #else
    #define XMEM_MEMCHECKED 0
    #define xmem_memory_open(start, n) ((void)(n))
    #define xmem_memory_close(start, n) ((void)(n))
    #define xmem_memory_allocated(pool, start, n) ((void)(n))
    #define xmem_memory_freed(pool, start, n) ((void)(n))
    #define xmem_memory_defined(start, n) ((void)(n))
    #define xmem_memory_pool_destroyed(pool) ((void)0)
    #define xmem_checker_pause() ((void)0)
    #define xmem_checker_resume() ((void)0)
    #define xmem_copy memcpy
    #define xmem_move memmove
    #define xmem_fill memset
    #define xmem_audit_start() UINT64_MAX
    #endif
    #endif
    """
    bint MEMCHECKED "XMEM_MEMCHECKED"
    uint64_t AUDIT_OFF "UINT64_MAX"
    uint64_t audit_start "xmem_audit_start"() noexcept nogil
    void memory_open "xmem_memory_open"(void* start, size_t n) noexcept nogil
    void memory_close "xmem_memory_close"(void* start, size_t n) noexcept nogil
    void memory_allocated "xmem_memory_allocated"(
        void* pool, void* start, size_t n
    ) noexcept nogil
    void memory_freed "xmem_memory_freed"(
        void* pool, void* start, size_t n
    ) noexcept nogil
    void memory_defined "xmem_memory_defined"(void* start, size_t n) noexcept nogil
    void memory_pool_destroyed "xmem_memory_pool_destroyed"(void* pool) noexcept nogil
    void checker_pause "xmem_checker_pause"() noexcept nogil
    void checker_resume "xmem_checker_resume"() noexcept nogil
    void engine_copy "xmem_copy"(void* to, const void* source, size_t n) noexcept nogil
    void engine_move "xmem_move"(void* to, const void* source, size_t n) noexcept nogil
    void engine_fill "xmem_fill"(void* start, int value, size_t n) noexcept nogil
