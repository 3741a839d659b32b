# SPDX-License-Identifier: BSD-3-Clause
"""Which path a verb takes: told from what it finds and what it leaves.

Bits for `xmem.measure.counts.path_name`. Nothing of this is in a verb; who wants to
know looks before the call and behind it.
"""

from libc.stdint cimport uint64_t

from xmem.arena.frames cimport FRAME_WHOLE, frame_state
from xmem.arena.superblock cimport arena_t, page_of
from xmem.base.offset cimport offset_t
from xmem.core.control cimport ENGINE_TLSF, pool_t
from xmem.engine.block cimport (
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    PAGE_RULE_BYTES,
    block_of,
    block_word,
    word_size,
)

cdef enum:
    VERB_XMALLOC = 0
    VERB_XFREE = 1
    VERB_XREALLOC = 2
    VERB_PAGE_ALLOC = 3
    VERB_PAGE_FREE = 4

    PATH_LEFT = 1               # merged with the left neighbour
    PATH_RIGHT = 2
    PATH_RETURNED = 4           # pages were given back
    PATH_RUN = 8                # the block was, or became, a run of pages
    PATH_SPLIT = 16
    PATH_GROWN = 32             # pages were obtained
    PATH_MOVED = 64
    PATH_FAILED = 128


cdef inline uint64_t path_before(
    arena_t* arena, pool_t* pool, unsigned verb, offset_t payload
) noexcept nogil:
    """What can be told of a call's path before it is made."""
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
    """The rest of it: the call answered ``value``; before, the pool had ``n_pages``."""
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
    # A free block has no free neighbour: one behind a new block was cut off.
    if block_word(arena.base, block_of(value) + word_size(word)) & BLOCK_FREE:
        path |= PATH_SPLIT
    return path
