# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks share: traces, engines, and one measured replay of each.

Every module here must import on every commit of the history, even on one that
cannot replay, and without xmem. ``setup`` finds out what is missing and raises
NotImplementedError, for which asv records "n/a".
"""

import importlib
from pathlib import Path

import numpy as np


def module(*names):
    """Return the first of these modules that the commit has, or None.

    A module that has moved is named by its newest home first. One that exists but
    cannot be imported is an error, not a commit without it.
    """
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise
    return None


REPLAY = module("xmem.measure.replay", "xmem.replay")
TRACE_DTYPE = getattr(REPLAY, "TRACE_DTYPE", None)
replay = getattr(REPLAY, "replay", None)

# Fixed, as the traces are: figures of two commits must be of the same load.
ENGINES = ["tlsf", "firstfit"]
TRACES = [
    "py-json",
    "sqlite",
    "cc1",
    "git-log",
    "redis",
    "tmem",
    "subpage-patch",
    "adversarial",
]
GROW_PAGES = 16
REPEATS = 15

FOLDER = Path(__file__).resolve().parent.parent / "traces"


def need_replay():
    """End a benchmark's setup where the commit cannot replay."""
    if replay is None:
        raise NotImplementedError("this commit cannot replay")


def load_trace(name):
    """Return the trace of this name in ../traces."""
    with np.load(FOLDER / f"{name}.npz") as found:
        return found["ops"]


def run_trace(ops, engine, repeats=REPEATS):
    """Replay a trace in an ample arena; a request that fails is an error."""
    result = replay(ops, engine=engine, repeats=repeats, grow_pages=GROW_PAGES)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed")
    return result


def figures_of(ops, engine):
    """Return what the benchmarks report of one replay."""
    result = run_trace(ops, engine)
    return {
        "xmalloc": result.summary("xmalloc"),
        "xfree": result.summary("xfree"),
        "peak_live_bytes": result.peak_live_bytes,
        "peak_page_bytes": result.peak_page_bytes,
    }


class Measured:
    """A benchmark that reports figures of one replay per engine and trace.

    All replays are done once per commit and environment: asv identifies a
    setup_cache by its place in the source, so the classes that inherit this
    one share its result.
    """

    params = [ENGINES, TRACES]
    param_names = ["engine", "trace"]

    def setup_cache(self):
        if replay is None:
            return {}  # not None, which asv would not pass on
        return {
            (engine, trace): figures_of(load_trace(trace), engine)
            for trace in TRACES
            for engine in ENGINES
        }

    setup_cache.timeout = 900

    def setup(self, figures, engine, trace):
        need_replay()
