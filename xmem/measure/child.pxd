# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the forked child: a trace, or one call, with markers to step from."""

from libc.stdint cimport uint8_t, uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.core.control cimport pool_t
from xmem.measure.calls cimport call_t
from xmem.measure.codes cimport op_t


cdef struct result_t:
    # Of one call; in memory that the parent shares.
    uint64_t value
    uint64_t path


cdef struct program_t:
    arena_t* arena
    pool_t* pool
    const op_t* ops
    const uint8_t* wanted       # per operation: count it
    uint64_t n_ops
    uint64_t* payloads          # per object; 0: not live
    result_t* results           # per operation
    unsigned checked            # VERB_CHECKED, or 0


cdef void child_trace(program_t* program) noexcept nogil

cdef void child_call(
    program_t* program, call_t* call, result_t* result
) noexcept nogil
