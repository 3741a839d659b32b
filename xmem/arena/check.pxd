# SPDX-License-Identifier: BSD-3-Clause
"""The checker of the page frames: invariants P1 to P6.

It writes nothing and trusts nothing: whatever the tables hold, it terminates and stays
inside them.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from xmem.arena.frames cimport free_word
from xmem.arena.records cimport (
    FRAME_FREE,
    FRAME_RUN,
    FRAME_WHOLE,
    frame_order,
    frame_owner,
    frame_pages,
    frame_state,
)
from xmem.arena.stretches cimport longest_of_entries, longest_of_records
from xmem.arena.superblock cimport (
    FRAMES_N_ORDERS,
    STRETCHES_GROUP,
    STRETCHES_LOG2,
    arena_t,
    frames_t,
    page_offset,
    runheads_words,
    stretches_entries,
)
from xmem.base.bits cimport align_up
from xmem.base.finding cimport finding_t, invariant, report


cdef inline bint check_record(
    arena_t* arena, uint64_t page, finding_t* finding
) noexcept nogil:
    """P1 for the record at the head of a run, in constant time."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t n_pages = frame_pages(word)
    cdef uint64_t offset = page_offset(arena, page)
    if not FRAME_FREE <= frame_state(word) <= FRAME_WHOLE:
        return report(finding, invariant(c"P", 1), offset, word, 0)
    if frame_owner(word) > arena.super.max_pools or (
        frame_owner(word) == 0 and frame_state(word) > FRAME_RUN
    ):
        return report(finding, invariant(c"P", 1), offset, word, 0)
    if n_pages == 0 or n_pages > arena.n_pages - page:
        return report(
            finding, invariant(c"P", 1), offset, n_pages, arena.n_pages - page
        )
    return True


cdef inline bint check_blank(
    arena_t* arena, uint64_t page, uint64_t end, finding_t* finding
) noexcept nogil:
    """P1 for pages at which no run starts: their records are 0."""
    for page in range(page, end):
        if arena.frames[page].word != 0:
            return report(
                finding,
                invariant(c"P", 1),
                page_offset(arena, page),
                arena.frames[page].word,
                0,
            )
    return True


cdef inline bint check_run(
    arena_t* arena, uint64_t page, finding_t* finding
) noexcept nogil:
    """P1 and P2 for the run that starts at ``page``."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t end = page + frame_pages(word)
    cdef uint64_t offset = page_offset(arena, page)
    if not (
        check_record(arena, page, finding)
        and check_blank(arena, page + 1, end, finding)
    ):
        return False
    if frame_state(word) != FRAME_FREE:
        return True
    if word != free_word(page, end - page):
        return report(
            finding, invariant(c"P", 2), offset, word, free_word(page, end - page)
        )
    if end < arena.n_pages and frame_state(arena.frames[end].word) == FRAME_FREE:
        return report(finding, invariant(c"P", 2), offset, end, 0)
    return True


cdef inline bint check_runheads(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P3: a bit for each record that is not zero, and for each word that is not."""
    cdef uint64_t n_below = arena.n_pages
    cdef uint64_t i, expected, entry
    cdef unsigned level
    for level in range(arena.n_runhead_levels):
        for i in range(runheads_words(n_below)):
            expected = 0
            for entry in range(i << 6, (i + 1) << 6):
                if entry == n_below:
                    break
                if (
                    arena.runheads[level - 1][entry]
                    if level != 0
                    else arena.frames[entry].word
                ) != 0:
                    expected |= <uint64_t>1 << (entry & 63)
            if arena.runheads[level][i] != expected:
                return report(
                    finding,
                    invariant(c"P", 3),
                    i << (6 * (level + 1)),
                    arena.runheads[level][i],
                    expected,
                )
        n_below = runheads_words(n_below)
    return True


cdef inline bint check_stretches(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P4: each entry sums up what is below it; those that fill a level are 0."""
    cdef uint64_t n_entries = arena.n_pages
    cdef uint64_t i, expected
    cdef unsigned level
    for level in range(arena.n_stretch_levels):
        n_entries = stretches_entries(n_entries)
        for i in range(align_up(n_entries, STRETCHES_GROUP)):
            expected = 0
            if i < n_entries and level == 0:
                expected = longest_of_records(arena, i << STRETCHES_LOG2)
            elif i < n_entries:
                expected = longest_of_entries(
                    arena.longest[level - 1] + (i << STRETCHES_LOG2)
                )
            if arena.longest[level][i] != expected:
                return report(
                    finding,
                    invariant(c"P", 4),
                    i << (STRETCHES_LOG2 * (level + 1)),
                    arena.longest[level][i],
                    expected,
                )
    return True


cdef inline bint check_list(
    arena_t* arena, unsigned order, uint64_t n_runs, finding_t* finding
) noexcept nogil:
    """P5: list ``order`` holds exactly the ``n_runs`` stretches of that order."""
    cdef frames_t* lists = &arena.super.frames
    cdef uint64_t page = lists.heads[order]
    cdef uint64_t prev_page = 0
    cdef uint64_t count = 0
    cdef uint64_t word
    if ((lists.order_bitmap >> order) & 1) != (page != 0):
        return report(
            finding, invariant(c"P", 5), order, lists.order_bitmap, page
        )
    while page != 0:
        if page < arena.first_page or page >= arena.n_pages:
            return report(finding, invariant(c"P", 5), order, page, 0)
        word = arena.frames[page].word
        if (
            count == n_runs
            or frame_state(word) != FRAME_FREE
            or frame_order(word) != order
            or page == lists.top
            or arena.frames[page].prev != prev_page
        ):
            return report(
                finding, invariant(c"P", 5), page_offset(arena, page), word, order
            )
        count += 1
        prev_page = page
        page = arena.frames[page].next
    if count != n_runs:
        return report(finding, invariant(c"P", 5), order, count, n_runs)
    return True


cdef inline bint check_lists(
    arena_t* arena, uint64_t* n_runs, finding_t* finding
) noexcept nogil:
    """P5 for every order, of which there are so many stretches."""
    cdef unsigned order
    for order in range(FRAMES_N_ORDERS):
        if not check_list(arena, order, n_runs[order], finding):
            return False
    if arena.super.frames.order_bitmap >> FRAMES_N_ORDERS:
        return report(
            finding, invariant(c"P", 5), 0, arena.super.frames.order_bitmap, 0
        )
    return True


cdef inline bint check_frames(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """Every invariant of the page frames; False with the first that fails."""
    cdef frames_t* frames = &arena.super.frames
    cdef uint64_t page = arena.first_page
    cdef uint64_t top = arena.n_pages
    cdef uint64_t n_free = 0
    cdef uint64_t n_runs[FRAMES_N_ORDERS]
    cdef uint64_t word
    finding.code = 0
    memset(n_runs, 0, sizeof(n_runs))
    if not check_blank(arena, 0, page, finding):    # the tables
        return False
    while page < arena.n_pages:
        if not check_run(arena, page, finding):
            return False
        word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE:
            n_free += frame_pages(word)
            if page + frame_pages(word) == arena.n_pages:
                top = page
            else:
                n_runs[frame_order(word)] += 1
        page += frame_pages(word)
    if frames.top != top:
        return report(finding, invariant(c"P", 6), 0, frames.top, top)
    if not (
        check_runheads(arena, finding)
        and check_stretches(arena, finding)
        and check_lists(arena, n_runs, finding)
    ):
        return False
    if n_free != frames.n_free_pages:
        return report(finding, invariant(c"P", 6), 0, frames.n_free_pages, n_free)
    return True


cdef inline bint check_heads(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P1 of the head of every run: enough to walk from run to run."""
    cdef uint64_t page = arena.first_page
    finding.code = 0
    while page < arena.n_pages:
        if not check_record(arena, page, finding):
            return False
        page += frame_pages(arena.frames[page].word)
    return True
