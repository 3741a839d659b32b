# SPDX-License-Identifier: BSD-3-Clause
"""The census of a pool: what a walk of its headers counts."""

from libc.stdint cimport uint64_t

from xmem.arena cimport arena_t
from xmem.base cimport GRAINS_WORD_LOG2, offset_t

cdef extern from *:
    int popcount "__builtin_popcountll"(unsigned long long word) noexcept nogil


cdef struct census_t:
    uint64_t n_used
    uint64_t n_free
    uint64_t n_lost                 # of those used
    uint64_t n_waiting              # of those used, on quick lists as it seems
    uint64_t waiting                # fingerprint of these
    uint64_t used_bytes             # blocks in use, headers included
    uint64_t free_bytes             # free blocks, headers included
    uint64_t largest_free           # block size, header included
    uint64_t n_stretches            # chains of blocks: joined regions count as one
    uint64_t n_regions
    uint64_t region_pages
    uint64_t n_runs                 # n_whole, and runs of a heap's page_alloc
    uint64_t n_whole                # blocks of whole pages
    uint64_t run_pages
    uint64_t n_starts               # start bits set in regions and runs


cdef inline void census_clear(census_t* census) noexcept nogil:
    """Start counting."""
    census.n_used = 0
    census.n_free = 0
    census.n_lost = 0
    census.n_waiting = 0
    census.waiting = 0
    census.used_bytes = 0
    census.free_bytes = 0
    census.largest_free = 0
    census.n_stretches = 0
    census.n_regions = 0
    census.region_pages = 0
    census.n_runs = 0
    census.n_whole = 0
    census.run_pages = 0
    census.n_starts = 0


cdef inline void count_block(
    census_t* census, uint64_t size, bint is_free
) noexcept nogil:
    """Add one block to the census."""
    if is_free:
        census.n_free += 1
        census.free_bytes += size
        if size > census.largest_free:
            census.largest_free = size
    else:
        census.n_used += 1
        census.used_bytes += size


cdef inline uint64_t count_starts(
    arena_t* arena, offset_t start, offset_t end
) noexcept nogil:
    """Start bits set for ``start`` to ``end``, which are page-aligned."""
    cdef uint64_t i
    cdef uint64_t count = 0
    for i in range(start >> GRAINS_WORD_LOG2, end >> GRAINS_WORD_LOG2):
        count += popcount(arena.start_bits[i])
    return count
