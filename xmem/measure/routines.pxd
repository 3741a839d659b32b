# SPDX-License-Identifier: BSD-3-Clause
"""A heap as a program uses it that was ported to the heap's interface.

Each request takes the routine that the interface has for it, and each object is
freed by the routine that matches the one it came from.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport bit, ceil_log2
from xmem.base.offset cimport offset_t
from xmem.core.regions cimport pages_for
from xmem.interfaces cimport (
    HEAP_ARRAY,
    HEAP_STRICT,
    HEAP_SUBPAGE,
    heap_alloc,
    heap_lends,
    heap_owns,
    heap_owns_subpage,
    heap_page_alloc,
    heap_page_alloc_order,
    heap_page_free,
    heap_resize,
    heap_small_max,
    heap_t,
    heap_xfree,
    heap_xfree_subpage,
    heap_xmalloc_subpage,
)

cdef enum:
    BY_XMALLOC = 0              # and xmalloc_array; freed by xfree
    BY_SUBPAGE = 1              # xmalloc_subpage; freed by xfree_subpage
    BY_PAGES = 2                # page_alloc or page_alloc_exact; freed by page_free


cdef inline unsigned routine_for(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Return the routine that a ported program uses for ``n_bytes``."""
    cdef bint is_small = n_bytes <= heap_small_max(heap, alignment)
    if heap.interface == HEAP_STRICT and not is_small:
        return BY_PAGES
    if heap.interface == HEAP_SUBPAGE and is_small:
        return BY_SUBPAGE
    return BY_XMALLOC


cdef inline unsigned run_order_for(
    arena_t* arena, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Return the order of the run that holds and aligns ``n_bytes``."""
    cdef uint64_t n_pages = pages_for(arena, n_bytes if n_bytes != 0 else 1)
    cdef uint64_t aligned_pages = alignment >> arena.page_shift
    return ceil_log2(n_pages if n_pages > aligned_pages else aligned_pages)


cdef inline uint64_t run_pages_for(
    arena_t* arena, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Return the pages of the run that a program takes for ``n_bytes``."""
    if alignment > arena.page_bytes:
        return bit(run_order_for(arena, n_bytes, alignment))
    return pages_for(arena, n_bytes if n_bytes != 0 else 1)


cdef inline offset_t pages_alloc(
    heap_t* heap, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Allocate a run; return 0 if there is no room.

    Only page_alloc aligns to more than a page.
    """
    if alignment > heap.arena.page_bytes:
        return heap_page_alloc_order(
            heap, run_order_for(heap.arena, n_bytes, alignment)
        )
    return heap_page_alloc(heap, run_pages_for(heap.arena, n_bytes, alignment))


cdef inline offset_t routine_alloc(
    heap_t* heap, unsigned routine, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """Allocate by a routine; return 0 if there is no room."""
    if routine == BY_PAGES:
        return pages_alloc(heap, n_bytes, alignment)
    if routine == BY_SUBPAGE:
        return heap_xmalloc_subpage(heap, n_bytes, alignment)
    return heap_alloc(heap, n_bytes, alignment, heap.interface == HEAP_ARRAY)


cdef inline void routine_free(
    heap_t* heap, unsigned routine, offset_t payload
) noexcept nogil:
    """Free memory by the routine that matches the one it came from."""
    if routine == BY_PAGES:
        heap_page_free(heap, payload)
    elif routine == BY_SUBPAGE:
        heap_xfree_subpage(heap, payload)
    else:
        heap_xfree(heap, payload)


cdef inline offset_t routine_resize(
    heap_t* heap,
    offset_t payload,
    uint64_t old_bytes,
    unsigned old,
    unsigned new,
    uint64_t n_bytes,
    uint64_t alignment,
) noexcept nogil:
    """Resize an object of routine ``old`` into one of routine ``new``.

    Only xmalloc has an xrealloc. Otherwise the program allocates, copies and
    frees, unless a run keeps its number of pages. Returns 0 if there is no room.
    """
    cdef offset_t moved
    if old == BY_XMALLOC and new == BY_XMALLOC:
        return heap_resize(
            heap, payload, n_bytes, alignment, heap.interface == HEAP_ARRAY
        )
    if old == BY_PAGES and new == BY_PAGES and (
        run_pages_for(heap.arena, n_bytes, alignment)
        == run_pages_for(heap.arena, old_bytes, alignment)
    ):
        return payload
    moved = routine_alloc(heap, new, n_bytes, alignment)
    if moved != 0:
        memcpy(
            heap.arena.base + moved,
            heap.arena.base + payload,
            n_bytes if n_bytes < old_bytes else old_bytes,
        )
        routine_free(heap, old, payload)
    return moved


cdef inline bint routine_owns(
    heap_t* heap, unsigned routine, offset_t payload
) noexcept nogil:
    """Whether an offset is one that the routine takes back."""
    if routine == BY_PAGES:
        return heap_lends(heap, payload)
    if routine == BY_SUBPAGE:
        return heap_owns_subpage(heap, payload) or heap_owns(heap, payload)
    return heap_owns(heap, payload) or heap_lends(heap, payload)
