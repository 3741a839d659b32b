# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb at C level, from Python arguments: to be measured.

`insn` steps them and `cycles` times them. Both call a verb by its address, with
arguments that were proved as the verb's Python face would prove them.
"""

from xmem.base.errors import BadArgument, BadArgumentType

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport FRAME_RUN, frames_alloc, frames_free
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    offset_argument,
    size_argument,
)
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.measure.paths cimport (
    VERB_PAGE_ALLOC,
    VERB_PAGE_FREE,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
)
from xmem.pool cimport Pool
from xmem.verbs cimport pool_alloc, pool_free, pool_free_if_owned, pool_resize

_VERB_NAMES = ("xmalloc", "xfree", "xrealloc", "page_alloc", "page_free")


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

cdef Pool pool_argument(object pool):
    if not isinstance(pool, Pool):
        raise BadArgumentType(f"pool must be a Pool, not {type(pool).__name__}")
    return pool


cdef int prepare_call(
    call_t* call, Pool pool, object verb, tuple args, bint checked
) except -1:
    """Fill a call from Python arguments, proved as the verb itself would."""
    cdef offset_t payload = 0
    wants = {
        "xmalloc": "n[, align]",
        "xfree": "offset",
        "xrealloc": "offset, n[, align]",
        "page_alloc": "n_pages",
        "page_free": "offset",
    }
    if not isinstance(verb, str):
        raise BadArgumentType(f"verb must be a str, not {type(verb).__name__}")
    if verb not in wants:
        raise BadArgument(
            f"verb must be one of {', '.join(map(repr, wants))}, not {verb!r}"
        )
    n_least = wants[verb].split("[")[0].count(",") + 1
    if not n_least <= len(args) <= n_least + wants[verb].count("["):
        raise BadArgument(f"{verb} takes ({wants[verb]}), not {len(args)} arguments")
    call.b = call.c = 0
    call.kind = _VERB_NAMES.index(verb)
    if verb == "xmalloc":
        call.a = size_argument(args[0])
        call.b = align_argument(args[1] if len(args) == 2 else 16)
    elif verb == "page_alloc":
        call.a = count_argument(args[0], "n_pages", 1)
    else:
        payload = call.a = offset_argument(args[0])
    if verb == "xrealloc":
        call.b = size_argument(args[1])
        call.c = align_argument(args[2] if len(args) == 3 else 16)
    pool.enter()
    if verb == "page_free":
        pool.arena.run_pages(payload)
    elif verb in ("xfree", "xrealloc"):
        pool.require_live(payload, verb)
        pool.arena.refuse_exported(payload)
    elif verb == "xmalloc":
        pool.admit_alignment(call.b)
    elif call.a > pool.arena.c.n_pages:
        raise BadArgument(f"the arena has {pool.arena.n_pages} pages, not {args[0]}")
    call.verb = VERBS[
        call.kind + (VERB_CHECKED if checked and call.kind <= VERB_XREALLOC else 0)
    ]
    return 0
