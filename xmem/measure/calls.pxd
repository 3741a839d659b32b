# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb, for the measurements that make them."""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.core.control cimport pool_t
from xmem.measure.callees cimport VERBS, verb_t, void_verb_t
from xmem.measure.codes cimport VERB_PAGE_FREE, VERB_XFREE
from xmem.pool cimport Pool


cdef struct call_t:
    verb_t verb
    uint64_t a, b, c
    unsigned kind               # VERB_XMALLOC ... VERB_PAGE_FREE


cdef inline uint64_t run_call(
    const call_t* call, arena_t* arena, pool_t* pool
) noexcept nogil:
    """Make a call; return what its verb does, or 1 where that returns nothing."""
    if call.verb == VERBS[VERB_XFREE] or call.verb == VERBS[VERB_PAGE_FREE]:
        (<void_verb_t>call.verb)(arena, pool, call.a)
        return 1
    return call.verb(arena, pool, call.a, call.b, call.c)


cdef Pool pool_argument(object pool)

cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1
