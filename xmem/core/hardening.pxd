# SPDX-License-Identifier: BSD-3-Clause
"""Hardening: what it writes into blocks, and how damage to them is found.

Each flag of the pool turns one measure on::

    POOL_CANARY      the bytes between what was asked for and the block's end, and the
                     trailer in its last 8, hold a pattern
    POOL_CHECKSUM    the trailer is keyed by the arena's secret and covers the header
    POOL_SAFE_LINKS  the headers, boundary tags and links next to a block are verified
                     before anything is unlinked
    POOL_POISON      the first HARD_POISON_BYTES of a freed block are overwritten, and
                     verified when the block is used again
    POOL_QUARANTINE  a freed block of at most a page waits until HARD_RING others have
                     been freed

No work here depends on the size of a block: what is filled or compared has a constant
limit. The verbs are in hardened.pxd.

A hardened block in use::

    block      +8                  +8 + n          size - 8
      | header | payload, n bytes  | pattern       | trailer |

The trailer's highest byte counts the pattern's bytes; its lowest is never 0, so that a
string whose final NUL is written one byte too far is noticed. A free block whose first
bytes were poisoned is marked in its header (BLOCK_POISONED); the engine knows nothing
of the mark and drops it with the next header that it writes.

A block of whole pages has no trailer, which would cost a page where the last one is
full. Its record in the frame table holds what was asked for, and the pattern fills what
is left of its pages, at most HARD_CANARY_BYTES of it::

    frame_t     63          8     7       6       5            0
      next, prev | requested | RUN_NOTED | 0 | log2 of alignment |

A block that is found damaged when it leaves the quarantine is *lost*: its header keeps
its size and gets the tag 0, which is no pool's. To the engine it is in use for ever, so
its neighbours are freed and used as ever, but never merged across it. Its contents
and its trailer mean nothing.

H1  pattern and trailer of a block in use that is not lost are as they were written
H2  a marked free block holds the poison behind its links
H3  a block in quarantine is in use, has no start bit, and its first bytes hold the
    poison; no other such block exists but those that are lost
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from xmem.arena cimport (
    FRAME_REGION,
    arena_t,
    frame_pages,
    frame_state,
    frame_t,
    page_of,
    page_offset,
)
from xmem.base cimport (
    engine_fill,
    finding_t,
    invariant,
    offset_t,
    put,
    put32,
    report,
    require,
    store_barrier,
)
from xmem.core.control cimport (
    HARD_RING,
    POOL_CANARY,
    POOL_CHECKSUM,
    POOL_POISON,
    POOL_QUARANTINE,
    POOL_SAFE_LINKS,
    pool_t,
)
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_SHIFT,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_TAG_MASK,
    LINK_BACK,
    LINK_NEXT,
    PAGE_RULE_BYTES,
    REGION_HEAD_BYTES,
    block_of,
    block_size,
    block_word,
    payload_of,
    word_at,
    word_size,
)

cdef enum:
    HARD_TRAILER_BYTES = 8
    HARD_PATTERN = 0xC5         # behind the payload
    HARD_POISON = 0xDF          # in free memory
    HARD_POISON_BYTES = 256
    HARD_CANARY_BYTES = 256     # of a block of whole pages
    HARD_LINKS_BYTES = 24       # header and links of a free block

    # In a free block's header, in the bits of the alignment of one in use.
    BLOCK_POISONED = 1 << BLOCK_ALIGN_SHIFT

    # In the record of a block of whole pages.
    RUN_ALIGN_MASK = 63
    RUN_NOTED = 1 << 7          # what was asked for stands above
    RUN_REQUESTED_SHIFT = 8


# Trailer ---------------------------------------------------------------------

cdef inline uint64_t hard_overhead(pool_t* pool) noexcept nogil:
    """Bytes that the trailer takes in every block."""
    if pool.flags & (POOL_CANARY | POOL_CHECKSUM):
        return HARD_TRAILER_BYTES
    return 0


cdef inline uint64_t mixed(uint64_t word) noexcept nogil:
    """A word whose every bit depends on every bit of the argument."""
    word ^= word >> 32
    word *= <uint64_t>0xD6E8FEB86659FD93
    word ^= word >> 32
    word *= <uint64_t>0xD6E8FEB86659FD93
    return word ^ (word >> 32)


cdef inline uint64_t trailer_word(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t slack
) noexcept nogil:
    """The trailer of a block in use with ``slack`` bytes of pattern."""
    cdef uint64_t word = block
    if pool.flags & POOL_CHECKSUM:
        word ^= arena.super.secret
        word = mixed(word) ^ (
            block_word(arena.base, block) & ~<uint64_t>BLOCK_PREV_FREE
        )
    word = mixed(word ^ (slack << 56))
    return (slack << 56) | ((word | 0x80) & ~(<uint64_t>0xFF << 56))


cdef inline uint64_t* trailer_at(char* base, offset_t block) noexcept nogil:
    """Address of the trailer of a block in use."""
    return word_at(base, block + block_size(base, block) - HARD_TRAILER_BYTES)


cdef inline void seal_block(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t n_bytes
) noexcept nogil:
    """Write pattern and trailer behind ``n_bytes`` of payload."""
    cdef uint64_t slack
    if hard_overhead(pool) == 0:
        return
    slack = (
        block_size(arena.base, block)
        - BLOCK_HEADER_BYTES
        - HARD_TRAILER_BYTES
        - n_bytes
    )
    require(slack < 256)
    if pool.flags & POOL_CANARY:
        engine_fill(
            arena.base + payload_of(block) + n_bytes, HARD_PATTERN, slack
        )
    put(trailer_at(arena.base, block), trailer_word(arena, pool, block, slack))


cdef inline bint holds_byte(
    const char* start, uint64_t n_bytes, unsigned value
) noexcept nogil:
    """Whether every byte of memory has one value."""
    cdef uint64_t expected = <uint64_t>0x0101010101010101 * value
    cdef uint64_t word
    while n_bytes >= 8:
        memcpy(&word, start, 8)     # a load, aligned or not
        if word != expected:
            return False
        start += 8
        n_bytes -= 8
    while n_bytes > 0:
        n_bytes -= 1
        if <uint8_t>start[n_bytes] != value:
            return False
    return True


cdef inline bint check_seal(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """H1 for a block whose size is in bounds."""
    cdef uint64_t word = trailer_at(arena.base, block)[0]
    cdef uint64_t slack = word >> 56
    cdef offset_t end = block + block_size(arena.base, block) - HARD_TRAILER_BYTES
    if hard_overhead(pool) == 0:
        return True
    if word != trailer_word(arena, pool, block, slack) or (
        slack > end - payload_of(block)
    ):
        return report(
            finding,
            invariant(c"H", 1),
            block,
            word,
            trailer_word(arena, pool, block, slack),
        )
    if pool.flags & POOL_CANARY and not holds_byte(
        arena.base + end - slack, slack, HARD_PATTERN
    ):
        return report(
            finding,
            invariant(c"H", 1),
            block,
            word_at(arena.base, end - 8)[0],
            HARD_PATTERN,
        )
    return True


# Whole pages -----------------------------------------------------------------

cdef inline uint64_t run_requested(
    arena_t* arena, offset_t payload, uint64_t run_bytes
) noexcept nogil:
    """Bytes asked for of a block of whole pages; all where that is not noted."""
    cdef frame_t* frame = &arena.frames[page_of(arena, payload)]
    cdef uint64_t note = frame.next | <uint64_t>frame.prev << 32
    return note >> RUN_REQUESTED_SHIFT if note & RUN_NOTED else run_bytes


cdef inline uint64_t canary_bytes(uint64_t room) noexcept nogil:
    """How many of the ``room`` bytes behind whole pages' payload are filled."""
    return room if room < HARD_CANARY_BYTES else HARD_CANARY_BYTES


cdef inline void seal_run(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Write the pattern behind ``n_bytes`` of whole pages, and note ``n_bytes``.

    The run may already be sealed. In this order H1 holds after each store.
    """
    cdef frame_t* frame = &arena.frames[page_of(arena, payload)]
    cdef uint64_t room = page_offset(arena, frame_pages(frame.word)) - n_bytes
    cdef uint64_t note = (
        n_bytes << RUN_REQUESTED_SHIFT | RUN_NOTED | (frame.next & RUN_ALIGN_MASK)
    )
    if hard_overhead(pool) == 0:
        return
    if pool.flags & POOL_CANARY:
        engine_fill(
            arena.base + payload + n_bytes, HARD_PATTERN, canary_bytes(room)
        )
        store_barrier()
    put32(&frame.next, <uint32_t>note)
    put32(&frame.prev, <uint32_t>(note >> 32))


cdef inline bint check_run_seal(
    arena_t* arena, pool_t* pool, offset_t payload, finding_t* finding
) noexcept nogil:
    """H1 for a block of whole pages."""
    cdef uint64_t run_bytes = page_offset(
        arena, frame_pages(arena.frames[page_of(arena, payload)].word)
    )
    cdef uint64_t requested = run_requested(arena, payload, run_bytes)
    cdef offset_t end = payload + requested
    if requested > run_bytes:
        return report(finding, invariant(c"H", 1), payload, requested, run_bytes)
    if not pool.flags & POOL_CANARY or holds_byte(
        arena.base + end, canary_bytes(run_bytes - requested), HARD_PATTERN
    ):
        return True
    return report(
        finding,
        invariant(c"H", 1),
        payload,
        word_at(arena.base, end & ~<uint64_t>7)[0],
        HARD_PATTERN,
    )


# Poison ----------------------------------------------------------------------

cdef inline uint64_t poison_bytes(uint64_t room) noexcept nogil:
    """How many of ``room`` bytes are poisoned."""
    return room if room < HARD_POISON_BYTES else HARD_POISON_BYTES


cdef inline void poison_free(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Poison a listed free block behind its links, and mark it."""
    cdef uint64_t room
    if not pool.flags & POOL_POISON:
        return
    # Between the links and the boundary tag.
    room = block_size(arena.base, block) - HARD_LINKS_BYTES - 8
    engine_fill(
        arena.base + block + HARD_LINKS_BYTES, HARD_POISON, poison_bytes(room)
    )
    store_barrier()
    put(word_at(arena.base, block), word_at(arena.base, block)[0] | BLOCK_POISONED)


cdef inline bint check_poison(
    arena_t* arena, offset_t block, finding_t* finding
) noexcept nogil:
    """H2 for a free block whose size is in bounds."""
    cdef uint64_t room = block_size(arena.base, block) - HARD_LINKS_BYTES - 8
    if not block_word(arena.base, block) & BLOCK_POISONED or holds_byte(
        arena.base + block + HARD_LINKS_BYTES, poison_bytes(room), HARD_POISON
    ):
        return True
    return report(
        finding,
        invariant(c"H", 2),
        block,
        word_at(arena.base, block + HARD_LINKS_BYTES)[0],
        HARD_POISON,
    )


cdef inline bint check_waiting(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """H3: the poison of a block in quarantine, whose seal has been verified."""
    cdef uint64_t room = (
        block_size(arena.base, block) - BLOCK_HEADER_BYTES - hard_overhead(pool)
    )
    if not pool.flags & POOL_POISON or holds_byte(
        arena.base + payload_of(block), poison_bytes(room), HARD_POISON
    ):
        return True
    return report(
        finding,
        invariant(c"H", 3),
        block,
        word_at(arena.base, payload_of(block))[0],
        HARD_POISON,
    )


cdef inline bint is_quarantined(pool_t* pool, offset_t block) noexcept nogil:
    """Whether a block is in the pool's quarantine."""
    cdef unsigned slot
    for slot in range(HARD_RING):
        if pool.hard.ring[slot] == block:
            return True
    return False


cdef inline bint says_lost(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a header is that of a lost block, if the block is not in quarantine."""
    cdef uint64_t word = block_word(arena.base, block)
    return (
        (word & (BLOCK_TAG_MASK | BLOCK_ALIGN_MASK | BLOCK_FREE)) == 0
        and (pool.flags & POOL_QUARANTINE) != 0
        and word_size(word) != 0
        and not start_test(arena, payload_of(block))
    )


cdef inline bint is_lost(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether the header at ``block``, a place in a chain, is that of a lost block."""
    return says_lost(arena, pool, block) and not is_quarantined(pool, block)


# Neighbours and links --------------------------------------------------------

cdef inline bint is_place(arena_t* arena, offset_t block) noexcept nogil:
    """Whether an offset can be that of a header in this arena's pages."""
    return (
        (block & (BLOCK_GRAIN - 1)) == 8
        and block >= page_offset(arena, arena.first_page)
        and block < arena.n_bytes
    )


cdef inline bint check_header(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t state,
    finding_t* finding,
) noexcept nogil:
    """B1, B2 and B7 for a block whose FREE bit must be ``state``."""
    cdef uint64_t word
    cdef uint64_t size
    if not is_place(arena, block):
        return report(finding, invariant(c"B", 2), block, block, 8)
    word = block_word(arena.base, block)
    size = word_size(word)
    if (word & BLOCK_TAG_MASK) != pool.tlsf.tag:
        return report(finding, invariant(c"B", 7), block, word, pool.tlsf.tag)
    if (
        (word & BLOCK_FREE) != state
        or size < BLOCK_MIN_BYTES
        or size & (BLOCK_GRAIN - 1)
        or size > arena.n_bytes - 8 - block
    ):
        return report(finding, invariant(c"B", 1), block, word, state)
    return True


cdef inline bint check_back_link(
    arena_t* arena, offset_t block, finding_t* finding
) noexcept nogil:
    """F4 of a free block: the word that its link names holds its offset."""
    cdef offset_t back = word_at(arena.base, block + LINK_BACK)[0]
    if (
        back & 7
        or back > arena.n_bytes - 8
        or word_at(arena.base, back)[0] != block
    ):
        return report(finding, invariant(c"F", 4), block, back, block)
    return True


cdef inline bint check_next_link(
    arena_t* arena, offset_t block, finding_t* finding
) noexcept nogil:
    """F4 of the next block on a free block's list."""
    cdef char* base = arena.base
    cdef offset_t next_block = word_at(base, block + LINK_NEXT)[0]
    if next_block != 0 and (
        not is_place(arena, next_block)
        or word_at(base, next_block + LINK_BACK)[0] != block + LINK_NEXT
    ):
        return report(finding, invariant(c"F", 4), block, next_block, block)
    return True


cdef inline bint is_known(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a block whose FREE bit is clear is in use, or is a sentinel."""
    return (
        start_test(arena, payload_of(block))
        or block_size(arena.base, block) == 0
        or is_quarantined(pool, block)
        or is_lost(arena, pool, block)
    )


cdef inline bint check_listed(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """Header, boundary tag, links and poison of a free block."""
    cdef offset_t end
    cdef uint64_t word
    if not check_header(arena, pool, block, BLOCK_FREE, finding):
        return False
    word = block_word(arena.base, block)
    if word & BLOCK_PREV_FREE:
        return report(finding, invariant(c"B", 4), block, word, 0)
    if word & (BLOCK_ALIGN_MASK & ~BLOCK_POISONED):
        return report(finding, invariant(c"B", 7), block, word, 0)
    if pool.flags & POOL_SAFE_LINKS:
        end = block + block_size(arena.base, block)
        if word_at(arena.base, end - 8)[0] != block:
            return report(
                finding,
                invariant(c"B", 6),
                block,
                word_at(arena.base, end - 8)[0],
                block,
            )
        # A header that a merge has absorbed still says PREV_FREE.
        word = block_word(arena.base, end)
        if not word & BLOCK_PREV_FREE or not is_known(arena, pool, end):
            return report(finding, invariant(c"B", 5), end, word, 1)
        if not (
            check_back_link(arena, block, finding)
            and check_next_link(arena, block, finding)
        ):
            return False
    return check_poison(arena, block, finding)


cdef inline bint ends_at(
    arena_t* arena, offset_t left, offset_t block
) noexcept nogil:
    """Whether ``left`` can be the left neighbour of ``block``."""
    return (
        left < block
        and is_place(arena, left)
        and left + block_size(arena.base, left) == block
    )


cdef inline bint follows_free(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a free block's boundary tag, and no other word, is in front of ``block``.

    In front of the first block of a region any word may stand.
    """
    cdef uint64_t page = page_of(arena, block)
    cdef offset_t left = word_at(arena.base, block - 8)[0]
    if not ends_at(arena, left, block):
        return False
    if block == page_offset(arena, page) + REGION_HEAD_BYTES and (
        frame_state(arena.frames[page].word) == FRAME_REGION
    ):
        return False
    return (
        block_word(arena.base, left) & (BLOCK_FREE | BLOCK_TAG_MASK)
    ) == (BLOCK_FREE | pool.tlsf.tag)


cdef inline bint hides_left(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether the left neighbour is free although PREV_FREE is clear.

    Then a boundary tag stands where a block in use has its trailer. Without trailers
    this cannot be told.
    """
    return hard_overhead(pool) != 0 and follows_free(arena, pool, block)


cdef inline bint check_neighbours(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """The neighbours of a block in use, whose header is in bounds."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef offset_t right = block + word_size(word)
    cdef uint64_t right_word = block_word(arena.base, right)
    cdef offset_t left
    if right_word & BLOCK_PREV_FREE or (
        (right_word & BLOCK_TAG_MASK) != pool.tlsf.tag
        and not is_lost(arena, pool, right)
    ):
        return report(finding, invariant(c"B", 5), right, right_word, 0)
    if right_word & BLOCK_FREE:
        if not check_listed(arena, pool, right, finding):
            return False
    elif not is_known(arena, pool, right):
        return report(finding, invariant(c"V", 1), right, right_word, BLOCK_FREE)
    if not word & BLOCK_PREV_FREE:
        return not hides_left(arena, pool, block) or report(
            finding, invariant(c"B", 5), block, word, BLOCK_PREV_FREE
        )
    left = word_at(arena.base, block - 8)[0]
    if not ends_at(arena, left, block):
        return report(finding, invariant(c"B", 6), block, left, block)
    return check_listed(arena, pool, left, finding)


cdef inline bint check_live(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """All that the flags promise of a block in use and of its neighbours."""
    if not (
        check_header(arena, pool, block, 0, finding)
        and check_seal(arena, pool, block, finding)
    ):
        return False
    return not pool.flags & POOL_SAFE_LINKS or check_neighbours(
        arena, pool, block, finding
    )


cdef inline bint check_payload(
    arena_t* arena, pool_t* pool, offset_t payload, finding_t* finding
) noexcept nogil:
    """``check_live`` of any live block, one of whole pages too."""
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        return check_run_seal(arena, pool, payload, finding)
    return check_live(arena, pool, block_of(payload), finding)


cdef inline finding_t* damage_of(pool_t* pool, finding_t* spare) noexcept nogil:
    """Where to record a finding: only the first is kept until it is read."""
    return &pool.hard.damage if pool.hard.damage.code == 0 else spare
