# SPDX-License-Identifier: BSD-3-Clause
"""The nogil API of xmem for Cython: ``from xmem cimport ...``.

Objects are made in Python (`Arena`, `Pool`, `Heap`); their ``c`` members are
what the functions take. No function here takes a lock or checks its offsets:
``pool_owns``, ``heap_owns`` and ``heap_lends`` do, for any integer, in O(1).
"""

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport arena_t
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.plain cimport pool_owns
from xmem.heap cimport (
    Heap,
    heap_lends,
    heap_owns,
    heap_owns_subpage,
    heap_page_alloc,
    heap_page_free,
    heap_resize,
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
)
from xmem.pool cimport Pool
from xmem.verbs cimport (
    pool_alloc,
    pool_capacity,
    pool_free,
    pool_free_if_owned,
    pool_resize,
    pool_xzalloc,
)
