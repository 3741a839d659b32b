# SPDX-License-Identifier: BSD-3-Clause
"""Walking a pool by its headers: the checker and the statistics.

Nothing here writes to the arena. The checker trusts nothing that it reads:
every offset is tested before it is followed, and every loop is bounded by the
arena's size, so that it ends on any bytes. It assumes that the frame table has
passed ``check_frames``, and looks at every region and run of one pool:

- stretches of blocks by their headers (B1 to B7, L1 to L3);
- free lists against the free blocks found (F1 to F4, L2);
- start bits against the blocks in use (V1);
- counters and control block against all of it (C1 to C6).
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport (
    FRAME_CONTROL,
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
    frame_owner,
    frame_pages,
    frame_state,
    is_region,
)
from xmem.arena.superblock cimport arena_t, entry_t, page_offset
from xmem.base.finding cimport (
    INVARIANT_FIRST,
    INVARIANT_LAST,
    finding_t,
    invariant,
    report,
)
from xmem.base.offset cimport offset_t
from xmem.core.control cimport (
    ENGINE_FIRSTFIT,
    ENGINE_TLSF,
    QUICK_MAX_BLOCKS,
    QUICK_N_LISTS,
    HARD_RING,
    POOL_ADAPTS,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    POOL_MAGIC,
    POOL_POISON,
    POOL_QUARANTINE,
    control_bins,
    control_bytes,
    control_n_bins,
    control_of,
    quicklists_of,
    quicklists_t,
    pool_t,
)
from xmem.core.hardening cimport (
    BLOCK_POISONED,
    check_poison,
    check_seal,
    check_waiting,
    hard_capacity,
    is_quarantined,
)
from xmem.core.quicklists cimport quick_count, is_on_quicklist, may_wait
from xmem.core.startbits cimport start_test
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_SIZE_SHIFT,
    BLOCK_TAG_MASK,
    BLOCK_TAG_SHIFT,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_word,
    breaks_page_rule,
    payload_of,
    word_at,
    word_size,
)
from xmem.engine.firstfit cimport (
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    FIRSTFIT_NEXT,
    FIRSTFIT_PADDED,
    FIRSTFIT_PREV,
)
from xmem.engine.freelists cimport FREELISTS_MAX_WORDS, LINK_BACK, LINK_NEXT
from xmem.engine.mapping cimport mapping_insert
from xmem.engine.tlsf cimport word_alignment

cdef extern from *:
    int popcount "__builtin_popcountll"(unsigned long long word) noexcept nogil


cdef struct census_t:
    uint64_t n_used
    uint64_t n_free
    uint64_t used_bytes             # blocks in use, headers included
    uint64_t free_bytes             # free blocks, headers included
    uint64_t largest_free           # block size, header included
    uint64_t n_stretches            # regions after joining
    uint64_t n_regions
    uint64_t region_pages
    uint64_t n_runs                 # blocks of whole pages, and pages lent
    uint64_t n_whole                # the former alone
    uint64_t run_pages
    uint64_t n_starts               # start bits set in regions and runs


cdef struct stretch_t:
    # Regions of one pool, side by side, that one chain of blocks covers.
    offset_t start
    offset_t limit                  # end of the last region reached so far
    uint64_t n_regions


cdef inline void count_block(
    census_t* census, uint64_t size, bint is_free
) noexcept nogil:
    """Add one block to the census."""
    if is_free:
        census.n_free += 1
        census.free_bytes += size
        if size > census.largest_free:
            census.largest_free = size
    else:
        census.n_used += 1
        census.used_bytes += size


cdef inline uint64_t count_starts(
    arena_t* arena, offset_t start, offset_t end
) noexcept nogil:
    """Start bits set for ``start`` to ``end``, which are page-aligned."""
    cdef uint64_t i
    cdef uint64_t count = 0
    for i in range(start >> 10, end >> 10):
        count += popcount(arena.start_bits[i])
    return count


# Stretches of TLSF blocks ----------------------------------------------------

cdef inline bint extend_stretch(
    arena_t* arena, pool_t* pool, stretch_t* stretch
) noexcept nogil:
    """Go on to the joined region behind the stretch; False if there is none."""
    cdef uint64_t page = stretch.limit >> arena.page_shift
    cdef uint64_t word
    if page >= arena.n_pages:
        return False
    word = arena.frames[page].word
    if (
        frame_state(word) != FRAME_JOINED
        or frame_owner(word) != pool.number
        or frame_pages(word) == 0
        or frame_pages(word) > arena.n_pages - page
    ):
        return False
    stretch.limit += frame_pages(word) << arena.page_shift
    stretch.n_regions += 1
    return True


cdef inline bint check_free_block(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t size,
    finding_t* finding,
) noexcept nogil:
    """B6, B7, F4 and H2 for one free block."""
    cdef char* base = arena.base
    cdef uint64_t mark = block_word(base, block) & BLOCK_ALIGN_MASK
    cdef offset_t back = word_at(base, block + LINK_BACK)[0]
    cdef offset_t tag = word_at(base, block + size - 8)[0]
    if tag != block:
        return report(finding, invariant(c"B", 6), block, tag, block)
    if back > arena.n_bytes - 8 or back & 7 or word_at(base, back)[0] != block:
        return report(finding, invariant(c"F", 4), block, back, block)
    if mark != 0 and (
        mark != BLOCK_POISONED or not pool.flags & POOL_POISON
    ):
        return report(finding, invariant(c"B", 7), block, mark, 0)
    return check_poison(arena, block, finding)


cdef inline bint check_block(
    arena_t* arena,
    pool_t* pool,
    stretch_t* stretch,
    offset_t block,
    bint prev_free,
    finding_t* finding,
) noexcept nogil:
    """B1 to B7, V1, H1 to H3 for one block, whose header is in bounds."""
    cdef uint64_t word = block_word(arena.base, block)
    cdef uint64_t size = word_size(word)
    cdef bint is_free = (word & BLOCK_FREE) != 0
    if (word & BLOCK_TAG_MASK) != pool.tlsf.tag:
        return report(finding, invariant(c"B", 7), block, word, pool.tlsf.tag)
    if ((word & BLOCK_PREV_FREE) != 0) != prev_free:
        return report(finding, invariant(c"B", 5), block, word, prev_free)
    if size == 0:
        if is_free:
            return report(finding, invariant(c"B", 1), block, word, 0)
        return True
    if size < BLOCK_MIN_BYTES or size & (BLOCK_GRAIN - 1):
        return report(finding, invariant(c"B", 1), block, size, BLOCK_MIN_BYTES)
    if block & (BLOCK_GRAIN - 1) != 8:
        return report(finding, invariant(c"B", 2), block, block, 8)
    if breaks_page_rule(block):
        return report(finding, invariant(c"B", 3), block, block, 0)
    if size > arena.n_bytes - block:
        return report(finding, invariant(c"B", 1), block, size, 0)
    while block + size > stretch.limit - REGION_TAIL_BYTES:
        if not extend_stretch(arena, pool, stretch):
            return report(
                finding,
                invariant(c"B", 1),
                block,
                block + size,
                stretch.limit - REGION_TAIL_BYTES,
            )
    if is_free and prev_free:
        return report(finding, invariant(c"B", 4), block, word, 0)
    if start_test(arena, payload_of(block)) == is_free and (
        is_free
        or not (
            is_quarantined(pool, block)
            or is_on_quicklist(arena, pool, payload_of(block), size)
        )
    ):
        return report(finding, invariant(c"V", 1), block, is_free, not is_free)
    if is_free:
        return check_free_block(arena, pool, block, size, finding)
    if payload_of(block) & (word_alignment(word) - 1):
        return report(
            finding, invariant(c"B", 7), block, word, word_alignment(word)
        )
    return check_seal(arena, pool, block, finding) and (
        start_test(arena, payload_of(block))
        or check_waiting(arena, pool, block, finding)
    )


cdef inline bint check_stretch(
    arena_t* arena,
    pool_t* pool,
    stretch_t* stretch,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """Walk one stretch from its first block to its sentinel."""
    cdef offset_t block = stretch.start + REGION_HEAD_BYTES
    cdef bint prev_free = False
    cdef uint64_t word
    while True:
        if not check_block(arena, pool, stretch, block, prev_free, finding):
            return False
        word = block_word(arena.base, block)
        if word_size(word) == 0:
            break
        prev_free = (word & BLOCK_FREE) != 0
        count_block(census, word_size(word), prev_free)
        block += word_size(word)
    if block != stretch.limit - REGION_TAIL_BYTES:
        return report(
            finding,
            invariant(c"B", 1),
            block,
            0,
            stretch.limit - REGION_TAIL_BYTES,
        )
    census.n_stretches += 1
    census.n_starts += count_starts(arena, stretch.start, stretch.limit)
    return True


# Free lists of TLSF ----------------------------------------------------------

cdef inline bint check_bin(
    arena_t* arena,
    pool_t* pool,
    uint64_t index,
    uint64_t* n_left,
    finding_t* finding,
) noexcept nogil:
    """F1 to F4 for one bin; takes its blocks from ``n_left``."""
    cdef char* base = arena.base
    cdef offset_t back = pool.tlsf.bins.heads + index * 8
    cdef offset_t block = word_at(base, back)[0]
    cdef bint marked = (pool.tlsf.bins.lower[index >> 6] >> (index & 63)) & 1
    cdef uint64_t word
    if marked != (block != 0):
        return report(finding, invariant(c"F", 3), back, marked, block)
    while block != 0:
        if (
            block & (BLOCK_GRAIN - 1) != 8
            or block < page_offset(arena, arena.first_page)
            or block > arena.n_bytes - BLOCK_MIN_BYTES
            or n_left[0] == 0
        ):
            return report(finding, invariant(c"F", 1), back, block, 0)
        word = block_word(base, block)
        if not word & BLOCK_FREE or word_size(word) == 0:
            return report(finding, invariant(c"F", 1), block, word, BLOCK_FREE)
        if mapping_insert(word_size(word)) != index:
            return report(
                finding,
                invariant(c"F", 2),
                block,
                index,
                mapping_insert(word_size(word)),
            )
        if word_at(base, block + LINK_BACK)[0] != back:
            return report(
                finding,
                invariant(c"F", 4),
                block,
                word_at(base, block + LINK_BACK)[0],
                back,
            )
        n_left[0] -= 1
        back = block + LINK_NEXT
        block = word_at(base, back)[0]
    return True


cdef inline bint check_bins(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_free,
    finding_t* finding,
) noexcept nogil:
    """The bins hold exactly the ``n_free`` free blocks that a walk found."""
    cdef uint64_t n_left = n_free
    cdef uint64_t i
    for i in range(FREELISTS_MAX_WORDS):
        if (
            ((pool.tlsf.bins.upper >> i) & 1) != (pool.tlsf.bins.lower[i] != 0)
        ):
            return report(
                finding,
                invariant(c"F", 3),
                i,
                pool.tlsf.bins.upper,
                pool.tlsf.bins.lower[i],
            )
    for i in range(64 * FREELISTS_MAX_WORDS):
        if i < pool.tlsf.bins.n_bins:
            if not check_bin(arena, pool, i, &n_left, finding):
                return False
        elif (pool.tlsf.bins.lower[i >> 6] >> (i & 63)) & 1:
            return report(
                finding, invariant(c"F", 3), i, 1, pool.tlsf.bins.n_bins
            )
    if pool.tlsf.bins.upper >> FREELISTS_MAX_WORDS:
        return report(
            finding, invariant(c"F", 3), 0, pool.tlsf.bins.upper, 0
        )
    if n_left != 0:
        return report(
            finding, invariant(c"F", 1), 0, n_free - n_left, n_free
        )
    return True


# Pages of the legacy engine --------------------------------------------------

cdef inline bint check_tag(
    pool_t* pool, offset_t block, uint64_t word, finding_t* finding
) noexcept nogil:
    """B7 for a legacy block: the pool's tag, and no bit that it does not use."""
    cdef uint64_t unused = BLOCK_ALIGN_MASK | FIRSTFIT_PADDED
    if (word & (BLOCK_TAG_MASK | unused)) != pool.firstfit.tag:
        return report(finding, invariant(c"B", 7), block, word, pool.firstfit.tag)
    return True


cdef inline bint check_start(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t size,
    finding_t* finding,
) noexcept nogil:
    """L1 and V1 for a legacy block in use: its payload, aligned or not."""
    cdef uint64_t alignment = word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    cdef offset_t payload = block + FIRSTFIT_LINE
    cdef uint64_t padding, word
    if alignment == 0 or alignment & (alignment - 1):
        return report(finding, invariant(c"L", 1), block, alignment, 0)
    payload = (payload + alignment - 1) & ~(alignment - 1)
    if payload >= block + size or not start_test(arena, payload):
        return report(finding, invariant(c"V", 1), block, payload, 1)
    padding = payload - block - FIRSTFIT_LINE
    if padding != 0:
        word = (padding << BLOCK_SIZE_SHIFT) | pool.firstfit.tag | FIRSTFIT_PADDED
        if block_word(arena.base, payload - FIRSTFIT_LINE) != word:
            return report(
                finding,
                invariant(c"L", 1),
                payload - FIRSTFIT_LINE,
                block_word(arena.base, payload - FIRSTFIT_LINE),
                word,
            )
    word = block_word(arena.base, payload - BLOCK_HEADER_BYTES)
    if word != pool.firstfit.tag:
        return report(
            finding,
            invariant(c"L", 1),
            payload - BLOCK_HEADER_BYTES,
            word,
            pool.firstfit.tag,
        )
    return True


cdef inline bint check_page(
    arena_t* arena,
    pool_t* pool,
    offset_t start,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """L1 to L3 and V1 for one page of the legacy engine."""
    cdef offset_t block = start
    cdef offset_t end = start + arena.page_bytes
    cdef bint prev_free = False
    cdef bint is_free
    cdef uint64_t word, size
    while block < end:
        word = block_word(arena.base, block)
        size = word_size(word)
        is_free = (word & BLOCK_FREE) != 0
        if not check_tag(pool, block, word, finding):
            return False
        if size == 0 or size & (FIRSTFIT_LINE - 1) or size > end - block:
            return report(finding, invariant(c"L", 1), block, size, end - block)
        if is_free and (prev_free or size == arena.page_bytes):
            return report(finding, invariant(c"L", 3), block, word, 0)
        if not is_free and not check_start(arena, pool, block, size, finding):
            return False
        count_block(census, size, is_free)
        prev_free = is_free
        block += size
    census.n_stretches += 1
    census.n_starts += count_starts(arena, start, end)
    return True


cdef inline bint check_legacy_list(
    arena_t* arena, pool_t* pool, uint64_t n_free, finding_t* finding
) noexcept nogil:
    """L2: the list holds exactly the ``n_free`` free blocks."""
    cdef offset_t block = pool.firstfit.head
    cdef offset_t prev_block = 0
    cdef uint64_t count = 0
    while block != 0:
        if (
            block & (FIRSTFIT_LINE - 1)
            or block < page_offset(arena, arena.first_page)
            or block > arena.n_bytes - FIRSTFIT_LINE
            or count == n_free
            or not block_word(arena.base, block) & BLOCK_FREE
            or word_at(arena.base, block + FIRSTFIT_PREV)[0] != prev_block
        ):
            return report(finding, invariant(c"L", 2), block, prev_block, count)
        count += 1
        prev_block = block
        block = word_at(arena.base, block + FIRSTFIT_NEXT)[0]
    if count != n_free or count != pool.firstfit.n_free:
        return report(finding, invariant(c"L", 2), 0, count, n_free)
    return True


# The whole pool --------------------------------------------------------------

cdef inline bint check_control(
    arena_t* arena, uint32_t number, finding_t* finding
) noexcept nogil:
    """C4: directory entry, frame table and control block of a pool agree.

    Only then may the control block be used at all.
    """
    cdef entry_t* entry = &arena.directory[number - 1]
    cdef offset_t control = entry.control
    cdef uint64_t page = control >> arena.page_shift
    cdef uint64_t word
    cdef pool_t* pool
    if (
        control & (arena.page_bytes - 1)
        or page < arena.first_page
        or page >= arena.n_pages
    ):
        return report(finding, invariant(c"C", 4), control, number, 0)
    word = arena.frames[page].word
    if (
        frame_state(word) != FRAME_CONTROL
        or frame_owner(word) != number
        or entry.engine < ENGINE_TLSF
        or entry.engine > ENGINE_FIRSTFIT
        or frame_pages(word) << arena.page_shift
        < control_bytes(arena, entry.engine, False)
        or frame_pages(word) > arena.n_pages - page
        or frame_pages(word) != entry.control_pages
    ):
        return report(finding, invariant(c"C", 4), control, word, number)
    pool = control_of(arena, entry)
    if (
        pool.magic != POOL_MAGIC
        or pool.number != number
        or pool.engine != entry.engine
        or pool.grow_pages == 0
        or pool.grow_pages > arena.n_pages
        or pool.flags
        & ~<uint32_t>(POOL_JOINS | POOL_HOOKED | POOL_ADAPTS | POOL_HARDENED)
        or pool.max_request != arena.n_bytes - arena.page_bytes
        or pool.tlsf.tag != <uint64_t>number << BLOCK_TAG_SHIFT
        or pool.firstfit.tag != pool.tlsf.tag
        or pool.firstfit.page_bytes != arena.page_bytes
    ):
        return report(finding, invariant(c"C", 4), control, pool.number, number)
    if pool.engine == ENGINE_TLSF and (
        pool.tlsf.bins.heads != control + control_bins()
        or pool.tlsf.bins.n_bins != control_n_bins(arena)
    ):
        return report(
            finding,
            invariant(c"C", 4),
            control,
            pool.tlsf.bins.heads,
            control + control_bins(),
        )
    return (
        check_hard(pool, control, finding)
        and check_quicklists(arena, pool, entry, finding)
        and check_spare(arena, pool, finding)
    )


cdef inline bint check_quicklists(
    arena_t* arena, pool_t* pool, entry_t* entry, finding_t* finding
) noexcept nogil:
    """C4 and C7: where the quick lists are, and what waits in them."""
    cdef uint64_t control = entry.control
    cdef uint64_t n_bytes = control_bytes(arena, ENGINE_TLSF, True)
    cdef uint64_t size = 0
    cdef uint64_t n_waiting = 0
    cdef uint64_t left, i
    cdef uint64_t limit = pool.max_request + 1
    cdef offset_t at
    if pool.quicklists != 0 or pool.engine != ENGINE_TLSF or pool.flags & POOL_HARDENED:
        limit = 0
    if pool.short_limit != limit:
        return report(finding, invariant(c"C", 4), control, pool.short_limit, limit)
    if pool.quicklists == 0:
        if pool.quick_bytes | pool.quick_blocks | pool.quick_limit:
            return report(finding, invariant(c"C", 7), control, pool.quick_bytes, 0)
        return True
    if (
        pool.engine != ENGINE_TLSF
        or pool.flags & POOL_HARDENED
        or pool.quicklists != control + n_bytes - sizeof(quicklists_t)
        or <uint64_t>entry.control_pages << arena.page_shift < n_bytes
        or pool.quick_blocks == 0
        or pool.quick_blocks > QUICK_MAX_BLOCKS
        or pool.quick_limit > arena.n_bytes
    ):
        return report(finding, invariant(c"C", 4), control, pool.quicklists, n_bytes)
    for i in range(QUICK_N_LISTS):
        left = quicklists_of(arena, pool).lists[i].count
        if left > pool.quick_blocks:
            return report(
                finding, invariant(c"C", 7), control, left, pool.quick_blocks
            )
        n_waiting += left * size
        at = quicklists_of(arena, pool).lists[i].head
        while left > 0 and may_wait(arena, pool, at, size) and not start_test(
            arena, at
        ):
            at = word_at(arena.base, at)[0]
            left -= 1
        if left != 0 or at != 0:
            return report(finding, invariant(c"C", 7), at, left, 0)
        size += BLOCK_GRAIN
    if n_waiting != pool.quick_bytes:
        return report(
            finding, invariant(c"C", 7), control, pool.quick_bytes, n_waiting
        )
    return True


cdef inline bint check_hard(
    pool_t* pool, offset_t control, finding_t* finding
) noexcept nogil:
    """C6: the hardening's state is that of the pool's flags."""
    cdef uint64_t n_waiting = 0
    cdef unsigned slot
    for slot in range(HARD_RING):
        n_waiting += pool.hard.ring[slot] != 0
    if n_waiting != pool.hard.n_waiting or (
        n_waiting != 0 and not pool.flags & POOL_QUARANTINE
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.n_waiting, n_waiting
        )
    if pool.hard.damage.code != 0 and not (
        INVARIANT_FIRST <= pool.hard.damage.code <= INVARIANT_LAST
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.damage.code, 0
        )
    if not pool.flags & POOL_HARDENED and (
        pool.hard.n_freed != 0
        or pool.hard.n_lost != 0
        or pool.hard.damage.code != 0
    ):
        return report(
            finding, invariant(c"C", 6), control, pool.hard.damage.code, 0
        )
    return True


cdef inline bint check_spare(
    arena_t* arena, pool_t* pool, finding_t* finding
) noexcept nogil:
    """C5: the empty region kept in hand is a region of this pool, and one
    that waits for the caller's function is a run.
    """
    cdef uint64_t page = pool.returned
    if page != 0 and (
        page >= arena.n_pages
        or frame_state(arena.frames[page].word) != FRAME_RUN
        or frame_owner(arena.frames[page].word) != 0
    ):
        return report(finding, invariant(c"C", 5), 0, page, 0)
    page = pool.spare >> arena.page_shift
    if pool.spare == 0:
        return True
    if (
        page >= arena.n_pages
        or pool.spare != page_offset(arena, page) + REGION_HEAD_BYTES
        or not is_region(arena.frames[page].word, pool.number)
    ):
        return report(finding, invariant(c"C", 5), pool.spare, page, 0)
    return True


cdef inline bint is_handed_out(uint64_t word, unsigned owner) noexcept nogil:
    """Whether a record heads pages that pool ``owner`` handed out whole."""
    return frame_owner(word) == owner and (
        frame_state(word) == FRAME_WHOLE or frame_state(word) == FRAME_RUN
    )


cdef inline bint check_run_block(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """A page run that the pool handed out whole, as a block or as pages."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    cdef offset_t start = page_offset(arena, page)
    cdef offset_t end = page_offset(arena, page + n_pages)
    cdef uint64_t word
    census.n_runs += 1
    census.run_pages += n_pages
    census.n_starts += count_starts(arena, start, end)
    if frame_state(arena.frames[page].word) == FRAME_RUN:
        return True
    census.n_whole += 1
    if pool.engine == ENGINE_TLSF:
        return True
    word = block_word(arena.base, start)
    if not check_tag(pool, start, word, finding):
        return False
    if word_size(word) != end - start or word & BLOCK_FREE:
        return report(finding, invariant(c"L", 1), start, word, end - start)
    return check_start(arena, pool, start, end - start, finding)


cdef inline bint check_region(
    arena_t* arena,
    pool_t* pool,
    uint64_t page,
    offset_t* covered,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """A region, and those joined behind it; ``covered`` is the walk's end."""
    cdef uint64_t word = arena.frames[page].word
    cdef offset_t start = page_offset(arena, page)
    cdef stretch_t stretch
    census.n_regions += 1
    census.region_pages += frame_pages(word)
    if start < covered[0]:
        return True
    if frame_state(word) == FRAME_JOINED:
        return report(finding, invariant(c"C", 2), start, word, FRAME_REGION)
    if pool.engine != ENGINE_TLSF:
        return check_page(arena, pool, start, census, finding)
    stretch.start = start
    stretch.limit = page_offset(arena, page + frame_pages(word))
    stretch.n_regions = 1
    if not check_stretch(arena, pool, &stretch, census, finding):
        return False
    covered[0] = stretch.limit
    return True


cdef inline bint check_counters(
    pool_t* pool, uint64_t n_waiting, census_t* census, finding_t* finding
) noexcept nogil:
    """C1 to C3, and V1 in the whole: no start bit without a block."""
    cdef uint64_t starts = census.n_used
    cdef uint64_t used_bytes = pool.tlsf.used_bytes
    cdef uint64_t n_used = pool.tlsf.n_used
    if pool.engine != ENGINE_TLSF:
        used_bytes = pool.firstfit.used_bytes
        n_used = pool.firstfit.n_used
        starts += census.n_whole
    starts -= pool.hard.n_waiting + n_waiting
    if census.n_starts != starts:
        return report(finding, invariant(c"V", 1), 0, census.n_starts, starts)
    if n_used != census.n_used or used_bytes != census.used_bytes:
        return report(
            finding, invariant(c"C", 3), 0, used_bytes, census.used_bytes
        )
    if pool.n_regions != census.n_regions or pool.n_runs != census.n_runs:
        return report(
            finding, invariant(c"C", 2), 0, pool.n_regions, census.n_regions
        )
    if (
        pool.region_pages != census.region_pages
        or pool.run_pages != census.run_pages
    ):
        return report(
            finding, invariant(c"C", 2), 0, pool.region_pages, census.region_pages
        )
    if (
        pool.n_pages != pool.region_pages + pool.run_pages
        or (pool.max_pages != 0 and pool.n_pages > pool.max_pages)
        or pool.peak_pages < pool.n_pages
    ):
        return report(
            finding, invariant(c"C", 1), 0, pool.n_pages, pool.max_pages
        )
    return True


cdef inline bint holds_blocks(uint64_t word) noexcept nogil:
    """Whether a record heads pages in which some pool keeps blocks."""
    return frame_owner(word) != 0 and frame_state(word) != FRAME_CONTROL


cdef inline bint check_no_start(
    arena_t* arena, offset_t start, offset_t end, finding_t* finding
) noexcept nogil:
    """V1 where no pool keeps blocks: no start bit for ``start`` to ``end``."""
    cdef uint64_t i
    cdef uint64_t seen = 0
    for i in range(start >> 10, end >> 10):
        seen |= arena.start_bits[i]
    if seen == 0:
        return True
    i = start >> 10
    while arena.start_bits[i] == 0:
        i += 1
    return report(
        finding, invariant(c"V", 1), i << 10, arena.start_bits[i], 0
    )


cdef inline void census_clear(census_t* census) noexcept nogil:
    census.n_used = 0
    census.n_free = 0
    census.used_bytes = 0
    census.free_bytes = 0
    census.largest_free = 0
    census.n_stretches = 0
    census.n_regions = 0
    census.region_pages = 0
    census.n_runs = 0
    census.n_whole = 0
    census.run_pages = 0
    census.n_starts = 0


cdef inline bint check_pool(
    arena_t* arena, pool_t* pool, census_t* census, finding_t* finding
) noexcept nogil:
    """Every invariant of one pool; False with the first that fails.

    Requires that ``check_frames`` has passed. Fills ``census``.
    """
    cdef uint64_t page = arena.first_page
    cdef offset_t covered = 0
    cdef uint64_t word
    finding.code = 0
    census_clear(census)
    if not check_no_start(arena, 0, page_offset(arena, page), finding):
        return False
    while page < arena.n_pages:
        word = arena.frames[page].word
        if is_region(word, pool.number):
            if not check_region(arena, pool, page, &covered, census, finding):
                return False
        elif is_handed_out(word, pool.number):
            if not check_run_block(arena, pool, page, census, finding):
                return False
        elif not holds_blocks(word) and not check_no_start(
            arena,
            page_offset(arena, page),
            page_offset(arena, page + frame_pages(word)),
            finding,
        ):
            return False
        page += frame_pages(word)
    if pool.engine == ENGINE_TLSF:
        if not check_bins(arena, pool, census.n_free, finding):
            return False
    elif not check_legacy_list(arena, pool, census.n_free, finding):
        return False
    return check_counters(pool, quick_count(arena, pool), census, finding)


# Walking for those who want to see ---------------------------------------------

cdef struct cursor_t:
    uint64_t page               # of the run that is being walked
    offset_t block              # next header, 0: go to the run's first
    offset_t covered            # end of the last stretch walked


cdef enum:
    SEEN_BLOCK = 0
    SEEN_WHOLE = 1              # a block of whole pages
    SEEN_PAGES = 2              # pages of a heap's page_alloc
    SEEN_WAITING = 3            # a freed block in quarantine or in the quick lists


cdef struct seen_t:
    offset_t offset             # of the payload
    uint64_t size               # of the block, header included
    uint64_t capacity
    uint64_t region             # page where the run starts
    bint used
    unsigned kind               # SEEN_*


cdef inline bint see_run(
    arena_t* arena, pool_t* pool, cursor_t* cursor, seen_t* seen
) noexcept nogil:
    """Fill ``seen`` for a page run and move on."""
    cdef uint64_t n_pages = frame_pages(arena.frames[cursor.page].word)
    seen.offset = page_offset(arena, cursor.page)
    seen.size = n_pages << arena.page_shift
    seen.capacity = seen.size
    seen.used = True
    seen.kind = SEEN_WHOLE
    if frame_state(arena.frames[cursor.page].word) == FRAME_RUN:
        seen.kind = SEEN_PAGES
    elif pool.engine != ENGINE_TLSF:
        see_payload(arena, seen)
    cursor.page += n_pages
    return True


cdef inline void see_payload(arena_t* arena, seen_t* seen) noexcept nogil:
    """Move ``seen`` from a legacy block to its payload."""
    cdef offset_t block = seen.offset
    cdef uint64_t alignment = word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    seen.offset = (block + FIRSTFIT_LINE + alignment - 1) & ~(alignment - 1)
    seen.capacity = block + seen.size - seen.offset


cdef inline bint see_block(
    arena_t* arena, pool_t* pool, cursor_t* cursor, seen_t* seen
) noexcept nogil:
    """Fill ``seen`` for the block at the cursor; False at a stretch's end."""
    cdef uint64_t word
    cdef offset_t end
    if pool.engine != ENGINE_TLSF:
        end = page_offset(arena, cursor.page) + arena.page_bytes
        if cursor.block == end:
            return False
    word = block_word(arena.base, cursor.block)
    if word_size(word) == 0:
        cursor.covered = cursor.block + REGION_TAIL_BYTES
        return False
    seen.used = (word & BLOCK_FREE) == 0
    seen.size = word_size(word)
    seen.kind = SEEN_BLOCK
    if pool.engine == ENGINE_TLSF:
        seen.offset = payload_of(cursor.block)
        seen.capacity = seen.size - BLOCK_HEADER_BYTES
        if seen.used and (pool.flags & POOL_HARDENED or pool.quicklists != 0):
            seen.capacity = hard_capacity(arena, pool, seen.offset)
            if not start_test(arena, seen.offset):
                seen.used = False
                seen.kind = SEEN_WAITING
    elif seen.used:
        seen.offset = cursor.block
        see_payload(arena, seen)
    else:
        seen.offset = cursor.block + FIRSTFIT_LINE
        seen.capacity = seen.size - FIRSTFIT_LINE
    cursor.block += seen.size
    return True


cdef inline void cursor_init(arena_t* arena, cursor_t* cursor) noexcept nogil:
    cursor.page = arena.first_page
    cursor.block = 0
    cursor.covered = 0


cdef inline bint see_next(
    arena_t* arena, pool_t* pool, cursor_t* cursor, seen_t* seen
) noexcept nogil:
    """The next block or run of a sound pool in address order; False at the end."""
    cdef uint64_t word
    while cursor.page < arena.n_pages:
        word = arena.frames[cursor.page].word
        seen.region = cursor.page
        if is_handed_out(word, pool.number):
            return see_run(arena, pool, cursor, seen)
        if is_region(word, pool.number) and (
            page_offset(arena, cursor.page) >= cursor.covered
        ):
            if cursor.block == 0:
                cursor.block = page_offset(arena, cursor.page)
                if pool.engine == ENGINE_TLSF:
                    cursor.block += REGION_HEAD_BYTES
            if see_block(arena, pool, cursor, seen):
                return True
        cursor.block = 0
        cursor.page += frame_pages(word)
    return False
