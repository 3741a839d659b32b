# SPDX-License-Identifier: BSD-3-Clause
"""The first violation that a checker found: invariant, place, two values.

The code of invariant B5 is 100 * ord("B") + 5.
"""

from libc.stdint cimport uint64_t


cdef struct finding_t:
    unsigned code           # 0: nothing found
    uint64_t offset         # bytes from the arena's base
    uint64_t found
    uint64_t expected


cdef enum:
    INVARIANT_FIRST = 6500  # 100 * ord("A")
    INVARIANT_LAST = 9099   # 100 * ord("Z") + 99


cdef inline unsigned invariant(char letter, unsigned number) noexcept nogil:
    """Code of a numbered invariant."""
    return 100 * <unsigned>letter + number


cdef inline bint report(
    finding_t* finding,
    unsigned code,
    uint64_t offset,
    uint64_t found,
    uint64_t expected,
) noexcept nogil:
    """Record a finding; always False, to be returned by the checker."""
    finding.code = code
    finding.offset = offset
    finding.found = found
    finding.expected = expected
    return False
