# SPDX-License-Identifier: BSD-3-Clause
"""Why an integer is no live block, and what lies around damage.

A header is seldom damaged by the program that owns the block behind it: the
usual culprit is the live block in front, whose owner wrote too far. Nothing
here trusts a header; live blocks are found by the start bitmap, and every
address is compared with the arena's ends before it is read.
"""

from xmem.base.errors import DoubleFree, MismatchedFree, NotABlock

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_RUN,
    arena_t,
    directory_name,
    frame_owner,
    frame_pages,
    frame_state,
    frames_head_of,
    is_region,
    page_of,
    page_offset,
)
from xmem.base cimport (
    ENGINE_TLSF,
    checker_pause,
    checker_resume,
    engine_copy,
    offset_t,
)
from xmem.core.capacity cimport pool_capacity
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.core.startbits cimport start_after, start_before
from xmem.engine cimport (
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    FIRSTFIT_LINE,
    FIRSTFIT_PADDED,
    PAGE_RULE_BYTES,
    block_of,
    block_word,
    word_size,
)

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


# Refusals --------------------------------------------------------------------

cdef offset_t block_around(arena_t* arena, pool_t* pool, offset_t place) noexcept:
    """Live block of the pool in whose payload ``place`` lies, or 0."""
    cdef offset_t payload = start_before(arena, place)
    if payload == 0 or not pool_owns(arena, pool, payload):
        return 0
    if place - payload >= pool_capacity(arena, pool, payload):
        return 0
    return payload


cdef object explain_run(
    arena_t* arena, pool_t* pool, uint32_t head, offset_t payload, str call
):
    """Why the run of pages at ``head`` holds no block of the pool, or None."""
    cdef uint64_t word = arena.frames[head].word
    cdef unsigned owner = frame_owner(word)
    if frame_state(word) == FRAME_FREE:
        return DoubleFree(
            f"{call}: page {page_of(arena, payload)} is free: freed already, or "
            "never allocated"
        )
    if frame_state(word) == FRAME_CONTROL:
        return NotABlock(f"{call}: inside a pool's control block")
    if owner == 0:
        return MismatchedFree(
            f"{call}: inside the page run at {page_offset(arena, head):#x}, "
            "from Arena.page_alloc: free it with Arena.page_free"
        )
    if owner != pool.number:
        return MismatchedFree(
            f"{call}: memory of pool {directory_name(arena, owner)!r}: use that pool"
        )
    if payload == page_offset(arena, head) and frame_state(word) == FRAME_RUN:
        return MismatchedFree(
            f"{call}: pages from the heap's page_alloc: free them with page_free"
        )
    if not is_region(word, pool.number):
        return NotABlock(
            f"{call}: inside the run of {frame_pages(word)} pages at "
            f"{page_offset(arena, head):#x}"
        )
    return None


cdef object explain_refusal(
    arena_t* arena, pool_t* pool, offset_t payload, str call
):
    """The exception that says why ``payload`` is no live block of the pool.

    ``call`` is what the message begins with: the verb and its argument.
    """
    cdef uint64_t page = page_of(arena, payload)
    cdef offset_t block
    if payload >= arena.n_bytes or page < arena.first_page:
        return NotABlock(f"{call}: outside the arena's page frames")
    error = explain_run(arena, pool, frames_head_of(arena, page), payload, call)
    if error is not None:
        return error
    if payload & (BLOCK_GRAIN - 1):
        return NotABlock(
            f"{call}: not a multiple of {BLOCK_GRAIN}, as every block's offset is"
        )
    block = block_around(arena, pool, payload)
    if block != 0:
        return NotABlock(f"{call}: inside the live block at {block:#x}")
    return DoubleFree(f"{call}: no live block: freed already, or never allocated")
