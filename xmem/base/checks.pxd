# SPDX-License-Identifier: BSD-3-Clause
"""Conditions that abort a checked build and vanish from a release build.

``require(condition)`` stands at the door of a helper and states what its
caller owes it. Built with ``XMEM_CHECKED=1`` a false one prints the condition
and aborts; otherwise nothing of it is compiled. It replaces ``assert``, which
in a ``noexcept nogil`` function would be printed and swallowed.

Layers that have rare paths declare ``XMEM_OUTLINED`` for their types of function.

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
    /* What holds anyway, told to the compiler. */
    #if defined(XMEM_CHECKED) || !defined(__GNUC__)
    #define XMEM_ASSUME(condition) XMEM_REQUIRE(condition)
    #else
    #define XMEM_ASSUME(condition) \\
        ((condition) ? (void)0 : __builtin_unreachable())
    #endif
    #define XMEM_STORE_BARRIER() __asm__ __volatile__("" ::: "memory")
    #define XMEM_LIKELY(condition) __builtin_expect(!!(condition), 1)
    #define XMEM_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
    /* A function's address, about which the compiler knows nothing: a call
       through it is not inlined, and as the last thing done it is a jump. So
       what is rare costs the short path neither registers nor a frame. */
    #define XMEM_OUTLINED(function) __extension__({ \\
        __typeof__(&(function)) address_ = &(function); \\
        __asm__("" : "+r"(address_)); \\
        address_; \\
    })
    #endif
    """
    void require "XMEM_REQUIRE"(bint condition) noexcept nogil
    void assume "XMEM_ASSUME"(bint condition) noexcept nogil
    void store_barrier "XMEM_STORE_BARRIER"() noexcept nogil
    bint likely "XMEM_LIKELY"(bint condition) noexcept nogil
    bint unlikely "XMEM_UNLIKELY"(bint condition) noexcept nogil
