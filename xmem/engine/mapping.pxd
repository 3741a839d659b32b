# SPDX-License-Identifier: BSD-3-Clause
"""From block size to bin, in both roundings: pure arithmetic.

Bins are numbered consecutively. Below 1024 bytes each multiple of 16 has its
own bin; from there on each power of two is divided into 32 bins of equal width::

    size   32   48 ... 1008 | 1024  1056 ... 2016 | 2048  2112 ...
    bin     2    3 ...   63 |   64    65 ...   95 |   96    97 ...

``mapping_insert`` rounds down, to the bin in which a block of this size is kept.
``mapping_search`` rounds up, to the first bin whose every block is large enough.
Rounding up past the last bin of a power of two gives the first bin of the next, so
neither needs a branch.
Source: Masmano et al., "TLSF: a new dynamic memory allocator for real-time
systems", ECRTS 2004.
"""

from libc.stdint cimport uint64_t

from xmem.base.bits cimport bit, find_last_set

cdef enum:
    MAPPING_SL_LOG2 = 5         # log2 of the bins per power of two
    MAPPING_LINEAR_LOG2 = 9     # bins are 16 bytes wide up to twice this size
    MAPPING_LINEAR_BYTES = 2 << MAPPING_LINEAR_LOG2
    MAPPING_GRAIN_LOG2 = MAPPING_LINEAR_LOG2 - MAPPING_SL_LOG2
    MAPPING_MAX_LOG2 = 44       # of the largest size
    MAPPING_MAX_BINS = (
        (MAPPING_MAX_LOG2 - MAPPING_LINEAR_LOG2 + 2) << MAPPING_SL_LOG2
    )


cdef inline unsigned mapping_level(uint64_t size) noexcept nogil:
    """Power of two whose bins hold ``size``, at least MAPPING_LINEAR_LOG2."""
    return find_last_set(size | bit(MAPPING_LINEAR_LOG2))


cdef inline uint64_t level_bin(
    unsigned level, uint64_t size
) noexcept nogil:
    """Bin of ``size`` on ``level``, its own or (rounded up) the one below."""
    return (
        <uint64_t>(<unsigned>(level - MAPPING_LINEAR_LOG2) << MAPPING_SL_LOG2)
        + (size >> (level - MAPPING_SL_LOG2))
    )


cdef inline uint64_t mapping_insert(uint64_t size) noexcept nogil:
    """Bin in which a free block of ``size`` bytes is kept."""
    return level_bin(mapping_level(size), size)


cdef inline uint64_t mapping_search(uint64_t size) noexcept nogil:
    """First bin in which every block has at least ``size`` bytes."""
    cdef unsigned level = mapping_level(size)
    return level_bin(level, size - 1) + 1


cdef inline uint64_t mapping_n_bins(uint64_t max_size) noexcept nogil:
    """Bins needed for blocks of at most ``max_size`` bytes."""
    return mapping_insert(max_size) + 1
