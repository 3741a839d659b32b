# SPDX-License-Identifier: BSD-3-Clause
"""Recovery: the page frames of an arena whose process died, made whole again.

The records at the heads of runs are the truth; they tile the page frames after every
store (frames.pxd). Everything else follows from them and is written anew: records
inside runs, merges of buddies, the lists, their bitmap and the number of free pages.

Two kinds of runs belong to nobody once their process is gone, and are freed: those that
a pool had obtained and not formatted (FRAME_PENDING), and those of a pool that is not
in the directory, because its creation or destruction was cut short.

If the heads do not tile the page frames, or a run in use lies inside another, nothing
is written: no call that is cut short leaves that. Each store leaves a state from which
the recovery can start again.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena.check cimport check_frames, check_record
from xmem.arena.directory cimport directory_entry
from xmem.arena.frames cimport (
    FRAME_FREE,
    FRAME_PENDING,
    frame_order,
    frame_owner,
    frame_pages,
    frame_state,
    frames_link,
    free_word,
    piece_order,
)
from xmem.arena.superblock cimport (
    ENTRY_EMPTY,
    ENTRY_INITIALISING,
    ENTRY_READY,
    FRAMES_N_ORDERS,
    arena_t,
    page_offset,
)
from xmem.base.bits cimport bit, ceil_log2
from xmem.base.checks cimport store_barrier
from xmem.base.finding cimport finding_t, invariant, report
from xmem.base.grains cimport GRAINS_BYTE_LOG2, GRAINS_WORD_LOG2


cdef struct recovery_t:
    finding_t broken        # what was restored first; code 0: nothing
    uint64_t n_abandoned    # pages of runs that belonged to nobody


cdef inline bint check_heads_to_recover(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """Whether the heads of runs tile the page frames, free ones as their orders say."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t word
    while page < arena.n_pages:
        if not check_record(arena, page, finding):
            return False
        word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE and (
            word != free_word(ceil_log2(frame_pages(word)))
        ):
            return report(
                finding,
                invariant(c"P", 2),
                page_offset(arena, page),
                word,
                free_word(ceil_log2(frame_pages(word))),
            )
        page += frame_pages(word)
    return True


cdef inline bint check_inside(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P1 as far as no call that was cut short can break it.

    Inside a run in use may be the free runs of which it is going to consist; inside
    free ones their remainders, and one run in use whose allocation was not complete.
    """
    cdef uint64_t page = arena.first_page
    cdef uint64_t end, word
    cdef unsigned n_used = 0
    cdef bint is_used = False
    end = page
    while page < arena.n_pages:
        word = arena.frames[page].word
        if page == end:
            end = page + frame_pages(word)
            is_used = frame_state(word) != FRAME_FREE
        elif word != 0 and frame_state(word) != FRAME_FREE:
            n_used += 1
            if is_used or n_used > 1:
                return report(
                    finding, invariant(c"P", 1), page_offset(arena, page), word, 0
                )
        page += 1
    return True


cdef inline bint is_abandoned(arena_t* arena, uint64_t word) noexcept nogil:
    """Whether a record heads a run that belongs to nobody."""
    return frame_state(word) == FRAME_PENDING or (
        frame_owner(word) != 0
        and directory_entry(arena, frame_owner(word)).state != ENTRY_READY
    )


cdef inline uint64_t count_abandoned(arena_t* arena) noexcept nogil:
    """Pages of abandoned runs."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t count = 0
    cdef uint64_t word
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_abandoned(arena, word):
            count += frame_pages(word)
        page += frame_pages(word)
    return count


cdef inline void free_abandoned(
    arena_t* arena, uint64_t page, uint64_t n_pages
) noexcept nogil:
    """Cut a run in use into free runs, on no list, without start bits."""
    cdef uint64_t end = page + n_pages
    cdef uint64_t first = page + bit(piece_order(page, end))
    memset(
        &arena.start_bits[page_offset(arena, page) >> GRAINS_WORD_LOG2],
        0,
        page_offset(arena, n_pages) >> GRAINS_BYTE_LOG2,
    )
    while first < end:
        arena.frames[first].word = free_word(piece_order(first, end))
        first += bit(piece_order(first, end))
    store_barrier()
    arena.frames[page].word = free_word(piece_order(page, end))


cdef inline uint64_t merge_to_the_left(
    arena_t* arena, uint64_t page
) noexcept nogil:
    """Merge a free run with its left buddies, as often as possible; the merged run."""
    cdef unsigned order = frame_order(arena.frames[page].word)
    cdef uint64_t left
    while order + 1 < FRAMES_N_ORDERS and page & bit(order):
        left = page - bit(order)
        if left < arena.first_page or arena.frames[left].word != free_word(order):
            break
        order += 1
        arena.frames[left].word = free_word(order)
        store_barrier()
        arena.frames[page].word = 0
        page = left
    return page


cdef inline void recover_records(arena_t* arena) noexcept nogil:
    """Free what is abandoned, clear what is inside runs, merge what is free.

    From left to right: the left buddy of a free run has been merged already.
    """
    cdef uint64_t page = arena.first_page
    cdef uint64_t word, inside
    while page < arena.n_pages:
        word = arena.frames[page].word
        for inside in range(page + 1, page + frame_pages(word)):
            if arena.frames[inside].word != 0:
                arena.frames[inside].word = 0
        if is_abandoned(arena, word):
            free_abandoned(arena, page, frame_pages(word))
            word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE:
            merge_to_the_left(arena, page)
        page += frame_pages(word)


cdef inline void recover_lists(arena_t* arena) noexcept nogil:
    """Write lists, bitmap and count of the free runs anew."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t word
    cdef unsigned i
    arena.super.frames.order_bitmap = 0
    arena.super.frames.n_free_pages = 0
    for i in range(FRAMES_N_ORDERS):
        arena.super.frames.heads[i] = 0
    while page < arena.n_pages:
        word = arena.frames[page].word
        if frame_state(word) == FRAME_FREE:
            frames_link(arena, <uint32_t>page, frame_order(word))
            arena.super.frames.n_free_pages += frame_pages(word)
        page += frame_pages(word)


cdef inline bint recover_frames(
    arena_t* arena, recovery_t* recovery, finding_t* finding
) noexcept nogil:
    """Make the page frames whole, if they are not; False with why that cannot be.

    Without need it writes nothing.
    """
    cdef uint32_t number
    recovery.broken.code = 0
    recovery.n_abandoned = 0
    if not (
        check_heads_to_recover(arena, finding) and check_inside(arena, finding)
    ):
        return False
    recovery.n_abandoned = count_abandoned(arena)
    if check_frames(arena, &recovery.broken) and recovery.n_abandoned == 0:
        return True
    recover_records(arena)
    recover_lists(arena)
    for number in range(1, arena.super.max_pools + 1):
        if directory_entry(arena, number).state == ENTRY_INITIALISING:
            directory_entry(arena, number).state = ENTRY_EMPTY
    return check_frames(arena, finding)
