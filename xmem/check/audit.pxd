# SPDX-License-Identifier: BSD-3-Clause
"""The audit of a checked build (XMEM_CHECKED): every numbered invariant, asserted.

An audit verifies the page frames and the pool as `Pool.check` does. Not every verb is
followed by one: on average a verb pays for 2**AUDIT_SHARE_LOG2 blocks or pages. A
broken invariant is printed and aborts the process.

The environment variable ``XMEM_AUDIT=0``, read when an arena is made or opened, turns
audits off, for programs that damage an arena on purpose.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport arena_t, check_frames
from xmem.base cimport AUDIT_OFF, checker_pause, checker_resume, finding_t
from xmem.check.census cimport census_t
from xmem.check.control cimport check_control
from xmem.check.pool cimport check_pool
from xmem.core.control cimport pool_t
from xmem.core.routes cimport is_door

cdef extern from *:
    """
    #ifndef XMEM_AUDIT
    #define XMEM_AUDIT
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    __attribute__((unused))
    static void xmem_audit_failed(unsigned code, uint64_t offset,
                                  uint64_t found, uint64_t expected)
    {
        fprintf(stderr,
                "xmem: invariant %c%u broken at offset 0x%llx: "
                "found 0x%llx, expected 0x%llx\\n",
                (char)(code / 100), code % 100, (unsigned long long)offset,
                (unsigned long long)found, (unsigned long long)expected);
        abort();
    }
    #endif
    """
    void audit_failed "xmem_audit_failed"(
        unsigned code, uint64_t offset, uint64_t found, uint64_t expected
    ) noexcept nogil


cdef enum:
    AUDIT_SHARE_LOG2 = 4


cdef inline void audit(arena_t* arena, pool_t* pool) noexcept nogil:
    """Verify arena and pool, if an audit is due."""
    cdef census_t census
    cdef finding_t finding
    cdef bint is_sound
    if arena.audit_left == AUDIT_OFF:
        return
    if arena.audit_left > 0:
        arena.audit_left -= 1
        return
    if is_door(arena, pool):
        return
    checker_pause()
    is_sound = (
        check_frames(arena, &finding)
        and check_control(arena, <uint32_t>pool.number, &finding)
        and check_pool(arena, pool, &census, &finding)
    )
    checker_resume()
    if not is_sound:
        audit_failed(
            finding.code, finding.offset, finding.found, finding.expected
        )
    arena.audit_left = (
        census.n_used + census.n_free + arena.n_pages
    ) >> AUDIT_SHARE_LOG2
