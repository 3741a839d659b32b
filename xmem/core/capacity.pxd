# SPDX-License-Identifier: BSD-3-Clause
"""How many bytes a live block has, whatever its pool is hardened with."""

from libc.stdint cimport uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.base.checks cimport unlikely
from xmem.base.memcheck cimport checker_pause, checker_resume
from xmem.base.offset cimport offset_t
from xmem.core.control cimport POOL_HARDENED, pool_t
from xmem.core.hardened cimport hard_capacity
from xmem.core.plain cimport plain_capacity


cdef inline uint64_t pool_capacity(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Bytes that may be used at ``payload``, a live block of the pool."""
    cdef uint64_t capacity
    checker_pause()
    if unlikely(pool.flags & POOL_HARDENED):
        capacity = hard_capacity(arena, pool, payload)
    else:
        capacity = plain_capacity(arena, pool, payload)
    checker_resume()
    return capacity
