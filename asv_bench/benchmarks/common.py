# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks share: traces, engines, and one measured replay of each.

Every module here must import on every commit of the history, also on one that
has no ``xmem.replay``: what is missing is found out in ``setup``, which then
raises NotImplementedError, and asv records "n/a".
"""

from pathlib import Path

import numpy as np

try:
    from xmem.replay import replay
except ImportError:
    replay = None

ENGINES = ["tlsf", "firstfit"]

# The first eight are files of ../traces, the last is made below.
TRACES = [
    "py-json",
    "sqlite",
    "cc1",
    "git-log",
    "redis",
    "tmem",
    "subpage-patch",
    "adversarial",
    "near-page",
]

# Fixed like the traces: figures of two commits must be of the same load.
REPEATS = 15
NEAR_PAGE_BLOCKS = 5000
NEAR_PAGE_BYTES = 3500
NEAR_PAGE_SEED = 2008

FOLDER = Path(__file__).resolve().parent.parent / "traces"


def near_page(n_blocks=NEAR_PAGE_BLOCKS):
    """Blocks that leave the rest of their page free, freed in random order."""
    ops = np.zeros(
        2 * n_blocks,
        dtype=[
            ("op", "u1"),
            ("align_log2", "u1"),
            ("thread", "<u2"),
            ("id", "<u4"),
            ("size", "<u8"),
        ],
    )
    ops["id"][:n_blocks] = np.arange(n_blocks)
    ops["size"][:n_blocks] = NEAR_PAGE_BYTES
    ops["op"][n_blocks:] = 1
    ops["id"][n_blocks:] = np.random.default_rng(NEAR_PAGE_SEED).permutation(n_blocks)
    return ops


def load_trace(name):
    """The trace of this name."""
    if name == "near-page":
        return near_page()
    with np.load(FOLDER / f"{name}.npz") as found:
        return found["ops"]


def need_replay():
    """End a benchmark's setup where the commit cannot replay."""
    if replay is None:
        raise NotImplementedError("this commit has no xmem.replay")


def measure(ops, engine):
    """Figures of one trace on one engine, as the command prints them."""
    result = replay(ops, engine=engine, repeats=REPEATS)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed")
    return {
        "xmalloc": result.summary("xmalloc"),
        "xfree": result.summary("xfree"),
        "peak_live_bytes": result.peak_live_bytes,
        "peak_page_bytes": result.peak_page_bytes,
    }


class Measured:
    """A benchmark that reports figures of one replay per engine and trace.

    All replays are done once per commit and environment: asv knows a
    setup_cache by its place in the source, so the classes that inherit this
    one share what it answers.
    """

    params = [ENGINES, TRACES]
    param_names = ["engine", "trace"]

    def setup_cache(self):
        if replay is None:
            return None
        return {
            (engine, name): measure(load_trace(name), engine)
            for name in TRACES
            for engine in ENGINES
        }

    setup_cache.timeout = 900

    def setup(self, figures, engine, trace):
        need_replay()
