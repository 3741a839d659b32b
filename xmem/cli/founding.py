# SPDX-License-Identifier: BSD-3-Clause
"""The founding load: near-page-sized blocks, freed in random order.

Each block of 3500 bytes leaves the rest of its page on the legacy engine's one
free list. With n blocks live the list is n entries long, and each xfree walks
all of it; TLSF looks at two neighbours whatever n is.

The legacy engine's list is longest at the first frees and only gets shorter, so
its worst xfree is among them. At 50 thousand blocks the remaining frees would
take minutes and add nothing: it runs the first `LEGACY_FREES` of the same order
(which can only flatter it). TLSF runs all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmem.cli.progress import ReplayProgress
from xmem.cli.runs import ENGINES, Settings, Trace, run_one
from xmem.trace import OP_FREE, OP_MALLOC, TRACE_DTYPE

BLOCK_BYTES = 3500
SEED = 2008

#: Live blocks of each point, and how often the legacy engine repeats it: it
#: needs n * n / 2 steps to allocate n blocks, so the larger points are repeated
#: least. One interrupt adds little to an xfree of milliseconds.
LEGACY_REPEATS = {1_000: 15, 2_000: 9, 5_000: 3, 10_000: 2, 20_000: 1, 50_000: 1}
LEGACY_FREES = 200
TLSF_REPEATS = 15


@dataclass(frozen=True)
class Point:
    """Worst xfree of one engine with so many blocks live."""

    engine: str
    n_blocks: int
    worst_cycles: int
    tsc_hz: float


def founding_load(
    n_blocks: int, n_frees: int | None = None, seed: int = SEED
) -> npt.NDArray[np.void]:
    """Build the load as a trace.

    Parameters
    ----------
    n_blocks : int
        How many blocks are allocated, all before the first is freed.
    n_frees : int, optional
        How many of them are freed; all by default.
    seed : int, optional
        Of the random order.

    Returns
    -------
    ndarray
        A trace: the order of the frees depends on `n_blocks` and `seed` alone.
    """
    order = np.random.default_rng(seed).permutation(n_blocks)[:n_frees]
    ops = np.zeros(n_blocks + len(order), dtype=TRACE_DTYPE)
    mallocs, frees = ops[:n_blocks], ops[n_blocks:]
    mallocs["op"] = OP_MALLOC
    mallocs["id"] = np.arange(n_blocks)
    mallocs["size"] = BLOCK_BYTES
    frees["op"] = OP_FREE
    frees["id"] = order
    return ops


def measure_point(engine: str, n_blocks: int, progress: ReplayProgress) -> Point:
    """Measure the worst xfree of one engine with `n_blocks` live.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    n_blocks : int
        A key of `LEGACY_REPEATS`.
    progress : ReplayProgress
        Told how far it is.

    Returns
    -------
    Point
        The minimum over the repeats, the maximum over the frees.
    """
    legacy = engine == "firstfit"
    repeats = LEGACY_REPEATS[n_blocks] if legacy else TLSF_REPEATS
    load = founding_load(n_blocks, LEGACY_FREES if legacy else None)
    label = f"{n_blocks:,} blocks"
    with progress.replay(f"{label} on {engine}") as report:
        result = run_one(Trace(label, load), engine, Settings(repeats), report)
    return Point(engine, n_blocks, result.summary("xfree")["worst"], result.tsc_hz)


def count_replays() -> int:
    """Return how many replays `measure_points` makes."""
    return len(LEGACY_REPEATS) * len(ENGINES)


def measure_points(progress: ReplayProgress) -> Iterator[Point]:
    """Measure every point of the demo's picture, both engines."""
    for n_blocks in LEGACY_REPEATS:
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
