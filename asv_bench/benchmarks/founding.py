# SPDX-License-Identifier: BSD-3-Clause
"""The founding load: worst xfree against the number of live 3500-byte blocks.

The legacy engine's free list has one entry per live block, and each xfree walks
it; TLSF looks at two neighbours.

If the blocks were simply allocated, the list would be walked n * n / 2 steps before
the first xfree. So each block is allocated to fill its page, while the list is
empty, and then shrunk.
"""

import numpy as np

from .common import ENGINES, TRACE_DTYPE, need_replay, run_trace

BLOCK_BYTES = 3500
FILLING_BYTES = 4096 - 128  # in a page of 4096 bytes, with the legacy header
N_FREES = 50
SEED = 2008
REPEATS = 5


def founding_load(n_blocks):
    """Make a trace: fill a page per block, shrink each, free some in random order."""
    born = np.zeros(n_blocks, dtype=TRACE_DTYPE)
    born["id"] = np.arange(n_blocks)
    born["size"] = FILLING_BYTES
    cut = born.copy()
    cut["op"] = 2
    cut["size"] = BLOCK_BYTES
    freed = np.zeros(N_FREES, dtype=TRACE_DTYPE)
    freed["op"] = 1
    freed["id"] = np.random.default_rng(SEED).permutation(n_blocks)[:N_FREES]
    return np.concatenate([born, cut, freed])


class Founding:
    params = [ENGINES, [1_000, 10_000, 50_000]]
    param_names = ["engine", "live_blocks"]
    unit = "cycles"

    def setup(self, engine, live_blocks):
        need_replay()
        self.ops = founding_load(live_blocks)

    def track_xfree_worst_cycles(self, engine, live_blocks):
        return run_trace(self.ops, engine, REPEATS).summary("xfree")["worst"]
