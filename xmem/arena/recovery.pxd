# SPDX-License-Identifier: BSD-3-Clause
"""Recovery: the page frames of an arena whose process died, made whole again.

The records at the heads of runs are the truth; they tile the page frames after every
store (frames.pxd). Everything else follows from them and is written anew: records
inside runs, adjacent free runs, run heads, the tree of stretches, the lists and the
number of free pages.

Two kinds of runs belong to nobody once their process is gone, and are freed: those that
a pool had obtained and not formatted (FRAME_PENDING), and those of a pool that is not
in the directory, because its creation or destruction was cut short.

If the heads do not tile the page frames, or a run in use lies inside another, nothing
is written: no call that is cut short leaves that. Each store leaves a state from which
the recovery can start again.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena.check cimport check_frames, check_heads
from xmem.arena.directory cimport directory_entry
from xmem.arena.frames cimport free_word, stretch_appears
from xmem.arena.records cimport (
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    frame_owner,
    frame_pages,
    frame_state,
    is_region,
)
from xmem.arena.runheads cimport runheads_set
from xmem.arena.superblock cimport (
    ENTRY_DESTROYING,
    ENTRY_EMPTY,
    ENTRY_INITIALISING,
    ENTRY_READY,
    arena_t,
    page_offset,
    runheads_bytes,
    stretches_total,
)
from xmem.base.checks cimport store_barrier
from xmem.base.finding cimport finding_t, invariant, report
from xmem.base.grains cimport GRAINS_BYTE_LOG2, GRAINS_WORD_LOG2


cdef struct recovery_t:
    finding_t broken        # what was restored first; code 0: nothing
    uint64_t n_abandoned    # pages of runs that belonged to nobody


cdef inline bint check_inside(
    arena_t* arena, finding_t* finding
) noexcept nogil:
    """P1 as far as no call that was cut short can break it.

    Inside a run in use may be free ones, and a region that it has just absorbed; inside
    free ones their remainders, and one run in use whose allocation was not complete or
    whose pages they have just absorbed.
    """
    cdef uint64_t page = arena.first_page
    cdef uint64_t end = page
    cdef uint64_t outer = 0
    cdef uint64_t word
    cdef unsigned n_used = 0
    while page < arena.n_pages:
        word = arena.frames[page].word
        if page == end:
            end = page + frame_pages(word)
            outer = word
        elif word != 0 and frame_state(word) != FRAME_FREE:
            n_used += 1
            if n_used > 1 or not (
                frame_state(outer) == FRAME_FREE
                or frame_state(word) == FRAME_JOINED
                and is_region(outer, frame_owner(word))
            ):
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
    """Make a run in use a free one, without start bits."""
    memset(
        &arena.start_bits[page_offset(arena, page) >> GRAINS_WORD_LOG2],
        0,
        page_offset(arena, n_pages) >> GRAINS_BYTE_LOG2,
    )
    store_barrier()
    arena.frames[page].word = free_word(page, n_pages)


cdef inline void clear_records(
    arena_t* arena, uint64_t page, uint64_t end
) noexcept nogil:
    """Clear the records of pages at which no run starts; nothing is written in vain."""
    for page in range(page, end):
        if arena.frames[page].word != 0:
            arena.frames[page].word = 0


cdef inline void recover_records(arena_t* arena) noexcept nogil:
    """Free what is abandoned, clear what is inside runs, merge what is free."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t stretch = 0       # first page of the free run on the left, or 0
    cdef uint64_t word, n_pages
    clear_records(arena, 0, page)       # of the tables
    while page < arena.n_pages:
        word = arena.frames[page].word
        n_pages = frame_pages(word)
        clear_records(arena, page + 1, page + n_pages)
        if is_abandoned(arena, word):
            free_abandoned(arena, page, n_pages)
        if frame_state(arena.frames[page].word) != FRAME_FREE:
            stretch = 0
        elif stretch == 0:
            arena.frames[page].word = free_word(page, n_pages)
            stretch = page
        else:
            arena.frames[stretch].word = free_word(stretch, page + n_pages - stretch)
            store_barrier()
            arena.frames[page].word = 0
        page += n_pages


cdef inline void recover_caches(arena_t* arena) noexcept nogil:
    """Write run heads, stretches and the number of free pages anew."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t n_free = 0
    cdef uint64_t word
    memset(arena.runheads[0], 0, runheads_bytes(arena.n_pages))
    memset(
        arena.longest[0], 0, stretches_total(arena.n_pages) * sizeof(uint32_t)
    )
    memset(arena.super.frames.heads, 0, sizeof(arena.super.frames.heads))
    arena.super.frames.order_bitmap = 0
    arena.super.frames.top = arena.n_pages
    while page < arena.n_pages:
        word = arena.frames[page].word
        runheads_set(arena, page)
        if frame_state(word) == FRAME_FREE:
            n_free += frame_pages(word)
            if page + frame_pages(word) == arena.n_pages:
                arena.super.frames.top = page
            else:
                stretch_appears(arena, page)
        page += frame_pages(word)
    arena.super.frames.n_free_pages = n_free


cdef inline bint recover_frames(
    arena_t* arena, recovery_t* recovery, finding_t* finding
) noexcept nogil:
    """Make the page frames whole, if they are not; False with why that cannot be.

    Without need it writes nothing.
    """
    cdef uint32_t number
    recovery.broken.code = 0
    recovery.n_abandoned = 0
    if not (check_heads(arena, finding) and check_inside(arena, finding)):
        return False
    recovery.n_abandoned = count_abandoned(arena)
    if check_frames(arena, &recovery.broken) and recovery.n_abandoned == 0:
        return True
    recover_records(arena)
    recover_caches(arena)
    for number in range(1, arena.super.max_pools + 1):
        if directory_entry(arena, number).state in (
            ENTRY_INITIALISING,
            ENTRY_DESTROYING,
        ):
            directory_entry(arena, number).state = ENTRY_EMPTY
    return check_frames(arena, finding)
