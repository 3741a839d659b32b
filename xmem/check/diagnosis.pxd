# SPDX-License-Identifier: BSD-3-Clause
"""What lies around a place where an invariant does not hold."""

from xmem.arena.superblock cimport arena_t
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t

cdef dict diagnose(arena_t* arena, pool_t* pool, offset_t offset)
