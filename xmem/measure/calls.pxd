# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb, for the measurements that make them."""

from libc.stdint cimport uint64_t

from xmem.measure.callees cimport verb_t
from xmem.pool cimport Pool


cdef struct call_t:
    verb_t verb
    uint64_t a, b, c
    unsigned kind               # VERB_XMALLOC ... VERB_PAGE_FREE


cdef Pool pool_argument(object pool)

cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1
