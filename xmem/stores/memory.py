# SPDX-License-Identifier: BSD-3-Clause
"""Where a store keeps bytes: a heap of any interface, or a pool of either engine.

What a heap's small routine serves goes there; what is larger, up to a page, takes
a page of page_alloc, as the stores of 2008 had to. A pool takes all. Which routine
frees follows from the length alone.
"""

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgumentType
from xmem.heap import Heap
from xmem.measure.trace import TRACE_DTYPE
from xmem.pool import Pool

__all__ = ["Memory", "Recorder"]


class Memory:
    """Runs of at most a page of bytes in an arena.

    Parameters
    ----------
    heap : Heap or Pool
        Where they lie.

    Attributes
    ----------
    heap : Heap or Pool
    page_bytes : int
        Of the arena.
    small_max : int
        Bytes that do not take a page of their own.
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
        """Keep a copy of at most a page of bytes; answers its offset.

        Raises
        ------
        OutOfMemory
            No room; nothing has changed.
        """
        n_bytes = len(data)
        if n_bytes > self.small_max:
            offset = self._page_alloc(0)
        else:
            offset = self._xmalloc(n_bytes)
        self.write(offset, data)
        return offset

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite what is kept at an offset."""
        with self.heap.view(offset, len(data)) as view:
            view[:] = data

    def get(self, offset: int, n_bytes: int) -> bytes:
        """Return what is kept at an offset."""
        with self.heap.view(offset, n_bytes) as view:
            return bytes(view)

    def free(self, offset: int, n_bytes: int) -> None:
        """Let go of what is kept at an offset."""
        if n_bytes > self.small_max:
            self._page_free(offset)
        else:
            self._xfree(offset)

    @classmethod
    def of(cls, heap: "Heap | Pool | Memory") -> "Memory":
        """Return a memory for what a store was given."""
        return heap if isinstance(heap, Memory) else cls(heap)

    @property
    def n_pages(self) -> int:
        """Pages that all that is kept takes, control blocks not counted."""
        return self.heap.stats().n_pages


class Recorder(Memory):
    """A memory that writes down what is asked of it, as a trace.

    `xmem.measure.replay.replay` then measures the same calls without the store around them.
    """

    def __init__(self, heap: Heap | Pool) -> None:
        super().__init__(heap)
        self._ops: list[tuple[int, int, int, int, int]] = []
        self._numbers: dict[int, int] = {}
        self._next = 0

    def put(self, data: bytes) -> int:
        """Keep a copy of at most a page of bytes; answers its offset."""
        offset = super().put(data)
        self._numbers[offset] = self._next
        self._ops.append((0, 0, 0, self._next, len(data)))
        self._next += 1
        return offset

    def free(self, offset: int, n_bytes: int) -> None:
        """Let go of what is kept at an offset."""
        super().free(offset, n_bytes)
        self._ops.append((1, 0, 0, self._numbers.pop(offset), 0))

    def trace(self) -> npt.NDArray[np.void]:
        """Return what has been asked so far, in the trace format."""
        return np.array(self._ops, dtype=TRACE_DTYPE)
