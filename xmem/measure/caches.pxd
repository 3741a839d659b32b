# SPDX-License-Identifier: BSD-3-Clause
"""Cold caches: what ``cold`` means in every measurement.

Before a cold call one word of each line of 64 MiB of other memory is written.
That is more than the caches, and the translations, that one core can use, so the
call finds none of the heap in them.
"""

from libc.stdint cimport uint64_t

cdef enum:
    LINE_LOG2 = 6
    LINE_BYTES = 1 << LINE_LOG2
    EVICT_BYTES = 64 << 20


cdef inline void evict(char* buffer) noexcept nogil:
    """Fill the caches of this core with ``EVICT_BYTES`` of other memory."""
    cdef uint64_t i
    for i in range(EVICT_BYTES >> LINE_LOG2):
        buffer[i << LINE_LOG2] += 1
