# SPDX-License-Identifier: BSD-3-Clause
"""The founding load: worst xfree against the number of live 3500-byte blocks.

The legacy engine's free list has one entry per live block, and each xfree walks
it; TLSF looks at two neighbours.
"""

import numpy as np

from .common import ENGINES, run_trace

BLOCK_BYTES = 3500
FILLING_BYTES = 3968
N_FREES = 50


def founding_load(n_blocks):
    """Trace: fill a page per block, cut each down, free some in random order."""
    from xmem.replay import TRACE_DTYPE

    ids = np.arange(n_blocks)
    born = np.zeros(n_blocks, dtype=TRACE_DTYPE)
    born["id"] = ids
    born["size"] = FILLING_BYTES
    cut = born.copy()
    cut["op"] = 2
    cut["size"] = BLOCK_BYTES
    freed = np.zeros(N_FREES, dtype=TRACE_DTYPE)
    freed["op"] = 1
    freed["id"] = np.random.default_rng(2008).permutation(n_blocks)[:N_FREES]
    return np.concatenate([born, cut, freed])


class Founding:
    params = [ENGINES, [1_000, 10_000, 50_000]]
    param_names = ["engine", "live_blocks"]
    unit = "cycles"
    timeout = 600

    def setup(self, engine, live_blocks):
        try:
            self.ops = founding_load(live_blocks)
        except ImportError:
            raise NotImplementedError("this commit has no xmem.replay") from None

    def track_xfree_worst_cycles(self, engine, live_blocks):
        return run_trace(self.ops, engine, 3).summary("xfree")["worst"]
