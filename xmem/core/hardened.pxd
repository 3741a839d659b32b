# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of a hardened TLSF pool.

hardening.pxd says what they write and verify. A verb that finds damage records the
first finding in ``pool.hard.damage``, changes nothing, and returns as if there were no
room; the block in question stays as it is. Only a block that is found damaged when it
leaves the quarantine changes: it becomes lost (hardening.pxd). A verb that meets one
while it makes room for its request reports it in the same way; ``hard_free`` frees its
own block nevertheless. The work of each verb is bounded.

A block's start bit is set when its seal is written, and cleared before anything of it
is changed: see startbits.pxd.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport (
    FRAME_PENDING,
    FRAME_WHOLE,
    arena_t,
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
    store_barrier,
    unlikely,
)
from xmem.core.control cimport (
    HARD_RING,
    POOL_HOOKED,
    POOL_POISON,
    POOL_QUARANTINE,
    pool_t,
)
from xmem.core.growth cimport run_alloc, run_find
from xmem.core.hardening cimport (
    BLOCK_POISONED,
    HARD_POISON,
    HARD_TRAILER_BYTES,
    check_listed,
    check_live,
    check_payload,
    check_waiting,
    damage_of,
    follows_free,
    hard_overhead,
    poison_bytes,
    poison_free,
    run_requested,
    seal_block,
    seal_run,
    trailer_at,
)
from xmem.core.plain cimport (
    copy_payload,
    has_top_room,
    outlined_owned,
    plain_capacity,
    plain_free,
    pool_alignment,
    run_pages_for,
    run_resize,
    tlsf_pool_grown,
)
from xmem.core.regions cimport region_pages_for
from xmem.core.routes cimport (
    is_door,
    routed_alloc,
    routed_free,
    routed_resize,
    routed_run,
)
from xmem.core.spares cimport has_room, region_release
from xmem.core.startbits cimport start_clear, start_set
from xmem.engine cimport (
    BLOCK_ALIGN_MAX,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_PREV_FREE,
    PAGE_RULE_BYTES,
    block_bytes_for,
    block_of,
    block_size,
    block_word,
    block_write,
    freelists_insert,
    payload_of,
    tlsf_carve,
    tlsf_coalesce,
    tlsf_find,
    tlsf_find_aligned,
    tlsf_resize,
    tlsf_resize_left,
    word_at,
    word_size,
)

cdef enum:
    HARD_DRAIN = 2          # blocks that leave the quarantine for one request


cdef inline void poison_rest(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Poison the free blocks that a split left next to a block in use."""
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
    arena_t* arena, pool_t* pool, offset_t block, bint may_give
) noexcept nogil:
    """Give a verified block, which has no start bit, to the engine.

    ``may_give`` says whether a region may leave with it.
    """
    cdef uint64_t freed = block_size(arena.base, block)
    cdef uint64_t size
    block = tlsf_coalesce(arena.base, &pool.tlsf, block, &size)
    if may_give and size >= pool.release_bytes and (
        region_release(arena, pool, block, size, freed)
    ):
        return
    freelists_insert(arena.base, &pool.tlsf.bins, block, size)
    poison_free(arena, pool, block)


cdef inline void lose_block(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size
) noexcept nogil:
    """Make a block of ``size`` bytes one that nobody uses and nobody merges with.

    Whatever stands in its header, the new one leads to its right neighbour.
    """
    cdef uint64_t bits = 0
    if follows_free(arena, pool, block):
        bits = BLOCK_PREV_FREE
    block_write(arena.base, block, size, bits)
    put(&pool.hard.n_lost, pool.hard.n_lost + 1)


cdef inline bint check_quarantined(
    arena_t* arena, pool_t* pool, unsigned slot, finding_t* finding
) noexcept nogil:
    """Whether a block in quarantine is as it was when it was freed."""
    cdef offset_t block = pool.hard.ring[slot]
    cdef uint64_t size = pool.hard.sizes[slot]
    if block_size(arena.base, block) != size:
        return report(
            finding,
            invariant(c"B", 1),
            block,
            block_word(arena.base, block),
            size,
        )
    return check_live(arena, pool, block, finding) and check_waiting(
        arena, pool, block, finding
    )


cdef inline bint leave_quarantine(
    arena_t* arena, pool_t* pool, unsigned slot, bint may_give
) noexcept nogil:
    """Free the block in a slot, if any; False if it was damaged, and is lost now."""
    cdef finding_t later
    cdef offset_t block = pool.hard.ring[slot]
    cdef bint is_sound
    if block == 0:
        return True
    is_sound = check_quarantined(arena, pool, slot, damage_of(pool, &later))
    put(&pool.hard.ring[slot], 0)
    store_barrier()
    put(&pool.hard.n_waiting, pool.hard.n_waiting - 1)
    if is_sound:
        release_block(arena, pool, block, may_give)
    else:
        lose_block(arena, pool, block, pool.hard.sizes[slot])
    return is_sound


cdef inline bint is_to_wait(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Whether a live block goes to the quarantine when it is freed."""
    return (
        (pool.flags & POOL_QUARANTINE) != 0
        and (payload & (PAGE_RULE_BYTES - 1)) != 0
        and block_size(arena.base, block_of(payload)) <= arena.page_bytes
    )


cdef inline bint hard_prepare_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Make room in the quarantine for a live block that is going to be freed.

    False if the block that waited there was damaged. So a verb that replaces a block
    hears of that before it has done anything.
    """
    return not is_to_wait(arena, pool, payload) or leave_quarantine(
        arena, pool, <unsigned>(pool.hard.n_freed & (HARD_RING - 1)), False
    )


cdef inline void quarantine_drain(
    arena_t* arena, pool_t* pool, uint64_t n_most
) noexcept nogil:
    """Free up to ``n_most`` of the blocks in quarantine that have waited longest.

    No region leaves the pool.
    """
    cdef unsigned i, slot
    for i in range(HARD_RING):
        slot = <unsigned>((pool.hard.n_freed + i) & (HARD_RING - 1))
        if n_most != 0 and pool.hard.ring[slot] != 0:
            leave_quarantine(arena, pool, slot, False)
            n_most -= 1


cdef inline void quarantine_drain_for(
    arena_t* arena, pool_t* pool, uint64_t need
) noexcept nogil:
    """Free blocks in quarantine for a request of ``need`` bytes that found no room.

    The first in which it fits, if there is any, else the HARD_DRAIN that have waited
    longest. No region leaves the pool: the request may need it.
    """
    cdef unsigned slot
    for slot in range(HARD_RING):
        if pool.hard.ring[slot] != 0 and (
            block_size(arena.base, pool.hard.ring[slot]) >= need
        ):
            leave_quarantine(arena, pool, slot, False)
            return
    quarantine_drain(arena, pool, HARD_DRAIN)


cdef inline void hard_retire(
    arena_t* arena, pool_t* pool, offset_t payload, bint may_give
) noexcept nogil:
    """Free a verified block, or let it wait in the place of one that has waited."""
    cdef offset_t block = block_of(payload)
    cdef uint64_t size = block_size(arena.base, block)
    cdef unsigned slot
    if not is_to_wait(arena, pool, payload):
        start_clear(arena, payload)
        release_block(arena, pool, block, may_give)
        return
    slot = <unsigned>(pool.hard.n_freed & (HARD_RING - 1))
    put(&pool.hard.n_freed, pool.hard.n_freed + 1)
    leave_quarantine(arena, pool, slot, may_give)
    start_clear(arena, payload)
    if pool.flags & POOL_POISON:
        engine_fill(
            arena.base + payload,
            HARD_POISON,
            poison_bytes(size - BLOCK_HEADER_BYTES - hard_overhead(pool)),
        )
        # The poison has replaced the pattern.
        seal_block(
            arena,
            pool,
            block,
            size - BLOCK_HEADER_BYTES - HARD_TRAILER_BYTES,
        )
    put32(&pool.hard.sizes[slot], <uint32_t>size)
    store_barrier()
    put(&pool.hard.ring[slot], block)
    put(&pool.hard.n_waiting, pool.hard.n_waiting + 1)


cdef inline void hard_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of a hardened pool."""
    cdef finding_t later
    if not check_payload(arena, pool, payload, damage_of(pool, &later)):
        outlined_owned(routed_free)(arena, pool, payload)
    elif (payload & (PAGE_RULE_BYTES - 1)) == 0:
        if unlikely(is_door(arena, pool)):
            outlined_owned(routed_free)(arena, pool, payload)
        else:
            plain_free(arena, pool, payload)
    else:
        hard_retire(arena, pool, payload, True)


cdef inline offset_t hard_run(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``tlsf_pool_run`` of a hardened pool: the run is a block once it is sealed.

    Without room it frees blocks in quarantine, and the next call may find some.
    """
    cdef uint64_t n_pages = run_pages_for(arena, n_bytes)
    cdef uint32_t page = run_alloc(arena, pool, n_pages, alignment, FRAME_PENDING)
    if page == 0:
        if pool.hard.n_waiting != 0:
            quarantine_drain_for(arena, pool, ~<uint64_t>0)
        return routed_run(arena, pool, n_bytes, alignment)
    seal_run(arena, pool, page_offset(arena, page), n_bytes)
    store_barrier()
    put(
        &arena.frames[page].word,
        arena.frames[page].word ^ (FRAME_PENDING ^ FRAME_WHOLE),
    )
    return page_offset(arena, page)


cdef inline bint hard_run_resize(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """``run_resize`` of a hardened pool's verified run."""
    if n_bytes > plain_capacity(arena, pool, payload):
        return False
    seal_run(arena, pool, payload, n_bytes)
    return run_resize(arena, pool, payload, n_bytes)


cdef inline offset_t find_verified(
    arena_t* arena, pool_t* pool, uint64_t total, uint64_t alignment, bint may_grow
) noexcept nogil:
    """Payload of a new block, or 0; the free block used is verified first.

    It has no start bit yet.
    """
    cdef finding_t later
    cdef uint64_t need = block_bytes_for(total)
    cdef offset_t block
    if alignment > BLOCK_GRAIN:
        block = tlsf_find_aligned(arena.base, &pool.tlsf, need, alignment)
    else:
        alignment = BLOCK_GRAIN
        block = tlsf_find(arena.base, &pool.tlsf, need)
    if block == 0:
        if not may_grow:
            return 0
        return tlsf_pool_grown(arena, pool, total, alignment)
    if not check_listed(arena, pool, block, damage_of(pool, &later)):
        return 0
    return payload_of(
        tlsf_carve(arena.base, &pool.tlsf, block, need, alignment)
    )


cdef inline offset_t hard_alloc_by(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_drain,
) noexcept nogil:
    """`hard_alloc`; ``may_drain``: blocks may leave the quarantine for it."""
    cdef uint64_t total = n_bytes + hard_overhead(pool)
    cdef offset_t payload
    if total > pool.max_request or alignment > pool.max_request or n_bytes > total:
        return routed_alloc(arena, pool, n_bytes, alignment)
    if alignment > BLOCK_ALIGN_MAX:
        return hard_run(arena, pool, n_bytes, alignment)
    payload = find_verified(arena, pool, total, alignment, True)
    if payload == 0 and may_drain and pool.hard.n_waiting != 0 and (
        not pool.hard.damage.code
    ):
        quarantine_drain_for(arena, pool, block_bytes_for(total))
        if pool.hard.damage.code:
            return 0
        payload = find_verified(arena, pool, total, alignment, False)
    if payload == 0:
        return payload
    poison_rest(arena, pool, block_of(payload))
    seal_block(arena, pool, block_of(payload), n_bytes)
    start_set(arena, payload)
    return payload


cdef inline offset_t hard_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a hardened pool.

    Without room it frees blocks in quarantine and tries once more, unless one of them
    was damaged: the caller hears of that instead.
    """
    return hard_alloc_by(arena, pool, n_bytes, alignment, True)


cdef inline uint64_t hard_capacity(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_capacity`` of a hardened pool: with trailers, what was asked for."""
    cdef uint64_t capacity = plain_capacity(arena, pool, payload)
    cdef uint64_t taken
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        taken = run_requested(arena, payload, capacity)
        return taken if taken < capacity else capacity
    if hard_overhead(pool) == 0:
        return capacity
    taken = HARD_TRAILER_BYTES + (
        trailer_at(arena.base, block_of(payload))[0] >> 56
    )
    return capacity - taken if taken < capacity else 0


cdef inline offset_t hard_resize_near(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Resize a verified block in place or leftwards; 0 if it has to move.

    ``n_bytes`` includes the trailer.
    """
    cdef offset_t block = block_of(payload)
    cdef uint64_t need = block_bytes_for(n_bytes)
    if tlsf_resize(arena.base, &pool.tlsf, block, need):
        return payload
    block = tlsf_resize_left(
        arena.base, &pool.tlsf, block, need, arena.start_bits
    )
    if block == 0:
        return 0
    start_clear(arena, payload)
    return payload_of(block)


cdef inline bint needs_room(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """Whether a new block needs pages for which there is no room as things are.

    Unless ``may_give`` only the arena's end counts as room.
    """
    cdef uint64_t need = block_bytes_for(n_bytes)
    cdef uint64_t n_pages, stretch
    if alignment > BLOCK_ALIGN_MAX:
        stretch = run_find(arena, pool, run_pages_for(arena, n_bytes), alignment)
        return stretch == 0 or (not may_give and stretch != arena.super.frames.top)
    if alignment > BLOCK_GRAIN:
        if tlsf_find_aligned(arena.base, &pool.tlsf, need, alignment) != 0:
            return False
    elif tlsf_find(arena.base, &pool.tlsf, need) != 0:
        return False
    if pool.flags & POOL_HOOKED:
        return True
    n_pages = region_pages_for(arena, need, alignment)
    return not (
        has_room(arena, pool, n_pages)
        if may_give
        else has_top_room(arena, pool, n_pages)
    )


cdef inline offset_t hard_move(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """`plain_move` of a hardened pool, for a verified block or a run.

    One block leaves the quarantine for it, that in whose slot the old one will wait.
    """
    cdef uint64_t capacity = hard_capacity(arena, pool, payload)
    cdef uint64_t total = n_bytes
    cdef offset_t moved
    if alignment <= BLOCK_ALIGN_MAX:
        total += hard_overhead(pool)
    if needs_room(arena, pool, total, alignment, may_give) or (
        not hard_prepare_free(arena, pool, payload)
    ):
        return 0
    moved = hard_alloc_by(arena, pool, n_bytes, alignment, False)
    if moved == 0:
        return 0
    copy_payload(arena, moved, payload, n_bytes, capacity)
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        plain_free(arena, pool, payload)
    else:
        hard_retire(arena, pool, payload, may_give)
    return moved


cdef inline offset_t hard_resize(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """``pool_resize`` of a hardened pool; where `plain_move` returns 0, so does it."""
    cdef finding_t later
    cdef bint is_run = (payload & (PAGE_RULE_BYTES - 1)) == 0
    cdef uint64_t own
    cdef offset_t moved
    if n_bytes >= pool.max_request - (HARD_TRAILER_BYTES - 1):
        return routed_resize(arena, pool, payload, n_bytes, alignment)
    if not check_payload(arena, pool, payload, damage_of(pool, &later)):
        return 0
    own = pool_alignment(arena, pool, payload)
    if alignment > own:
        return hard_move(arena, pool, payload, n_bytes, alignment, may_give)
    if is_run:
        if hard_run_resize(arena, pool, payload, n_bytes):
            return payload
        return hard_move(arena, pool, payload, n_bytes, own, may_give)
    moved = hard_resize_near(arena, pool, payload, n_bytes + hard_overhead(pool))
    if moved == 0:
        return hard_move(arena, pool, payload, n_bytes, own, may_give)
    poison_rest(arena, pool, block_of(moved))
    seal_block(arena, pool, block_of(moved), n_bytes)
    return moved
