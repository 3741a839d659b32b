# SPDX-License-Identifier: BSD-3-Clause
"""Finding aligned free pages: a list of stretches for each order.

The order of a stretch is that of the largest aligned power of two of pages in it. Each
stretch but the one at the arena's end is on the list of its order, through its record;
a bitmap says which lists are not empty. So a run of 2**k pages, aligned to its size, is
found by one bit scan, in a stretch of the least order that has one.

A cache of the frame table: `xmem.arena.recovery` writes it anew.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.stretches cimport order_within, top_pages
from xmem.arena.superblock cimport arena_t, frame_t, frames_t
from xmem.base.bits cimport bit, find_first_set, find_last_set
from xmem.base.journal cimport put, put32


cdef inline void orders_link(
    arena_t* arena, uint64_t page, unsigned order
) noexcept nogil:
    """Put a stretch first on the list of its order."""
    cdef frames_t* lists = &arena.super.frames
    cdef uint32_t head = lists.heads[order]
    put32(&arena.frames[page].next, head)
    put32(&arena.frames[page].prev, 0)
    if head != 0:
        put32(&arena.frames[head].prev, <uint32_t>page)
    put32(&lists.heads[order], <uint32_t>page)
    put(&lists.order_bitmap, lists.order_bitmap | bit(order))


cdef inline void orders_unlink(
    arena_t* arena, uint64_t page, unsigned order
) noexcept nogil:
    """Take a stretch off the list of its order."""
    cdef frames_t* lists = &arena.super.frames
    cdef frame_t* frames = arena.frames
    cdef uint32_t next_page = frames[page].next
    cdef uint32_t prev_page = frames[page].prev
    if next_page != 0:
        put32(&frames[next_page].prev, prev_page)
    if prev_page != 0:
        put32(&frames[prev_page].next, next_page)
        return
    put32(&lists.heads[order], next_page)
    if next_page == 0:
        put(&lists.order_bitmap, lists.order_bitmap & ~bit(order))


cdef inline uint64_t orders_find(arena_t* arena, unsigned order) noexcept nogil:
    """First page of a stretch with an aligned run of ``order`` in it, or 0.

    The one at the arena's end comes last.
    """
    cdef uint64_t candidates = arena.super.frames.order_bitmap & (
        ~<uint64_t>0 << order
    )
    cdef uint64_t top = arena.super.frames.top
    if candidates != 0:
        return arena.super.frames.heads[find_first_set(candidates)]
    if top_pages(arena) != 0 and order_within(top, top_pages(arena)) >= order:
        return top
    return 0


cdef inline int orders_largest(arena_t* arena) noexcept nogil:
    """Greatest order of a stretch, -1 where no page is free."""
    cdef uint64_t bitmap = arena.super.frames.order_bitmap
    if top_pages(arena) != 0:
        bitmap |= bit(order_within(arena.super.frames.top, top_pages(arena)))
    return <int>find_last_set(bitmap) if bitmap != 0 else -1
