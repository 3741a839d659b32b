# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb at C level, made from Python arguments, to be measured.

`insn` counts their instructions and `cycles` times them. Both call the verb by its
address, after its arguments have been checked as the verb's Python method would.
"""

from xmem.base.errors import BadArgument, BadArgumentType
from xmem.measure.codes import VERBS as _VERB_NAMES

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport uint64_t

from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    offset_argument,
    size_argument,
)
from xmem.measure.callees cimport VERB_CHECKED, VERBS, verb_t
from xmem.measure.codes cimport (
    OWN_FUNCTION,
    VERB_PAGE_ALLOC,
    VERB_PAGE_FREE,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
)
from xmem.pool cimport Pool


#: What each verb takes, for messages and for the number of arguments.
_PARAMETERS = {
    "xmalloc": "n[, align]",
    "xfree": "offset",
    "xrealloc": "offset, n[, align]",
    "page_alloc": "n_pages",
    "page_free": "offset",
}


#: Name of a capsule with a caller's own function, a ``verb_t`` of callees.pxd.
cdef const char* VERB_CAPSULE = "xmem.verb_t"


cdef Pool pool_argument(object pool):
    if not isinstance(pool, Pool):
        raise BadArgumentType(f"pool must be a Pool, not {type(pool).__name__}")
    return pool


cdef unsigned verb_argument(object verb, Py_ssize_t n_args) except? 0:
    """Convert the name of a verb, and check the number of its arguments."""
    if not isinstance(verb, str):
        raise BadArgumentType(f"verb must be str, not {type(verb).__name__}")
    if verb not in _PARAMETERS:
        raise BadArgument(
            f"verb must be one of {', '.join(map(repr, _VERB_NAMES))}, not {verb!r}"
        )
    wanted = _PARAMETERS[verb]
    n_least = wanted.split("[")[0].count(",") + 1
    if not n_least <= n_args <= n_least + wanted.count("["):
        raise BadArgument(f"{verb} takes ({wanted}), not {n_args} arguments")
    return _VERB_NAMES.index(verb)


cdef int convert_arguments(call_t* call, tuple args) except -1:
    """Fill a call's words from Python arguments of the right number."""
    call.b = call.c = 0
    if call.kind == VERB_XMALLOC:
        call.a = size_argument(args[0])
        call.b = align_argument(args[1] if len(args) == 2 else 16)
    elif call.kind == VERB_PAGE_ALLOC:
        call.a = count_argument(args[0], "n_pages", 1)
    else:
        call.a = offset_argument(args[0])
    if call.kind == VERB_XREALLOC:
        call.b = size_argument(args[1])
        call.c = align_argument(args[2] if len(args) == 3 else 16)
    return 0


cdef int check_call(call_t* call, Pool pool, object verb) except -1:
    """Check a call against the pool, as the verb's Python method would."""
    pool.enter()
    if call.kind == VERB_PAGE_FREE:
        pool.arena.run_pages(call.a)
    elif call.kind == VERB_XFREE or call.kind == VERB_XREALLOC:
        pool.require_live(call.a, verb)
        pool.arena.refuse_exported(call.a)
    elif call.kind == VERB_XMALLOC:
        pool.require_alignment(call.b)
    elif call.a > pool.arena.c.n_pages:
        raise BadArgument(f"the arena has {pool.arena.n_pages} pages, not {call.a}")
    return 0


cdef int prepare_own(call_t* call, object function, tuple args) except -1:
    """Fill a call of a caller's own function, which takes up to three words."""
    cdef uint64_t[3] words
    cdef Py_ssize_t i
    if len(args) > 3:
        raise BadArgument(f"a function takes up to 3 words, not {len(args)}")
    for i in range(3):
        words[i] = offset_argument(args[i]) if i < len(args) else 0
    call.kind = OWN_FUNCTION
    call.verb = <verb_t>PyCapsule_GetPointer(function, VERB_CAPSULE)
    call.a, call.b, call.c = words[0], words[1], words[2]
    return 0


cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1:
    """Fill a call from Python arguments, after checking them."""
    if PyCapsule_IsValid(verb, VERB_CAPSULE):
        return prepare_own(call, verb, args)
    call.kind = verb_argument(verb, len(args))
    convert_arguments(call, args)
    check_call(call, pool, verb)
    call.verb = VERBS[
        call.kind + (VERB_CHECKED if checked and call.kind <= VERB_XREALLOC else 0)
    ]
    return 0
