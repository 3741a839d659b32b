# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of a pool at C level: no Python object, no lock, no check.

``pool_alloc`` returns the offset of a payload, or 0. ``pool_free`` and
``pool_resize`` trust their argument; ``pool_owns`` (core/plain.pxd) says exactly
whether an integer may be given to them, and Python callers always pass
through it. A hardened pool takes the detour of core/hardened.pxd, whose verbs
record damage in ``pool.hard.damage`` and then change nothing; one with quick
lists passes through core/quicklists.pxd; everything else goes straight to
core/plain.pxd.

In a build with checks the verbs tell memory checkers about every payload, and
assert every numbered invariant at their end.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena cimport FRAME_RUN, arena_t, page_offset
from xmem.base cimport (
    MEMCHECKED,
    checker_pause,
    checker_resume,
    likely,
    log_commit,
    memory_allocated,
    memory_defined,
    memory_freed,
    offset_t,
    unlikely,
)
from xmem.check.audit cimport audit
from xmem.core cimport POOL_HARDENED, pool_capacity, pool_t, start_test
from xmem.core.hardened cimport (
    hard_alloc,
    hard_free,
    hard_prepare_free,
    hard_resize,
    hard_run,
    hard_run_resize,
    quarantine_drain_for,
)
from xmem.core.growth cimport region_give, run_alloc
from xmem.core.plain cimport (
    alloc_t,
    copy_payload,
    has_tag,
    outlined_alloc,
    outlined_free,
    outlined_owned,
    owns_run,
    plain_alloc,
    plain_free,
    plain_resize,
    pool_alignment,
    run_resize,
    tlsf_pool_free,
    tlsf_pool_refill,
    tlsf_pool_run,
    tlsf_pool_short,
)
from xmem.core.quicklists cimport (
    QUICK_DRAIN,
    quick_give,
    quick_miss,
    quick_overflow,
    quick_put,
    quick_search,
    quick_take,
)
from xmem.core.routes cimport is_door, routed_free, routed_pages
from xmem.engine.block cimport BLOCK_GRAIN, PAGE_RULE_BYTES


ctypedef offset_t (*move_t)(
    arena_t*, pool_t*, offset_t, uint64_t, uint64_t
) noexcept nogil

cdef extern from *:
    move_t outlined_move "XMEM_OUTLINED"(move_t function) noexcept nogil


cdef inline offset_t long_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of what is neither small nor may have waited on a quick list."""
    if pool.quicklists != 0:
        return outlined_alloc(quick_search)(arena, pool, n_bytes, alignment)
    if unlikely(pool.flags & POOL_HARDENED):
        return outlined_alloc(hard_alloc)(arena, pool, n_bytes, alignment)
    return plain_alloc(arena, pool, n_bytes, alignment)


cdef inline offset_t short_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """``pool_alloc`` aligned to 16 of what needs no search, or 0; calls nothing."""
    if likely(n_bytes < pool.short_limit):
        return tlsf_pool_short(arena, pool, n_bytes)
    if likely(n_bytes < pool.quick_below):
        return quick_take(arena, pool, n_bytes)
    return 0


cdef inline offset_t rest_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of what ``short_alloc`` does not serve."""
    if likely(alignment <= BLOCK_GRAIN):
        if likely(n_bytes < pool.short_limit):
            return outlined_alloc(tlsf_pool_refill)(arena, pool, n_bytes, alignment)
        if likely(n_bytes < pool.quick_below):
            return outlined_alloc(quick_miss)(arena, pool, n_bytes, alignment)
    return outlined_alloc(long_alloc)(arena, pool, n_bytes, alignment)


cdef inline offset_t any_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc``; the short paths in line, and each of the others one jump away."""
    cdef offset_t payload = 0
    if likely(alignment <= BLOCK_GRAIN):
        payload = short_alloc(arena, pool, n_bytes)
    if likely(payload != 0):
        return payload
    return rest_alloc(arena, pool, n_bytes, alignment)


cdef inline bint short_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of most blocks; False if ``long_free`` has to do it."""
    if unlikely((payload & (PAGE_RULE_BYTES - 1)) == 0):
        return False
    if likely(pool.short_limit != 0):
        tlsf_pool_free(arena, pool, payload)
        return True
    return pool.quicklists != 0 and quick_put(arena, pool, payload)


cdef inline void long_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of a run, or of a block that ``short_free`` does not free."""
    if likely(pool.quicklists != 0):
        outlined_free(quick_overflow)(arena, pool, payload)
    elif pool.flags & POOL_HARDENED:
        hard_free(arena, pool, payload)
    else:
        plain_free(arena, pool, payload)


cdef inline offset_t pool_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a new block of ``n_bytes``, or 0 when there is no room.

    ``alignment`` is a power of two; less than 16 counts as 16.
    """
    cdef offset_t payload
    checker_pause()
    payload = any_alloc(arena, pool, n_bytes, alignment)
    checker_resume()
    if MEMCHECKED and payload != 0:
        memory_allocated(
            pool, arena.base + payload, pool_capacity(arena, pool, payload)
        )
        audit(arena, pool)
    return payload


cdef inline offset_t pool_xzalloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a new block of ``n_bytes`` zeros, or 0."""
    cdef offset_t payload = pool_alloc_patiently(arena, pool, n_bytes, alignment)
    if payload != 0:
        memset(arena.base + payload, 0, n_bytes)
    return payload


cdef inline void pool_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block of ``pool_alloc``."""
    cdef uint64_t capacity = 0
    if MEMCHECKED:
        capacity = pool_capacity(arena, pool, payload)
        memory_freed(pool, arena.base + payload, capacity)
    checker_pause()
    if unlikely(not short_free(arena, pool, payload)):
        outlined_free(long_free)(arena, pool, payload)
    checker_resume()
    # A hardened pool keeps a damaged block.
    if MEMCHECKED and start_test(arena, payload):
        memory_allocated(pool, arena.base + payload, capacity)
    if MEMCHECKED:
        audit(arena, pool)


cdef inline bint free_run_if_owned(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """As ``pool_free_if_owned``, where no start bit is set."""
    if not owns_run(arena, pool, payload):
        return routed_free(arena, pool, payload)
    pool_free(arena, pool, payload)
    return True


cdef inline bint pool_free_if_owned(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free the block at ``payload``, any integer, if it is one of this pool.

    ``pool_owns`` and ``pool_free`` together, for callers who do not trust their
    pointers.
    """
    if unlikely(not start_test(arena, payload)):
        return outlined_owned(free_run_if_owned)(arena, pool, payload)
    if unlikely(not has_tag(arena, pool, payload)):
        return outlined_owned(routed_free)(arena, pool, payload)
    pool_free(arena, pool, payload)
    return True


cdef inline offset_t pool_resize_by(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """``pool_resize``; ``may_give`` says whether a region may leave with a move."""
    cdef offset_t moved
    cdef uint64_t capacity = 0
    if MEMCHECKED:
        capacity = pool_capacity(arena, pool, payload)
        memory_freed(pool, arena.base + payload, capacity)
    checker_pause()
    if unlikely(pool.flags & POOL_HARDENED):
        moved = hard_resize(arena, pool, payload, n_bytes, alignment, may_give)
    else:
        moved = plain_resize(arena, pool, payload, n_bytes, alignment, may_give)
    checker_resume()
    if MEMCHECKED:
        if moved != 0:
            payload = moved
            capacity = pool_capacity(arena, pool, moved)
        memory_allocated(pool, arena.base + payload, capacity)
        memory_defined(arena.base + payload, capacity)
        audit(arena, pool)
    return moved


cdef inline offset_t pool_resize(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
) noexcept nogil:
    """Payload with room for ``n_bytes`` and the old contents, or 0.

    In place, else leftwards, else moved. The alignment becomes the greater of
    ``alignment`` and the block's own. After 0 the block is as it was. Where room has to
    be made first, this call does not, and no region leaves with a block that moves: see
    `pool_resize_patiently`.
    """
    return pool_resize_by(arena, pool, payload, n_bytes, alignment, False)


# Blocks of whole pages, which heaps ask for below the alignment that needs them ---

cdef inline void pool_drain(arena_t* arena, pool_t* pool) noexcept nogil:
    """Free a few of the blocks that wait, for a run of pages that found no room.

    While they wait, no region leaves the pool to make room.
    """
    if pool.hard.n_waiting != 0 and pool.hard.damage.code == 0:
        quarantine_drain_for(arena, pool, ~<uint64_t>0)
    elif pool.quick_count != 0:
        quick_give(arena, pool, QUICK_DRAIN)


cdef inline offset_t pool_alloc_run(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a TLSF pool's block of whole pages, or 0."""
    cdef offset_t payload
    if unlikely(pool.flags & POOL_HARDENED):
        return hard_run(arena, pool, n_bytes, alignment)
    payload = tlsf_pool_run(arena, pool, n_bytes, alignment)
    if unlikely(payload == 0):
        pool_drain(arena, pool)
    return payload


cdef inline offset_t pool_lend_pages(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    """Offset of a run of ``n_pages`` that is no block, of page_alloc, or 0."""
    cdef uint32_t page
    if n_pages > arena.n_pages:
        return 0
    page = run_alloc(arena, pool, n_pages, alignment, FRAME_RUN)
    if unlikely(page == 0):
        pool_drain(arena, pool)
        return routed_pages(arena, pool, n_pages, alignment)
    return page_offset(arena, page)


cdef inline bint pool_resize_run(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Resize a sound block of whole pages within its pages; False above them."""
    if unlikely(pool.flags & POOL_HARDENED):
        return not is_door(arena, pool) and (
            hard_run_resize(arena, pool, payload, n_bytes)
        )
    return run_resize(arena, pool, payload, n_bytes)


# For callers who would rather wait than fail ----------------------------------

cdef enum:
    PATIENCE = 32           # attempts while blocks wait; as many while regions leave
    PATIENT_DRAINS = 5      # times QUICK_DRAIN blocks, before an attempt


cdef inline void pool_drain_patiently(arena_t* arena, pool_t* pool) noexcept nogil:
    """Free PATIENT_DRAINS times QUICK_DRAIN blocks of the quick lists."""
    cdef unsigned _i
    for _i in range(PATIENT_DRAINS):
        log_commit()
        quick_give(arena, pool, QUICK_DRAIN)


cdef inline offset_t pool_repeat(
    alloc_t attempt,
    arena_t* arena,
    pool_t* pool,
    uint64_t n,
    uint64_t alignment,
    uint64_t n_pages,
) noexcept nogil:
    """Repeat an attempt while it makes room.

    First blocks leave the quick lists before each but the first, PATIENCE times at
    most. Then it goes on as long as attempts for some ``n_pages`` make room, or an
    empty region leaves after them, PATIENCE times at most.
    """
    cdef offset_t payload = 0
    cdef uint64_t n_regions, n_waiting
    cdef unsigned n_drains = PATIENCE
    cdef unsigned n_more = PATIENCE
    while True:
        log_commit()
        n_regions = pool.n_regions
        n_waiting = pool.quick_bytes + pool.hard.n_waiting
        payload = attempt(arena, pool, n, alignment)
        if payload != 0 or pool.hard.damage.code != 0:
            break
        log_commit()
        if pool.quick_count != 0 and n_drains != 0:
            n_drains -= 1
            pool_drain_patiently(arena, pool)
            continue
        if n_more == 0 or (
            n_regions == pool.n_regions
            and n_waiting == pool.quick_bytes + pool.hard.n_waiting
            and not region_give(arena, pool, n_pages)
        ):
            break
        n_more -= 1
    return payload


cdef inline offset_t pool_try_again(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Repeat a ``pool_alloc`` that found no room."""
    return pool_repeat(
        pool_alloc, arena, pool, n_bytes, alignment, n_bytes >> arena.page_shift
    )


cdef inline offset_t pool_alloc_run_patiently(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Like ``pool_alloc_run``, but retries while each attempt makes room."""
    cdef offset_t payload = pool_alloc_run(arena, pool, n_bytes, alignment)
    if likely(payload != 0 or pool.hard.damage.code != 0):
        return payload
    return pool_repeat(
        pool_alloc_run, arena, pool, n_bytes, alignment, n_bytes >> arena.page_shift
    )


cdef inline offset_t pool_lend_pages_patiently(
    arena_t* arena, pool_t* pool, uint64_t n_pages, uint64_t alignment
) noexcept nogil:
    """Like ``pool_lend_pages``, but retries while each attempt makes room."""
    cdef offset_t offset = pool_lend_pages(arena, pool, n_pages, alignment)
    if likely(offset != 0 or pool.hard.damage.code != 0):
        return offset
    return pool_repeat(pool_lend_pages, arena, pool, n_pages, alignment, n_pages)


cdef inline offset_t pool_alloc_short(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """``pool_alloc_patiently`` aligned to 16 of what needs no search, or 0.

    It calls nothing. A caller who goes on with ``pool_alloc_rest`` in a function of its
    own spares most requests the registers that this needs.
    """
    return 0 if MEMCHECKED else short_alloc(arena, pool, n_bytes)


cdef inline offset_t pool_alloc_rest(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc_patiently`` of what ``pool_alloc_short`` does not serve."""
    cdef offset_t payload
    if MEMCHECKED:
        payload = pool_alloc(arena, pool, n_bytes, alignment)
    else:
        payload = rest_alloc(arena, pool, n_bytes, alignment)
    if likely(payload != 0):
        return payload
    return outlined_alloc(pool_try_again)(arena, pool, n_bytes, alignment)


cdef inline offset_t pool_alloc_patiently(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Like ``pool_alloc``, but retries while each attempt makes room.

    A call frees a few of the blocks that wait on quick lists or in quarantine, or gives
    one empty region back. Where that does not suffice, the next goes on. Each attempt
    is bounded as ``pool_alloc`` is, and there are 2 * PATIENCE + 1 more at most.
    """
    cdef offset_t payload = 0
    if likely(alignment <= BLOCK_GRAIN):
        payload = pool_alloc_short(arena, pool, n_bytes)
    if likely(payload != 0):
        return payload
    return outlined_alloc(pool_alloc_rest)(arena, pool, n_bytes, alignment)


cdef inline offset_t pool_move(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a new block of ``n_bytes`` with the old contents, or 0.

    An allocation, a copy and a free, each bounded as it is alone.
    """
    cdef uint64_t own = pool_alignment(arena, pool, payload)
    cdef uint64_t capacity = pool_capacity(arena, pool, payload)
    cdef offset_t moved
    if pool.flags & POOL_HARDENED and (
        is_door(arena, pool) or not hard_prepare_free(arena, pool, payload)
    ):
        return 0
    moved = pool_alloc_patiently(
        arena, pool, n_bytes, alignment if alignment > own else own
    )
    if moved != 0:
        checker_pause()
        copy_payload(arena, moved, payload, n_bytes, capacity)
        checker_resume()
        pool_free(arena, pool, payload)
    return moved


cdef inline offset_t pool_resize_patiently(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Like ``pool_resize``; where that finds no room, like `pool_move`.

    A block that moves is freed as `pool_free` does: a region may leave with it.
    """
    cdef offset_t moved = pool_resize_by(
        arena, pool, payload, n_bytes, alignment, True
    )
    if likely(moved != 0 or pool.hard.damage.code != 0):
        return moved
    return outlined_move(pool_move)(arena, pool, payload, n_bytes, alignment)
