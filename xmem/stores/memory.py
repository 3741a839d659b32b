# SPDX-License-Identifier: BSD-3-Clause
"""Where a store keeps bytes: a heap of any interface, or a pool of either engine.

A heap's small routine serves the requests that it can; larger ones, up to a page,
take a page of page_alloc, as the stores of 2008 had to. A pool serves all requests.
The length alone determines the routine that frees.
"""

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgumentType
from xmem.heap import Heap
from xmem.measure.trace import OP_FREE, OP_MALLOC, TRACE_DTYPE
from xmem.pool import Pool

__all__ = ["Memory", "Recorder"]


class Memory:
    """Stores at most a page of bytes at a time in an arena.

    Parameters
    ----------
    heap : Heap or Pool
        Where the bytes are kept.

    Attributes
    ----------
    heap : Heap or Pool
    page_bytes : int
        Page size of the arena.
    small_max : int
        Greatest number of bytes that does not take a page of its own.
    """

    def __init__(self, heap: Heap | Pool) -> None:
        if not isinstance(heap, Heap | Pool):
            raise BadArgumentType(
                f"heap must be a Heap or a Pool, not {type(heap).__name__}"
            )
        self.heap = heap
        self.page_bytes = heap.arena.page_size
        self.small_max = self.page_bytes
        self._xmalloc = heap.xmalloc
        self._xfree = heap.xfree
        if isinstance(heap, Heap):
            self._page_alloc = heap.page_alloc
            self._page_free = heap.page_free
            if heap.interface == "subpage":
                self._xmalloc, self._xfree = heap.xmalloc_subpage, heap.xfree_subpage
            if heap.interface == "legacy":
                # Above this a request takes two pages or more.
                self.small_max = self.page_bytes - 64
            else:
                self.small_max = heap.XMALLOC_MAX

    def put(self, data: bytes) -> int:
        """Keep a copy of at most a page of bytes; return its offset.

        Raises
        ------
        OutOfMemory
            There is no room; nothing has changed.
        """
        n_bytes = len(data)
        if n_bytes > self.small_max:
            offset = self._page_alloc(0)
        else:
            offset = self._xmalloc(n_bytes)
        self.write(offset, data)
        return offset

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite the bytes kept at an offset."""
        with self.heap.view(offset, len(data)) as view:
            view[:] = data

    def get(self, offset: int, n_bytes: int) -> bytes:
        """Return the bytes kept at an offset."""
        with self.heap.view(offset, n_bytes) as view:
            return bytes(view)

    def free(self, offset: int, n_bytes: int) -> None:
        """Free the bytes kept at an offset."""
        if n_bytes > self.small_max:
            self._page_free(offset)
        else:
            self._xfree(offset)

    @classmethod
    def of(cls, heap: "Heap | Pool | Memory") -> "Memory":
        """Return ``heap`` as a memory."""
        return heap if isinstance(heap, Memory) else cls(heap)

    @property
    def n_pages(self) -> int:
        """Pages that the heap holds, not counting control blocks."""
        return self.heap.stats().n_pages


class Recorder(Memory):
    """A memory that records the calls made on it as a trace.

    `xmem.measure.replay.replay` can then measure the same calls without the store.
    """

    def __init__(self, heap: Heap | Pool) -> None:
        super().__init__(heap)
        self._ops: list[tuple[int, int, int, int, int]] = []
        self._numbers: dict[int, int] = {}
        self._next = 0

    def put(self, data: bytes) -> int:
        """Keep a copy of at most a page of bytes; return its offset."""
        offset = super().put(data)
        self._numbers[offset] = self._next
        self._ops.append((OP_MALLOC, 0, 0, self._next, len(data)))
        self._next += 1
        return offset

    def free(self, offset: int, n_bytes: int) -> None:
        """Free the bytes kept at an offset."""
        super().free(offset, n_bytes)
        self._ops.append((OP_FREE, 0, 0, self._numbers.pop(offset), 0))

    def trace(self) -> npt.NDArray[np.void]:
        """Return the calls recorded so far, in the trace format."""
        return np.array(self._ops, dtype=TRACE_DTYPE)
