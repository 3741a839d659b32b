# SPDX-License-Identifier: BSD-3-Clause
"""Allocation sites: the switch, and the end of an arena."""

from libc.stdint cimport uint64_t

from xmem.arena.frames cimport frame_pages
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.base.arguments cimport flag_argument
from xmem.base.bits cimport find_first_set

#: Domain of `tracemalloc` in which arena memory is recorded.
TRACEMALLOC_DOMAIN = SITES_DOMAIN

sites_on = False


def trace_sites(on, /):
    """Record where arena memory is allocated, for `tracemalloc`, or stop it.

    While `tracemalloc` is tracing, each block and page run that a Python call
    obtains is recorded with its traceback in the domain
    `TRACEMALLOC_DOMAIN`, with the bytes that were asked for. Filter a snapshot
    by ``tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)`` to see arena
    memory alone. What Python and NumPy allocate stays in their own domains;
    nothing is counted twice. Memory obtained while it was off is not seen, nor
    is what C code obtains. Off at first.

    Parameters
    ----------
    on : bool
        For all arenas of the process.

    Returns
    -------
    bool
        What it was before.

    Raises
    ------
    BadArgumentType
        Not a truth value.
    """
    global sites_on
    cdef bint before = sites_on
    sites_on = flag_argument(on, "on")
    return before


cdef void sites_end(arena_t* arena):
    """Forget all memory of an arena that is about to be unmapped."""
    cdef uint64_t i, word
    cdef uint64_t page = arena.first_page
    if not sites_on:
        return
    for i in range(page_offset(arena, page) >> 10, arena.n_bytes >> 10):
        word = arena.start_bits[i]
        while word != 0:
            site_freed(arena, (i << 10) + (<uint64_t>find_first_set(word) << 4))
            word &= word - 1
    while page < arena.n_pages:
        word = arena.frames[page].word
        if frame_pages(word) == 0:
            return              # a damaged table
        site_freed(arena, page_offset(arena, page))
        page += frame_pages(word)
