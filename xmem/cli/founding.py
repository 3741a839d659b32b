# SPDX-License-Identifier: BSD-3-Clause
"""The founding load: blocks just below a page's size, freed in random order.

Each block of 3500 bytes leaves the rest of its page on the legacy engine's only
free list. With n live blocks the list has n entries, and each xfree walks all of
them. TLSF looks at two neighbours, whatever n is.

TLSF frees all blocks, in several passes. The legacy engine cannot: it needs n * n / 2
steps to allocate n blocks, a minute at 50 thousand, and as many to free them. It
reaches the same heap by a shorter way: each block is allocated so large that it fills
its page, while the list is empty, and then cut down to 3500 bytes. The first
`LEGACY_FREES` in the same order are freed, when the list is longest, and allocated
again, in `LEGACY_ROUNDS` rounds that take the place of passes.

A thousand blocks fit the caches, fifty thousand do not. To let the points differ in
the number of blocks alone, the caches are emptied before `COLD_FREES` of the frees,
evenly spread. These are nearly always TLSF's worst.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmem.cli.contenders import ENGINES, Settings, Trace, replay_one
from xmem.cli.progress import Progress
from xmem.measure.replay import ReplayResult
from xmem.measure.trace import OP_FREE, OP_MALLOC, OP_REALLOC, TRACE_DTYPE

BLOCK_BYTES = 3500
PAGE_BYTES = 4096
FILLING_BYTES = PAGE_BYTES - 128  # with its header, no second block fits
SEED = 2008
N_BLOCKS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
TLSF_REPEATS = 15
LEGACY_FREES = 50
LEGACY_ROUNDS = 5
COLD_FREES = 32
HOW_MEASURED = (
    f"TLSF: every block freed, the least of {TLSF_REPEATS} repeats. Legacy: the first "
    f"{LEGACY_FREES} blocks freed,\nthe least of {LEGACY_ROUNDS} rounds, on a heap "
    f"built by a shorter way. Both: caches emptied before {COLD_FREES} of the frees."
)


@dataclass(frozen=True)
class Point:
    """The worst xfree of one engine with `n_blocks` live."""

    engine: str
    n_blocks: int
    worst_cycles: int
    tsc_hz: float


def founding_load(
    n_blocks: int,
    n_frees: int | None = None,
    rounds: int = 1,
    seed: int = SEED,
    cut: bool = False,
) -> npt.NDArray[np.void]:
    """Build the load as a trace.

    Parameters
    ----------
    n_blocks : int
        Blocks allocated, all before the first is freed.
    n_frees : int, optional
        Blocks freed; all by default.
    rounds : int, optional
        How often they are freed. Between two rounds they are allocated again.
    seed : int, optional
        Seed of the random order.
    cut : bool, optional
        Allocate each block so large that it fills a page, then cut it down.

    Returns
    -------
    ndarray
        A trace. The order of the frees depends on `n_blocks` and `seed` alone.
    """
    ids = np.random.default_rng(seed).permutation(n_blocks)[:n_frees]
    allocations = mallocs(np.arange(n_blocks))
    parts = [allocations, frees(ids)]
    if cut:
        resized = allocations.copy()
        resized["op"] = OP_REALLOC
        allocations["size"] = FILLING_BYTES
        parts.insert(1, resized)
    for i in range(1, rounds):
        ids = n_blocks + np.arange(len(ids)) + (i - 1) * len(ids)
        parts += [mallocs(ids), frees(ids)]
    return np.concatenate(parts)


def mallocs(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """Return the operations that allocate these objects."""
    ops = np.zeros(len(ids), dtype=TRACE_DTYPE)
    ops["op"] = OP_MALLOC
    ops["id"] = ids
    ops["size"] = BLOCK_BYTES
    return ops


def frees(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """Return the operations that free these objects."""
    ops = np.zeros(len(ids), dtype=TRACE_DTYPE)
    ops["op"] = OP_FREE
    ops["id"] = ids
    return ops


def cold_frees(load: npt.NDArray[np.void], rounds: int = 1) -> npt.NDArray[np.bool_]:
    """Choose `COLD_FREES` of the frees of each round, the same in all of them."""
    cold = np.zeros(len(load), dtype=bool)
    ordered = np.flatnonzero(load["op"] == OP_FREE).reshape(rounds, -1)
    n_frees = ordered.shape[1]
    chosen = np.linspace(0, n_frees - 1, min(COLD_FREES, n_frees)).astype(int)
    cold[ordered[:, chosen]] = True
    return cold


def worst_xfree(result: ReplayResult, rounds: int = 1) -> int:
    """Return the cycles of the worst xfree of a founding load.

    Parameters
    ----------
    result : ReplayResult
        Result of its replay.
    rounds : int, optional
        Rounds of the load.

    Returns
    -------
    int
        The minimum over repeats and rounds, the maximum over the frees.
    """
    cycles = result.cycles[result.of_kind("xfree")]
    return int(cycles.reshape(rounds, -1).min(axis=0).max())


def measure_point(engine: str, n_blocks: int, progress: Progress) -> Point:
    """Measure the worst xfree of one engine with `n_blocks` live.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    n_blocks : int
        At least `LEGACY_FREES`.
    progress : Progress
        Shows the replay as a task.

    Returns
    -------
    Point
        The minimum over repeats or rounds, the maximum over the frees.
    """
    if engine == "firstfit":
        rounds, settings = LEGACY_ROUNDS, Settings(repeats=1)
        load = founding_load(n_blocks, LEGACY_FREES, rounds, cut=True)
    else:
        rounds, settings = 1, Settings(repeats=TLSF_REPEATS)
        load = founding_load(n_blocks)
    trace = Trace(f"{n_blocks:,} blocks", load)
    with progress.task(f"{trace.name} on {engine}") as report:
        result = replay_one(trace, engine, settings, report, cold_frees(load, rounds))
    return Point(engine, n_blocks, worst_xfree(result, rounds), result.tsc_hz)


def count_replays() -> int:
    """Return how many replays `measure_points` makes."""
    return len(N_BLOCKS) * len(ENGINES)


def measure_points(progress: Progress) -> Iterator[Point]:
    """Measure every point of the demo's picture, both engines."""
    for n_blocks in N_BLOCKS:
        for engine in ENGINES:
            yield measure_point(engine, n_blocks, progress)


def worst_ratio(points: list[Point]) -> tuple[Point, Point, float]:
    """Compare the engines at the largest number of live blocks.

    Returns
    -------
    legacy, tlsf : Point
        The two points.
    ratio : float
        Worst legacy xfree over worst TLSF xfree.
    """
    n_blocks = max(point.n_blocks for point in points)
    at = {point.engine: point for point in points if point.n_blocks == n_blocks}
    legacy, tlsf = at["firstfit"], at["tlsf"]
    return legacy, tlsf, legacy.worst_cycles / max(tlsf.worst_cycles, 1)
