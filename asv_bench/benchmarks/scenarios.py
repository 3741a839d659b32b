# SPDX-License-Identifier: BSD-3-Clause
"""Cycles of single calls on heaps built for them, warm and cold.

Each call is made again and again on the same heap, which is restored before each
(pyx/measure/cycles.pyx). The least over the repeats is that of an undisturbed call;
the greatest of these over the scenarios is the worst case. Percentiles are over the
repeats.
"""

import contextlib

import numpy as np

from .common import ENGINES, module

cycles = module("xmem.measure.cycles", "xmem.cycles")
SCENARIOS = getattr(module("xmem.measure.scenarios", "xmem.scenarios"), "SCENARIOS", [])

# Named here, not read from the package: a commit may have others.
NAMES = [
    "xfree isolated",
    "xfree left",
    "xfree right",
    "xfree both",
    "xfree emptying a region",
    "xfree merging pages",
    "xmalloc exact",
    "xmalloc splitting the largest",
    "xmalloc next first level",
    "xmalloc growing",
    "xmalloc failing",
    "xrealloc moving",
]
CACHES = ["warm", "cold"]
FREE_BLOCKS = 1000
REPEATS = {"warm": 1001, "cold": 51}


def measured(engine, name, cache):
    """Return the cycles of each repeat."""
    for found in SCENARIOS:
        if f"{found.verb} {found.name}" == name and engine in found.engines:
            pool, arguments = found.make(FREE_BLOCKS, engine)
            with pool.arena:
                return cycles.cost(
                    pool,
                    found.verb,
                    *arguments,
                    repeats=REPEATS[cache],
                    cold=cache == "cold",
                )
    raise NotImplementedError(f"no scenario {name!r} of {engine} on this commit")


class Scenarios:
    params = [ENGINES, NAMES, CACHES]
    param_names = ["engine", "scenario", "cache"]
    unit = "cycles"
    timeout = 120

    def setup_cache(self):
        if cycles is None:
            return {}
        found = {}
        for engine in ENGINES:
            for name in NAMES:
                for cache in CACHES:
                    with contextlib.suppress(NotImplementedError):
                        found[engine, name, cache] = measured(engine, name, cache)
        return found

    setup_cache.timeout = 600

    def setup(self, found, engine, scenario, cache):
        if (engine, scenario, cache) not in found:
            raise NotImplementedError("this commit cannot time single calls")

    def track_worst_cycles(self, found, engine, scenario, cache):
        return int(found[engine, scenario, cache].min())

    def track_p50_cycles(self, found, engine, scenario, cache):
        return float(np.quantile(found[engine, scenario, cache], 0.5))

    def track_p99_cycles(self, found, engine, scenario, cache):
        return float(np.quantile(found[engine, scenario, cache], 0.99))

    def track_p999_cycles(self, found, engine, scenario, cache):
        return float(np.quantile(found[engine, scenario, cache], 0.999))


class XfreeWorst:
    """The worst xfree of all scenarios of an engine."""

    params = [ENGINES, CACHES]
    param_names = ["engine", "cache"]
    unit = "cycles"
    timeout = 120

    def setup(self, engine, cache):
        if cycles is None:
            raise NotImplementedError("this commit cannot time single calls")

    def track_xfree_worst_cycles(self, engine, cache):
        worst = 0
        for name in NAMES:
            if name.startswith("xfree"):
                with contextlib.suppress(NotImplementedError):
                    worst = max(worst, int(measured(engine, name, cache).min()))
        return worst
