# SPDX-License-Identifier: BSD-3-Clause
"""Visiting the blocks and page runs of a sound pool, in address order.

A caller fills a cursor by ``cursor_init`` and calls ``next_block`` until it returns
False. Unlike the checkers, this trusts the headers.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport (
    FRAME_RUN,
    arena_t,
    frame_pages,
    frame_state,
    is_region,
    page_offset,
)
from xmem.base cimport ENGINE_TLSF, offset_t
from xmem.check.pool cimport is_handed_out
from xmem.core.control cimport POOL_HARDENED, pool_t
from xmem.core.hardened cimport hard_capacity
from xmem.core.hardening cimport hard_overhead, is_lost
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_HEADER_BYTES,
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_word,
    payload_of,
    word_at,
    word_size,
)


cdef struct cursor_t:
    uint64_t page               # first of the current run
    offset_t block              # next header, 0: the first of the run
    offset_t covered            # end of the last stretch visited


cdef enum visit_t:
    VISIT_BLOCK = 0
    VISIT_WHOLE = 1             # a block of whole pages
    VISIT_PAGES = 2             # pages of a heap's page_alloc
    VISIT_WAITING = 3           # a freed block, in quarantine or on a quick list
    VISIT_LOST = 4              # a freed block that was damaged in quarantine


cdef struct block_info_t:
    offset_t offset             # of the payload
    uint64_t size               # of the block, header included
    uint64_t capacity
    uint64_t region             # page where the run starts
    bint used
    visit_t kind


cdef inline bint visit_run(
    arena_t* arena, pool_t* pool, cursor_t* cursor, block_info_t* info
) noexcept nogil:
    """Fill ``info`` for a page run and advance."""
    cdef uint64_t n_pages = frame_pages(arena.frames[cursor.page].word)
    info.offset = page_offset(arena, cursor.page)
    info.size = n_pages << arena.page_shift
    info.capacity = info.size
    info.used = True
    info.kind = VISIT_WHOLE
    if frame_state(arena.frames[cursor.page].word) == FRAME_RUN:
        info.kind = VISIT_PAGES
    elif pool.engine != ENGINE_TLSF:
        visit_payload(arena, info)
    elif pool.flags & POOL_HARDENED:
        info.capacity = hard_capacity(arena, pool, info.offset)
    cursor.page += n_pages
    return True


cdef inline void visit_payload(arena_t* arena, block_info_t* info) noexcept nogil:
    """Move ``info`` from a legacy block to its payload."""
    cdef offset_t block = info.offset
    cdef uint64_t alignment = word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    info.offset = (block + FIRSTFIT_LINE + alignment - 1) & ~(alignment - 1)
    info.capacity = block + info.size - info.offset


cdef inline bint visit_block(
    arena_t* arena, pool_t* pool, cursor_t* cursor, block_info_t* info
) noexcept nogil:
    """Fill ``info`` for the block at the cursor; False at a stretch's end."""
    cdef uint64_t word
    cdef offset_t end
    if pool.engine != ENGINE_TLSF:
        end = page_offset(arena, cursor.page) + arena.page_bytes
        if cursor.block == end:
            return False
    word = block_word(arena.base, cursor.block)
    if word_size(word) == 0:
        cursor.covered = cursor.block + REGION_TAIL_BYTES
        return False
    info.used = (word & BLOCK_FREE) == 0
    info.size = word_size(word)
    info.kind = VISIT_BLOCK
    if pool.engine == ENGINE_TLSF:
        info.offset = payload_of(cursor.block)
        info.capacity = info.size - BLOCK_HEADER_BYTES
        if not info.used:
            info.capacity -= hard_overhead(pool)
        elif pool.flags & POOL_HARDENED or pool.quicklists != 0:
            if not start_test(arena, info.offset):
                info.used = False
                info.kind = VISIT_WAITING
                if is_lost(arena, pool, cursor.block):
                    info.kind = VISIT_LOST
            if info.kind != VISIT_LOST:
                info.capacity = hard_capacity(arena, pool, info.offset)
    elif info.used:
        info.offset = cursor.block
        visit_payload(arena, info)
    else:
        info.offset = cursor.block + FIRSTFIT_LINE
        info.capacity = info.size - FIRSTFIT_LINE
    cursor.block += info.size
    return True


cdef inline void cursor_init(arena_t* arena, cursor_t* cursor) noexcept nogil:
    """Start at the first page."""
    cursor.page = arena.first_page
    cursor.block = 0
    cursor.covered = 0


cdef inline bint next_block(
    arena_t* arena, pool_t* pool, cursor_t* cursor, block_info_t* info
) noexcept nogil:
    """Fill ``info`` for the next block or run; False at the end."""
    cdef uint64_t word
    while cursor.page < arena.n_pages:
        word = arena.frames[cursor.page].word
        info.region = cursor.page
        if is_handed_out(word, pool.number):
            return visit_run(arena, pool, cursor, info)
        if is_region(word, pool.number) and (
            page_offset(arena, cursor.page) >= cursor.covered
        ):
            if cursor.block == 0:
                cursor.block = page_offset(arena, cursor.page)
                if pool.engine == ENGINE_TLSF:
                    cursor.block += REGION_HEAD_BYTES
            if visit_block(arena, pool, cursor, info):
                return True
        cursor.block = 0
        cursor.page += frame_pages(word)
    return False
