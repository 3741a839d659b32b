# SPDX-License-Identifier: BSD-3-Clause
"""Write the tables and pictures of docs/stores.md: ``make stores``.

``python docs/stores.py NAME...`` writes some of the parts. All are measured with real
pages of this system. Takes some minutes, most of them the legacy engine's; nothing
else should run meanwhile.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from measured import DOCS, fill, require_release, table

from xmem import Arena, Heap, Pool
from xmem.cli.plots.style import save, style_grid
from xmem.measure.replay import replay
from xmem.measure.trace import OP_MALLOC
from xmem.stores.difference_engine import DifferenceEngine
from xmem.stores.images import Mix, Pages, file_pages, memory_images
from xmem.stores.memory import Recorder
from xmem.stores.tmem import TmemStore

PAGE = DOCS / "stores.md"
PAGE_BYTES = 4096
ROUNDS = 5
SEED = 2009
N_TMEM = 8000
N_IMAGE = 2000
GROWTH = (1000, 5000, 20_000, 50_000)
N_FLUSHED = 400
REGIONS = (1, 2, 4, 16, 64)


@dataclass(frozen=True)
class Kind:
    """A heap or pool, and how `replay` makes the same."""

    name: str
    settings: dict[str, Any]

    def make(self, arena: Arena) -> Heap | Pool:
        """Make it."""
        if "interface" in self.settings:
            return Heap(arena, **self.settings)
        return Pool(arena, **self.settings)


KINDS = [
    Kind("pool, TLSF", {"engine": "tlsf"}),
    Kind("pool, first fit", {"engine": "firstfit"}),
    *(
        Kind(f"heap, {name}", {"interface": name})
        for name in ("strict", "array", "subpage", "legacy", "merged")
    ),
    Kind("heap, strict, 16-page regions", {"interface": "strict", "grow_pages": 16}),
]


def heap_row(
    kind: Kind, per_page: float, times: list[float], worst: float
) -> list[str]:
    """Return the row of one kind of heap: arena pages per page, us, cycles."""
    return [
        kind.name,
        f"{per_page:.3f}",
        f"{statistics.median(times) / 1000:.1f} "
        f"({min(times) / 1000:.1f} to {max(times) / 1000:.1f})",
        f"{worst:,.0f}",
    ]


def worst_xfree(recorder: Recorder, kind: Kind) -> float:
    """Return the worst xfree in cycles, of a store's calls replayed at C level."""
    has_list = "first fit" in kind.name or kind.settings.get("interface") in (
        "legacy",
        "subpage",
    )
    repeats = 3 if has_list else 7
    result = replay(recorder.trace(), repeats=repeats, **kind.settings)
    return float(result.summary("xfree")["worst"])


def draw_heaps(title: str, found: list[tuple[str, float, float]], file: str) -> None:
    """Draw pages of the arena per page, and the worst xfree, of each heap."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name for name, _, _ in found][::-1]
    left.barh(names, [pages for _, pages, _ in found][::-1], height=0.6)
    left.set_xlabel("arena pages per page")
    right.barh(names, [worst for _, _, worst in found][::-1], height=0.6, color="C1")
    right.set(xscale="log")
    right.set_xlabel("worst xfree, cycles")
    figure.suptitle(title, fontweight="bold")
    for axes in (left, right):
        style_grid(axes)
    save(figure, DOCS / file)


# Transcendent memory -------------------------------------------------------------


def fill_tmem(kind: Kind, pages: Pages, n_pages: int) -> tuple[float, float, Recorder]:
    """Return ns of a put, arena pages per page, and what was asked of the heap."""
    rng = np.random.default_rng(SEED)
    with Arena.anonymous(3 * n_pages * PAGE_BYTES + (16 << 20)) as arena:
        recorder = Recorder(kind.make(arena))
        store = TmemStore(recorder, "lz4")
        pool = store.new_pool("persistent")
        which = rng.integers(0, len(pages), n_pages)
        data = [pages[i].tobytes() for i in which]
        start = time.perf_counter()
        for index, page in enumerate(data):
            store.put_page(pool, index >> 8, index & 255, page)
        ns = (time.perf_counter() - start) / n_pages * 1e9
        per_page = store.stats().arena_pages / n_pages
        for index in rng.permutation(n_pages).tolist():
            store.flush_page(pool, index >> 8, index & 255)
    return ns, per_page, recorder


def tmem() -> str:
    """Measure transcendent memory over all heaps and pools."""
    pages = file_pages(most=20_000)
    rows = []
    drawn = []
    for kind in KINDS:
        times = []
        for _ in range(ROUNDS):
            ns, per_page, recorder = fill_tmem(kind, pages, N_TMEM)
            times.append(ns)
        worst = worst_xfree(recorder, kind)
        drawn.append((kind.name, per_page, worst))
        rows.append(heap_row(kind, per_page, times, worst))
    draw_heaps("tmem over heaps and pools", drawn, "stores-tmem.png")
    return table(
        [
            "pages lie in",
            "arena pages per page",
            "us per put (spread)",
            "worst xfree, cycles",
        ],
        rows,
    )


def growth() -> str:
    """Measure the worst xfree against the pages held, for both engines."""
    pages = file_pages(most=20_000)
    rows = []
    found: dict[str, list[float]] = {"tlsf": [], "firstfit": []}
    for n_pages in GROWTH:
        ops = fill_tmem(KINDS[0], pages, n_pages)[2].trace()
        n_allocated = int((ops["op"] == OP_MALLOC).sum())
        for engine, values in found.items():
            # The legacy engine's list is longest before anything is flushed, and
            # all its flushes would take an hour.
            some = ops if engine == "tlsf" else ops[: n_allocated + N_FLUSHED]
            repeats = 5 if engine == "tlsf" else 1
            result = replay(some, engine=engine, repeats=repeats)
            values.append(float(result.summary("xfree")["worst"]))
        rows.append([f"{n_pages:,}", *(f"{v[-1]:,.0f}" for v in found.values())])
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for engine, values in found.items():
        axes.plot(GROWTH, values, marker="o", linewidth=2, label=engine)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("pages in the tmem store")
    axes.set_ylabel("worst xfree, cycles")
    axes.set_title("tmem: worst xfree of both engines", fontweight="bold")
    axes.legend(frameon=False)
    style_grid(axes)
    save(figure, DOCS / "stores-growth.png")
    return table(
        ["pages held", "TLSF, worst xfree", "first fit, worst xfree"],
        rows,
    )


def regions(is_drawn: bool = True) -> str:
    """Measure what regions of several lengths waste on half-page objects."""
    rows = []
    waste = []
    n_objects = 4000
    for n_pages in REGIONS:
        with Arena.anonymous(64 << 20) as arena:
            heap = Heap(arena, "strict", grow_pages=n_pages)
            for _ in range(n_objects):
                heap.xmalloc(PAGE_BYTES // 2)
            held = heap.stats().n_pages * PAGE_BYTES
        waste.append(held / (n_objects * PAGE_BYTES // 2))
        rows.append([f"{n_pages}", f"{waste[-1]:.3f}"])
    if is_drawn:
        draw_regions(waste)
    return table(["pages of a region", "bytes held per byte asked for"], rows)


def draw_regions(waste: list[float]) -> None:
    """Draw the bytes held per byte against the length of a region."""
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(REGIONS, waste, marker="o", linewidth=2)
    axes.set(xscale="log")
    axes.set_xlabel("pages of a region")
    axes.set_ylabel("bytes held per byte")
    axes.set_title("Objects of half a page", fontweight="bold")
    style_grid(axes)
    save(figure, DOCS / "stores-regions.png")


# Difference Engine ----------------------------------------------------------------

SETS = {
    "alike (70 % identical, 20 % similar)": Mix(0.7, 0.2),
    "unlike (20 % identical, 20 % similar)": Mix(0.2, 0.2),
    "nothing in common": Mix(0.0, 0.0),
}


def difference_engine() -> str:
    """Measure what each mechanism saves on sets of four memory images."""
    pages = file_pages(most=20_000)
    rows = []
    parts = []
    for name, mix in SETS.items():
        images = memory_images(pages, [mix] * 3, N_IMAGE, np.random.default_rng(SEED))
        with Arena.anonymous(64 << 20) as arena:
            heap = Heap(arena, "array", grow_pages=16, join_regions=True)
            store = DifferenceEngine(heap)
            for machine, image in enumerate(images):
                for number, page in enumerate(image):
                    store.write_page(machine, number, page)
            for _ in range(4):
                store.scan()
            store.check()
            stats = store.stats()
            wrong = sum(
                store.read_page(machine, number) != page.tobytes()
                for machine, image in enumerate(images)
                for number, page in enumerate(image)
            )
        whole = stats.pages * PAGE_BYTES
        shares = [
            saved / whole
            for saved in (
                stats.saved_by_sharing,
                stats.saved_by_patching,
                stats.saved_by_compression,
            )
        ]
        parts.append(shares)
        rows.append(
            [
                name,
                f"{stats.pages:,}",
                *(f"{share:.1%}" for share in shares),
                f"{stats.saved:.1%}",
                f"{stats.patch_bytes:,.0f}",
                f"{wrong}",
            ]
        )
    draw_savings(parts)
    return table(
        [
            "four images",
            "pages",
            "saved by sharing",
            "by patching",
            "by compression",
            "in all, arena counted",
            "bytes of a patch",
            "pages read back wrongly",
        ],
        rows,
    )


def draw_savings(parts: list[list[float]]) -> None:
    """Draw what each mechanism saves of each set."""
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(parts))
    names = [name.split(" (")[0] for name in SETS]
    for i, label in enumerate(("sharing", "patching", "compression")):
        values = np.array([part[i] for part in parts])
        axes.bar(names, values, bottom=bottom, label=label, width=0.5)
        bottom += values
    axes.set_ylabel("share of the pages' bytes saved")
    axes.set_ylim(0, 1)
    axes.set_title("Difference Engine: what saves what", fontweight="bold")
    axes.legend(frameon=False)
    style_grid(axes)
    save(figure, DOCS / "stores-savings.png")


def de_heaps() -> str:
    """Measure the set of like images over all heaps and pools."""
    pages = file_pages(most=20_000)
    images = memory_images(
        pages, [Mix(0.7, 0.2)] * 3, N_IMAGE, np.random.default_rng(SEED)
    )
    rows = []
    drawn = []
    for kind in KINDS:
        times = []
        for _ in range(ROUNDS):
            with Arena.anonymous(128 << 20) as arena:
                recorder = Recorder(kind.make(arena))
                store = DifferenceEngine(recorder)
                start = time.perf_counter()
                for machine, image in enumerate(images):
                    for number, page in enumerate(image):
                        store.write_page(machine, number, page)
                times.append((time.perf_counter() - start) / (4 * N_IMAGE) * 1e9)
                for _ in range(4):
                    store.scan()
                per_page = store.stats().arena_pages / (4 * N_IMAGE)
                for machine in range(4):
                    store.free_machine(machine)
        worst = worst_xfree(recorder, kind)
        drawn.append((kind.name, per_page, worst))
        rows.append(heap_row(kind, per_page, times, worst))
    draw_heaps("Difference Engine over heaps and pools", drawn, "stores-heaps.png")
    return table(
        [
            "pages lie in",
            "arena pages per page",
            "us per write (spread)",
            "worst xfree, cycles",
        ],
        rows,
    )


PARTS: dict[tuple[Path, str], Callable[[], str]] = {
    (PAGE, "tmem"): tmem,
    (PAGE, "growth"): growth,
    (PAGE, "regions"): regions,
    (PAGE, "savings"): difference_engine,
    (PAGE, "heaps"): de_heaps,
}


def main() -> None:
    """Replace what was measured."""
    require_release()
    fill(PARTS)


if __name__ == "__main__":
    main()
