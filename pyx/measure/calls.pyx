# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb at C level, made from Python arguments, to be measured.

`insn` counts their instructions and `cycles` times them. Both call the verb by its
address, after its arguments have been checked as the verb's Python method would.
"""

from xmem.base.errors import BadArgument, BadArgumentType
from xmem.measure.codes import VERBS as _VERB_NAMES

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport FRAME_RUN, frames_alloc, frames_free
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    offset_argument,
    size_argument,
)
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.measure.codes cimport (
    VERB_PAGE_ALLOC,
    VERB_PAGE_FREE,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
)
from xmem.pool cimport Pool
from xmem.verbs cimport pool_alloc, pool_free, pool_free_if_owned, pool_resize


# The verbs -------------------------------------------------------------------

cdef uint64_t do_xmalloc(
    arena_t* arena, pool_t* pool, uint64_t n, uint64_t alignment, uint64_t _c
) noexcept nogil:
    return pool_alloc(arena, pool, n, alignment)


cdef uint64_t do_xfree(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t _b, uint64_t _c
) noexcept nogil:
    pool_free(arena, pool, payload)
    return 1


cdef uint64_t do_xrealloc(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t n, uint64_t alignment
) noexcept nogil:
    return pool_resize(arena, pool, payload, n, alignment)


cdef uint64_t do_page_alloc(
    arena_t* arena, pool_t* _pool, uint64_t n_pages, uint64_t _b, uint64_t _c
) noexcept nogil:
    return page_offset(arena, frames_alloc(arena, n_pages, FRAME_RUN, 0))


cdef uint64_t do_page_free(
    arena_t* arena, pool_t* _pool, uint64_t offset, uint64_t _b, uint64_t _c
) noexcept nogil:
    frames_free(arena, <uint32_t>page_of(arena, offset))
    return 1


cdef uint64_t do_checked_xfree(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t _b, uint64_t _c
) noexcept nogil:
    return pool_free_if_owned(arena, pool, payload)


cdef uint64_t do_checked_xrealloc(
    arena_t* arena, pool_t* pool, uint64_t payload, uint64_t n, uint64_t alignment
) noexcept nogil:
    if not pool_owns(arena, pool, payload):
        return 0
    return pool_resize(arena, pool, payload, n, alignment)


VERBS[VERB_XMALLOC] = do_xmalloc
VERBS[VERB_XFREE] = do_xfree
VERBS[VERB_XREALLOC] = do_xrealloc
VERBS[VERB_PAGE_ALLOC] = do_page_alloc
VERBS[VERB_PAGE_FREE] = do_page_free
VERBS[VERB_CHECKED + VERB_XMALLOC] = do_xmalloc
VERBS[VERB_CHECKED + VERB_XFREE] = do_checked_xfree
VERBS[VERB_CHECKED + VERB_XREALLOC] = do_checked_xrealloc


# From Python -----------------------------------------------------------------

#: What each verb takes, for messages and for the number of arguments.
_PARAMETERS = {
    "xmalloc": "n[, align]",
    "xfree": "offset",
    "xrealloc": "offset, n[, align]",
    "page_alloc": "n_pages",
    "page_free": "offset",
}


cdef Pool pool_argument(object pool):
    if not isinstance(pool, Pool):
        raise BadArgumentType(f"pool must be a Pool, not {type(pool).__name__}")
    return pool


cdef unsigned verb_argument(object verb, Py_ssize_t n_args) except? 0:
    """Convert the name of a verb, and check the number of its arguments."""
    if not isinstance(verb, str):
        raise BadArgumentType(f"verb must be a str, not {type(verb).__name__}")
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


cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1:
    """Fill a call from Python arguments, after checking them."""
    call.kind = verb_argument(verb, len(args))
    convert_arguments(call, args)
    check_call(call, pool, verb)
    call.verb = VERBS[
        call.kind + (VERB_CHECKED if checked and call.kind <= VERB_XREALLOC else 0)
    ]
    return 0
