# SPDX-License-Identifier: BSD-3-Clause
"""The quick lists: freed blocks of up to 4096 bytes wait for immediate reuse.

A pool may have one list for each block size up to QUICK_MAX_BYTES. xfree pushes the
block onto the list of its size and xmalloc of that size pops it: a few words are
written, nothing is merged or split.

One limit holds for all lists together: a freed block waits only if what waits then
stays within a QUICK_SHARE-th of the bytes live in regions and QUICK_SLACK_BYTES. It
falls with each free, so more may wait later. Each request above the limit that the
lists do not serve gives QUICK_GIVES blocks to the engine, the largest first. So does
each free of a block that would exceed it or that leaves more waiting than it admits.
Where a request finds no room, a block in which it fits is given, or QUICK_DRAIN others,
and the request is tried once more.

To the engine a waiting block is in use. It has no start bit, so it cannot be freed
twice (C7). Its first word holds the payload of the next one.

The price: waiting blocks do not merge, nor do their neighbours with them.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport arena_t, page_offset
from xmem.base cimport (
    bit,
    find_first_set,
    find_last_set,
    likely,
    offset_t,
    store_barrier,
    with_bit,
    without_bit,
)
from xmem.core.control cimport (
    QUICK_MAX_BYTES,
    QUICK_N_LISTS,
    QUICK_N_WORDS,
    QUICK_SHARE,
    QUICK_SIZE_LOG2,
    QUICK_SLACK_BYTES,
    pool_t,
    quicklists_of,
    quicklists_t,
)
from xmem.core.plain cimport (
    outlined_alloc,
    outlined_free,
    plain_alloc,
    plain_free,
    tlsf_pool_alloc,
    tlsf_pool_grown,
    tlsf_pool_keep,
    tlsf_pool_reuse,
)
from xmem.core.startbits cimport start_clear, start_set
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_MAX,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_TAG_MASK,
    PAGE_RULE_BYTES,
    aligned_slack,
    block_bytes_for,
    block_of,
    block_word,
    word_at,
    word_size,
)

cdef enum:
    QUICK_GIVES = 2
    QUICK_DRAIN = 3


cdef inline uint64_t quick_index(uint64_t size) noexcept nogil:
    """The list of blocks of ``size`` bytes, at most QUICK_MAX_BYTES."""
    return (size >> QUICK_SIZE_LOG2) - 1


cdef inline uint64_t quick_size(uint64_t index) noexcept nogil:
    """Bytes of a block on list ``index``."""
    return (index + 1) << QUICK_SIZE_LOG2


cdef inline bint is_above_limit(pool_t* pool, uint64_t n_bytes) noexcept nogil:
    """Whether ``n_bytes`` are more than may wait, if all others in use are live."""
    # n_bytes > (used_bytes - n_bytes) / QUICK_SHARE + QUICK_SLACK_BYTES
    return n_bytes * (QUICK_SHARE + 1) > (
        pool.tlsf.used_bytes + QUICK_SHARE * QUICK_SLACK_BYTES
    )


cdef inline bint fits_quicklist(uint64_t word) noexcept nogil:
    """Whether there is a list for a block, by its header."""
    return word_size(word) <= QUICK_MAX_BYTES and not word & BLOCK_ALIGN_MASK


# Taking and putting ------------------------------------------------------------

cdef inline offset_t quick_pop(
    arena_t* arena, pool_t* pool, uint64_t index
) noexcept nogil:
    """Pop the payload of a block from list ``index``, or 0 if it is empty."""
    cdef quicklists_t* quick = quicklists_of(arena, pool)
    cdef offset_t payload = quick.heads[index]
    cdef offset_t following
    if likely(payload != 0):
        following = word_at(arena.base, payload)[0]
        quick.heads[index] = following
        if following == 0:
            quick.listed[index >> 6] = without_bit(quick.listed[index >> 6], index)
        pool.quick_count -= 1
        pool.quick_bytes -= quick_size(index)
    return payload


cdef inline offset_t quick_take(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """Payload of a waiting block for ``n_bytes``, live from now on, or 0.

    Requires that the request is below ``pool.quick_below``.
    """
    cdef offset_t payload = quick_pop(
        arena, pool, quick_index(block_bytes_for(n_bytes))
    )
    if likely(payload != 0):
        start_set(arena, payload)
    return payload


cdef inline bint quick_put(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Push a live block onto its list and clear its start bit; False if it may not."""
    cdef quicklists_t* quick = quicklists_of(arena, pool)
    cdef uint64_t word = block_word(arena.base, block_of(payload))
    cdef uint64_t size = word_size(word)
    cdef uint64_t index = quick_index(size)
    cdef uint64_t n_bytes = pool.quick_bytes + size
    cdef offset_t head
    if not fits_quicklist(word) or is_above_limit(pool, n_bytes):
        return False
    start_clear(arena, payload)
    head = quick.heads[index]
    word_at(arena.base, payload)[0] = head
    store_barrier()
    quick.heads[index] = payload
    if head == 0:
        quick.listed[index >> 6] = with_bit(quick.listed[index >> 6], index)
    pool.quick_count += 1
    pool.quick_bytes = n_bytes
    return True


# Giving back -------------------------------------------------------------------

cdef inline uint64_t quick_at_least(
    quicklists_t* quick, uint64_t index
) noexcept nogil:
    """First list >= ``index`` that holds a block, or QUICK_N_LISTS."""
    cdef uint64_t row = index >> 6
    cdef uint64_t word = quick.listed[row] & ~(bit(index & 63) - 1)
    while word == 0:
        row += 1
        if row == QUICK_N_WORDS:
            return QUICK_N_LISTS
        word = quick.listed[row]
    return (row << 6) + find_first_set(word)


cdef inline uint64_t quick_largest(quicklists_t* quick) noexcept nogil:
    """Last list that holds a block, of lists that are not all empty."""
    cdef uint64_t row = QUICK_N_WORDS - 1
    while row > 0 and quick.listed[row] == 0:
        row -= 1
    return (row << 6) + find_last_set(quick.listed[row])


cdef inline void quick_give(
    arena_t* arena, pool_t* pool, uint64_t n_most
) noexcept nogil:
    """Give up to ``n_most`` waiting blocks, the largest first, to the engine.

    No region leaves the pool.
    """
    while n_most > 0 and pool.quick_count > 0:
        n_most -= 1
        outlined_free(tlsf_pool_keep)(
            arena,
            pool,
            quick_pop(arena, pool, quick_largest(quicklists_of(arena, pool))),
        )


cdef inline void quick_give_for(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Give waiting blocks to the engine for a request that found no room.

    One in which it fits wherever that lies, if there is any, else QUICK_DRAIN of the
    largest. No region leaves the pool: the request may need it.
    """
    cdef quicklists_t* quick = quicklists_of(arena, pool)
    cdef uint64_t index = QUICK_N_LISTS
    if alignment > BLOCK_GRAIN:
        n_bytes += aligned_slack(alignment)
    if n_bytes < pool.quick_below and alignment <= BLOCK_ALIGN_MAX:
        index = quick_at_least(quick, quick_index(block_bytes_for(n_bytes)))
    if index < QUICK_N_LISTS:
        outlined_free(tlsf_pool_keep)(arena, pool, quick_pop(arena, pool, index))
    else:
        quick_give(arena, pool, QUICK_DRAIN)


# What the lists do not serve ---------------------------------------------------

cdef inline offset_t quick_miss(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a pool with quick lists, where no block of the size waits.

    Above the limit two of them go to the engine, unless the call takes pages: that is
    its share of work. While blocks wait, the engine gives no region back to make room:
    it fails early.
    """
    cdef offset_t payload
    if n_bytes > pool.max_request or alignment > pool.max_request:
        return 0
    if alignment <= BLOCK_ALIGN_MAX and is_above_limit(pool, pool.quick_bytes):
        payload = tlsf_pool_reuse(arena, pool, n_bytes, alignment)
        if likely(payload != 0):
            quick_give(arena, pool, QUICK_GIVES)
            return payload
        payload = outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, alignment)
    elif likely(alignment <= BLOCK_GRAIN):
        payload = tlsf_pool_alloc(arena, pool, n_bytes)
    else:
        payload = outlined_alloc(plain_alloc)(arena, pool, n_bytes, alignment)
    if likely(payload != 0) or pool.quick_count == 0:
        return payload
    quick_give_for(arena, pool, n_bytes, alignment)
    return tlsf_pool_reuse(arena, pool, n_bytes, alignment)


cdef inline uint64_t waiting_size(arena_t* arena, offset_t payload) noexcept nogil:
    """Bytes with which a block or run may wait on a quick list, or 0."""
    cdef uint64_t word
    if payload & (PAGE_RULE_BYTES - 1) == 0:
        return 0
    word = block_word(arena.base, block_of(payload))
    return word_size(word) if fits_quicklist(word) else 0


cdef inline void quick_overflow(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of a pool with quick lists, of a block that does not wait.

    A call that gives a region back has done its share of work.
    """
    cdef uint64_t n_bytes = pool.quick_bytes + waiting_size(arena, payload)
    cdef uint64_t n_regions = pool.n_regions
    outlined_free(plain_free)(arena, pool, payload)
    if n_regions == pool.n_regions and is_above_limit(pool, n_bytes):
        quick_give(arena, pool, QUICK_GIVES)


# The verbs -----------------------------------------------------------------------

cdef inline offset_t quick_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a pool with quick lists."""
    cdef offset_t payload
    if likely(n_bytes < pool.quick_below and alignment <= BLOCK_GRAIN):
        payload = quick_take(arena, pool, n_bytes)
        if likely(payload != 0):
            return payload
    return outlined_alloc(quick_miss)(arena, pool, n_bytes, alignment)


cdef inline void quick_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_free`` of a pool with quick lists."""
    if likely((payload & (PAGE_RULE_BYTES - 1)) != 0 and quick_put(
        arena, pool, payload
    )):
        return
    outlined_free(quick_overflow)(arena, pool, payload)


# For the checker, which trusts no word that it reads ---------------------------

cdef inline bint may_wait(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t size
) noexcept nogil:
    """Whether a block of ``size`` bytes in use may be at ``payload``."""
    cdef uint64_t word
    if (
        payload & (BLOCK_GRAIN - 1)
        or payload < page_offset(arena, arena.first_page) + BLOCK_GRAIN
        or payload > arena.n_bytes - BLOCK_GRAIN
    ):
        return False
    word = block_word(arena.base, block_of(payload))
    return (
        word_size(word) == size
        and not word & (BLOCK_FREE | BLOCK_ALIGN_MASK)
        and (word & BLOCK_TAG_MASK) == pool.tlsf.tag
    )


cdef inline bint seems_waiting(pool_t* pool, uint64_t word) noexcept nogil:
    """Whether a block in use without start bit can be one that waits, by its header."""
    return pool.quicklists != 0 and fits_quicklist(word)


cdef inline uint64_t waiting_mark(offset_t payload) noexcept nogil:
    """A number without pattern for each payload: sums of them tell sets apart.

    The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    cdef uint64_t mark = payload + <uint64_t>0x9E3779B97F4A7C15
    mark = (mark ^ (mark >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    mark = (mark ^ (mark >> 27)) * <uint64_t>0x94D049BB133111EB
    return mark ^ (mark >> 31)


cdef inline uint64_t quick_mark(arena_t* arena, pool_t* pool) noexcept nogil:
    """Sum of the marks of all blocks on the quick lists."""
    cdef uint64_t left = pool.quick_count
    cdef uint64_t mark = 0
    cdef uint64_t i
    cdef offset_t at
    if pool.quicklists == 0:
        return 0
    for i in range(QUICK_N_LISTS):
        at = quicklists_of(arena, pool).heads[i]
        while left > 0 and may_wait(arena, pool, at, quick_size(i)):
            mark += waiting_mark(at)
            at = word_at(arena.base, at)[0]
            left -= 1
    return mark
