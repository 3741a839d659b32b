# SPDX-License-Identifier: BSD-3-Clause
"""The record of a run: one word in the frame table.

There is a record for each page. Only that of the first page of a run is not zero::

    63            32 31      16 15     8 7      0
    | pages of the run | owner | order | state |

The owner is 0 for a run of Arena.page_alloc, else the number of a pool.
"""

from libc.stdint cimport uint64_t

cdef enum:
    # States; 0 in a record that is not the first of a run.
    FRAME_FREE = 1
    FRAME_RUN = 2           # of page_alloc
    FRAME_REGION = 3        # cut into blocks by an engine
    FRAME_CONTROL = 4       # a pool's control block
    FRAME_JOINED = 5        # a region whose blocks continue from the one on its left
    FRAME_PENDING = 6       # obtained by a pool, which has not formatted it yet
    FRAME_WHOLE = 7         # a pool's block of whole pages

    FRAME_ORDER_SHIFT = 8
    FRAME_OWNER_SHIFT = 16
    FRAME_PAGES_SHIFT = 32


cdef inline uint64_t frame_pack(
    uint64_t state, uint64_t order, uint64_t owner, uint64_t n_pages
) noexcept nogil:
    """Record of the first page of a run."""
    return (
        state
        | (order << FRAME_ORDER_SHIFT)
        | (owner << FRAME_OWNER_SHIFT)
        | (n_pages << FRAME_PAGES_SHIFT)
    )


cdef inline unsigned frame_state(uint64_t word) noexcept nogil:
    return <unsigned>(word & 0xFF)


cdef inline unsigned frame_order(uint64_t word) noexcept nogil:
    return <unsigned>((word >> FRAME_ORDER_SHIFT) & 0xFF)


cdef inline unsigned frame_owner(uint64_t word) noexcept nogil:
    return <unsigned>((word >> FRAME_OWNER_SHIFT) & 0xFFFF)


cdef inline uint64_t frame_pages(uint64_t word) noexcept nogil:
    return word >> FRAME_PAGES_SHIFT


cdef inline bint is_region(uint64_t word, unsigned owner) noexcept nogil:
    """Whether a record is that of a region of pool ``owner``."""
    return frame_owner(word) == owner and (
        frame_state(word) == FRAME_REGION or frame_state(word) == FRAME_JOINED
    )
