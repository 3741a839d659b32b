# SPDX-License-Identifier: BSD-3-Clause
"""Allocation sites: the switch, and the end of an arena."""

from libc.stdint cimport uint64_t

from xmem.arena.records cimport frame_pages
from xmem.arena.superblock cimport arena_t, page_offset
from xmem.arena.vm cimport vm_change
from xmem.base.arguments cimport flag_argument
from xmem.base.bits cimport find_first_set

#: Domain of `tracemalloc` in which arena memory is recorded.
TRACEMALLOC_DOMAIN = SITES_DOMAIN

sites_on = False


def trace_sites(on, /):
    """Start or stop recording where arena memory is allocated, for `tracemalloc`.

    While `tracemalloc` is tracing, each block and page run that a Python call
    obtains is recorded with its traceback and the bytes requested, in the
    domain `TRACEMALLOC_DOMAIN`. Filter a snapshot by
    ``tracemalloc.DomainFilter(True, xmem.TRACEMALLOC_DOMAIN)`` to see arena
    memory alone. Memory of Python and NumPy stays in their own domains;
    nothing is counted twice. Memory obtained while recording was off is not
    seen, and neither is memory that C code obtains. Recording is off by default.

    Parameters
    ----------
    on : bool
        Applies to all arenas of the process.

    Returns
    -------
    bool
        The setting before.

    Raises
    ------
    BadArgumentType
        Not a truth value.
    """
    global sites_on
    cdef bint before = sites_on
    sites_on = flag_argument(on, "on")
    vm_change()
    return before


cdef void sites_end(arena_t* arena) noexcept:
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
