# SPDX-License-Identifier: BSD-3-Clause
"""The two stores over engine and interface: pages, time, the worst xfree.

The pages are generated, partly random, so that they take the same memory on every
machine. Skipped if the libraries of the extra ``stores`` are not installed.
"""

import time

import numpy as np

from .common import replay

try:
    from xmem import Arena, Heap, Pool
    from xmem.stores.difference_engine import DifferenceEngine
    from xmem.stores.memory import Recorder
    from xmem.stores.tmem import TmemStore
except ImportError:
    Recorder = None

PAGE = 4096
N_PAGES = 3000
KINDS = {
    "tlsf": {"engine": "tlsf"},
    "firstfit": {"engine": "firstfit"},
    "strict": {"interface": "strict"},
    "strict-16": {"interface": "strict", "grow_pages": 16},
    "legacy": {"interface": "legacy"},
    "merged": {"interface": "merged"},
}


def made_pages(n_pages):
    """Make pages that compress to between a quarter and all of their bytes."""
    rng = np.random.default_rng(1)
    pages = np.zeros((n_pages, PAGE), dtype=np.uint8)
    for page, share in zip(pages, rng.uniform(0.25, 1.0, n_pages), strict=True):
        n_bytes = int(share * PAGE)
        page[:n_bytes] = rng.integers(0, 256, n_bytes, dtype=np.uint8)
    return [page.tobytes() for page in pages]


class Store:
    """The common part of both stores' benchmarks."""

    params = list(KINDS)
    param_names = ["heap"]
    timeout = 120

    def setup(self, kind):
        if Recorder is None:
            raise NotImplementedError("xmem.stores or its libraries are missing")
        self.pages = made_pages(N_PAGES)
        self.arena = Arena.anonymous(64 << 20)
        settings = KINDS[kind]
        make = Heap if "interface" in settings else Pool
        self.recorder = Recorder(make(self.arena, **settings))
        self.settings = settings

    def teardown(self, kind):
        if Recorder is not None:
            self.arena.close()

    def worst_xfree(self):
        """Cycles, of the same calls without the store around them."""
        result = replay(self.recorder.trace(), repeats=3, **self.settings)
        return result.summary("xfree")["worst"]


class Tmem(Store):
    """Transcendent memory: pages put, then flushed in random order."""

    def fill(self):
        store = TmemStore(self.recorder, "lz4")
        pool = store.new_pool("persistent")
        start = time.perf_counter()
        for index, page in enumerate(self.pages):
            store.put_page(pool, index >> 8, index & 255, page)
        self.seconds = time.perf_counter() - start
        return store, pool

    def track_pages_per_page(self, kind):
        store, _ = self.fill()
        return store.stats().arena_pages / N_PAGES

    track_pages_per_page.unit = "pages"

    def track_put_ns(self, kind):
        self.fill()
        return self.seconds / N_PAGES * 1e9

    track_put_ns.unit = "ns"

    def track_xfree_worst_cycles(self, kind):
        store, pool = self.fill()
        for index in np.random.default_rng(2).permutation(N_PAGES).tolist():
            store.flush_page(pool, index >> 8, index & 255)
        return self.worst_xfree()

    track_xfree_worst_cycles.unit = "cycles"


class DiffEngine(Store):
    """Difference Engine: four machines, half of whose pages are the same."""

    def fill(self):
        store = DifferenceEngine(self.recorder)
        rng = np.random.default_rng(3)
        n_each = N_PAGES // 4
        start = time.perf_counter()
        for machine in range(4):
            for number in range(n_each):
                same = rng.random() < 0.5
                at = number if same else int(rng.integers(N_PAGES))
                store.write_page(machine, number, self.pages[at])
        self.seconds = time.perf_counter() - start
        for _ in range(4):
            store.scan()
        return store

    def track_pages_per_page(self, kind):
        return self.fill().stats().arena_pages / (N_PAGES // 4 * 4)

    track_pages_per_page.unit = "pages"

    def track_write_ns(self, kind):
        self.fill()
        return self.seconds / N_PAGES * 1e9

    track_write_ns.unit = "ns"

    def track_xfree_worst_cycles(self, kind):
        store = self.fill()
        for machine in range(4):
            store.free_machine(machine)
        return self.worst_xfree()

    track_xfree_worst_cycles.unit = "cycles"
