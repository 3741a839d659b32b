# SPDX-License-Identifier: BSD-3-Clause
"""A larger arena serves what a smaller one does, on these loads.

Traces, and the churn of doubling blocks that memory contexts of databases make, are
played in arenas of 64 sizes from the bytes live at the peak to their double, and at the
64 sizes, a page apart, above the least that serves. None fails where a smaller one
serves.
"""

import random
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

import xmem
from xmem import Arena, OutOfMemory, Pool
from xmem.measure.peers import Peer
from xmem.measure.trace import load, peak_live
from xmem.measure.versus import serves

from . import Refuted

PAGE = 4096
N_SIZES = 64
#: Steps of a churn, and the bytes live above which contexts only end.
STEPS, MOST_LIVE = 300, 12 << 20
DATA = Path(xmem.__file__).parent / "data"
TRACES = Path(__file__).parents[2] / "asv_bench" / "traces"

Serves = Callable[[int], bool]


def churn(n_bytes: int, seed: int) -> tuple[int, int]:
    """Return the steps done before a request was refused, and the most bytes live."""
    source = random.Random(seed)
    with Arena.anonymous(n_bytes, page_size=PAGE) as arena:
        pool = Pool(arena)
        contexts: list[list[tuple[int, int]]] = []
        live = peak = 0
        for step in range(STEPS):
            if contexts and (source.random() < 0.5 or live > MOST_LIVE):
                for offset, size in contexts.pop(source.randrange(len(contexts))):
                    pool.xfree(offset)
                    live -= size
            contexts.append([])
            size = 8 << 10
            for _ in range(source.randrange(1, 10)):
                try:
                    contexts[-1].append((pool.xmalloc(size), size))
                except OutOfMemory:
                    return step, peak
                live += size
                peak = max(peak, live)
                size = min(2 * size, 1 << 20)
        return STEPS, peak


def least(too_small: int, enough: int, serves_in: Serves) -> int:
    """Return the least size that serves, in whole pages, by halving."""
    too_small, enough = too_small // PAGE, -(-enough // PAGE)
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if serves_in(middle * PAGE):
            enough = middle
        else:
            too_small = middle
    return enough * PAGE


def prove_sizes(peak: int, serves_in: Serves) -> int:
    """Return the least size that serves; raise if a larger one does not."""
    sizes = [peak + peak * i // N_SIZES for i in range(N_SIZES + 1)]
    found = [serves_in(size) for size in sizes]
    if found != sorted(found) or not found[-1]:
        raise Refuted(f"of {sizes} these serve: {found}")
    first = found.index(True)
    enough = least(sizes[first - 1] if first else 0, sizes[first], serves_in)
    for i in range(N_SIZES):
        if not serves_in(enough + i * PAGE):
            raise Refuted(f"{enough:,} bytes serve, {i} pages more do not")
    return enough


def prove_churn(seed: int) -> float:
    """Return the least arena of a churn over the bytes live at its peak."""
    _, peak = churn(64 << 20, seed)
    return prove_sizes(peak, lambda n: churn(n, seed)[0] == STEPS) / peak


def prove_trace(ops: npt.NDArray[np.void], *, quick: bool = False) -> float:
    """Return the least arena of a trace over the bytes live at its peak."""
    peer = Peer.engine("tlsf", quick=quick)
    peak = peak_live(ops)
    return prove_sizes(peak, lambda n: serves(peer, ops, n)) / peak


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--seed", type=int, help="Of the churn; else a fresh one.")
def main(files: tuple[Path, ...], seed: int | None) -> None:
    """Prove it for the traces in FILES, or else for those of asv_bench."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"churn --seed {seed}: {prove_churn(seed):.3f} of the peak serve")
    for file in files or sorted(TRACES.glob("*.npz")):
        click.echo(f"{file.name}: {prove_trace(load(file)):.3f} of the peak serve")


if __name__ == "__main__":
    main()
