# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the forked child: a trace, or one call, with markers to step from.

The child stops at a marker in front of each call that is to be counted, see
tracee.pxd, and ends when its program does. It runs C code only.
"""

from libc.stdint cimport uint64_t

from xmem.arena.vm cimport vm_forks
from xmem.base.bits cimport bit
from xmem.measure.callees cimport VERBS
from xmem.measure.calls cimport call_t, run_call
from xmem.measure.codes cimport (
    OP_MEMALIGN,
    PATH_FAILED,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
    op_t,
    verb_of,
)
from xmem.measure.paths cimport path_after, path_before
from xmem.measure.tracee cimport tracee_exit, tracee_marker
from xmem.shared.identity cimport member_t


cdef uint64_t counted_call(
    program_t* program, call_t* call, result_t* result
) noexcept nogil:
    """Make one call after a marker; record its value and its path."""
    cdef uint64_t path = path_before(program.arena, program.pool, call.kind, call.a)
    cdef uint64_t n_pages = program.pool.n_pages
    tracee_marker()
    result.value = run_call(call, program.arena, program.pool)
    result.path = path | path_after(
        program.arena, program.pool, call.kind, call.a, result.value, n_pages
    )
    return result.value


cdef bint call_for(
    program_t* program, const op_t* op, call_t* call
) noexcept nogil:
    """Fill the call for an operation; False if its object does not exist."""
    cdef uint64_t payload = program.payloads[op.id]
    call.kind = verb_of(op.op)
    call.verb = VERBS[call.kind + program.checked]
    call.a = payload
    call.b = op.size
    call.c = 0
    if call.kind == VERB_XREALLOC:
        call.c = 16
    elif call.kind == VERB_XMALLOC:
        call.a = op.size
        call.b = bit(op.align_log2) if op.op == OP_MEMALIGN else 16
        return True
    return payload != 0


cdef void child_trace(program_t* program) noexcept nogil:
    """Play a trace, in the child."""
    cdef uint64_t i, value
    cdef call_t call
    cdef result_t* result
    for i in range(program.n_ops):
        result = &program.results[i]
        if not call_for(program, &program.ops[i], &call):
            result.path = PATH_FAILED
            if program.wanted[i]:
                tracee_marker()     # no call follows: see _Tracer.to_verb
            continue
        if program.wanted[i]:
            value = counted_call(program, &call, result)
        else:
            value = run_call(&call, program.arena, program.pool)
        if call.kind == VERB_XFREE:
            program.payloads[program.ops[i].id] = 0
        elif value != 0 or call.kind == VERB_XMALLOC:
            program.payloads[program.ops[i].id] = value
    tracee_exit()


cdef void child_call(
    program_t* program, call_t* call, result_t* result
) noexcept nogil:
    """Make one call, in the child; in a shared arena for its parent, which waits."""
    if program.arena.routes != NULL:
        (<member_t*>program.arena.routes).forks = vm_forks
    counted_call(program, call, result)
    tracee_exit()
