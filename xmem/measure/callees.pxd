# SPDX-License-Identifier: BSD-3-Clause
"""The verbs as functions of two shapes, which are called by address."""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.core.control cimport pool_t

ctypedef uint64_t (*verb_t)(
    arena_t*, pool_t*, uint64_t, uint64_t, uint64_t
) noexcept nogil

# What a verb that returns nothing is called as.
ctypedef void (*void_verb_t)(arena_t*, pool_t*, uint64_t) noexcept nogil

cdef enum:
    VERB_CHECKED = 5            # added to a verb: prove the offset first
    N_VERBS = 8


cdef verb_t[N_VERBS] VERBS
