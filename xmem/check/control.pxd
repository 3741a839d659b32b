# SPDX-License-Identifier: BSD-3-Clause
"""The checker of a pool's control block: C4 to C7.

A control block may be used only after ``check_control`` has passed. Nothing here
writes to the arena or trusts a word that it reads; see check/tlsf.pxd.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport (
    FRAME_CONTROL,
    FRAME_RUN,
    arena_t,
    entry_t,
    frame_owner,
    frame_pages,
    frame_state,
    is_region,
    page_offset,
)
from xmem.base cimport (
    ENGINE_FIRSTFIT,
    ENGINE_TLSF,
    INVARIANT_FIRST,
    INVARIANT_LAST,
    finding_t,
    invariant,
    offset_t,
    report,
)
from xmem.core.control cimport (
    HARD_RING,
    POOL_ADAPTS,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    POOL_MAGIC,
    POOL_QUARANTINE,
    QUICK_MAX_BYTES,
    QUICK_N_LISTS,
    QUICK_SIZE_LOG2,
    SMALL_REQUEST_BYTES,
    control_bins,
    control_bytes,
    control_n_bins,
    control_of,
    pool_t,
    quicklists_of,
    quicklists_t,
)
from xmem.core.quicklists cimport QUICK_DRY, may_wait, quick_size
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_HEADER_BYTES,
    BLOCK_TAG_SHIFT,
    REGION_HEAD_BYTES,
    word_at,
)


cdef inline bint check_identity(
    arena_t* arena, uint32_t number, finding_t* finding
) noexcept nogil:
    """C4: directory entry, frame table and control block of a pool agree."""
    cdef entry_t* entry = &arena.directory[number - 1]
    cdef offset_t control = entry.control
    cdef uint64_t page = control >> arena.page_shift
    cdef uint64_t word
    cdef pool_t* pool
    if (
        control & (arena.page_bytes - 1)
        or page < arena.first_page
        or page >= arena.n_pages
    ):
        return report(finding, invariant(c"C", 4), control, number, 0)
    word = arena.frames[page].word
    if (
        frame_state(word) != FRAME_CONTROL
        or frame_owner(word) != number
        or entry.engine < ENGINE_TLSF
        or entry.engine > ENGINE_FIRSTFIT
        or frame_pages(word) << arena.page_shift
        < control_bytes(arena, entry.engine, False)
        or frame_pages(word) > arena.n_pages - page
        or frame_pages(word) != entry.control_pages
    ):
        return report(finding, invariant(c"C", 4), control, word, number)
    pool = control_of(arena, entry)
    if (
        pool.magic != POOL_MAGIC
        or pool.number != number
        or pool.engine != entry.engine
        or pool.grow_pages == 0
        or pool.grow_pages > arena.n_pages
        or pool.flags
        & ~<uint32_t>(POOL_JOINS | POOL_HOOKED | POOL_ADAPTS | POOL_HARDENED)
        or pool.kept_pages > (pool.max_pages if pool.max_pages else arena.n_pages)
        or (pool.kept_pages != 0 and pool.engine != ENGINE_TLSF)
        or pool.max_request != arena.n_bytes - arena.page_bytes
        or pool.tlsf.tag != <uint64_t>number << BLOCK_TAG_SHIFT
        or pool.firstfit.tag != pool.tlsf.tag
        or pool.firstfit.page_bytes != arena.page_bytes
    ):
        return report(finding, invariant(c"C", 4), control, pool.number, number)
    if pool.engine == ENGINE_TLSF and (
        pool.tlsf.bins.heads != control + control_bins()
        or pool.tlsf.bins.n_bins != control_n_bins(arena)
    ):
        return report(
            finding,
            invariant(c"C", 4),
            control,
            pool.tlsf.bins.heads,
            control + control_bins(),
        )
    return check_quick_place(arena, pool, entry, finding)


cdef inline bint check_control(
    arena_t* arena, uint32_t number, finding_t* finding
) noexcept nogil:
    """C4 to C7: what a control block says of itself, and what waits."""
    cdef offset_t control = arena.directory[number - 1].control
    cdef pool_t* pool
    if not check_identity(arena, number, finding):
        return False
    pool = <pool_t*>(arena.base + control)
    return (
        check_hard(pool, control, finding)
        and check_quicklists(arena, pool, control, finding)
        and check_spare(arena, pool, finding)
    )


cdef inline bint check_quick_place(
    arena_t* arena, pool_t* pool, entry_t* entry, finding_t* finding
) noexcept nogil:
    """C4: the place and the limits of the quick lists."""
    cdef uint64_t control = entry.control
    cdef uint64_t n_bytes = control_bytes(arena, ENGINE_TLSF, True)
    cdef uint64_t limit = SMALL_REQUEST_BYTES + 1
    if pool.quicklists != 0 or pool.engine != ENGINE_TLSF or pool.flags & POOL_HARDENED:
        limit = 0
    if pool.short_limit != limit:
        return report(finding, invariant(c"C", 4), control, pool.short_limit, limit)
    limit = QUICK_MAX_BYTES - BLOCK_HEADER_BYTES + 1 if pool.quicklists != 0 else 0
    if pool.quick_below != limit:
        return report(finding, invariant(c"C", 4), control, pool.quick_below, limit)
    if pool.quicklists != 0 and (
        pool.engine != ENGINE_TLSF
        or pool.flags & POOL_HARDENED
        or pool.quicklists != control + n_bytes - sizeof(quicklists_t)
        or <uint64_t>entry.control_pages << arena.page_shift < n_bytes
    ):
        return report(finding, invariant(c"C", 4), control, pool.quicklists, n_bytes)
    return True


cdef inline bint check_quicklists(
    arena_t* arena, pool_t* pool, offset_t control, finding_t* finding
) noexcept nogil:
    """C7: the blocks on the quick lists, whose place is sound."""
    cdef quicklists_t* quick
    cdef uint64_t left = pool.quick_count
    cdef uint64_t n_bytes = 0
    cdef uint64_t i, n_listed
    cdef offset_t at
    if pool.quicklists == 0:
        if pool.quick_bytes | pool.quick_count:
            return report(finding, invariant(c"C", 7), control, pool.quick_count, 0)
        return True
    if left > arena.n_bytes >> QUICK_SIZE_LOG2:
        return report(finding, invariant(c"C", 7), control, left, 0)
    quick = quicklists_of(arena, pool)
    for i in range(QUICK_N_LISTS):
        n_listed = left
        at = quick.heads[i]
        if ((quick.listed[i >> 6] >> (i & 63)) & 1) != (at != 0):
            return report(finding, invariant(c"C", 7), at, quick.listed[i >> 6], i)
        if at == 0:
            continue
        while left > 0 and may_wait(arena, pool, at, quick_size(i)) and not start_test(
            arena, at
        ):
            at = word_at(arena.base, at)[0]
            left -= 1
        if at != QUICK_DRY:
            return report(finding, invariant(c"C", 7), at, left, QUICK_DRY)
        n_bytes += (n_listed - left) * quick_size(i)
    if left != 0 or n_bytes != pool.quick_bytes:
        return report(finding, invariant(c"C", 7), control, pool.quick_bytes, n_bytes)
    return True


cdef inline bint check_hard(
    pool_t* pool, offset_t control, finding_t* finding
) noexcept nogil:
    """C6: the state of hardening agrees with the pool's flags."""
    cdef uint64_t n_waiting = 0
    cdef unsigned slot
    for slot in range(HARD_RING):
        n_waiting += pool.hard.ring[slot] != 0
    if n_waiting != pool.hard.n_waiting or (
        n_waiting != 0 and not pool.flags & POOL_QUARANTINE
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.n_waiting, n_waiting
        )
    if pool.hard.damage.code != 0 and not (
        INVARIANT_FIRST <= pool.hard.damage.code <= INVARIANT_LAST
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.damage.code, 0
        )
    if not pool.flags & POOL_HARDENED and (
        pool.hard.n_freed != 0
        or pool.hard.n_lost != 0
        or pool.hard.damage.code != 0
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.damage.code, 0
        )
    return True


cdef inline bint check_spare(
    arena_t* arena, pool_t* pool, finding_t* finding
) noexcept nogil:
    """C5: the regions that the control block names, and the run to be returned."""
    cdef uint64_t page = pool.last_region
    if page >= arena.n_pages:
        return report(finding, invariant(c"C", 5), 0, page, 0)
    page = pool.returned
    if page != 0 and (
        page >= arena.n_pages
        or frame_state(arena.frames[page].word) != FRAME_RUN
        or frame_owner(arena.frames[page].word) != 0
    ):
        return report(finding, invariant(c"C", 5), 0, page, 0)
    page = pool.roomy
    if page != 0 and (
        page >= arena.n_pages
        or not pool.flags & POOL_JOINS
        or not is_region(arena.frames[page].word, pool.number)
    ):
        return report(finding, invariant(c"C", 5), 0, page, 0)
    page = pool.spare >> arena.page_shift
    if pool.spare == 0:
        return True
    if (
        page >= arena.n_pages
        or pool.spare != page_offset(arena, page) + REGION_HEAD_BYTES
        or not is_region(arena.frames[page].word, pool.number)
    ):
        return report(finding, invariant(c"C", 5), pool.spare, page, 0)
    return True
