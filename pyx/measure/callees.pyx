# SPDX-License-Identifier: BSD-3-Clause
"""The verbs as functions of two shapes, which are called by address.

They are compiled alone, so that their instructions depend on the core and on no
other code of the laboratory.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport frames_alloc_aligned, frames_free
from xmem.arena.records cimport FRAME_RUN
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.bits cimport exact_log2
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.measure.codes cimport (
    VERB_PAGE_ALLOC,
    VERB_PAGE_FREE,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
)
from xmem.verbs cimport pool_alloc, pool_free, pool_free_if_owned, pool_resize

cdef uint64_t do_xmalloc(
    arena_t* arena, pool_t* pool, uint64_t n, uint64_t alignment, uint64_t _c
) noexcept nogil:
    return pool_alloc(arena, pool, n, alignment)


cdef void do_xfree(arena_t* arena, pool_t* pool, uint64_t payload) noexcept nogil:
    pool_free(arena, pool, payload)


cdef uint64_t do_xrealloc(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t n, uint64_t alignment
) noexcept nogil:
    return pool_resize(arena, pool, payload, n, alignment)


cdef uint64_t do_page_alloc(
    arena_t* arena, pool_t* _pool, uint64_t n_pages, uint64_t _b, uint64_t _c
) noexcept nogil:
    return page_offset(
        arena,
        frames_alloc_aligned(arena, n_pages, exact_log2(n_pages), FRAME_RUN, 0),
    )


cdef void do_page_free(
    arena_t* arena, pool_t* _pool, uint64_t offset
) noexcept nogil:
    frames_free(arena, <uint32_t>page_of(arena, offset))


cdef uint64_t do_checked_xfree(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t _b, uint64_t _c
) noexcept nogil:
    return pool_free_if_owned(arena, pool, payload)


cdef uint64_t do_checked_xrealloc(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t n, uint64_t alignment
) noexcept nogil:
    if not pool_owns(arena, pool, payload):
        return 0
    return pool_resize(arena, pool, payload, n, alignment)


VERBS[VERB_XMALLOC] = do_xmalloc
VERBS[VERB_XFREE] = <verb_t>do_xfree
VERBS[VERB_XREALLOC] = do_xrealloc
VERBS[VERB_PAGE_ALLOC] = do_page_alloc
VERBS[VERB_PAGE_FREE] = <verb_t>do_page_free
VERBS[VERB_CHECKED + VERB_XMALLOC] = do_xmalloc
VERBS[VERB_CHECKED + VERB_XFREE] = do_checked_xfree
VERBS[VERB_CHECKED + VERB_XREALLOC] = do_checked_xrealloc
