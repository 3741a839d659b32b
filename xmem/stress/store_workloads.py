# SPDX-License-Identifier: BSD-3-Clause
"""Workloads of real pages for the two stores; each result is compared with a model.

Operations have the fields of a trace with other meanings: ``id`` names a page,
``size`` its contents (a page of the source, and a version of it), ``align_log2`` the
pool.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem.arena import Arena
from xmem.base.errors import OutOfMemory, XmemError
from xmem.heap import Heap
from xmem.measure.trace import TRACE_DTYPE
from xmem.pool import Pool
from xmem.stats import HeapStats
from xmem.stores.difference_engine import DifferenceEngine
from xmem.stores.images import file_pages, mutated
from xmem.stores.tmem import Put, TmemStore
from xmem.stress.workloads import Generator, Ops, Target

__all__ = ["DiffEngineWorkload", "TmemWorkload"]

PUT, FLUSH, GET, OTHER = range(4)
#: Pages of an object.
OBJECT_PAGES = 64
#: Versions of each page of the source; version 0 is the page itself.
VERSIONS = 4


def make_heap(arena: Arena, engine: str | None, interface: str | None) -> Heap | Pool:
    """Return the heap, or the pool, that options name."""
    if interface is not None:
        # Several half-page objects share a region, see docs/interfaces.md.
        small = interface in ("legacy", "subpage")
        return Heap(
            arena,
            interface,  # type: ignore[arg-type]
            name="store",
            grow_pages=1 if small else 16,
            join_regions=not small,
        )
    return Pool(arena, name="store", engine=engine or "tlsf")  # type: ignore[arg-type]


class Pages:
    """Pages by number: each page of the source in all its versions."""

    def __init__(self, source: npt.NDArray[np.uint8]) -> None:
        self.source = source
        self.page = lru_cache(maxsize=4096)(self._page)

    def _page(self, number: int) -> bytes:
        """Return the bytes of a page."""
        base, version = divmod(number, VERSIONS)
        page = self.source[base % len(self.source)]
        if version:
            page = mutated(page, np.random.default_rng(number))
        return bytes(page.tobytes())


class StoreGenerator:
    """Generates operations: which page, and its new contents."""

    def __init__(
        self, seed: int, shares: Sequence[float], n_pages: int, n_source: int
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._shares = np.array(shares) / sum(shares)
        self._n_pages = n_pages
        self._n_source = n_source

    def make(self, n_ops: int) -> Ops:
        """Generate the next operations."""
        rng = self._rng
        ops = np.zeros(n_ops, dtype=TRACE_DTYPE)
        ops["op"] = rng.choice(len(self._shares), n_ops, p=self._shares)
        ops["id"] = rng.integers(0, self._n_pages, n_ops)
        ops["align_log2"] = rng.choice(3, n_ops, p=[0.4, 0.4, 0.2])
        # Half of the contents come from a few pages, so that some can be shared.
        few = max(self._n_source // 16, 1)
        most = np.where(rng.random(n_ops) < 0.5, few, self._n_source)
        ops["size"] = (rng.random(n_ops) * most).astype(np.uint64) * VERSIONS
        ops["size"] += rng.choice(VERSIONS, n_ops, p=[0.7, 0.1, 0.1, 0.1]).astype(
            np.uint64
        )
        return ops


@dataclass
class StoreWorkload:
    """The common part of both stores' workloads.

    Attributes
    ----------
    pages : str
        Where pages are read from, as for `file_pages`; empty for the system's
        shared libraries.
    n_pages : int
        Pages of each thread.
    arena_bytes : int
        Size of the arena.
    engine, interface : str, optional
        Engine of the pool, or interface of the heap.
    compression : str
    threads : int
    n_source : int
        Greatest number of pages to read.
    options : sequence of str
        Command-line options that make the same workload.
    """

    pages: str
    n_pages: int
    arena_bytes: int
    engine: str | None = None
    interface: str | None = None
    compression: str = "lz4"
    threads: int = 1
    n_source: int = 8000
    options: Sequence[str] = field(default_factory=tuple)

    def source(self) -> npt.NDArray[np.uint8]:
        """Read the pages."""
        return read_pages(self.pages, self.n_source)

    def renumbered(self, ops: Ops) -> Ops:
        """Return the operations as they are: a page keeps its id."""
        return ops

    def generator(self, seed: int) -> Generator:
        """Return what generates the operations of a thread."""
        raise NotImplementedError

    def target(self, n_objects: int | None = None) -> Target:
        """Return a new store."""
        raise NotImplementedError


def read_pages(where: str, most: int) -> npt.NDArray[np.uint8]:
    """Read pages from files, or from a snapshot in NumPy's format."""
    if where.endswith(".npy"):
        pages: npt.NDArray[np.uint8] = np.load(where)[:most]
        return pages
    return file_pages(where or None, most=most)


class StoreTarget:
    """A store, and a model of what it has to return."""

    def __init__(self, workload: StoreWorkload) -> None:
        self._arena = Arena.anonymous(workload.arena_bytes)
        self._heap = make_heap(self._arena, workload.engine, workload.interface)
        self._pages = Pages(workload.source())
        self._turns = threading.Lock()
        self._turn = 0
        self._failed = 0
        # No two threads have an object in common.
        unit = 8 * OBJECT_PAGES
        self._stride = -(-workload.n_pages // unit) * unit

    def execute(
        self, thread: int, ops: Ops, turns: npt.NDArray[np.uint64] | None = None
    ) -> int:
        """Carry out operations; return the first with a wrong result, or -1."""
        kinds = ops["op"].tolist()
        which = ops["align_log2"].tolist()
        numbers = ops["id"].tolist()
        contents = ops["size"].tolist()
        # In a replay, each operation names its own thread.
        threads = ops["thread"].tolist() if turns is None else [thread] * len(ops)
        for i, kind in enumerate(kinds):
            if turns is not None:
                with self._turns:
                    turns[i] = self._turn
                    self._turn += 1
            if not self.do(kind, which[i], threads[i], numbers[i], contents[i]):
                return i
        return -1

    def do(
        self, kind: int, which: int, thread: int, number: int, contents: int
    ) -> bool:
        """Carry out an operation; False if its result is wrong."""
        raise NotImplementedError

    def fragmentation(self) -> float:
        """Return the fragmentation of the heap's free bytes."""
        stats = self._heap.stats()
        pool = stats.pools[0] if isinstance(stats, HeapStats) else stats
        return pool.fragmentation


class TmemTarget(StoreTarget):
    """Transcendent memory with three pools: persistent, ephemeral, shared."""

    def __init__(self, workload: StoreWorkload) -> None:
        super().__init__(workload)
        self._store = TmemStore(self._heap, workload.compression)
        self._pools = (
            self._store.new_pool("persistent"),
            self._store.new_pool("ephemeral"),
            self._store.new_pool("ephemeral", shared="all"),
        )
        #: Last contents of each page; an ephemeral page may have vanished.
        self._model: dict[tuple[int, int, int], int] = {}

    def do(
        self, kind: int, which: int, thread: int, number: int, contents: int
    ) -> bool:
        """Carry out an operation; False if its result is wrong."""
        which %= 3
        number += self._stride * thread
        pool = self._pools[which]
        object, index = divmod(number, OBJECT_PAGES)
        key = which, object, index
        if kind == PUT:
            outcome = self._store.put_page(
                pool, object, index, self._pages.page(contents)
            )
            return self._is_right_put(key, outcome, contents)
        if kind == GET:
            return self._is_right_get(key, self._store.get_page(pool, object, index))
        if kind == FLUSH:
            was_held = self._store.flush_page(pool, object, index)
            expected = self._model.pop(key, None)
            return (
                was_held == (expected is not None)
                if which == 0
                else (not was_held or expected is not None)
            )
        if number % 8 == 0:
            self._store.flush_object(pool, object)
            for page in range(OBJECT_PAGES):
                self._model.pop((which, object, page), None)
        return True

    def _is_right_put(
        self, key: tuple[int, int, int], outcome: Put, contents: int
    ) -> bool:
        """Compare the outcome of a put with the model."""
        expected = self._model.pop(key, None)
        if outcome:
            self._model[key] = contents
        else:
            self._failed += 1
        if key[0] == 0:
            return (outcome in (Put.REPLACED, Put.DROPPED)) == (expected is not None)
        return expected is not None or outcome in (Put.STORED, Put.REFUSED)

    def _is_right_get(self, key: tuple[int, int, int], page: bytes | None) -> bool:
        """Compare the result of a get with the model."""
        expected = self._model.get(key)
        if page is None:
            self._model.pop(key, None)
            return key[0] != 0 or expected is None
        if key[0] == 1:
            self._model.pop(key, None)
        return expected is not None and page == self._pages.page(expected)

    def check(self) -> int:
        """Verify store and heap; return the persistent pages that have changed."""
        self._store.check()
        return sum(
            self._store.get_page(self._pools[0], object, index)
            != self._pages.page(contents)
            for (which, object, index), contents in self._model.items()
            if which == 0
        )

    def stats(self) -> dict[str, Any]:
        """Return what has been counted so far."""
        stats = self._store.stats()
        n_pages = stats.persistent_pages + stats.ephemeral_pages
        return {
            "failed": self._failed,
            "live": n_pages,
            "live_size": stats.data_bytes,
            "evicted": stats.evicted,
            "n_pages": stats.arena_pages,
        }


class DiffEngineTarget(StoreTarget):
    """A Difference Engine whose pages belong to four machines."""

    def __init__(self, workload: StoreWorkload) -> None:
        super().__init__(workload)
        self._store = DifferenceEngine(self._heap, compression=workload.compression)
        self._model: dict[tuple[int, int], int] = {}

    def do(
        self, kind: int, which: int, thread: int, number: int, contents: int
    ) -> bool:
        """Carry out an operation; False if its result is wrong."""
        number += self._stride * thread
        name = number & 3, number >> 2
        if kind == PUT:
            try:
                self._store.write_page(*name, self._pages.page(contents))
            except OutOfMemory:
                self._failed += 1
            else:
                self._model[name] = contents
            return True
        if kind == OTHER:
            self._store.scan(32)
            return True
        if name not in self._model:
            return True
        if kind == GET:
            page = self._store.read_page(*name)
            return page == self._pages.page(self._model[name])
        self._store.free_page(*name)
        del self._model[name]
        return True

    def check(self) -> int:
        """Verify store and heap; return the pages of a sample that have changed."""
        self._store.check()
        if set(self._store.pages()) != set(self._model):
            raise XmemError("the store's pages are not those that were written")
        return sum(
            self._store.read_page(*name) != self._pages.page(contents)
            for name, contents in list(self._model.items())[::16]
        )

    def stats(self) -> dict[str, Any]:
        """Return what has been counted so far."""
        stats = self._store.stats()
        return {
            "failed": self._failed,
            "live": stats.pages,
            "live_size": stats.held_bytes,
            "shared": stats.shared,
            "patched": stats.patched,
            "compressed": stats.compressed,
            "n_pages": stats.arena_pages,
        }


@dataclass
class TmemWorkload(StoreWorkload):
    """Transcendent memory under pressure."""

    def generator(self, seed: int) -> Generator:
        """Return what generates the operations of a thread."""
        return StoreGenerator(
            seed, (0.5, 0.1, 0.395, 0.005), self.n_pages, self.n_source
        )

    def target(self, n_objects: int | None = None) -> Target:
        """Return a new store."""
        return TmemTarget(self)


@dataclass
class DiffEngineWorkload(StoreWorkload):
    """A Difference Engine whose pages change."""

    def generator(self, seed: int) -> Generator:
        """Return what generates the operations of a thread."""
        shares = (0.3, 0.05, 0.25, 0.4)
        return StoreGenerator(seed, shares, self.n_pages, self.n_source)

    def target(self, n_objects: int | None = None) -> Target:
        """Return a new store."""
        return DiffEngineTarget(self)
