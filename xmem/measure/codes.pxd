# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that traces and measurements share: kinds of operations, verbs, path bits.

This is their only definition. Python reads the same names from the module
`xmem.measure.codes`, which also derives the dtype of a trace from ``op_t``.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cpdef enum:
    # Kinds of operations in a trace.
    OP_MALLOC = 0
    OP_FREE = 1
    OP_REALLOC = 2
    OP_CALLOC = 3
    OP_MEMALIGN = 4             # the greatest

    # Verbs whose calls are measured; `VERBS` has their names.
    VERB_XMALLOC = 0
    VERB_XFREE = 1
    VERB_XREALLOC = 2
    VERB_PAGE_ALLOC = 3
    VERB_PAGE_FREE = 4

    # What a call did, for `xmem.measure.counts.path_name`.
    PATH_LEFT = 1               # merged with the left neighbour
    PATH_RIGHT = 2              # merged with the right neighbour
    PATH_RETURNED = 4           # the pool gave pages back
    PATH_RUN = 8                # the block was, or became, a run of pages
    PATH_SPLIT = 16
    PATH_GROWN = 32             # the pool obtained pages
    PATH_MOVED = 64
    PATH_FAILED = 128

cdef enum:
    OWN_FUNCTION = 5            # in a verb's place: a function of the caller's own

cdef extern from *:
    """
    #define XMEM_SKIPPED (~(uint64_t)0)
    """
    # Ticks of an operation whose object does not exist.
    const uint64_t SKIPPED "XMEM_SKIPPED"


cdef packed struct op_t:
    uint8_t op
    uint8_t align_log2
    uint16_t thread
    uint32_t id
    uint64_t size


cdef inline unsigned verb_of(unsigned op) noexcept nogil:
    """Return the verb that serves a kind of operation."""
    if op == OP_FREE:
        return VERB_XFREE
    return VERB_XREALLOC if op == OP_REALLOC else VERB_XMALLOC
