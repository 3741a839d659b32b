# SPDX-License-Identifier: BSD-3-Clause
"""The repair of a pool that a process left in the middle of a call.

Headers, frame table and start bitmap are the truth; free lists, PREV_FREE, boundary
tags, counters, quick lists and quarantine follow from them and are written anew. A
block in use is live if its start bit is set. Without one it waited, or a call that was
cut short had not handed it out yet: it is given back. A start bit anywhere else is
cleared. Lost blocks (core/hardening.pxd) stay lost, and a block in quarantine that is
damaged becomes one.

First the whole pool is surveyed, trusting no word, and nothing is written if its
headers do not lead from one to the next. Then the caches are written. Each store of a
header leaves a chain that can be walked, so that a repair that is cut short can be
repeated.

Two things cannot be told from damage, and are reported. If exactly one live block has a
broken seal, a resize may have been cut short before it wrote the new one: it gets one,
and all of its bytes. A free block's mark of poison that does not hold is dropped.

Requires that the page frames are sound. The blocks of the legacy engine are in
repair_firstfit.pxd.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena cimport (
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
    arena_t,
    directory_entry,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
    frames_head_of,
    is_region,
    page_of,
    page_offset,
)
from xmem.base cimport (
    ENGINE_TLSF,
    engine_fill,
    finding_t,
    invariant,
    offset_t,
    report,
    store_barrier,
)
from xmem.check.control cimport check_identity
from xmem.check.pool cimport is_handed_out
from xmem.check.repair_firstfit cimport repair_page, repair_run, survey_firstfit
from xmem.check.strays cimport clear_starts, repair_t
from xmem.core.control cimport (
    HARD_RING,
    POOL_JOINS,
    POOL_POISON,
    POOL_QUARANTINE,
    control_of,
    pool_t,
    quicklists_of,
    quicklists_t,
)
from xmem.core.hardened cimport lose_block
from xmem.core.hardening cimport (
    BLOCK_POISONED,
    check_poison,
    check_seal,
    check_waiting,
    hard_overhead,
    is_place,
    says_lost,
    seal_block,
)
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_TAG_MASK,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_size,
    block_tag_end,
    block_word,
    block_write,
    breaks_page_rule,
    firstfit_init,
    freelists_insert,
    payload_of,
    tlsf_init,
    word_alignment,
    word_at,
    word_size,
)


# Survey ----------------------------------------------------------------------

cdef inline bint survey_header(
    arena_t* arena, pool_t* pool, offset_t block, finding_t* finding
) noexcept nogil:
    """B1 to B3 and B7 for a header inside the arena."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef uint64_t size = word_size(word)
    if (word & BLOCK_TAG_MASK) != pool.tlsf.tag and not says_lost(arena, pool, block):
        return report(finding, invariant(c"B", 7), block, word, pool.tlsf.tag)
    if size == 0 and not word & BLOCK_FREE:
        return True
    if (
        size < BLOCK_MIN_BYTES
        or size & (BLOCK_GRAIN - 1)
        or size > arena.n_bytes - block
    ):
        return report(finding, invariant(c"B", 1), block, size, BLOCK_MIN_BYTES)
    if block & (BLOCK_GRAIN - 1) != 8:
        return report(finding, invariant(c"B", 2), block, block, 8)
    if breaks_page_rule(block):
        return report(finding, invariant(c"B", 3), block, block, 0)
    if (
        not word & BLOCK_FREE
        and start_test(arena, payload_of(block))
        and payload_of(block) & (word_alignment(word) - 1)
    ):
        return report(
            finding, invariant(c"B", 7), block, word, word_alignment(word)
        )
    return True


cdef inline bint survey_chain(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    offset_t* end,
    repair_t* repair,
    finding_t* finding,
) noexcept nogil:
    """Walk from a region's first block to a sentinel, and set ``end`` behind it.

    A block may lead into the next region before that is recorded as joined.
    """
    cdef offset_t block = page_offset(arena, page) + REGION_HEAD_BYTES
    cdef finding_t seal
    cdef uint64_t word
    end[0] = page_offset(arena, page + frame_pages(arena.frames[page].word))
    while True:
        if not survey_header(arena, pool, block, finding):
            return False
        word = block_word(arena.base, block)
        if word_size(word) == 0:
            break
        while block + word_size(word) > end[0] - REGION_TAIL_BYTES:
            page = page_of(arena, end[0])
            if page >= arena.n_pages or not pool.flags & POOL_JOINS or not is_region(
                arena.frames[page].word, pool.number
            ):
                return report(
                    finding,
                    invariant(c"B", 1),
                    block,
                    block + word_size(word),
                    end[0] - REGION_TAIL_BYTES,
                )
            end[0] += page_offset(arena, frame_pages(arena.frames[page].word))
        if (
            not word & BLOCK_FREE
            and start_test(arena, payload_of(block))
            and not check_seal(arena, pool, block, &seal)
        ):
            repair.n_unsealed += 1
            repair.unsealed = block
        block += word_size(word)
    if block != end[0] - REGION_TAIL_BYTES:
        return report(
            finding, invariant(c"B", 1), block, 0, end[0] - REGION_TAIL_BYTES
        )
    return True


cdef inline bint survey_tlsf(
    arena_t* arena, pool_t* pool, repair_t* repair, finding_t* finding
) noexcept nogil:
    """Whether the headers of a TLSF pool can be walked."""
    cdef uint64_t page = arena.first_page
    cdef offset_t covered = 0
    cdef uint64_t word
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number) and page_offset(arena, page) >= covered:
            if not survey_chain(arena, pool, page, &covered, repair, finding):
                return False
        page += frame_pages(word)
    return True


# Quarantine ------------------------------------------------------------------

cdef inline bint is_in_region(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size
) noexcept nogil:
    """Whether a block that may have been in quarantine lies in pages of the pool."""
    return (
        is_place(arena, block)
        and size >= BLOCK_MIN_BYTES
        and size <= arena.page_bytes
        and size & (BLOCK_GRAIN - 1) == 0
        and size < arena.n_bytes - block
        and is_region(
            arena.frames[frames_head_of(arena, page_of(arena, block))].word,
            pool.number,
        )
    )


cdef inline void restore_waiting(
    arena_t* arena, pool_t* pool, repair_t* repair
) noexcept nogil:
    """Lose the blocks in quarantine whose headers were overwritten.

    The control block knows their sizes, so that the chain can be walked.
    """
    cdef unsigned slot
    cdef offset_t block
    cdef uint64_t word
    for slot in range(HARD_RING):
        block = pool.hard.ring[slot]
        if block == 0 or not is_in_region(arena, pool, block, pool.hard.sizes[slot]):
            continue
        word = block_word(arena.base, block)
        if (
            word_size(word) != pool.hard.sizes[slot]
            or (word & (BLOCK_TAG_MASK | BLOCK_FREE)) != pool.tlsf.tag
        ):
            lose_block(arena, pool, block, pool.hard.sizes[slot])
            repair.n_lost += 1


cdef inline bint is_damaged_waiting(
    arena_t* arena, pool_t* pool, offset_t block
) noexcept nogil:
    """Whether a block was in quarantine and does not hold what it held there."""
    cdef finding_t finding
    cdef unsigned slot
    for slot in range(HARD_RING):
        if pool.hard.ring[slot] == block:
            return (
                pool.hard.sizes[slot] != block_size(arena.base, block)
                or not check_seal(arena, pool, block, &finding)
                or not check_waiting(arena, pool, block, &finding)
            )
    return False


# Blocks ----------------------------------------------------------------------

cdef struct chain_t:
    offset_t free           # first of the adjacent free blocks seen last, 0: none
    uint64_t free_size      # of all of them


cdef inline bint stays_in_use(
    arena_t* arena, pool_t* pool, offset_t block, repair_t* repair
) noexcept nogil:
    """Whether a block remains in use: a live one, or a lost one."""
    cdef uint64_t word = block_word(arena.base, block)
    if word & BLOCK_FREE:
        return False
    if start_test(arena, payload_of(block)) or says_lost(arena, pool, block):
        return True
    if is_damaged_waiting(arena, pool, block):
        block_write(
            arena.base, block, word_size(word), word & BLOCK_PREV_FREE
        )
        repair.n_lost += 1
        return True
    repair.n_returned += 1
    return False


cdef inline void add_free(
    arena_t* arena,
    pool_t* pool,
    chain_t* chain,
    offset_t block,
    uint64_t size,
    repair_t* repair,
) noexcept nogil:
    """Append a block to the free ones in front of it, in one store."""
    cdef finding_t finding
    cdef uint64_t bits = pool.tlsf.tag | BLOCK_FREE
    cdef uint64_t word = block_word(arena.base, block)
    if chain.free != 0:
        chain.free_size += size
        block_write(arena.base, chain.free, chain.free_size, bits)
        return
    chain.free = block
    chain.free_size = size
    if word & BLOCK_FREE and word & BLOCK_POISONED and pool.flags & POOL_POISON:
        if check_poison(arena, block, &finding):
            bits |= BLOCK_POISONED
        else:
            repair.n_poison += 1
    block_write(arena.base, block, size, bits)


cdef inline uint64_t end_free(
    arena_t* arena, pool_t* pool, chain_t* chain
) noexcept nogil:
    """List the free block in front of one in use; the PREV_FREE of that."""
    if chain.free == 0:
        return 0
    block_tag_end(arena.base, chain.free, chain.free_size)
    freelists_insert(
        arena.base, &pool.tlsf.bins, chain.free, chain.free_size
    )
    chain.free = 0
    return BLOCK_PREV_FREE


cdef inline void repair_block(
    arena_t* arena,
    pool_t* pool,
    chain_t* chain,
    offset_t block,
    repair_t* repair,
) noexcept nogil:
    """Write header, start bits and lists anew for one block of a chain."""
    cdef uint64_t size = block_size(arena.base, block)
    cdef offset_t first = payload_of(block)
    cdef uint64_t word
    if stays_in_use(arena, pool, block, repair):
        word = block_word(arena.base, block) & ~<uint64_t>BLOCK_PREV_FREE
        word_at(arena.base, block)[0] = word | end_free(arena, pool, chain)
        pool.tlsf.used_bytes += size
        pool.tlsf.n_used += 1
        pool.hard.n_lost += (word & BLOCK_TAG_MASK) == 0
        first += BLOCK_GRAIN * start_test(arena, first)
    else:
        add_free(arena, pool, chain, block, size, repair)
    repair.n_starts += clear_starts(arena, first, payload_of(block + size))


cdef inline offset_t repair_chain(
    arena_t* arena, pool_t* pool, uint64_t page, repair_t* repair
) noexcept nogil:
    """Repair the blocks of a stretch that has been surveyed; where it ends."""
    cdef offset_t start = page_offset(arena, page)
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef uint64_t size = block_size(arena.base, block)
    cdef chain_t chain
    chain.free = 0
    chain.free_size = 0
    repair.n_starts += clear_starts(arena, start, start + BLOCK_GRAIN)
    while size != 0:
        repair_block(arena, pool, &chain, block, repair)
        block += size
        size = block_size(arena.base, block)
    if chain.free == start + REGION_HEAD_BYTES and not pool.flags & POOL_JOINS:
        pool.spare = chain.free     # the last empty region
    block_write(
        arena.base, block, 0, pool.tlsf.tag | end_free(arena, pool, &chain)
    )
    return block + REGION_TAIL_BYTES


cdef inline void reseal(
    arena_t* arena, pool_t* pool, repair_t* repair
) noexcept nogil:
    """Give the only live block with a broken seal a new one."""
    cdef offset_t block = repair.unsealed
    if repair.n_unsealed == 1:
        seal_block(
            arena,
            pool,
            block,
            block_size(arena.base, block)
            - BLOCK_HEADER_BYTES
            - hard_overhead(pool),
        )


# Regions and runs --------------------------------------------------------------

cdef inline void record_region(
    arena_t* arena, pool_t* pool, uint64_t page, unsigned state
) noexcept nogil:
    """Record whether a region is joined to the one on its left; count it."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef uint64_t whole = (
        page_offset(arena, n_pages) - REGION_HEAD_BYTES - REGION_TAIL_BYTES
    )
    store_barrier()
    arena.frames[page].word = frame_pack(state, 0, pool.number, n_pages)
    pool.n_regions += 1
    pool.region_pages += n_pages
    if whole < pool.release_bytes:
        pool.release_bytes = whole


cdef inline void count_run(
    arena_t* arena, pool_t* pool, uint64_t page, repair_t* repair
) noexcept nogil:
    """A run that the pool handed out: no start bit, and an alignment that it has."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t start = page_offset(arena, page)
    cdef uint32_t log2 = arena.frames[page].next
    pool.n_runs += 1
    pool.run_pages += n_pages
    repair.n_starts += clear_starts(
        arena, start, start + page_offset(arena, n_pages)
    )
    if frame_state(arena.frames[page].word) == FRAME_WHOLE and (
        log2 > 63 or start & ((<uint64_t>1 << log2) - 1)
    ):
        arena.frames[page].next = arena.page_shift


cdef inline void repair_tlsf(
    arena_t* arena, pool_t* pool, repair_t* repair
) noexcept nogil:
    """Write everything anew that follows from the headers of a surveyed TLSF pool."""
    cdef uint64_t page = arena.first_page
    cdef offset_t covered = 0
    cdef uint64_t word
    cdef unsigned slot
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number):
            if page_offset(arena, page) < covered:
                record_region(arena, pool, page, FRAME_JOINED)
            else:
                record_region(arena, pool, page, FRAME_REGION)
                covered = repair_chain(arena, pool, page, repair)
        elif is_handed_out(word, pool.number):
            count_run(arena, pool, page, repair)
        page += frame_pages(word)
    for slot in range(HARD_RING):
        pool.hard.ring[slot] = 0
    pool.hard.n_waiting = 0
    reseal(arena, pool, repair)


cdef inline void repair_firstfit(
    arena_t* arena, pool_t* pool, repair_t* repair
) noexcept nogil:
    """Write everything anew that follows from the headers of a surveyed legacy pool."""
    cdef uint64_t page = arena.first_page
    cdef uint64_t word
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number):
            repair_page(arena, pool, page, repair)
        elif frame_owner(word) == pool.number and frame_state(word) == FRAME_WHOLE:
            repair_run(arena, pool, page, repair)
        elif is_handed_out(word, pool.number):
            count_run(arena, pool, page, repair)
        page += frame_pages(word)


# The whole ---------------------------------------------------------------------

cdef inline void clear_caches(arena_t* arena, pool_t* pool) noexcept nogil:
    """Start counting and listing anew."""
    if pool.engine == ENGINE_TLSF:
        tlsf_init(
            arena.base,
            &pool.tlsf,
            pool.tlsf.bins.heads,
            pool.tlsf.bins.n_bins,
            pool.tlsf.tag,
        )
    firstfit_init(&pool.firstfit, pool.firstfit.tag, pool.firstfit.page_bytes)
    if pool.quicklists != 0:
        engine_fill(quicklists_of(arena, pool), 0, sizeof(quicklists_t))
    pool.quick_count = 0
    pool.quick_bytes = 0
    pool.n_regions = 0
    pool.region_pages = 0
    pool.n_runs = 0
    pool.run_pages = 0
    pool.spare = 0
    pool.roomy = 0
    pool.last_region = 0
    pool.release_bytes = ~<uint64_t>0
    pool.hard.n_lost = 0


cdef inline void write_counters(arena_t* arena, pool_t* pool) noexcept nogil:
    """The counters that follow from others."""
    cdef uint64_t word = arena.frames[pool.returned].word if (
        pool.returned < arena.n_pages
    ) else 0
    if frame_state(word) != FRAME_RUN or frame_owner(word) != 0:
        pool.returned = 0
    pool.n_pages = pool.region_pages + pool.run_pages
    if pool.peak_pages < pool.n_pages:
        pool.peak_pages = pool.n_pages


cdef inline bint repair_pool(
    arena_t* arena, uint32_t number, repair_t* repair, finding_t* finding
) noexcept nogil:
    """Repair a pool that a checker has found broken; False with why it cannot be.

    Pages that nobody uses any more become FRAME_PENDING: recover the frames after it.
    """
    cdef pool_t* pool
    memset(repair, 0, sizeof(repair_t))
    if not check_identity(arena, number, finding):
        return False
    pool = control_of(arena, directory_entry(arena, number))
    if pool.engine != ENGINE_TLSF:
        if not survey_firstfit(arena, pool, finding):
            return False
        clear_caches(arena, pool)
        repair_firstfit(arena, pool, repair)
    else:
        if pool.flags & POOL_QUARANTINE:
            restore_waiting(arena, pool, repair)
        if not survey_tlsf(arena, pool, repair, finding):
            return False
        clear_caches(arena, pool)
        repair_tlsf(arena, pool, repair)
    write_counters(arena, pool)
    return True
