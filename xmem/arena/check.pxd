# SPDX-License-Identifier: BSD-3-Clause
"""The checker of the page frames: invariants P1 to P6.

It writes nothing and trusts nothing: whatever the tables hold, it terminates and stays
inside them.
"""

from libc.stdint cimport uint64_t

from xmem.arena.frames cimport (
    FRAME_FREE,
    FRAME_RUN,
    FRAME_WHOLE,
    frame_order,
    frame_owner,
    frame_pages,
    frame_state,
    free_word,
)
from xmem.arena.superblock cimport FRAMES_N_ORDERS, arena_t, frames_t, page_offset
from xmem.base.bits cimport bit, ceil_log2
from xmem.base.finding cimport finding_t, invariant, report


cdef inline bint check_record(
    arena_t* arena, uint64_t page, finding_t* finding
) noexcept nogil:
    """P1 and P3 for the record at the head of a run, in constant time."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t n_pages = frame_pages(word)
    cdef unsigned order
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
    order = ceil_log2(n_pages)
    if page & (bit(order) - 1):
        return report(finding, invariant(c"P", 3), offset, page, bit(order))
    return True


cdef inline bint check_run(
    arena_t* arena, uint64_t page, finding_t* finding
) noexcept nogil:
    """P1 to P4 for the run that starts at ``page``."""
    cdef uint64_t word = arena.frames[page].word
    cdef uint64_t n_pages = frame_pages(word)
    cdef uint64_t buddy, inside
    if not check_record(arena, page, finding):
        return False
    for inside in range(page + 1, page + n_pages):
        if arena.frames[inside].word != 0:
            return report(
                finding,
                invariant(c"P", 1),
                page_offset(arena, inside),
                arena.frames[inside].word,
                0,
            )
    if frame_state(word) != FRAME_FREE:
        return True
    if word != free_word(ceil_log2(n_pages)):
        return report(
            finding,
            invariant(c"P", 2),
            page_offset(arena, page),
            word,
            free_word(ceil_log2(n_pages)),
        )
    buddy = page ^ n_pages
    if (
        buddy >= arena.first_page
        and buddy + n_pages <= arena.n_pages
        and arena.frames[buddy].word == word
    ):
        return report(
            finding, invariant(c"P", 4), page_offset(arena, page), buddy, 0
        )
    return True


cdef inline bint check_list(
    arena_t* arena, unsigned order, uint64_t n_runs, finding_t* finding
) noexcept nogil:
    """P2 and P5: list ``order`` holds exactly the ``n_runs`` free runs."""
    cdef frames_t* lists = &arena.super.frames
    cdef uint64_t page = lists.heads[order]
    cdef uint64_t prev_page = 0
    cdef uint64_t count = 0
    if ((lists.order_bitmap >> order) & 1) != (page != 0):
        return report(
            finding, invariant(c"P", 5), order, lists.order_bitmap, page
        )
    while page != 0:
        if page < arena.first_page or page >= arena.n_pages:
            return report(finding, invariant(c"P", 2), order, page, 0)
        if (
            count == n_runs
            or arena.frames[page].word != free_word(order)
            or arena.frames[page].prev != prev_page
        ):
            return report(
                finding,
                invariant(c"P", 2),
                page_offset(arena, page),
                arena.frames[page].word,
                free_word(order),
            )
        count += 1
        prev_page = page
        page = arena.frames[page].next
    if count != n_runs:
        return report(finding, invariant(c"P", 2), order, count, n_runs)
    return True


cdef inline bint check_frames(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """Every invariant of the page frames; False with the first that fails."""
    cdef uint64_t n_runs[FRAMES_N_ORDERS]
    cdef uint64_t page = arena.first_page
    cdef uint64_t n_free = 0
    cdef uint64_t word
    cdef unsigned order
    finding.code = 0
    for order in range(FRAMES_N_ORDERS):
        n_runs[order] = 0
    while page < arena.n_pages:
        if not check_run(arena, page, finding):
            return False
        word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE:
            n_runs[frame_order(word)] += 1
            n_free += frame_pages(word)
        page += frame_pages(word)
    for order in range(FRAMES_N_ORDERS):
        if not check_list(arena, order, n_runs[order], finding):
            return False
    if n_free != arena.super.frames.n_free_pages:
        return report(
            finding,
            invariant(c"P", 6),
            0,
            arena.super.frames.n_free_pages,
            n_free,
        )
    if arena.super.frames.order_bitmap >> FRAMES_N_ORDERS:
        return report(
            finding, invariant(c"P", 5), 0, arena.super.frames.order_bitmap, 0
        )
    return True


cdef inline bint check_heads(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P1 and P3 of the head of every run: enough to walk from run to run."""
    cdef uint64_t page = arena.first_page
    finding.code = 0
    while page < arena.n_pages:
        if not check_record(arena, page, finding):
            return False
        page += frame_pages(arena.frames[page].word)
    return True
