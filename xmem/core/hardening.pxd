# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of a hardened TLSF pool: what a stray write did is seen, in bounds.

Each flag of the pool turns one thing on::

    POOL_CANARY      the bytes between what was asked for and the block's end,
                     and the trailer in its last 8, hold a pattern
    POOL_CHECKSUM    the trailer is keyed by the arena's secret and covers
                     the header
    POOL_SAFE_LINKS  headers, boundary tags and list links beside a block are
                     verified before anything is unlinked
    POOL_POISON      the first HARD_POISON_BYTES of what is freed are
                     overwritten, and verified when they are used again
    POOL_QUARANTINE  a freed block of at most a page waits until HARD_RING
                     others have been freed

No work here depends on the size of a block: what is filled or compared has a
constant limit. A verb that finds damage records the first finding in
``pool.hard.damage``, changes nothing, and answers as if there were no room;
the block in question stays as it is.

A hardened block in use::

    block      +8                  +8 + n          size - 8
      | header | payload, n bytes  | pattern       | trailer |

The trailer's highest byte counts the pattern's bytes; its lowest is never 0,
so that a text written one byte too far is seen. A free block whose first bytes
were poisoned says so in its header (BLOCK_POISONED); the engine, which knows
nothing of it, takes the mark away with the header it writes.

H1  pattern and trailer of a block in use are as they were written
H2  a marked free block holds the poison behind its links
H3  what waits in the quarantine is a block in use without start bit, whose
    first bytes hold the poison; no other such block exists
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from xmem.arena.frames cimport FRAME_REGION, frame_state
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.checks cimport require
from xmem.base.finding cimport finding_t, invariant, report
from xmem.base.memcheck cimport engine_copy, engine_fill
from xmem.base.offset cimport offset_t
from xmem.core.control cimport (
    HARD_RING,
    POOL_CANARY,
    POOL_CHECKSUM,
    POOL_POISON,
    POOL_QUARANTINE,
    POOL_SAFE_LINKS,
    pool_t,
)
from xmem.core.growth cimport region_release
from xmem.core.plain cimport (
    plain_capacity,
    plain_free,
    pool_alignment,
    run_resize,
    tlsf_pool_alloc,
    tlsf_pool_alloc_aligned,
    tlsf_pool_run,
)
from xmem.core.startbits cimport start_clear, start_set, start_test
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_MAX,
    BLOCK_ALIGN_SHIFT,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_TAG_MASK,
    PAGE_RULE_BYTES,
    REGION_HEAD_BYTES,
    block_bytes_for,
    block_of,
    block_size,
    block_word,
    payload_of,
    word_at,
    word_size,
)
from xmem.engine.freelists cimport LINK_BACK, LINK_NEXT, freelists_insert
from xmem.engine.tlsf cimport (
    tlsf_coalesce,
    tlsf_find,
    tlsf_find_aligned,
    tlsf_resize,
    tlsf_resize_left,
)

cdef enum:
    HARD_TRAILER_BYTES = 8
    HARD_PATTERN = 0xC5         # behind the payload
    HARD_POISON = 0xDF          # in what is free
    HARD_POISON_BYTES = 256
    HARD_LINKS_BYTES = 24       # header and links of a free block

    # In a free block's header, where the alignment of one in use stands.
    BLOCK_POISONED = 1 << BLOCK_ALIGN_SHIFT


# Trailer ---------------------------------------------------------------------

cdef inline uint64_t hard_overhead(pool_t* pool) noexcept nogil:
    """Bytes that the trailer takes of every block."""
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
    """Where the trailer of a block in use is."""
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
    trailer_at(arena.base, block)[0] = trailer_word(arena, pool, block, slack)


cdef inline bint holds_byte(
    const char* start, uint64_t n_bytes, unsigned value
) noexcept nogil:
    """Whether memory consists of one byte's value."""
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
    """H1; the block's size is known to be in bounds."""
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


# Poison ----------------------------------------------------------------------

cdef inline uint64_t poison_bytes(uint64_t room) noexcept nogil:
    """How much of so many bytes is poisoned."""
    return room if room < HARD_POISON_BYTES else HARD_POISON_BYTES


cdef inline void poison_free(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Poison a listed free block behind its links, and mark it."""
    cdef uint64_t room
    if not pool.flags & POOL_POISON:
        return
    # Header and links in front, the boundary tag behind.
    room = block_size(arena.base, block) - HARD_LINKS_BYTES - 8
    engine_fill(
        arena.base + block + HARD_LINKS_BYTES, HARD_POISON, poison_bytes(room)
    )
    word_at(arena.base, block)[0] |= BLOCK_POISONED


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
    """H3: the poison of a block in quarantine; its seal has been verified."""
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


# Neighbours and links --------------------------------------------------------

cdef inline bint is_place(arena_t* arena, offset_t block) noexcept nogil:
    """Whether a header of this arena's pages can stand at an offset."""
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
    """B1, B2 and B7 for a block that is to be free or not (``state``)."""
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


cdef inline bint check_links(
    arena_t* arena, offset_t block, finding_t* finding
) noexcept nogil:
    """F4 on both sides of a free block, so that it can be unlinked."""
    cdef char* base = arena.base
    cdef offset_t next_block = word_at(base, block + LINK_NEXT)[0]
    cdef offset_t back = word_at(base, block + LINK_BACK)[0]
    if back & 7 or back > arena.n_bytes - 8 or word_at(base, back)[0] != block:
        return report(finding, invariant(c"F", 4), block, back, block)
    if next_block != 0 and (
        not is_place(arena, next_block)
        or word_at(base, next_block + LINK_BACK)[0] != block + LINK_NEXT
    ):
        return report(finding, invariant(c"F", 4), block, next_block, block)
    return True


cdef inline bint is_known(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a block that says it is in use is so, or is a sentinel."""
    return (
        start_test(arena, payload_of(block))
        or block_size(arena.base, block) == 0
        or is_quarantined(pool, block)
    )


cdef inline bint check_listed(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """A free block: header, boundary tag, links, poison."""
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
        # A header that a merge has swallowed still says PREV_FREE.
        word = block_word(arena.base, end)
        if not word & BLOCK_PREV_FREE or not is_known(arena, pool, end):
            return report(finding, invariant(c"B", 5), end, word, 1)
        if not check_links(arena, block, finding):
            return False
    return check_poison(arena, block, finding)


cdef inline bint ends_at(
    arena_t* arena, offset_t left, offset_t block
) noexcept nogil:
    """Whether ``left`` can be the block in front of ``block``."""
    return (
        left < block
        and is_place(arena, left)
        and left + block_size(arena.base, left) == block
    )


cdef inline bint hides_left(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a free block lies on the left of one that denies it.

    Then a boundary tag stands where a block in use has its trailer; without
    trailers nothing can be told, nor at the first block of a region, in front
    of which anything may stand.
    """
    cdef uint64_t page = page_of(arena, block)
    cdef offset_t left = word_at(arena.base, block - 8)[0]
    if hard_overhead(pool) == 0 or not ends_at(arena, left, block):
        return False
    if block == page_offset(arena, page) + REGION_HEAD_BYTES and (
        frame_state(arena.frames[page].word) == FRAME_REGION
    ):
        return False
    return (
        block_word(arena.base, left) & (BLOCK_FREE | BLOCK_TAG_MASK)
    ) == (BLOCK_FREE | pool.tlsf.tag)


cdef inline bint check_neighbours(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """What lies beside a block in use, whose header is in bounds."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef offset_t right = block + word_size(word)
    cdef uint64_t right_word = block_word(arena.base, right)
    cdef offset_t left
    if (
        right_word & BLOCK_PREV_FREE
        or (right_word & BLOCK_TAG_MASK) != pool.tlsf.tag
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
    """All that the flags promise of a block in use and of what is beside it."""
    if not (
        check_header(arena, pool, block, 0, finding)
        and check_seal(arena, pool, block, finding)
    ):
        return False
    return not pool.flags & POOL_SAFE_LINKS or check_neighbours(
        arena, pool, block, finding
    )


cdef inline finding_t* damage_of(pool_t* pool, finding_t* spare) noexcept nogil:
    """Where to record a finding: the first is kept until somebody reads it."""
    return &pool.hard.damage if pool.hard.damage.code == 0 else spare


# Verbs -----------------------------------------------------------------------

cdef inline void poison_rest(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Poison the free blocks that a split left beside a block in use."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef offset_t right = block + word_size(word)
    cdef uint64_t right_word = block_word(arena.base, right)
    if right_word & BLOCK_FREE and not right_word & BLOCK_POISONED:
        poison_free(arena, pool, right)
    if word & BLOCK_PREV_FREE:
        block = word_at(arena.base, block - 8)[0]
        if not block_word(arena.base, block) & BLOCK_POISONED:
            poison_free(arena, pool, block)


cdef inline void release_block(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Give a verified block, which has no start bit, to the engine."""
    cdef uint64_t freed = block_size(arena.base, block)
    cdef uint64_t size
    block = tlsf_coalesce(arena.base, &pool.tlsf, block, &size)
    if size >= pool.release_bytes and region_release(
        arena, pool, block, size, freed
    ):
        return
    freelists_insert(arena.base, &pool.tlsf.bins, block, size)
    poison_free(arena, pool, block)


cdef inline bint leave_quarantine(
    arena_t* arena, pool_t* pool, unsigned slot
) noexcept nogil:
    """Free what waits in a slot; damaged, it stays in use for ever."""
    cdef finding_t later
    cdef finding_t* finding = damage_of(pool, &later)
    cdef offset_t block = pool.hard.ring[slot]
    cdef bint is_sound
    if block == 0:
        return True
    is_sound = check_live(arena, pool, block, finding) and check_waiting(
        arena, pool, block, finding
    )
    pool.hard.ring[slot] = 0
    pool.hard.n_waiting -= 1
    if not is_sound:
        pool.hard.n_lost += 1
        return False
    release_block(arena, pool, block)
    return True


cdef inline void end_quarantine(arena_t* arena, pool_t* pool) noexcept nogil:
    """Free all that waits: at most HARD_RING blocks."""
    cdef unsigned slot
    for slot in range(HARD_RING):
        leave_quarantine(arena, pool, slot)


cdef inline void hard_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of a hardened pool."""
    cdef finding_t later
    cdef finding_t* finding = damage_of(pool, &later)
    cdef offset_t block = block_of(payload)
    cdef uint64_t size
    cdef unsigned slot
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        plain_free(arena, pool, payload)
        return
    if not check_live(arena, pool, block, finding):
        return
    size = block_size(arena.base, block)
    if not pool.flags & POOL_QUARANTINE or size > arena.page_bytes:
        start_clear(arena, payload)
        release_block(arena, pool, block)
        return
    slot = <unsigned>(pool.hard.n_freed & (HARD_RING - 1))
    pool.hard.n_freed += 1
    leave_quarantine(arena, pool, slot)
    start_clear(arena, payload)
    if pool.flags & POOL_POISON:
        engine_fill(
            arena.base + payload,
            HARD_POISON,
            poison_bytes(size - BLOCK_HEADER_BYTES - hard_overhead(pool)),
        )
        # The poison has taken the place of the pattern.
        seal_block(
            arena,
            pool,
            block,
            size - BLOCK_HEADER_BYTES - HARD_TRAILER_BYTES,
        )
    pool.hard.ring[slot] = block
    pool.hard.n_waiting += 1


cdef inline offset_t find_verified(
    arena_t* arena, pool_t* pool, uint64_t total, uint64_t alignment
) noexcept nogil:
    """A new block's payload from the engine, or 0; what it cuts is verified."""
    cdef finding_t later
    cdef uint64_t need = block_bytes_for(total)
    cdef offset_t block
    if alignment > BLOCK_GRAIN:
        block = tlsf_find_aligned(arena.base, &pool.tlsf, need, alignment)
    else:
        block = tlsf_find(arena.base, &pool.tlsf, need)
    if block != 0 and not check_listed(
        arena, pool, block, damage_of(pool, &later)
    ):
        return 0
    if alignment > BLOCK_GRAIN:
        return tlsf_pool_alloc_aligned(arena, pool, total, alignment)
    return tlsf_pool_alloc(arena, pool, total)


cdef inline offset_t hard_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a hardened pool.

    Where there is no room the quarantine ends, and it is tried once more.
    """
    cdef uint64_t total = n_bytes + hard_overhead(pool)
    cdef bint is_run = alignment > BLOCK_ALIGN_MAX
    cdef offset_t payload
    if total > pool.max_request or alignment > pool.max_request or n_bytes > total:
        return 0
    while True:
        if is_run:
            payload = tlsf_pool_run(arena, pool, n_bytes, alignment)
        else:
            payload = find_verified(arena, pool, total, alignment)
        if payload != 0 or pool.hard.n_waiting == 0 or pool.hard.damage.code:
            break
        end_quarantine(arena, pool)
    if payload == 0 or is_run:
        return payload
    poison_rest(arena, pool, block_of(payload))
    seal_block(arena, pool, block_of(payload), n_bytes)
    start_set(arena, payload)
    return payload


cdef inline uint64_t hard_capacity(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_capacity`` of a hardened pool: with a trailer, what was asked for."""
    cdef uint64_t capacity = plain_capacity(arena, pool, payload)
    cdef uint64_t taken
    if (payload & (PAGE_RULE_BYTES - 1)) == 0 or hard_overhead(pool) == 0:
        return capacity
    taken = HARD_TRAILER_BYTES + (
        trailer_at(arena.base, block_of(payload))[0] >> 56
    )
    return capacity - taken if taken < capacity else 0


cdef inline offset_t resize_in_place(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Resize a verified block where it lies, or leftwards; 0 if it must move."""
    cdef offset_t block = block_of(payload)
    cdef uint64_t need = block_bytes_for(n_bytes + hard_overhead(pool))
    if not tlsf_resize(arena.base, &pool.tlsf, block, need):
        block = tlsf_resize_left(arena.base, &pool.tlsf, block, need)
        if block == 0:
            return 0
        start_clear(arena, payload)
        start_set(arena, payload_of(block))
    poison_rest(arena, pool, block)
    seal_block(arena, pool, block, n_bytes)
    return payload_of(block)


cdef inline offset_t hard_resize(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
) noexcept nogil:
    """``pool_resize`` of a hardened pool."""
    cdef finding_t later
    cdef bint is_run = (payload & (PAGE_RULE_BYTES - 1)) == 0
    cdef uint64_t born, capacity
    cdef offset_t moved
    if n_bytes > pool.max_request - HARD_TRAILER_BYTES:
        return 0
    if not is_run and not check_live(
        arena, pool, block_of(payload), damage_of(pool, &later)
    ):
        return 0
    born = pool_alignment(arena, pool, payload)
    capacity = hard_capacity(arena, pool, payload)
    if alignment <= born:
        alignment = born
        if is_run:
            if run_resize(arena, pool, payload, n_bytes):
                return payload
        else:
            moved = resize_in_place(arena, pool, payload, n_bytes)
            if moved != 0:
                return moved
    moved = hard_alloc(arena, pool, n_bytes, alignment)
    if moved == 0:
        return 0
    engine_copy(
        arena.base + moved,
        arena.base + payload,
        n_bytes if n_bytes < capacity else capacity,
    )
    hard_free(arena, pool, payload)
    return moved
