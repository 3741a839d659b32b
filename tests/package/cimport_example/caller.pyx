# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3
"""A downstream module: a stack of numbers whose nodes live in a heap."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem cimport (
    ENGINE_FIRSTFIT,
    ENGINE_TLSF,
    POOL_HARDENED,
    POOL_JOINS,
    Arena,
    Heap,
    Pool,
    heap_owns,
    heap_owns_subpage,
    heap_page_alloc,
    heap_page_free,
    heap_small_max,
    heap_t,
    heap_xfree,
    heap_xfree_subpage,
    heap_xmalloc,
    heap_xmalloc_array,
    heap_xmalloc_flex_struct,
    heap_xmalloc_subpage,
    heap_xmemdup,
    heap_xrealloc,
    heap_xrealloc_array,
    heap_xzalloc,
    heap_xzalloc_array,
    offset_t,
    pool_alloc,
    pool_create,
    pool_destroy,
    pool_free,
    pool_free_if_owned,
    pool_named,
    pool_numbered,
    pool_owns,
    pool_reserve,
    pool_shrink,
    pool_t,
    settings_t,
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


# The rest of the family: what each function returns ---------------------------

def xzalloc_array(Heap heap, uint64_t count, uint64_t size, uint64_t align):
    """Payload of ``count * size`` zeros, or 0."""
    return heap_xzalloc_array(&heap.c, count, size, align)


def xmalloc_flex_struct(
    Heap heap, uint64_t header, uint64_t size, uint64_t count, uint64_t align
):
    """Payload of a header and ``count`` elements, or 0."""
    return heap_xmalloc_flex_struct(&heap.c, header, size, count, align)


def xmemdup(Heap heap, bytes source, uint64_t align):
    """Payload of a copy, or 0."""
    return heap_xmemdup(&heap.c, <char*>source, len(source), align)


def xrealloc(Heap heap, uint64_t payload, uint64_t n_bytes, uint64_t align):
    """Payload of a block resized, or 0."""
    return heap_xrealloc(&heap.c, payload, n_bytes, align)


def xrealloc_array(
    Heap heap, uint64_t payload, uint64_t count, uint64_t size, uint64_t align
):
    """Payload of an array resized, or 0."""
    return heap_xrealloc_array(&heap.c, payload, count, size, align)


def xmalloc_subpage(Heap heap, uint64_t n_bytes, uint64_t align):
    """Payload of a small block, or 0."""
    return heap_xmalloc_subpage(&heap.c, n_bytes, align)


def xfree_subpage(Heap heap, uint64_t payload):
    """Free a small block if it is one; whether it was."""
    if not heap_owns_subpage(&heap.c, payload):
        return False
    heap_xfree_subpage(&heap.c, payload)
    return True


def pool_pair(Pool pool, uint64_t n_bytes):
    """Allocate and free at C level; whether the proof holds before and after."""
    cdef offset_t payload = pool_alloc(&pool.arena.c, pool.c, n_bytes, 16)
    cdef bint before = pool_owns(&pool.arena.c, pool.c, payload)
    pool_free(&pool.arena.c, pool.c, payload)
    return before, pool_owns(&pool.arena.c, pool.c, payload)


def free_if_owned(Pool pool, uint64_t payload):
    """Free what may be a block; whether it was."""
    return pool_free_if_owned(&pool.arena.c, pool.c, payload)


# A pool without a Pool --------------------------------------------------------

SETTINGS = {
    "engine": ENGINE_TLSF,
    "flags": POOL_JOINS,
    "grow_pages": 0,
    "max_pages": 0,
    "has_quicklists": False,
}
ENGINES = {"tlsf": ENGINE_TLSF, "firstfit": ENGINE_FIRSTFIT}
HARDENED = POOL_HARDENED


def create(Arena arena, bytes name, **changes):
    """Make a pool; why there is none (0: there is), and its number."""
    cdef settings_t settings
    cdef uint32_t number = 0
    given = SETTINGS | changes
    memset(&settings, 0, sizeof(settings_t))
    settings.engine = given["engine"]
    settings.flags = given["flags"]
    settings.grow_pages = given["grow_pages"]
    settings.max_pages = given["max_pages"]
    settings.has_quicklists = given["has_quicklists"]
    return pool_create(&arena.c, name, len(name), &settings, &number), number


def number_of(Arena arena, bytes name):
    """Number of the pool of a name, or 0."""
    cdef pool_t* pool = pool_named(&arena.c, name, len(name))
    return 0 if pool == NULL else pool.number


def life(Arena arena, uint32_t number, uint64_t n_pages):
    """Reserve, fill and empty a pool, and shrink it, without the GIL.

    Pages reserved, pages held when it is full, pages given back, pages held then.
    """
    cdef pool_t* pool = pool_numbered(&arena.c, number)
    cdef uint64_t reserved, held, given
    cdef offset_t last = 0
    cdef offset_t block
    with nogil:
        reserved = pool_reserve(&arena.c, pool, n_pages)
        while True:
            block = pool_alloc(&arena.c, pool, 1000, 16)
            if block == 0:
                break
            (<offset_t*>(arena.c.base + block))[0] = last
            last = block
        held = pool.n_pages
        while last != 0:
            block = (<offset_t*>(arena.c.base + last))[0]
            pool_free(&arena.c, pool, last)
            last = block
        given = pool_shrink(&arena.c, pool)
    return reserved, held, given, pool.n_pages


def destroy(Arena arena, uint32_t number):
    """End a pool with whatever is live in it."""
    pool_destroy(&arena.c, pool_numbered(&arena.c, number))
