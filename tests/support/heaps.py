# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the five interfaces share."""

import contextlib
import ctypes

from xmem import Arena, Heap

INTERFACES = ("strict", "array", "subpage", "legacy", "merged")
#: Interfaces that have xmalloc_subpage.
WITH_SUBPAGE = ("strict", "array", "subpage", "merged")
PAGE = 4096


def held_pages(heap):
    """Pages that the heap's pools hold."""
    return sum(pool.total_size for pool in heap.pools) // heap.PAGE_SIZE


@contextlib.contextmanager
def heap_of(interface, n_bytes=1 << 20, page_size=PAGE, **settings):
    """A heap in an anonymous arena; sound when the block ends well."""
    with Arena.anonymous(n_bytes, page_size=page_size) as arena:
        heap = Heap(arena, interface, **settings)
        yield heap
        if not arena.closed and not heap.closed:
            heap.check()


def image(arena):
    """Every byte of an arena."""
    return ctypes.string_at(arena.address(0), arena.n_bytes)
