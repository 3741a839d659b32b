# SPDX-License-Identifier: BSD-3-Clause
"""Distributions of sizes and lifetimes by name, as tables of draws."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument
from xmem.stress.generator import MAX_LIFETIME, TABLE_ENTRIES

__all__ = ["FRAME_LOADS", "LOADS", "Distribution", "table"]

Draw = Callable[[np.random.Generator], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Distribution:
    """Sizes in bytes (or pages) and lifetimes in allocations.

    Attributes
    ----------
    what : str
        Description for users.
    sizes, lifetimes : callable
        Draw `TABLE_ENTRIES` values.
    most : int
        Greatest size.
    arena_bytes : int
        Size of an arena that serves nearly all requests.
    """

    what: str
    sizes: Draw
    lifetimes: Draw
    most: int
    arena_bytes: int = 64 << 20


def exponential(mean: float) -> Draw:
    """Draw from an exponential distribution: many live short, a few long."""
    return lambda rng: rng.exponential(mean, TABLE_ENTRIES)


def short_or_long(short: float, long: float, share: float) -> Draw:
    """Draw from two exponential distributions; ``share`` of the draws is long."""
    return lambda rng: np.where(
        rng.random(TABLE_ENTRIES) < share,
        rng.exponential(long, TABLE_ENTRIES),
        rng.exponential(short, TABLE_ENTRIES),
    )


LOADS = {
    "small": Distribution(
        "geometric, 64 bytes on average; lives exponential, 2000 allocations",
        lambda rng: rng.geometric(1 / 64, TABLE_ENTRIES).astype(float),
        exponential(2000),
        1024,
    ),
    "mixed": Distribution(
        "log-normal, median 100 bytes, up to 64 KiB; a tenth lives long",
        lambda rng: rng.lognormal(np.log(100), 1.5, TABLE_ENTRIES),
        short_or_long(50, 8000, 0.1),
        1 << 16,
    ),
    "pages": Distribution(
        "near-page-sized: 1 to 4072 bytes, like compressed pages; lives long",
        lambda rng: rng.triangular(500, 2200, 4072, TABLE_ENTRIES),
        exponential(6000),
        4072,
        128 << 20,
    ),
    "large": Distribution(
        "uniform in the logarithm, 16 bytes to 1 MiB; lives short",
        lambda rng: 2 ** rng.uniform(4, 20, TABLE_ENTRIES),
        exponential(100),
        1 << 20,
        256 << 20,
    ),
    "full": Distribution(
        "like mixed, in an arena of 2 MiB that is always full",
        lambda rng: rng.lognormal(np.log(100), 1.5, TABLE_ENTRIES),
        exponential(20000),
        1 << 16,
        2 << 20,
    ),
}
FRAME_LOADS = {
    "orders": Distribution(
        "powers of two, 1 to 256 pages, each half as frequent as the one before",
        lambda rng: 2.0 ** np.minimum(rng.geometric(0.5, TABLE_ENTRIES) - 1, 8),
        exponential(1500),
        256,
        64 << 20,
    ),
    "exact": Distribution(
        "geometric, 3 pages on average, so that tails of runs are returned",
        lambda rng: rng.geometric(1 / 3, TABLE_ENTRIES).astype(float),
        exponential(3000),
        64,
        64 << 20,
    ),
    "full": Distribution(
        "like orders, in an arena of 4 MiB that is always full",
        lambda rng: 2.0 ** np.minimum(rng.geometric(0.5, TABLE_ENTRIES) - 1, 8),
        exponential(2000),
        256,
        4 << 20,
    ),
}


def table(
    one: Distribution, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw sizes and lifetimes.

    Raises
    ------
    BadArgument
        The seed is negative.
    """
    if seed < 0:
        raise BadArgument(f"seed must not be negative: {seed}")
    rng = np.random.default_rng(seed)
    sizes = np.clip(one.sizes(rng), 1, one.most).astype(np.int64)
    lifetimes = np.clip(one.lifetimes(rng), 1, MAX_LIFETIME).astype(np.int64)
    return sizes, lifetimes
