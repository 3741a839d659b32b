# SPDX-License-Identifier: BSD-3-Clause
"""Conditions that abort a checked build, and those that stop the compiler.

``require(condition)`` stands at the head of a function and states what its
caller must ensure. Built with ``XMEM_CHECKED=1`` a false one prints the condition
and aborts; in a release build it generates no code. It replaces ``assert``, which
in a ``noexcept nogil`` function would be printed and swallowed.

``claim(condition)`` states what the compiler can decide: sizes, places of members,
constants that must agree. A false claim does not compile, in any build. A claim
stands in a function that every program of its layer compiles.

``store_barrier`` keeps the compiler from moving stores across it: headers are
written in an order that leaves the arena walkable between any two of them.

Layers that have rare paths declare ``XMEM_OUTLINED`` for their types of function.

The C code stands here and not in a file of its own, so that a package which
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
    #ifdef __cplusplus
    #define XMEM_CLAIM(condition) ((void)0)     /* xmem's own modules are C */
    #else
    #define XMEM_CLAIM(condition) _Static_assert(condition, #condition)
    #endif
    /* Tells the compiler what always holds. */
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
       through it is not inlined, and in tail position it is a jump. So a rare
       path costs the short one neither registers nor a stack frame. */
    #define XMEM_OUTLINED(function) __extension__({ \\
        __typeof__(&(function)) address_ = &(function); \\
        __asm__("" : "+r"(address_)); \\
        address_; \\
    })
    #endif
    """
    void require "XMEM_REQUIRE"(bint condition) noexcept nogil
    void claim "XMEM_CLAIM"(bint condition) noexcept nogil
    void assume "XMEM_ASSUME"(bint condition) noexcept nogil
    void store_barrier "XMEM_STORE_BARRIER"() noexcept nogil
    bint likely "XMEM_LIKELY"(bint condition) noexcept nogil
    bint unlikely "XMEM_UNLIKELY"(bint condition) noexcept nogil
