# SPDX-License-Identifier: BSD-3-Clause
"""The interfaces of the 2008 proposal over pools and page runs, at C level.

A heap is one pool, or two where both engines serve side by side::

    interface   xmalloc           xmalloc_array     xmalloc_subpage   frees
    strict      small             small             = xmalloc         matched
    array       small             small or whole    = xmalloc         matched
    subpage     legacy, any size  legacy, any size  small             matched
    legacy      legacy, any size  legacy, any size  absent            xfree takes all
    merged      small or whole    small or whole    = xmalloc         xfree takes all

*Small* is a TLSF block of at most ``heap_small_max`` bytes, the largest that
a region of one page holds: PAGE_SIZE - DELTA for the least alignment. *Whole*
is a run of pages with the tail given back. *Legacy* takes a power of two of
pages for a request that fills a page or more with its header.

Every function that allocates returns an offset, or 0 when the interface forbids
the request or there is no room. Those that free or resize trust their argument;
``heap_owns`` and ``heap_lends`` prove it. In a shared arena a heap is one of TLSF
alone, and its pool a door (core/routes.pxd). Sources: the proposal of October
2008 on the Xen developers' list; Xen b829a0ff57 for the tails.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xmem.arena.records cimport FRAME_RUN, frame_pages
from xmem.arena.superblock cimport FRAMES_N_ORDERS, arena_t, page_of, page_offset
from xmem.base cimport ENGINE_TLSF, bit, finding_t, offset_t, unlikely
from xmem.core cimport (
    POOL_HARDENED,
    check_payload,
    damage_of,
    hard_overhead,
    hard_prepare_free,
    is_run,
    pool_alignment,
    pool_owns,
    pool_t,
    run_free,
)
from xmem.core.routes cimport is_door, routed_lends, routed_run, routes_of
from xmem.engine cimport (
    BLOCK_ALIGN_MAX,
    BLOCK_GRAIN,
    PAGE_RULE_BYTES,
    REGION_HEAD_BYTES,
    REGION_OVERHEAD_BYTES,
    aligned_gap,
)
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_alloc_run_patiently,
    pool_capacity,
    pool_free,
    pool_lend_pages_patiently,
    pool_resize_patiently,
    pool_resize_run,
)

cdef extern from *:
    bint _mul_overflow "__builtin_mul_overflow"(
        uint64_t a, uint64_t b, uint64_t* product
    ) noexcept nogil
    bint _add_overflow "__builtin_add_overflow"(
        uint64_t a, uint64_t b, uint64_t* total
    ) noexcept nogil

cdef enum interface_t:
    HEAP_STRICT = 1
    HEAP_ARRAY = 2
    HEAP_SUBPAGE = 3
    HEAP_LEGACY = 4
    HEAP_MERGED = 5

cdef enum:
    ROLE_MAIN = 1       # xmalloc draws on it
    ROLE_SUBPAGE = 2    # xmalloc_subpage draws on it, where it is a second pool


cdef struct heap_t:
    # Process-local: where a heap's parts are.
    arena_t* arena
    pool_t* main
    pool_t* subpage         # main itself, a pool of its own, or NULL
    unsigned interface


cdef inline uint64_t heap_small_max(
    heap_t* heap, uint64_t alignment
) noexcept nogil:
    """Greatest size in bytes of a small request at an alignment; 0 if none."""
    cdef pool_t* small = heap.main if heap.subpage == NULL else heap.subpage
    cdef uint64_t most = (
        heap.arena.page_bytes - REGION_OVERHEAD_BYTES - hard_overhead(small)
    )
    if alignment <= BLOCK_GRAIN:
        return most
    if alignment > BLOCK_ALIGN_MAX:
        return 0
    return most - aligned_gap(REGION_HEAD_BYTES, alignment)


cdef inline bint heap_has_whole(heap_t* heap, bint is_array) noexcept nogil:
    """Whether requests above the small limit get whole pages."""
    return heap.interface == HEAP_MERGED or (
        is_array and heap.interface == HEAP_ARRAY
    )


cdef inline bint array_bytes(
    uint64_t header, uint64_t count, uint64_t size, uint64_t* total
) noexcept nogil:
    """``header + count * size`` in ``total``; False when it overflows."""
    cdef uint64_t product
    return not (
        _mul_overflow(count, size, &product)
        or _add_overflow(header, product, total)
    )


# Allocation ------------------------------------------------------------------

cdef inline offset_t heap_small(
    heap_t* heap, pool_t* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """A TLSF block, or 0 above the limit."""
    if n_bytes > heap_small_max(heap, alignment):
        return 0
    return pool_alloc_patiently(heap.arena, pool, n_bytes, alignment)


cdef inline offset_t heap_alloc(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment, bint is_array
) noexcept nogil:
    """A block of xmalloc, or with ``is_array`` of xmalloc_array; or 0."""
    if heap.main.engine != ENGINE_TLSF or n_bytes <= heap_small_max(
        heap, alignment
    ):
        return pool_alloc_patiently(heap.arena, heap.main, n_bytes, alignment)
    if not heap_has_whole(heap, is_array):
        return 0
    if n_bytes > heap.main.max_request:
        return routed_run(heap.arena, heap.main, n_bytes, alignment)
    return pool_alloc_run_patiently(heap.arena, heap.main, n_bytes, alignment)


cdef inline offset_t heap_xmalloc(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a block of ``n_bytes``, or 0."""
    return heap_alloc(heap, n_bytes, alignment, False)


cdef inline offset_t heap_xmalloc_array(
    heap_t* heap, uint64_t count, uint64_t size, uint64_t alignment
) noexcept nogil:
    """Payload of a block of ``count * size`` bytes, or 0."""
    cdef uint64_t total
    if not array_bytes(0, count, size, &total):
        return 0
    return heap_alloc(heap, total, alignment, True)


cdef inline offset_t heap_xmalloc_subpage(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a small block, or 0; 0 always in the legacy interface."""
    if heap.subpage == NULL:
        return 0
    if heap.subpage == heap.main:
        return heap_xmalloc(heap, n_bytes, alignment)
    return heap_small(heap, heap.subpage, n_bytes, alignment)


cdef inline offset_t heap_page_alloc(
    heap_t* heap, uint64_t n_pages
) noexcept nogil:
    """Offset of a run of exactly ``n_pages`` (at least 1) at any page, or 0."""
    return pool_lend_pages_patiently(
        heap.arena, heap.main, n_pages, heap.arena.page_bytes
    )


cdef inline offset_t heap_page_alloc_order(
    heap_t* heap, uint64_t order
) noexcept nogil:
    """Offset of ``2**order`` pages, aligned to their size, or 0."""
    if order >= FRAMES_N_ORDERS:
        return 0
    return pool_lend_pages_patiently(
        heap.arena, heap.main, bit(order), page_offset(heap.arena, bit(order))
    )


# Proof -----------------------------------------------------------------------

cdef inline bint heap_owns(heap_t* heap, offset_t payload) noexcept nogil:
    """Whether a live block of xmalloc's starts at ``payload``, any integer."""
    return pool_owns(heap.arena, heap.main, payload)


cdef inline bint heap_owns_subpage(
    heap_t* heap, offset_t payload
) noexcept nogil:
    """Whether a live block of xmalloc_subpage's starts at ``payload``."""
    return heap.subpage != NULL and pool_owns(heap.arena, heap.subpage, payload)


cdef inline bint heap_lends(heap_t* heap, offset_t offset) noexcept nogil:
    """Whether a live run of page_alloc's starts at ``offset``, any integer."""
    return is_run(heap.arena, heap.main, offset, FRAME_RUN) or (
        routed_lends(heap.arena, heap.main, offset)
    )


cdef inline uint64_t heap_run_bytes(
    heap_t* heap, offset_t offset
) noexcept nogil:
    """Bytes of a live run of page_alloc."""
    return page_offset(
        heap.arena,
        frame_pages(heap.arena.frames[page_of(heap.arena, offset)].word),
    )


cdef inline bint heap_frees_pages(heap_t* heap) noexcept nogil:
    """Whether xfree takes the memory of page_alloc too."""
    return heap.interface == HEAP_MERGED or heap.interface == HEAP_LEGACY


# Freeing and resizing --------------------------------------------------------

cdef inline void heap_page_free(heap_t* heap, offset_t offset) noexcept nogil:
    """Free a run of page_alloc."""
    if unlikely(is_door(heap.arena, heap.main)):
        routes_of(heap.arena).free_pages(heap.arena, heap.main, offset)
        return
    run_free(heap.arena, heap.main, <uint32_t>page_of(heap.arena, offset))


cdef inline void heap_xfree(heap_t* heap, offset_t payload) noexcept nogil:
    """Free a block of xmalloc; where xfree takes all, pages too."""
    if heap_frees_pages(heap) and heap_lends(heap, payload):
        heap_page_free(heap, payload)
    else:
        pool_free(heap.arena, heap.main, payload)


cdef inline void heap_xfree_subpage(
    heap_t* heap, offset_t payload
) noexcept nogil:
    """Free a block of xmalloc_subpage."""
    pool_free(heap.arena, heap.subpage, payload)


cdef inline bint is_whole(heap_t* heap, offset_t payload) noexcept nogil:
    """Whether a live payload of the main pool is a TLSF block of whole pages."""
    return (
        heap.main.engine == ENGINE_TLSF
        and (payload & (PAGE_RULE_BYTES - 1)) == 0
    )


cdef inline bint heap_is_sound(heap_t* heap, offset_t payload) noexcept nogil:
    """Whether a hardened heap's block is undamaged; others are not looked at."""
    cdef finding_t later
    return not heap.main.flags & POOL_HARDENED or check_payload(
        heap.arena, heap.main, payload, damage_of(heap.main, &later)
    )


cdef inline offset_t heap_move(
    heap_t* heap,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint is_array,
) noexcept nogil:
    """Resize by allocating anew, copying and freeing; 0 leaves all as it was."""
    cdef uint64_t capacity = pool_capacity(heap.arena, heap.main, payload)
    cdef offset_t moved
    if unlikely(not heap_is_sound(heap, payload)) or (
        not hard_prepare_free(heap.arena, heap.main, payload)
    ):
        return 0
    moved = heap_alloc(heap, n_bytes, alignment, is_array)
    if moved == 0:
        return 0
    memcpy(
        heap.arena.base + moved,
        heap.arena.base + payload,
        n_bytes if n_bytes < capacity else capacity,
    )
    pool_free(heap.arena, heap.main, payload)
    return moved


cdef inline bint heap_resize_whole(
    heap_t* heap, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """Resize a block of whole pages within its pages, if that can be done."""
    return heap_is_sound(heap, payload) and pool_resize_run(
        heap.arena, heap.main, payload, n_bytes
    )


cdef inline offset_t heap_resize(
    heap_t* heap,
    offset_t payload,
    uint64_t n_bytes,
    uint64_t alignment,
    bint is_array,
) noexcept nogil:
    """A block of xmalloc resized, by the rules of xmalloc or xmalloc_array; or 0.

    A block crosses between small and whole where the interface has both. Its
    alignment becomes the greater of ``alignment`` and its own.
    """
    cdef uint64_t own = pool_alignment(heap.arena, heap.main, payload)
    cdef bint may_stay = alignment <= own
    cdef offset_t moved
    if unlikely(is_door(heap.arena, heap.main)):
        return routes_of(heap.arena).resize_heap(
            heap.arena,
            heap.main,
            heap.interface,
            payload,
            n_bytes,
            alignment,
            is_array,
        )
    if heap.main.engine != ENGINE_TLSF:
        return pool_resize_patiently(
            heap.arena, heap.main, payload, n_bytes, alignment
        )
    if alignment < own:
        alignment = own
    if n_bytes <= heap_small_max(heap, alignment):
        if not is_whole(heap, payload):
            return pool_resize_patiently(
                heap.arena, heap.main, payload, n_bytes, alignment
            )
        moved = heap_move(heap, payload, n_bytes, alignment, is_array)
        if moved == 0 and may_stay and heap.main.hard.damage.code == 0 and (
            heap_resize_whole(heap, payload, n_bytes)
        ):
            return payload
        return moved
    if not heap_has_whole(heap, is_array) or n_bytes > heap.main.max_request:
        return 0
    if (
        may_stay
        and is_whole(heap, payload)
        and heap_resize_whole(heap, payload, n_bytes)
    ):
        return payload
    return heap_move(heap, payload, n_bytes, alignment, is_array)


cdef inline offset_t heap_zeroed(
    heap_t* heap, offset_t payload, uint64_t n_bytes
) noexcept nogil:
    """``payload`` with its first ``n_bytes`` zeroed; 0 stays 0."""
    if payload != 0:
        memset(heap.arena.base + payload, 0, n_bytes)
    return payload


# The rest of the family -------------------------------------------------------

cdef inline offset_t heap_xzalloc(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a block of ``n_bytes`` zeros, or 0."""
    return heap_zeroed(heap, heap_alloc(heap, n_bytes, alignment, False), n_bytes)


cdef inline offset_t heap_xzalloc_array(
    heap_t* heap, uint64_t count, uint64_t size, uint64_t alignment
) noexcept nogil:
    """Payload of a block of ``count * size`` zeros, or 0."""
    # A product that overflows has been refused before it is used here.
    return heap_zeroed(
        heap, heap_xmalloc_array(heap, count, size, alignment), count * size
    )


cdef inline offset_t heap_xmalloc_flex_struct(
    heap_t* heap,
    uint64_t header,
    uint64_t size,
    uint64_t count,
    uint64_t alignment,
) noexcept nogil:
    """Payload of a structure of ``header + count * size`` bytes, or 0."""
    cdef uint64_t total
    if not array_bytes(header, count, size, &total):
        return 0
    return heap_alloc(heap, total, alignment, True)


cdef inline offset_t heap_xmemdup(
    heap_t* heap, const void* source, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a copy of ``n_bytes`` at ``source``, or 0."""
    cdef offset_t payload = heap_alloc(heap, n_bytes, alignment, False)
    if payload != 0:
        memcpy(heap.arena.base + payload, source, n_bytes)
    return payload


cdef inline offset_t heap_xrealloc(
    heap_t* heap, offset_t payload, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Payload of a live block resized to ``n_bytes``; 0 leaves it as it was."""
    return heap_resize(heap, payload, n_bytes, alignment, False)


cdef inline offset_t heap_xrealloc_array(
    heap_t* heap,
    offset_t payload,
    uint64_t count,
    uint64_t size,
    uint64_t alignment,
) noexcept nogil:
    """Payload of a live block resized to ``count * size`` bytes, or 0."""
    cdef uint64_t total
    if not array_bytes(0, count, size, &total):
        return 0
    return heap_resize(heap, payload, total, alignment, True)
