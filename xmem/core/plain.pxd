# SPDX-License-Identifier: BSD-3-Clause
"""Both engines behind one set of verbs: those of a pool without hardening.

``plain_alloc`` returns the offset of a payload, or 0. ``plain_free`` and
``plain_resize`` trust their argument; ``pool_owns`` says, exactly and in O(1)
(for page runs: one record of the frame table), whether an integer may be
given to them.

A payload is one of three things, told apart by its offset and the frame
table: a TLSF block (never page-aligned, B3), a legacy block, or a page run
owned by the pool: requests aligned to more than 2048 bytes under TLSF, and
requests that fill a page or more with their header in the legacy engine.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.records cimport FRAME_WHOLE, frame_owner, frame_pages, frame_state
from xmem.arena.stretches cimport stretches_longest_in_tree, top_pages
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base cimport (
    ENGINE_TLSF,
    assume,
    bit,
    ceil_log2,
    checker_pause,
    checker_resume,
    engine_copy,
    likely,
    offset_t,
    unlikely,
)
from xmem.core.control cimport POOL_HARDENED, SMALL_REQUEST_BYTES, pool_t
from xmem.core.growth cimport (
    page_release,
    page_take,
    region_grow,
    run_alloc,
    run_find,
    run_free,
    run_shrink,
    run_take,
)
from xmem.core.regions cimport may_hold, pages_for, region_pages_for
from xmem.core.routes cimport routed_owns
from xmem.core.spares cimport has_room, region_release
from xmem.core.startbits cimport start_clear, start_set, start_test
from xmem.engine cimport (
    BLOCK_ALIGN_MAX,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_TAG_MASK,
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    PAGE_RULE_BYTES,
    block_bytes_for,
    block_of,
    block_size,
    block_word,
    block_write,
    firstfit_alloc,
    firstfit_block_of,
    firstfit_bytes_for,
    firstfit_coalesce,
    firstfit_link,
    firstfit_payload,
    firstfit_shrink,
    freelists_insert,
    has_free_left,
    has_free_right,
    outlined_insert,
    payload_of,
    tlsf_alloc,
    tlsf_alloc_aligned,
    tlsf_alloc_large,
    tlsf_alloc_small,
    tlsf_carve_off,
    tlsf_coalesce,
    tlsf_free,
    tlsf_mark_free,
    tlsf_refill,
    tlsf_resize,
    tlsf_resize_left,
    word_alignment,
    word_at,
    word_size,
)


# Rare paths are called through these; see checks.pxd.
ctypedef offset_t (*alloc_t)(
    arena_t*, pool_t*, uint64_t, uint64_t
) noexcept nogil
ctypedef void (*free_t)(arena_t*, pool_t*, offset_t) noexcept nogil
ctypedef bint (*owned_t)(arena_t*, pool_t*, offset_t) noexcept nogil
ctypedef void (*run_free_t)(arena_t*, pool_t*, uint32_t) noexcept nogil
ctypedef void (*release_t)(
    arena_t*, pool_t*, offset_t, uint64_t, uint64_t
) noexcept nogil
ctypedef offset_t (*settle_t)(
    arena_t*, pool_t*, uint64_t, uint64_t, bint
) noexcept nogil

cdef extern from *:
    alloc_t outlined_alloc "XMEM_OUTLINED"(alloc_t function) noexcept nogil
    free_t outlined_free "XMEM_OUTLINED"(free_t function) noexcept nogil
    owned_t outlined_owned "XMEM_OUTLINED"(owned_t function) noexcept nogil
    release_t outlined_release "XMEM_OUTLINED"(release_t function) noexcept nogil
    run_free_t outlined_run_free "XMEM_OUTLINED"(run_free_t function) noexcept nogil
    settle_t outlined_settle "XMEM_OUTLINED"(settle_t function) noexcept nogil


# TLSF ------------------------------------------------------------------------

cdef inline uint64_t run_pages_for(
    arena_t* arena, uint64_t n_bytes
) noexcept nogil:
    """Pages of a run for an alignment that a block cannot have."""
    return pages_for(arena, n_bytes if n_bytes != 0 else 1)


cdef inline offset_t tlsf_pool_run(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Whole pages for an alignment that a block cannot have."""
    cdef uint64_t n_pages = run_pages_for(arena, n_bytes)
    return page_offset(
        arena, run_alloc(arena, pool, n_pages, alignment, FRAME_WHOLE)
    )


cdef inline offset_t tlsf_pool_record(
    arena_t* arena, offset_t block
) noexcept nogil:
    """Payload of a new block, recorded as live."""
    cdef offset_t payload = payload_of(block)
    start_set(arena, payload)
    assume(payload != 0)
    return payload


cdef inline offset_t tlsf_pool_grown(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``n_bytes`` aligned to 16 to 2048 in a new region, or 0.

    A hardened pool sets the start bit itself, after the block's seal.
    """
    cdef uint64_t need = block_bytes_for(n_bytes)
    cdef offset_t block = region_grow(arena, pool, need, alignment)
    if block == 0:
        return 0
    block = tlsf_carve_off(arena.base, &pool.tlsf, block, need, alignment)
    if pool.flags & POOL_HARDENED:
        return payload_of(block)
    return tlsf_pool_record(arena, block)


cdef inline offset_t tlsf_pool_refill(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``tlsf_pool_short`` where no block of the size is listed nor can be cut."""
    cdef offset_t block = tlsf_refill(
        arena.base, &pool.tlsf, block_bytes_for(n_bytes)
    )
    if unlikely(block == 0):
        return outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, BLOCK_GRAIN)
    return tlsf_pool_record(arena, block)


cdef inline offset_t tlsf_pool_large(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``tlsf_pool_alloc`` of more than SMALL_REQUEST_BYTES."""
    cdef offset_t block = tlsf_alloc_large(
        arena.base, &pool.tlsf, block_bytes_for(n_bytes), False
    )
    if unlikely(block == 0):
        return outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, BLOCK_GRAIN)
    return tlsf_pool_record(arena, block)


cdef inline offset_t tlsf_pool_short(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """At most SMALL_REQUEST_BYTES aligned to 16 without a search, or 0.

    Calls nothing. After 0 `tlsf_pool_refill` goes on.
    """
    cdef offset_t block = tlsf_alloc_small(
        arena.base, &pool.tlsf, block_bytes_for(n_bytes)
    )
    if unlikely(block == 0):
        return 0
    return tlsf_pool_record(arena, block)


cdef inline offset_t tlsf_pool_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes
) noexcept nogil:
    """``n_bytes`` (at most max_request) aligned to 16, or 0."""
    cdef offset_t payload
    if n_bytes > SMALL_REQUEST_BYTES:
        return outlined_alloc(tlsf_pool_large)(arena, pool, n_bytes, BLOCK_GRAIN)
    payload = tlsf_pool_short(arena, pool, n_bytes)
    if likely(payload != 0):
        return payload
    return outlined_alloc(tlsf_pool_refill)(arena, pool, n_bytes, BLOCK_GRAIN)


cdef inline offset_t tlsf_pool_alloc_aligned(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``n_bytes`` aligned to 32 to 2048, or 0."""
    cdef offset_t block = tlsf_alloc_aligned(
        arena.base, &pool.tlsf, block_bytes_for(n_bytes), alignment
    )
    if block == 0:
        return outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, alignment)
    return tlsf_pool_record(arena, block)


cdef inline offset_t tlsf_pool_reuse(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``n_bytes`` aligned to at most 2048 in the free blocks that there are, or 0."""
    cdef uint64_t need = block_bytes_for(n_bytes)
    cdef offset_t block
    if alignment > BLOCK_ALIGN_MAX:
        return 0
    if alignment > BLOCK_GRAIN:
        block = tlsf_alloc_aligned(arena.base, &pool.tlsf, need, alignment)
    else:
        block = tlsf_alloc(arena.base, &pool.tlsf, need)
    return tlsf_pool_record(arena, block) if block != 0 else 0


cdef inline void tlsf_pool_release(
    arena_t* arena, pool_t* pool, offset_t block, uint64_t size, uint64_t freed
) noexcept nogil:
    """List a free block that may hold a whole region, or give the region back.

    ``freed`` bytes of it were a block in use until now.
    """
    if not region_release(arena, pool, block, size, freed):
        outlined_insert(freelists_insert)(arena.base, &pool.tlsf.bins, block, size)


cdef inline void tlsf_pool_merge(
    arena_t* arena, pool_t* pool, offset_t payload, bint with_left, bint with_right
) noexcept nogil:
    """``tlsf_pool_free`` of a block without start bit, with its free neighbours."""
    cdef uint64_t size, freed
    cdef offset_t block = block_of(payload)
    freed = block_size(arena.base, block)
    if not tlsf_free(
        arena.base,
        &pool.tlsf,
        &block,
        with_left,
        with_right,
        &pool.release_bytes,
        &size,
    ):
        outlined_release(tlsf_pool_release)(arena, pool, block, size, freed)


cdef inline void tlsf_pool_merge_left(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``tlsf_pool_merge`` of a block whose left neighbour is free."""
    cdef offset_t block = block_of(payload)
    cdef uint64_t word = block_word(arena.base, block)
    tlsf_pool_merge(
        arena, pool, payload, True, has_free_right(arena.base, block, word)
    )


cdef inline void tlsf_pool_merge_right(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``tlsf_pool_merge`` of a block whose right neighbour is free, and that alone."""
    tlsf_pool_merge(arena, pool, payload, False, True)


cdef inline void tlsf_pool_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block (not a page run): the short path."""
    cdef char* base = arena.base
    cdef offset_t block = block_of(payload)
    cdef uint64_t word, size
    start_clear(arena, payload)
    word = block_word(base, block)
    size = word_size(word)
    if has_free_left(word):
        outlined_free(tlsf_pool_merge_left)(arena, pool, payload)
        return
    if has_free_right(base, block, word):
        outlined_free(tlsf_pool_merge_right)(arena, pool, payload)
        return
    tlsf_mark_free(base, &pool.tlsf, block, word)
    if unlikely(size >= pool.release_bytes):
        outlined_release(tlsf_pool_release)(arena, pool, block, size, size)
    else:
        freelists_insert(base, &pool.tlsf.bins, block, size)


cdef inline void tlsf_pool_return(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block in use without start bit; no region leaves with it."""
    cdef uint64_t size
    cdef offset_t block = tlsf_coalesce(
        arena.base, &pool.tlsf, block_of(payload), &size
    )
    freelists_insert(arena.base, &pool.tlsf.bins, block, size)


cdef inline void tlsf_pool_keep(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block (not a page run) without giving a region back.

    For calls that have done their share of work on pages, or have to be short.
    """
    start_clear(arena, payload)
    tlsf_pool_return(arena, pool, payload)


# Legacy engine ---------------------------------------------------------------

cdef inline offset_t firstfit_pool_run(
    arena_t* arena, pool_t* pool, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A block that reaches a page with its header, or 0.

    It takes whole pages, rounded up to a power of two, header included, and aligned to
    their number.
    """
    cdef uint64_t n_pages = bit(ceil_log2(pages_for(arena, need)))
    cdef offset_t block
    if alignment < page_offset(arena, n_pages):
        alignment = page_offset(arena, n_pages)
    block = page_offset(
        arena, run_alloc(arena, pool, n_pages, alignment, FRAME_WHOLE)
    )
    if block != 0:
        block_write(
            arena.base, block, n_pages << arena.page_shift, pool.firstfit.tag
        )
    return block


cdef inline offset_t firstfit_pool_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """``n_bytes`` from the legacy engine, or 0."""
    cdef uint64_t slack = alignment if alignment > FIRSTFIT_LINE else 0
    cdef uint64_t need = firstfit_bytes_for(n_bytes + slack)
    cdef offset_t block, payload
    if need >= arena.page_bytes:
        block = outlined_alloc(firstfit_pool_run)(arena, pool, need, alignment)
        if block == 0:
            return 0
    else:
        block = firstfit_alloc(arena.base, &pool.firstfit, need)
        if block == 0:
            block = page_take(arena, pool, need)
        if block == 0:
            return 0
    payload = firstfit_payload(arena.base, &pool.firstfit, block, alignment)
    start_set(arena, payload)
    return payload


cdef inline void firstfit_pool_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block or a run of the legacy engine."""
    cdef offset_t block = firstfit_block_of(arena.base, payload)
    cdef uint64_t size
    cdef uint32_t page
    size = block_size(arena.base, block)
    if size >= arena.page_bytes:
        page = <uint32_t>page_of(arena, block)
        if frame_state(arena.frames[page].word) == FRAME_WHOLE:
            outlined_run_free(run_free)(arena, pool, page)
            return
    # A block that fills its page walks the list too, and finds no neighbour.
    size = firstfit_coalesce(arena.base, &pool.firstfit, &block)
    if size == arena.page_bytes:
        page_release(arena, pool, block)
    else:
        firstfit_link(arena.base, &pool.firstfit, block)


# Both engines ----------------------------------------------------------------

cdef inline bint is_run_of(
    arena_t* arena, uint32_t owner, offset_t payload, unsigned state
) noexcept nogil:
    """Whether a run in ``state`` starts at ``payload``, any integer.

    ``owner`` is a pool's number, or 0 for the arena's own runs.
    """
    cdef uint64_t word
    if payload & (arena.page_bytes - 1) or payload >= arena.n_bytes:
        return False
    word = arena.frames[page_of(arena, payload)].word
    return frame_state(word) == state and frame_owner(word) == owner


cdef inline bint is_run(
    arena_t* arena, pool_t* pool, offset_t payload, unsigned state
) noexcept nogil:
    """Whether a live run of this pool in ``state`` starts at ``payload``."""
    return is_run_of(arena, pool.number, payload, state)


cdef inline offset_t plain_alloc(
    arena_t* arena, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a new block of ``n_bytes``, or 0 when there is no room.

    ``alignment`` is a power of two; less than 16 counts as 16.
    """
    if n_bytes > pool.max_request or alignment > pool.max_request:
        return 0
    if pool.engine != ENGINE_TLSF:
        return outlined_alloc(firstfit_pool_alloc)(arena, pool, n_bytes, alignment)
    if alignment <= BLOCK_GRAIN:
        return tlsf_pool_alloc(arena, pool, n_bytes)
    if alignment <= BLOCK_ALIGN_MAX:
        return outlined_alloc(tlsf_pool_alloc_aligned)(arena, pool, n_bytes, alignment)
    return outlined_alloc(tlsf_pool_run)(arena, pool, n_bytes, alignment)


cdef inline void plain_free(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Free a block of ``plain_alloc``."""
    if pool.engine != ENGINE_TLSF:
        start_clear(arena, payload)
        firstfit_pool_free(arena, pool, payload)
    elif unlikely((payload & (PAGE_RULE_BYTES - 1)) == 0):
        outlined_run_free(run_free)(
            arena, pool, <uint32_t>page_of(arena, payload)
        )
    else:
        tlsf_pool_free(arena, pool, payload)


cdef inline bint has_tag(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Whether a live block, which starts at ``payload``, is one of this pool."""
    cdef uint64_t word
    checker_pause()
    word = block_word(arena.base, payload - BLOCK_HEADER_BYTES)
    checker_resume()
    return ((word ^ pool.tlsf.tag) & BLOCK_TAG_MASK) == 0


cdef inline bint owns_run(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_owns`` where no start bit is set."""
    return pool.engine == ENGINE_TLSF and is_run(arena, pool, payload, FRAME_WHOLE)


cdef inline bint owns_unshared(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """``pool_owns`` of a pool that is no door."""
    if unlikely(not start_test(arena, payload)):
        return owns_run(arena, pool, payload)
    return has_tag(arena, pool, payload)


cdef inline bint pool_owns(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Whether a live block (or run) of this very pool starts at ``payload``.

    Exact for every integer. The tag is in the word in front of the payload in
    both engines' formats.
    """
    if likely(owns_unshared(arena, pool, payload)):
        return True
    return outlined_owned(routed_owns)(arena, pool, payload)


cdef inline uint64_t plain_capacity(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Bytes that may be used at ``payload``, a live block of the pool."""
    cdef offset_t block
    if pool.engine != ENGINE_TLSF:
        block = firstfit_block_of(arena.base, payload)
        return block + block_size(arena.base, block) - payload
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        return page_offset(
            arena, frame_pages(arena.frames[page_of(arena, payload)].word)
        )
    return block_size(arena.base, block_of(payload)) - BLOCK_HEADER_BYTES


cdef inline uint64_t pool_alignment(
    arena_t* arena, pool_t* pool, offset_t payload
) noexcept nogil:
    """Alignment in bytes that was requested for a live block."""
    cdef offset_t block
    if pool.engine != ENGINE_TLSF:
        block = firstfit_block_of(arena.base, payload)
        return word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        return bit(arena.frames[page_of(arena, payload)].next & 63)
    return word_alignment(block_word(arena.base, block_of(payload)))


cdef inline bint run_resize(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Shrink a TLSF pool's run where it lies, giving its tail back."""
    cdef uint32_t page = <uint32_t>page_of(arena, payload)
    cdef uint64_t n_pages = pages_for(arena, n_bytes if n_bytes != 0 else 1)
    if n_pages > frame_pages(arena.frames[page].word):
        return False
    run_shrink(arena, pool, page, n_pages)
    return True


cdef inline bint firstfit_resize(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Keep or shrink a legacy block where it lies, if that can be done.

    A run stays while a new request would get one of its length.
    """
    cdef offset_t block = firstfit_block_of(arena.base, payload)
    cdef uint64_t size = block_size(arena.base, block)
    cdef uint64_t padding = payload - block - FIRSTFIT_LINE
    cdef uint64_t need = firstfit_bytes_for(
        padding + (n_bytes if n_bytes != 0 else 1)
    )
    if size >= arena.page_bytes and is_run(arena, pool, block, FRAME_WHOLE):
        return need >= arena.page_bytes and size == bit(ceil_log2(need))
    if need > size:
        return False
    if size - need >= 2 * FIRSTFIT_LINE:
        firstfit_shrink(arena.base, &pool.firstfit, block, need)
    return True


cdef inline offset_t plain_resize_near(
    arena_t* arena, pool_t* pool, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Resize a live block or run in place or leftwards; 0 if it has to move.

    The last part is `hard_resize_near` of hardened.pxd without hardening, written
    out because GCC does not inline a function that both use: 31 instructions.
    """
    cdef offset_t block
    cdef uint64_t need
    if pool.engine != ENGINE_TLSF:
        return payload if firstfit_resize(arena, pool, payload, n_bytes) else 0
    if (payload & (PAGE_RULE_BYTES - 1)) == 0:
        return payload if run_resize(arena, pool, payload, n_bytes) else 0
    block = block_of(payload)
    need = block_bytes_for(n_bytes)
    if tlsf_resize(arena.base, &pool.tlsf, block, need):
        return payload
    block = tlsf_resize_left(
        arena.base, &pool.tlsf, block, need, arena.start_bits
    )
    if block == 0:
        return 0
    start_clear(arena, payload)
    return payload_of(block)


cdef inline void copy_payload(
    arena_t* arena,
    offset_t to,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t capacity,
) noexcept nogil:
    """Copy what both the new block of ``n_bytes`` and the old one can hold."""
    engine_copy(
        arena.base + to,
        arena.base + payload,
        n_bytes if n_bytes < capacity else capacity,
    )


cdef inline bint has_top_room(
    arena_t* arena, pool_t* pool, uint64_t n_pages
) noexcept nogil:
    """Whether limit and frames admit pages, and they are those at the arena's end.

    Taking these changes no entry of the tree.
    """
    return (
        may_hold(pool, n_pages)
        and top_pages(arena) >= n_pages
        and stretches_longest_in_tree(arena) < n_pages
    )


cdef inline offset_t tlsf_pool_settle_run(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """`tlsf_pool_settle` of whole pages."""
    cdef uint64_t n_pages = run_pages_for(arena, n_bytes)
    cdef uint64_t stretch = run_find(arena, pool, n_pages, alignment)
    if stretch == 0 or not may_give and stretch != arena.super.frames.top:
        return 0
    return page_offset(
        arena, run_take(arena, pool, stretch, n_pages, alignment, FRAME_WHOLE)
    )


cdef inline offset_t tlsf_pool_settle(
    arena_t* arena,
    pool_t* pool,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """``n_bytes`` from a TLSF pool if there is room for them as things are, or 0.

    Unless ``may_give`` no pages are taken but from the arena's end.
    """
    cdef uint64_t n_pages
    cdef offset_t payload
    payload = tlsf_pool_reuse(arena, pool, n_bytes, alignment)
    if payload != 0:
        return payload
    n_pages = region_pages_for(arena, block_bytes_for(n_bytes), alignment)
    if not (
        has_room(arena, pool, n_pages)
        if may_give
        else has_top_room(arena, pool, n_pages)
    ):
        return 0
    return outlined_alloc(tlsf_pool_grown)(arena, pool, n_bytes, alignment)


cdef inline offset_t plain_move(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """Payload of a new block with the old contents, or 0.

    0 if the new block would need pages for which room has to be made first. Unless
    ``may_give`` the work is bounded by that of one xmalloc: no region leaves with the
    old block, and 0 also if pages would have to be taken from between others.
    """
    cdef uint64_t capacity = plain_capacity(arena, pool, payload)
    cdef offset_t moved
    if pool.engine != ENGINE_TLSF:
        moved = plain_alloc(arena, pool, n_bytes, alignment)
    elif alignment > BLOCK_ALIGN_MAX:
        moved = outlined_settle(tlsf_pool_settle_run)(
            arena, pool, n_bytes, alignment, may_give
        )
    else:
        moved = tlsf_pool_settle(arena, pool, n_bytes, alignment, may_give)
    if moved == 0:
        return 0
    copy_payload(arena, moved, payload, n_bytes, capacity)
    if (
        pool.engine == ENGINE_TLSF
        and not may_give
        and payload & (PAGE_RULE_BYTES - 1)
    ):
        tlsf_pool_keep(arena, pool, payload)
    else:
        plain_free(arena, pool, payload)
    return moved


cdef inline offset_t plain_resize(
    arena_t* arena,
    pool_t* pool,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint may_give,
) noexcept nogil:
    """Payload with room for ``n_bytes`` and the old contents, or 0.

    In place, else leftwards, else moved. The alignment becomes the greater of
    ``alignment`` and the block's own. After 0 the block is as it was; `plain_move`
    says when an xmalloc, a copy and an xfree can still do what this call did not, and
    what ``may_give`` is.
    """
    cdef uint64_t own = pool_alignment(arena, pool, payload)
    cdef offset_t moved
    if n_bytes > pool.max_request:
        return 0
    if alignment <= own:
        moved = plain_resize_near(arena, pool, payload, n_bytes)
        if moved != 0:
            return moved
        alignment = own
    moved = plain_move(arena, pool, payload, n_bytes, alignment, may_give)
    # A shrink never fails: the block is large enough as it is.
    if moved == 0 and alignment <= own and (
        n_bytes <= plain_capacity(arena, pool, payload)
    ):
        return payload
    return moved
