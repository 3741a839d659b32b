# SPDX-License-Identifier: BSD-3-Clause
"""Every store of a verb into the arena: ``put`` and ``put32``.

They are assignments. A module that is compiled with ``XMEM_LOGGED`` notes the old value
of the word first, in the journal of the arena in which its thread works: then the verb
can be undone by whoever finds its process dead. One source serves both, and what is not
logged retires what an assignment does.

An entry is complete before the word counts it, and counted before the store that it is
of: no other order leads back from each moment. Only the death of a process is at issue,
whose stores the kernel completes, so it is the compiler alone that must keep the order.
The journal's words, and the layout of an entry, are those of shared/area.pxd.

A journal has room for so many entries. A verb that repeats bounded steps commits each:
`log_commit`.

The legacy engine, the rebuilding at open and the repairs do not use them: they never
work in an arena that others have open.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef XMEM_PUT
    #include <stdint.h>
    #ifdef XMEM_LOGGED
    #if defined(__GLIBC__)
    #define XMEM_TLS static __thread __attribute__((tls_model("initial-exec")))
    #else
    #define XMEM_TLS static __thread
    #endif
    /* A word that may be two shorter ones. */
    typedef volatile uint64_t __attribute__((may_alias)) xmem_word_t;
    /* Where this thread works: the journal of that arena. */
    XMEM_TLS xmem_word_t *xmem_journal;
    static inline void xmem_log_to(uint64_t *journal)
    {
        xmem_journal = (xmem_word_t *)journal;
    }
    /* What has been stored so far can no longer be undone. The first entry lies behind
       two words. */
    static inline void xmem_commit(void)
    {
        *xmem_journal = 2 * sizeof(uint64_t);
    }
    static inline void xmem_note(xmem_word_t *word)
    {
        xmem_word_t *journal = xmem_journal;
        uint64_t end = journal[0];
        xmem_word_t *entry = (xmem_word_t *)((volatile char *)journal + end);
        entry[0] = (uint64_t)((volatile char *)word - (volatile char *)journal);
        entry[1] = *word;
        journal[0] = end + 16;
    }
    static inline void xmem_put(uint64_t *word, uint64_t value)
    {
        xmem_note((xmem_word_t *)word);
        *(volatile uint64_t *)word = value;
    }
    static inline void xmem_put32(uint32_t *word, uint32_t value)
    {
        xmem_note((xmem_word_t *)((uintptr_t)word & ~(uintptr_t)7));
        *(volatile uint32_t *)word = value;
    }
    #define XMEM_PUT(word, value) xmem_put((word), (value))
    #define XMEM_PUT32(word, value) xmem_put32((word), (value))
    #define XMEM_IS_LOGGED 1
    #else
    #define XMEM_PUT(word, value) (*(word) = (value))
    #define XMEM_PUT32(word, value) (*(word) = (value))
    #define XMEM_IS_LOGGED 0
    #define xmem_log_to(journal) ((void)(journal))
    #define xmem_commit() ((void)0)
    #endif
    #endif
    """
    bint LOGGED "XMEM_IS_LOGGED"
    # Names the journal of the arena in which the thread works from here on.
    void log_to "xmem_log_to"(uint64_t* journal) noexcept nogil
    # Between the steps of a long verb, where the heap is whole, and at its end.
    void log_commit "xmem_commit"() noexcept nogil
    void put "XMEM_PUT"(uint64_t* word, uint64_t value) noexcept nogil
    void put32 "XMEM_PUT32"(uint32_t* word, uint32_t value) noexcept nogil
