# SPDX-License-Identifier: BSD-3-Clause
"""What lies around a place where an invariant does not hold.

A header is seldom damaged by the program that owns the block behind it: the
usual culprit is the live block in front, whose owner wrote too far. Nothing
here trusts a header; live blocks are found by the start bitmap, and every
address is compared with the arena's ends before it is read.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t

from xmem.arena.frames cimport frame_owner, frame_state, frames_head_of
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.memcheck cimport checker_pause, checker_resume, engine_copy
from xmem.base.offset cimport offset_t
from xmem.core.control cimport ENGINE_TLSF, pool_t
from xmem.core.plain cimport pool_owns
from xmem.core.startbits cimport start_after, start_before
from xmem.engine.block cimport (
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    PAGE_RULE_BYTES,
    block_of,
    block_word,
    word_size,
)
from xmem.engine.firstfit cimport FIRSTFIT_LINE, FIRSTFIT_PADDED
from xmem.verbs cimport pool_capacity

cdef enum:
    SHOWN_BYTES = 16        # on either side of the place


cdef bint has_sound_size(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept:
    """Whether the header of a live block leads to an end in the arena."""
    cdef offset_t block = block_of(payload)
    cdef uint64_t word = block_word(arena.base, block)
    if pool.engine != ENGINE_TLSF:
        block = payload - FIRSTFIT_LINE
        word = block_word(arena.base, block)
        if word & FIRSTFIT_PADDED:
            if word_size(word) & (BLOCK_GRAIN - 1) or (
                word_size(word) > block - page_offset(arena, arena.first_page)
            ):
                return False
            block -= word_size(word)
            word = block_word(arena.base, block)
    elif (payload & (PAGE_RULE_BYTES - 1)) == 0:
        return True
    return (
        BLOCK_MIN_BYTES <= word_size(word) <= arena.n_bytes - block
        and word_size(word) & (BLOCK_GRAIN - 1) == 0
        and block + word_size(word) > payload
    )


cdef object block_at(arena_t* arena, pool_t* pool, offset_t payload):
    """A live block of the pool as a dict, or None."""
    if payload == 0 or not pool_owns(arena, pool, payload):
        return None
    if not has_sound_size(arena, pool, payload):
        return None                 # its own header is what is damaged
    return {"offset": payload, "capacity": pool_capacity(arena, pool, payload)}


cdef dict diagnose(arena_t* arena, pool_t* pool, offset_t offset):
    """Bytes, pages and live neighbours of the header at ``offset``.

    Returns
    -------
    dict
        ``bytes`` (hexadecimal, 16 in front of the place and 16 from it on),
        ``page``, ``state`` and ``owner`` of the run of pages, ``block``,
        ``before`` and ``after``: the live block whose header this is, and its
        neighbours, as ``{"offset", "capacity"}`` or None. Empty when the
        place is outside the page frames.
    """
    cdef offset_t payload = offset + BLOCK_HEADER_BYTES
    cdef uint64_t word
    cdef uint64_t page
    cdef char[2 * SHOWN_BYTES] shown
    if offset >= arena.n_bytes - SHOWN_BYTES or (
        offset < page_offset(arena, arena.first_page)
    ):
        return {}
    page = frames_head_of(arena, page_of(arena, offset))
    word = arena.frames[page].word
    checker_pause()
    engine_copy(shown, arena.base + offset - SHOWN_BYTES, 2 * SHOWN_BYTES)
    checker_resume()
    return {
        "bytes": (
            PyBytes_FromStringAndSize(shown, SHOWN_BYTES).hex(" ", 8)
            + " | "
            + PyBytes_FromStringAndSize(shown + SHOWN_BYTES, SHOWN_BYTES).hex(" ", 8)
        ),
        "page": page,
        "state": frame_state(word),
        "owner": frame_owner(word),
        "block": block_at(arena, pool, payload),
        "before": block_at(arena, pool, start_before(arena, payload)),
        "after": block_at(arena, pool, start_after(arena, payload)),
    }
