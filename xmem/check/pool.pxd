# SPDX-License-Identifier: BSD-3-Clause
"""The checker of a whole pool: its pages, blocks, lists, start bits and counters.

Nothing here writes to the arena or trusts a word that it reads; see check/tlsf.pxd.
The frame table must have passed ``check_frames`` and the control block
``check_control``; then every region and run of the pool is looked at:

- stretches of blocks by their headers (B1 to B7, L1 to L3);
- free lists against the free blocks found (F1 to F4, L2);
- start bits against the blocks in use (V1);
- counters against all of it (C1 to C3).
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport (
    FRAME_CONTROL,
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
    arena_t,
    frame_owner,
    frame_pages,
    frame_state,
    is_region,
    page_offset,
)
from xmem.base cimport (
    ENGINE_TLSF,
    GRAINS_WORD_LOG2,
    finding_t,
    invariant,
    offset_t,
    report,
)
from xmem.check.census cimport census_clear, census_t, count_starts
from xmem.check.firstfit cimport check_firstfit_list, check_page, check_start, check_tag
from xmem.check.tlsf cimport check_bins, check_stretch, stretch_t
from xmem.core.control cimport pool_t
from xmem.core.hardening cimport check_run_seal
from xmem.core.quicklists cimport quick_mark
from xmem.engine cimport BLOCK_FREE, block_word, word_size


# Pages -----------------------------------------------------------------------

cdef inline bint is_handed_out(uint64_t word, unsigned owner) noexcept nogil:
    """Whether a record heads pages that pool ``owner`` handed out whole."""
    return frame_owner(word) == owner and (
        frame_state(word) == FRAME_WHOLE or frame_state(word) == FRAME_RUN
    )


cdef inline bint check_run_block(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """A page run that the pool handed out whole, as a block or as pages."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t start = page_offset(arena, page)
    cdef offset_t end = page_offset(arena, page + n_pages)
    cdef uint64_t word
    census.n_runs += 1
    census.run_pages += n_pages
    census.n_starts += count_starts(arena, start, end)
    if frame_state(arena.frames[page].word) == FRAME_RUN:
        return True
    census.n_whole += 1
    if pool.engine == ENGINE_TLSF:
        return check_run_seal(arena, pool, start, finding)
    word = block_word(arena.base, start)
    if not check_tag(pool, start, word, finding):
        return False
    if word_size(word) != end - start or word & BLOCK_FREE:
        return report(finding, invariant(c"L", 1), start, word, end - start)
    return check_start(arena, pool, start, end - start, finding)


cdef inline bint check_region(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    offset_t* covered,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """A region and those joined behind it; sets ``covered`` to where they end."""
    cdef uint64_t word = arena.frames[page].word
    cdef offset_t start = page_offset(arena, page)
    cdef stretch_t stretch
    census.n_regions += 1
    census.region_pages += frame_pages(word)
    if start < covered[0]:
        return True
    if frame_state(word) == FRAME_JOINED:
        return report(finding, invariant(c"C", 2), start, word, FRAME_REGION)
    if pool.engine != ENGINE_TLSF:
        return check_page(arena, pool, start, census, finding)
    stretch.start = start
    stretch.limit = page_offset(arena, page + frame_pages(word))
    stretch.n_regions = 1
    if not check_stretch(arena, pool, &stretch, census, finding):
        return False
    covered[0] = stretch.limit
    return True


cdef inline bint holds_blocks(uint64_t word) noexcept nogil:
    """Whether a record heads pages in which some pool keeps blocks."""
    return frame_owner(word) != 0 and frame_state(word) != FRAME_CONTROL


cdef inline bint check_no_start(
    arena_t* arena, offset_t start, offset_t end, finding_t* finding
) noexcept nogil:
    """V1 where no pool keeps blocks: no start bit for ``start`` to ``end``."""
    cdef uint64_t i
    cdef uint64_t seen = 0
    for i in range(start >> GRAINS_WORD_LOG2, end >> GRAINS_WORD_LOG2):
        seen |= arena.start_bits[i]
    if seen == 0:
        return True
    i = start >> GRAINS_WORD_LOG2
    while arena.start_bits[i] == 0:
        i += 1
    return report(
        finding, invariant(c"V", 1), i << GRAINS_WORD_LOG2, arena.start_bits[i], 0
    )


# The whole -------------------------------------------------------------------

cdef inline bint check_waiting_marks(
    arena_t* arena, pool_t* pool, census_t* census, finding_t* finding
) noexcept nogil:
    """C7: the quick lists hold the blocks that wait, and no others.

    Their marks have the same sum; if they are not the same blocks, one chance in 2**64
    hides it.
    """
    cdef uint64_t mark = quick_mark(arena, pool)
    if census.n_waiting != pool.quick_count:
        return report(
            finding, invariant(c"C", 7), 0, pool.quick_count, census.n_waiting
        )
    if census.waiting != mark:
        return report(finding, invariant(c"C", 7), 0, mark, census.waiting)
    return True


cdef inline bint check_counters(
    pool_t* pool, census_t* census, finding_t* finding
) noexcept nogil:
    """C1 to C3, C6 of lost blocks, and V1: no start bit without a block."""
    cdef uint64_t starts = census.n_used
    cdef uint64_t used_bytes = pool.tlsf.used_bytes
    cdef uint64_t n_used = pool.tlsf.n_used
    if pool.engine != ENGINE_TLSF:
        used_bytes = pool.firstfit.used_bytes
        n_used = pool.firstfit.n_used
        starts += census.n_whole
    if pool.hard.n_lost != census.n_lost:
        return report(
            finding, invariant(c"C", 6), 0, pool.hard.n_lost, census.n_lost
        )
    starts -= pool.hard.n_waiting + pool.hard.n_lost + pool.quick_count
    if census.n_starts != starts:
        return report(finding, invariant(c"V", 1), 0, census.n_starts, starts)
    if n_used != census.n_used or used_bytes != census.used_bytes:
        return report(
            finding, invariant(c"C", 3), 0, used_bytes, census.used_bytes
        )
    if pool.n_regions != census.n_regions or pool.n_runs != census.n_runs:
        return report(
            finding, invariant(c"C", 2), 0, pool.n_regions, census.n_regions
        )
    if (
        pool.region_pages != census.region_pages
        or pool.run_pages != census.run_pages
    ):
        return report(
            finding, invariant(c"C", 2), 0, pool.region_pages, census.region_pages
        )
    if (
        pool.n_pages != pool.region_pages + pool.run_pages
        or (pool.max_pages != 0 and pool.n_pages > pool.max_pages)
        or pool.peak_pages < pool.n_pages
    ):
        return report(
            finding, invariant(c"C", 1), 0, pool.n_pages, pool.max_pages
        )
    return True


cdef inline bint check_pages(
    arena_t* arena,
    pool_t* pool,
    bint everywhere,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """``check_pool``; only with ``everywhere`` is the start bitmap of pages without
    blocks looked at, which is as long as the arena.
    """
    cdef uint64_t page = arena.first_page
    cdef offset_t covered = 0
    cdef uint64_t word
    finding.code = 0
    census_clear(census)
    if everywhere and not check_no_start(
        arena, 0, page_offset(arena, page), finding
    ):
        return False
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number):
            if not check_region(arena, pool, page, &covered, census, finding):
                return False
        elif is_handed_out(word, pool.number):
            if not check_run_block(arena, pool, page, census, finding):
                return False
        elif everywhere and not holds_blocks(word) and not check_no_start(
            arena,
            page_offset(arena, page),
            page_offset(arena, page + frame_pages(word)),
            finding,
        ):
            return False
        page += frame_pages(word)
    if pool.engine == ENGINE_TLSF:
        if not check_bins(arena, pool, census.n_free, finding):
            return False
    elif not check_firstfit_list(arena, pool, census.n_free, finding):
        return False
    return check_waiting_marks(
        arena, pool, census, finding
    ) and check_counters(pool, census, finding)


cdef inline bint check_pool(
    arena_t* arena, pool_t* pool, census_t* census, finding_t* finding
) noexcept nogil:
    """Every invariant of one pool; False with the first that fails.

    Requires that ``check_frames`` has passed. Fills ``census``.
    """
    return check_pages(arena, pool, True, census, finding)


cdef inline bint check_own(
    arena_t* arena, pool_t* pool, census_t* census, finding_t* finding
) noexcept nogil:
    """Every invariant of the pool's own pages, blocks, lists and counters.

    Requires that ``check_heads`` has passed. Takes time linear in the pool and in the
    number of page runs, however long these are.
    """
    return check_pages(arena, pool, False, census, finding)
