# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb by its address, for the measurements that make them."""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.core.control cimport pool_t
from xmem.pool cimport Pool

# All verbs have one shape, so that they can be called by address.
ctypedef uint64_t (*verb_t)(
    arena_t*, pool_t*, uint64_t, uint64_t, uint64_t
) noexcept nogil

cdef enum:
    VERB_CHECKED = 5            # added to a verb: prove the offset first
    N_VERBS = 8


cdef struct call_t:
    verb_t verb
    uint64_t a, b, c
    unsigned kind               # VERB_XMALLOC ... VERB_PAGE_FREE


cdef verb_t[N_VERBS] VERBS

cdef Pool pool_argument(object pool)

cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1
