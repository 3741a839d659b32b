# SPDX-License-Identifier: BSD-3-Clause
"""Conditions that abort a checked build and vanish from a release build.

``require(condition)`` stands at the door of a helper and states what its
caller owes it. Built with ``XMEM_CHECKED=1`` a false one prints the condition
and aborts; otherwise nothing of it is compiled. It replaces ``assert``, which
in a ``noexcept nogil`` function would be printed and swallowed.

``store_barrier`` keeps the compiler from moving stores across it: headers are
written in an order that leaves the arena walkable between any two of them.

The C stands here and not in a file of its own, so that a package which
cimports xmem needs no include path.
"""

cdef extern from *:
    """
    #ifndef XMEM_CHECKS
    #define XMEM_CHECKS
    #ifdef XMEM_CHECKED
    #include <stdio.h>
    #include <stdlib.h>
    #define XMEM_REQUIRE(condition) \\
        ((condition) ? (void)0 : \\
         (fprintf(stderr, "xmem: requirement broken at %s:%d (%s): %s\\n", \\
                  __FILE__, __LINE__, __func__, #condition), abort()))
    #else
    #define XMEM_REQUIRE(condition) ((void)0)
    #endif
    #define XMEM_STORE_BARRIER() __asm__ __volatile__("" ::: "memory")
    #define XMEM_LIKELY(condition) __builtin_expect(!!(condition), 1)
    #define XMEM_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
    #endif
    """
    void require "XMEM_REQUIRE"(bint condition) noexcept nogil
    void store_barrier "XMEM_STORE_BARRIER"() noexcept nogil
    bint likely "XMEM_LIKELY"(bint condition) noexcept nogil
    bint unlikely "XMEM_UNLIKELY"(bint condition) noexcept nogil
