# SPDX-License-Identifier: BSD-3-Clause
"""The quick lists: small blocks, recently freed, for immediate reuse.

A pool may have one list for each block size up to QUICK_MAX_BYTES. xfree pushes the
block onto the list of its size and xmalloc of that size pops it: two words are
written, nothing is merged or split. A list holds at most ``quick_blocks`` blocks and
all lists together ``quick_limit`` bytes; other blocks go to the engine at once. The
lists are drained only where a request finds no room: then a block in which it fits, or
QUICK_DRAIN others, go to the engine and the request is tried once more. Each further
request that finds no room drains as many.

To the engine a waiting block is in use. It has no start bit, so it cannot be freed
twice (C7). Its first word holds the payload of the next one.

The price: waiting blocks do not merge, nor do their neighbours with them.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport arena_t, page_offset
from xmem.base cimport likely, offset_t, store_barrier
from xmem.core.control cimport (
    QUICK_MAX_BYTES,
    QUICK_N_LISTS,
    QUICK_SIZE_LOG2,
    pool_t,
    quicklist_t,
    quicklists_of,
)
from xmem.core.plain cimport (
    outlined_alloc,
    outlined_free,
    plain_alloc,
    plain_free,
    tlsf_pool_alloc,
    tlsf_pool_keep,
    tlsf_pool_reuse,
)
from xmem.core.startbits cimport start_clear, start_set
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_TAG_MASK,
    PAGE_RULE_BYTES,
    block_bytes_for,
    block_of,
    block_word,
    word_at,
    word_size,
)

cdef enum:
    QUICK_DRAIN = 4


cdef inline quicklist_t* quick_list(
    arena_t* arena, pool_t* pool, uint64_t size
) noexcept nogil:
    """The list of blocks of ``size`` bytes, at most QUICK_MAX_BYTES."""
    return &quicklists_of(arena, pool).lists[size >> QUICK_SIZE_LOG2]


cdef inline uint64_t quick_count(arena_t* arena, pool_t* pool) noexcept nogil:
    """Number of blocks on the quick lists."""
    cdef uint64_t count = 0
    cdef unsigned i
    if pool.quick_bytes == 0:
        return 0
    for i in range(QUICK_N_LISTS):
        count += quicklists_of(arena, pool).lists[i].count
    return count


cdef inline offset_t quick_take(
    arena_t* arena, pool_t* pool, quicklist_t* waiting, uint64_t size
) noexcept nogil:
    """Pop the payload of a block of ``size`` bytes, or 0 if its list is empty."""
    cdef offset_t payload = waiting.head
    if payload != 0:
        waiting.head = word_at(arena.base, payload)[0]
        waiting.count -= 1
        pool.quick_bytes -= size
    return payload


cdef inline bint quick_put(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Push a live block onto its list and clear its start bit; False if it may not."""
    cdef uint64_t word = block_word(arena.base, block_of(payload))
    cdef uint64_t size = word_size(word)
    cdef quicklist_t* waiting
    if size > QUICK_MAX_BYTES or word & BLOCK_ALIGN_MASK:
        return False
    waiting = quick_list(arena, pool, size)
    if waiting.count >= pool.quick_blocks or (
        pool.quick_bytes + size > pool.quick_limit
    ):
        return False
    start_clear(arena, payload)
    word_at(arena.base, payload)[0] = waiting.head
    store_barrier()
    waiting.head = payload
    waiting.count += 1
    pool.quick_bytes += size
    return True


cdef inline void quick_drain(
    arena_t* arena, pool_t* pool, uint64_t n_most
) noexcept nogil:
    """Free up to ``n_most`` waiting blocks, the largest first, to the engine.

    No region leaves the pool.
    """
    cdef quicklist_t* lists = quicklists_of(arena, pool).lists
    cdef uint64_t i = QUICK_N_LISTS - 1
    while n_most > 0 and pool.quick_bytes > 0:
        while i > 0 and lists[i].head == 0:
            i -= 1
        if i == 0:
            return
        n_most -= 1
        tlsf_pool_keep(
            arena, pool, quick_take(arena, pool, &lists[i], i << QUICK_SIZE_LOG2)
        )


cdef inline void quick_drain_for(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """Free waiting blocks for a request that found no room.

    One in which it fits, if there is any, else QUICK_DRAIN of the largest. No region
    leaves the pool: the request may need it.
    """
    cdef uint64_t size
    cdef offset_t payload = 0
    if n_bytes <= QUICK_MAX_BYTES - BLOCK_HEADER_BYTES:
        size = block_bytes_for(n_bytes)
        while size <= QUICK_MAX_BYTES and payload == 0:
            payload = quick_take(arena, pool, quick_list(arena, pool, size), size)
            size += BLOCK_GRAIN
    if payload != 0:
        tlsf_pool_keep(arena, pool, payload)
    else:
        quick_drain(arena, pool, QUICK_DRAIN)


cdef inline offset_t quick_last_resort(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Serve a request that found no room after freeing waiting blocks for it, or 0."""
    if pool.quick_bytes == 0 or n_bytes > pool.max_request:
        return 0
    quick_drain_for(arena, pool, n_bytes)
    return tlsf_pool_reuse(arena, pool, n_bytes, alignment)


cdef inline offset_t quick_miss(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a pool with quick lists, where no block of the size waits.

    While blocks wait, the engine gives no region back to make room: it fails early.
    """
    cdef offset_t payload
    if likely(alignment <= BLOCK_GRAIN and n_bytes <= pool.max_request):
        payload = tlsf_pool_alloc(arena, pool, n_bytes)
    else:
        payload = outlined_alloc(plain_alloc)(arena, pool, n_bytes, alignment)
    if likely(payload != 0):
        return payload
    return outlined_alloc(quick_last_resort)(arena, pool, n_bytes, alignment)


cdef inline offset_t quick_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``pool_alloc`` of a pool with quick lists."""
    cdef uint64_t size
    cdef offset_t payload
    if likely(
        n_bytes <= QUICK_MAX_BYTES - BLOCK_HEADER_BYTES and alignment <= BLOCK_GRAIN
    ):
        size = block_bytes_for(n_bytes)
        payload = quick_take(arena, pool, quick_list(arena, pool, size), size)
        if likely(payload != 0):
            start_set(arena, payload)
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
    outlined_free(plain_free)(arena, pool, payload)


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


cdef inline bint is_on_quicklist(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t size
) noexcept nogil:
    """Whether a block of ``size`` bytes is on the pool's quick lists."""
    cdef offset_t at
    cdef uint64_t left = pool.quick_blocks
    if pool.quicklists == 0 or size > QUICK_MAX_BYTES:
        return False
    at = quick_list(arena, pool, size).head
    while at != 0 and at != payload and left > 0:
        if not may_wait(arena, pool, at, size):
            return False
        at = word_at(arena.base, at)[0]
        left -= 1
    return at == payload and left > 0
