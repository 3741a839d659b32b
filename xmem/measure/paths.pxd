# SPDX-License-Identifier: BSD-3-Clause
"""Which path a verb takes, derived from the heap before and after the call.

The bits are those of codes.pxd, for `xmem.measure.counts.path_name`. The verbs
themselves record nothing: a measurement looks at the heap on both sides of a call.
"""

from libc.stdint cimport uint64_t

from xmem.arena.records cimport FRAME_WHOLE, frame_state
from xmem.arena.superblock cimport arena_t, page_of
from xmem.base.engines cimport ENGINE_TLSF
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    PAGE_RULE_BYTES,
    block_of,
    block_word,
    word_size,
)
from xmem.measure.codes cimport (
    PATH_FAILED,
    PATH_GROWN,
    PATH_LEFT,
    PATH_MOVED,
    PATH_RETURNED,
    PATH_RIGHT,
    PATH_RUN,
    PATH_SPLIT,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
)


cdef inline uint64_t path_before(
    arena_t* arena, pool_t* pool, unsigned verb, offset_t payload
) noexcept nogil:
    """Return the bits of a call's path that are known before it is made."""
    cdef uint64_t word
    cdef offset_t block
    if verb != VERB_XFREE and verb != VERB_XREALLOC:
        return 0
    if (payload & (PAGE_RULE_BYTES - 1)) == 0 and frame_state(
        arena.frames[page_of(arena, payload)].word
    ) == FRAME_WHOLE:
        return PATH_RUN
    if verb != VERB_XFREE or pool.engine != ENGINE_TLSF:
        return 0
    block = block_of(payload)
    word = block_word(arena.base, block)
    return (PATH_LEFT if word & BLOCK_PREV_FREE else 0) | (
        PATH_RIGHT
        if block_word(arena.base, block + word_size(word)) & BLOCK_FREE
        else 0
    )


cdef inline uint64_t path_after(
    arena_t* arena,
    pool_t* pool,
    unsigned verb,
    offset_t payload,
    uint64_t value,
    uint64_t n_pages,
) noexcept nogil:
    """Return the bits that the call itself decides.

    It returned ``value``; before it, the pool had ``n_pages``.
    """
    cdef uint64_t path = 0
    cdef uint64_t word
    if value == 0:
        return PATH_FAILED
    if pool.n_pages < n_pages:
        path |= PATH_RETURNED
    if pool.n_pages > n_pages:
        path |= PATH_GROWN
    if verb == VERB_XREALLOC and value != payload:
        path |= PATH_MOVED
    if verb != VERB_XMALLOC or pool.engine != ENGINE_TLSF:
        return path
    if (value & (PAGE_RULE_BYTES - 1)) == 0:
        return path | PATH_RUN
    word = block_word(arena.base, block_of(value))
    # No two free blocks are neighbours, so one after a new block was split off.
    if block_word(arena.base, block_of(value) + word_size(word)) & BLOCK_FREE:
        path |= PATH_SPLIT
    return path
