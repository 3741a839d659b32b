# SPDX-License-Identifier: BSD-3-Clause
"""Why an integer is no live block, and what lies around damage."""

from xmem.arena.superblock cimport arena_t
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t

cdef dict diagnose(arena_t* arena, pool_t* pool, offset_t offset)
cdef object explain_refusal(arena_t* arena, pool_t* pool, offset_t payload,
                            str call)
