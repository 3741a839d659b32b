# SPDX-License-Identifier: BSD-3-Clause
"""The two stores under a load of real pages, each answer compared with a model.

Operations have the fields of a trace's, with meanings of their own: ``id`` names a
page, ``size`` what it is to hold (a page of the source, and how it is spoilt),
``align_log2`` the pool.
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
from xmem.stress.trials import Maker, Ops, Tried

__all__ = ["DiffEngineTrial", "TmemTrial"]

PUT, FLUSH, GET, OTHER = range(4)
#: Pages of an object.
OBJECT_PAGES = 64
#: How many versions of a page there are, the first as it is.
VERSIONS = 4


def make_heap(arena: Arena, engine: str | None, interface: str | None) -> Heap | Pool:
    """Return the heap or pool that options name."""
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
    """Pages by number: those of the source, and versions of them."""

    def __init__(self, source: npt.NDArray[np.uint8]) -> None:
        self.source = source
        self.page = lru_cache(maxsize=4096)(self._page)

    def _page(self, number: int) -> bytes:
        """Bytes of a page."""
        base, version = divmod(number, VERSIONS)
        page = self.source[base % len(self.source)]
        if version:
            page = mutated(page, np.random.default_rng(number))
        return bytes(page.tobytes())


class StoreMaker:
    """Makes operations up: which page, what it is to hold."""

    def __init__(
        self, seed: int, shares: Sequence[float], n_pages: int, n_source: int
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._shares = np.array(shares) / sum(shares)
        self._n_pages = n_pages
        self._n_source = n_source

    def make(self, n_ops: int) -> Ops:
        """Make up the next operations."""
        rng = self._rng
        ops = np.zeros(n_ops, dtype=TRACE_DTYPE)
        ops["op"] = rng.choice(len(self._shares), n_ops, p=self._shares)
        ops["id"] = rng.integers(0, self._n_pages, n_ops)
        ops["align_log2"] = rng.choice(3, n_ops, p=[0.4, 0.4, 0.2])
        # Half of the pages of few, so that there is something to share.
        few = max(self._n_source // 16, 1)
        most = np.where(rng.random(n_ops) < 0.5, few, self._n_source)
        ops["size"] = (rng.random(n_ops) * most).astype(np.uint64) * VERSIONS
        ops["size"] += rng.choice(VERSIONS, n_ops, p=[0.7, 0.1, 0.1, 0.1]).astype(
            np.uint64
        )
        return ops


@dataclass
class StoreTrial:
    """What both stores' trials have in common.

    Attributes
    ----------
    pages : str
        Where pages are read from, as `file_pages` takes it; empty for the system's
        shared libraries.
    n_pages : int
        Of each thread.
    arena_bytes : int
    engine, interface : str, optional
        Of the pool, or of the heap.
    compression : str
    threads : int
    given : sequence of str
        Options of the command line that made this.
    """

    pages: str
    n_pages: int
    arena_bytes: int
    engine: str | None = None
    interface: str | None = None
    compression: str = "lz4"
    threads: int = 1
    n_source: int = 8000
    given: Sequence[str] = field(default_factory=tuple)

    def options(self) -> list[str]:
        """Return the command line's options that make the same trial."""
        return list(self.given)

    def source(self) -> npt.NDArray[np.uint8]:
        """Read the pages."""
        return read_pages(self.pages, self.n_source)

    def renumbered(self, ops: Ops) -> Ops:
        """Return the operations: a page's number is its name."""
        return ops

    def maker(self, seed: int) -> Maker:
        """Return what makes a thread's operations up."""
        raise NotImplementedError

    def subject(self, n_objects: int | None = None) -> Tried:
        """Return a fresh store."""
        raise NotImplementedError


def read_pages(where: str, most: int) -> npt.NDArray[np.uint8]:
    """Read pages of files, or of a snapshot."""
    if where.endswith(".npy"):
        pages: npt.NDArray[np.uint8] = np.load(where)[:most]
        return pages
    return file_pages(where or None, most=most)


class StoreSubject:
    """A store, and what it is to answer."""

    def __init__(self, trial: StoreTrial) -> None:
        self._arena = Arena.anonymous(trial.arena_bytes)
        self._heap = make_heap(self._arena, trial.engine, trial.interface)
        self._pages = Pages(trial.source())
        self._turns = threading.Lock()
        self._turn = 0
        self._failed = 0
        # No two threads have an object in common.
        unit = 8 * OBJECT_PAGES
        self._stride = -(-trial.n_pages // unit) * unit

    def run(
        self, thread: int, ops: Ops, turns: npt.NDArray[np.uint64] | None = None
    ) -> int:
        """Carry operations out; the first that was answered wrongly, or -1."""
        kinds = ops["op"].tolist()
        which = ops["align_log2"].tolist()
        numbers = ops["id"].tolist()
        contents = ops["size"].tolist()
        # Replayed, an operation of another thread says so itself.
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
        """Carry an operation out; False if the answer is wrong."""
        raise NotImplementedError

    def fragmentation(self) -> float:
        """Of the heap's free bytes."""
        stats = self._heap.stats()
        pool = stats.pools[0] if isinstance(stats, HeapStats) else stats
        return pool.fragmentation


class TmemSubject(StoreSubject):
    """Transcendent memory, three pools: persistent, ephemeral, shared."""

    def __init__(self, trial: StoreTrial) -> None:
        super().__init__(trial)
        self._store = TmemStore(self._heap, trial.compression)
        self._pools = (
            self._store.new_pool("persistent"),
            self._store.new_pool("ephemeral"),
            self._store.new_pool("ephemeral", shared="all"),
        )
        #: What a page was last set to; an ephemeral one may be gone all the same.
        self._model: dict[tuple[int, int, int], int] = {}

    def do(
        self, kind: int, which: int, thread: int, number: int, contents: int
    ) -> bool:
        """Carry an operation out; False if the answer is wrong."""
        which %= 3
        number += self._stride * thread
        pool = self._pools[which]
        object, index = divmod(number, OBJECT_PAGES)
        key = which, object, index
        if kind == PUT:
            answer = self._store.put_page(
                pool, object, index, self._pages.page(contents)
            )
            return self._note_put(key, answer, contents)
        if kind == GET:
            return self._note_got(key, self._store.get_page(pool, object, index))
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

    def _note_put(self, key: tuple[int, int, int], answer: Put, contents: int) -> bool:
        """Compare what became of a put."""
        expected = self._model.pop(key, None)
        if answer:
            self._model[key] = contents
        else:
            self._failed += 1
        if key[0] == 0:
            return (answer in (Put.REPLACED, Put.DROPPED)) == (expected is not None)
        return expected is not None or answer in (Put.STORED, Put.REFUSED)

    def _note_got(self, key: tuple[int, int, int], page: bytes | None) -> bool:
        """Compare what a get answered."""
        expected = self._model.get(key)
        if page is None:
            self._model.pop(key, None)
            return key[0] != 0 or expected is None
        if key[0] == 1:
            self._model.pop(key, None)
        return expected is not None and page == self._pages.page(expected)

    def check(self) -> int:
        """Verify store and heap; persistent pages that are not what they were."""
        self._store.check()
        return sum(
            self._store.get_page(self._pools[0], object, index)
            != self._pages.page(contents)
            for (which, object, index), contents in self._model.items()
            if which == 0
        )

    def seen(self) -> dict[str, Any]:
        """Return what has been seen so far."""
        stats = self._store.stats()
        n_pages = stats.persistent_pages + stats.ephemeral_pages
        return {
            "failed": self._failed,
            "live": n_pages,
            "live_size": stats.data_bytes,
            "evicted": stats.evicted,
            "n_pages": stats.arena_pages,
        }


class DiffEngineSubject(StoreSubject):
    """A Difference Engine; each page belongs to one of four machines."""

    def __init__(self, trial: StoreTrial) -> None:
        super().__init__(trial)
        self._store = DifferenceEngine(self._heap, compression=trial.compression)
        self._model: dict[tuple[int, int], int] = {}

    def do(
        self, kind: int, which: int, thread: int, number: int, contents: int
    ) -> bool:
        """Carry an operation out; False if the answer is wrong."""
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
        """Verify store and heap; a sample of pages that are not what they were."""
        self._store.check()
        if set(self._store.pages()) != set(self._model):
            raise XmemError("the store has other pages than were written")
        return sum(
            self._store.read_page(*name) != self._pages.page(contents)
            for name, contents in list(self._model.items())[::16]
        )

    def seen(self) -> dict[str, Any]:
        """Return what has been seen so far."""
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
class TmemTrial(StoreTrial):
    """Transcendent memory under pressure."""

    def maker(self, seed: int) -> Maker:
        """Return what makes a thread's operations up."""
        return StoreMaker(seed, (0.5, 0.1, 0.395, 0.005), self.n_pages, self.n_source)

    def subject(self, n_objects: int | None = None) -> Tried:
        """Return a fresh store."""
        return TmemSubject(self)


@dataclass
class DiffEngineTrial(StoreTrial):
    """A Difference Engine whose pages change."""

    def maker(self, seed: int) -> Maker:
        """Return what makes a thread's operations up."""
        return StoreMaker(seed, (0.3, 0.05, 0.25, 0.4), self.n_pages, self.n_source)

    def subject(self, n_objects: int | None = None) -> Tried:
        """Return a fresh store."""
        return DiffEngineSubject(self)
