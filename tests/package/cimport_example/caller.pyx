# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3
"""A downstream module: a stack of numbers whose nodes live in a heap."""

from libc.stdint cimport uint64_t

from xmem cimport (
    Heap,
    Pool,
    heap_owns,
    heap_page_alloc,
    heap_page_free,
    heap_small_max,
    heap_t,
    heap_xfree,
    heap_xmalloc,
    heap_xmalloc_array,
    heap_xzalloc,
    offset_t,
    pool_alloc,
    pool_free,
    pool_free_if_owned,
    pool_owns,
)


cdef struct node_t:
    offset_t below
    uint64_t number


def round_trip(Heap heap, uint64_t count):
    """Push and pop ``count`` numbers without the GIL; their sum."""
    cdef heap_t* c = &heap.c
    cdef offset_t top = 0
    cdef offset_t node
    cdef node_t* nodes
    cdef uint64_t i
    cdef uint64_t total = 0
    with nogil:
        for i in range(count):
            node = heap_xmalloc(c, sizeof(node_t), 16)
            if node == 0:
                break
            nodes = <node_t*>(c.arena.base + node)
            nodes.below = top
            nodes.number = i
            top = node
        while top != 0 and heap_owns(c, top):
            nodes = <node_t*>(c.arena.base + top)
            total += nodes.number
            node = nodes.below
            heap_xfree(c, top)
            top = node
    return total


def limits(Heap heap):
    """What the C level returns at, above and far above the small limit."""
    cdef heap_t* c = &heap.c
    cdef uint64_t most = heap_small_max(c, 16)
    cdef offset_t fits = heap_xmalloc(c, most, 16)
    cdef offset_t above = heap_xmalloc(c, most + 1, 16)
    cdef offset_t overflow = heap_xmalloc_array(c, ~<uint64_t>0, 16, 16)
    cdef offset_t zeros = heap_xzalloc(c, 64, 16)
    cdef offset_t pages = heap_page_alloc(c, 3)
    cdef bint zero = (<uint64_t*>(c.arena.base + zeros))[7] == 0
    heap_xfree(c, fits)
    if above:
        heap_xfree(c, above)
    heap_xfree(c, zeros)
    heap_page_free(c, pages)
    return most, fits != 0, above != 0, overflow, zero, pages != 0


def pool_pair(Pool pool, uint64_t n_bytes):
    """Allocate and free at C level; whether the proof holds before and after."""
    cdef offset_t payload = pool_alloc(&pool.arena.c, pool.c, n_bytes, 16)
    cdef bint before = pool_owns(&pool.arena.c, pool.c, payload)
    pool_free(&pool.arena.c, pool.c, payload)
    return before, pool_owns(&pool.arena.c, pool.c, payload)


def free_if_owned(Pool pool, uint64_t payload):
    """Free what may be a block; whether it was."""
    return pool_free_if_owned(&pool.arena.c, pool.c, payload)
