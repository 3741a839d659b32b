# SPDX-License-Identifier: BSD-3-Clause
"""Page frames: what one page_alloc or page_free of an order costs, at worst.

All frames are one free run: page_alloc splits it once for each order above the
requested one, and page_free merges as often. Exact instructions, and cycles.
"""

import numpy as np

from .common import module
from .instructions import SCENARIOS, insn, need_insn

cycles = module("xmem.measure.cycles", "xmem.cycles")

ORDERS = [0, 2, 4, 6, 8, 10]
VERBS = ["page_alloc", "page_free"]
CACHES = {"warm": 1001, "cold": 51}


class Frames:
    params = [VERBS, ORDERS]
    param_names = ["verb", "order"]
    timeout = 120

    def setup(self, verb, order):
        found = [s for s in SCENARIOS if (s.verb, s.name) == (verb, f"order {order}")]
        if not found:
            raise NotImplementedError("this commit has no scenarios of page frames")
        self.pool, self.arguments = found[0].make(0)

    def teardown(self, verb, order):
        if hasattr(self, "pool"):
            self.pool.arena.close()

    def track_instructions(self, verb, order):
        need_insn()
        return insn.cost(self.pool, verb, *self.arguments)[0]

    def track_warm_cycles(self, verb, order):
        return self.cycles(verb, "warm").min()

    def track_cold_cycles(self, verb, order):
        return np.median(self.cycles(verb, "cold"))

    def cycles(self, verb, cache):
        if cycles is None:
            raise NotImplementedError("this commit cannot time single calls")
        return cycles.cost(
            self.pool,
            verb,
            *self.arguments,
            repeats=CACHES[cache],
            cold=cache == "cold",
        )

    track_instructions.unit = "instructions"
    track_warm_cycles.unit = "cycles"
    track_cold_cycles.unit = "cycles"
