# SPDX-License-Identifier: BSD-3-Clause
"""The nogil API of xmem for Cython: ``from xmem cimport ...``.

The functions take the ``c`` members of Python's objects (`Arena`, `Pool`, `Heap`);
``pool_create`` makes a pool without Python. No function here takes a lock or checks
its offsets: ``pool_owns``, ``heap_owns`` and ``heap_lends`` prove any integer, in
O(1).
"""

from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport arena_t
from xmem.base cimport ENGINE_FIRSTFIT, ENGINE_TLSF, offset_t
from xmem.core cimport (
    CREATION_BAD_NAME,
    CREATION_BAD_SETTINGS,
    CREATION_DONE,
    CREATION_NAME_TAKEN,
    CREATION_NO_ENTRY,
    CREATION_NO_PAGES,
    CREATION_SHARED,
    POOL_HARDENED,
    POOL_JOINS,
    creation_t,
    pool_create,
    pool_destroy,
    pool_keep,
    pool_named,
    pool_numbered,
    pool_owns,
    pool_reserve,
    pool_shrink,
    pool_t,
    settings_t,
)
from xmem.heap cimport Heap
from xmem.interfaces cimport (
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
    pool_alloc_patiently,
    pool_capacity,
    pool_free,
    pool_free_if_owned,
    pool_resize,
    pool_resize_patiently,
    pool_xzalloc,
)
