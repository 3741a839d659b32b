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

A list that runs dry stays marked in the bitmap, since most are soon used again: its
word is QUICK_DRY then, and becomes 0 where a search meets it. So neither a push nor a
pop has a branch that depends on whether the list has other blocks.

To the engine a waiting block is in use. It has no start bit, so it cannot be freed
twice (C7). Its first word holds the payload of the next one, or QUICK_DRY.

The price: waiting blocks do not merge, nor do their neighbours with them.
"""

from libc.stdint cimport int64_t, uint64_t

from xmem.arena cimport arena_t, page_offset
from xmem.base cimport (
    assume,
    bit,
    claim,
    find_first_set,
    find_last_set,
    likely,
    offset_t,
    put,
    store_barrier,
    unlikely,
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
    tlsf_pool_grown,
    tlsf_pool_large,
    tlsf_pool_return,
    tlsf_pool_reuse,
    tlsf_pool_record,
)
from xmem.core.startbits cimport start_clear, start_set
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_MAX,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_TAG_MASK,
    PAGE_RULE_BYTES,
    SMALL_MAX_BYTES,
    aligned_slack,
    block_bytes_for,
    block_of,
    block_word,
    tlsf_alloc_large,
    tlsf_alloc_small,
    tlsf_cut_aside,
    tlsf_refill,
    word_at,
    word_size,
)

cdef enum:
    QUICK_GIVES = 2
    QUICK_DRAIN = 3
    QUICK_DRY = 1           # in place of a payload: no more blocks


cdef inline uint64_t quick_index(uint64_t size) noexcept nogil:
    """The list of blocks of ``size`` bytes, at most QUICK_MAX_BYTES."""
    return (size >> QUICK_SIZE_LOG2) - 1


cdef inline uint64_t quick_size(uint64_t index) noexcept nogil:
    """Bytes of a block on list ``index``."""
    return (index + 1) << QUICK_SIZE_LOG2


cdef inline bint is_above_limit(pool_t* pool, uint64_t n_bytes) noexcept nogil:
    """Whether ``n_bytes`` are more than may wait, if all others in use are live."""
    # n_bytes > (used_bytes - n_bytes) / QUICK_SHARE + QUICK_SLACK_BYTES
    return <int64_t>(n_bytes * (QUICK_SHARE + 1) - QUICK_SHARE * QUICK_SLACK_BYTES) > (
        <int64_t>pool.tlsf.used_bytes
    )


cdef inline bint fits_quicklist(uint64_t word) noexcept nogil:
    """Whether there is a list for a block, by its header."""
    return word_size(word) <= QUICK_MAX_BYTES and not word & BLOCK_ALIGN_MASK


# Taking and putting ------------------------------------------------------------

cdef inline offset_t* quick_head(
    arena_t* arena, pool_t* pool, uint64_t size
) noexcept nogil:
    """The word of the list of blocks of ``size`` bytes, at most QUICK_MAX_BYTES."""
    # &heads[quick_index(size)]: a list's 8 bytes for 16 of the size.
    claim(sizeof(offset_t) << 1 == 1 << QUICK_SIZE_LOG2)
    return <offset_t*>(<char*>quicklists_of(arena, pool).heads + (size >> 1)) - 1


cdef inline void quick_mark_list(
    arena_t* arena, pool_t* pool, uint64_t index
) noexcept nogil:
    """Record that list ``index`` is in use."""
    cdef uint64_t* word = &quicklists_of(arena, pool).listed[index >> 6]
    put(word, with_bit(word[0], index))


cdef inline void quick_retire_list(
    arena_t* arena, pool_t* pool, uint64_t index
) noexcept nogil:
    """Record that list ``index``, which has run dry, is no longer in use."""
    cdef quicklists_t* quick = quicklists_of(arena, pool)
    put(&quick.heads[index], 0)
    put(&quick.listed[index >> 6], without_bit(quick.listed[index >> 6], index))


cdef inline offset_t quick_pop(
    arena_t* arena, pool_t* pool, uint64_t size
) noexcept nogil:
    """Pop the payload of a block of ``size`` bytes, or 0 if none waits."""
    cdef offset_t* head = quick_head(arena, pool, size)
    cdef offset_t payload = head[0]
    if unlikely(payload <= QUICK_DRY):
        return 0
    put(head, word_at(arena.base, payload)[0])
    put(&pool.quick_count, pool.quick_count - 1)
    put(&pool.quick_bytes, pool.quick_bytes - size)
    return payload


cdef inline offset_t quick_take(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """Payload of a waiting block for ``n_bytes``, live from now on, or 0.

    Requires that the request is below ``pool.quick_below``.
    """
    cdef offset_t payload = quick_pop(arena, pool, block_bytes_for(n_bytes))
    if unlikely(payload == 0):
        return 0
    start_set(arena, payload)
    assume(payload != 0)
    return payload


cdef inline bint quick_put(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Push a live block onto its list and clear its start bit; False if it may not."""
    cdef uint64_t word = block_word(arena.base, block_of(payload))
    cdef uint64_t size = word_size(word)
    cdef uint64_t n_bytes = pool.quick_bytes + size
    cdef offset_t* head = quick_head(arena, pool, size)
    cdef offset_t following
    if not fits_quicklist(word) or is_above_limit(pool, n_bytes):
        return False
    start_clear(arena, payload)
    following = head[0]
    if unlikely(following == 0):
        quick_mark_list(arena, pool, quick_index(size))
        following = QUICK_DRY
    put(word_at(arena.base, payload), following)
    store_barrier()
    put(head, payload)
    put(&pool.quick_count, pool.quick_count + 1)
    put(&pool.quick_bytes, n_bytes)
    return True


# Giving back -------------------------------------------------------------------

cdef inline uint64_t quick_at_least(
    quicklists_t* quick, uint64_t index
) noexcept nogil:
    """First list >= ``index`` that is in use, or QUICK_N_LISTS."""
    cdef uint64_t row = index >> 6
    cdef uint64_t word = quick.listed[row] & ~(bit(index & 63) - 1)
    while word == 0:
        row += 1
        if row == QUICK_N_WORDS:
            return QUICK_N_LISTS
        word = quick.listed[row]
    return (row << 6) + find_first_set(word)


cdef inline uint64_t quick_largest(quicklists_t* quick) noexcept nogil:
    """Last list that is in use, of lists that are not all empty."""
    cdef uint64_t row = QUICK_N_WORDS - 1
    while row > 0 and quick.listed[row] == 0:
        row -= 1
    return (row << 6) + find_last_set(quick.listed[row])


cdef inline bint quick_give_from(
    arena_t* arena, pool_t* pool, uint64_t index
) noexcept nogil:
    """Give the first block of a list in use to the engine; False if it has run dry."""
    cdef offset_t payload = quick_pop(arena, pool, quick_size(index))
    if unlikely(payload == 0):
        quick_retire_list(arena, pool, index)
        return False
    outlined_free(tlsf_pool_return)(arena, pool, payload)
    return True


cdef inline void quick_drain(
    arena_t* arena, pool_t* pool, uint64_t n_most, uint64_t n_looks
) noexcept nogil:
    """Give up to ``n_most`` waiting blocks, the largest first, to the engine.

    At most ``n_looks`` lists are looked at; those that have run dry count. No region
    leaves the pool.
    """
    while n_most > 0 and n_looks > 0 and pool.quick_count > 0:
        n_looks -= 1
        n_most -= quick_give_from(
            arena, pool, quick_largest(quicklists_of(arena, pool))
        )


cdef inline void quick_give(
    arena_t* arena, pool_t* pool, uint64_t n_most
) noexcept nogil:
    """``quick_drain`` as a call with a bound does it.

    It gives one block fewer for each list but the first that has run dry.
    """
    quick_drain(arena, pool, n_most, n_most + 1)


cdef inline void quick_give_for(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Give waiting blocks to the engine for a request that found no room.

    One in which it fits wherever that lies, if the first list that may have one does,
    else QUICK_DRAIN of the largest. No region leaves the pool: the request may need it.
    """
    cdef quicklists_t* quick = quicklists_of(arena, pool)
    cdef uint64_t index = QUICK_N_LISTS
    if alignment > BLOCK_GRAIN:
        n_bytes += aligned_slack(alignment)
    if n_bytes < pool.quick_below and alignment <= BLOCK_ALIGN_MAX:
        index = quick_at_least(quick, quick_index(block_bytes_for(n_bytes)))
    if index == QUICK_N_LISTS or not quick_give_from(arena, pool, index):
        quick_give(arena, pool, QUICK_DRAIN)


# What the lists do not serve ---------------------------------------------------

cdef inline offset_t quick_settle(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment, offset_t payload
) noexcept nogil:
    """A request's payload, or where that is 0 one in the room that blocks leave."""
    if likely(payload != 0) or pool.quick_count == 0:
        return payload
    quick_give_for(arena, pool, n_bytes, alignment)
    return tlsf_pool_reuse(arena, pool, n_bytes, alignment)


cdef inline offset_t quick_refill(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``quick_miss`` of what cannot be cut off the remainder: that is replaced."""
    cdef uint64_t need = block_bytes_for(n_bytes)
    cdef offset_t block
    if likely(need <= SMALL_MAX_BYTES):
        block = tlsf_refill(arena.base, &pool.tlsf, need)
    else:
        block = tlsf_alloc_large(arena.base, &pool.tlsf, need, True)
    if likely(block != 0):
        return tlsf_pool_record(arena, block)
    return quick_settle(
        arena,
        pool,
        n_bytes,
        BLOCK_GRAIN,
        outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, BLOCK_GRAIN),
    )


cdef inline offset_t quick_search(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of what no quick list serves, or where more waits than may.

    Above the limit two of the blocks go to the engine, unless the call takes pages:
    that is its share of work. While blocks wait, the engine gives no region back to
    make room: it fails early.
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
        # Below the limit `quick_miss` serves what is smaller.
        payload = outlined_alloc(tlsf_pool_large)(arena, pool, n_bytes, BLOCK_GRAIN)
    else:
        payload = outlined_alloc(plain_alloc)(arena, pool, n_bytes, alignment)
    return quick_settle(arena, pool, n_bytes, alignment, payload)


cdef inline offset_t quick_miss(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` aligned to 16 below ``pool.quick_below``, where no block waits.

    Whatever may wait is cut off the remainder, up to QUICK_MAX_BYTES.
    """
    cdef uint64_t need = block_bytes_for(n_bytes)
    cdef offset_t block
    if unlikely(is_above_limit(pool, pool.quick_bytes)):
        return outlined_alloc(quick_search)(arena, pool, n_bytes, alignment)
    if need <= SMALL_MAX_BYTES:
        block = tlsf_alloc_small(arena.base, &pool.tlsf, need)
    else:
        block = tlsf_cut_aside(arena.base, &pool.tlsf, need)
    if likely(block != 0):
        return tlsf_pool_record(arena, block)
    return outlined_alloc(quick_refill)(arena, pool, n_bytes, alignment)


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
