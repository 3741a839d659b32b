# SPDX-License-Identifier: BSD-3-Clause
"""How long a whole trace takes: one pass without a clock per operation.

A pass of `xmem.measure.replay` is timed: format the arena's tables, make a pool, carry
out every operation of the trace without the GIL. A first pass in ``setup`` touches
the pages of the arena.
"""

from .common import (
    ENGINES,
    GROW_PAGES,
    REPLAY,
    TRACES,
    load_trace,
    module,
    need_replay,
)

try:
    from xmem import Arena
except ImportError:
    Arena = None
Replayer = getattr(REPLAY, "Replayer", None)
peak_live = getattr(module("xmem.measure.trace", "xmem.trace"), "peak_live", None)

# Ample for the worst trace on the legacy engine, and small enough that formatting
# the tables hardly counts.
ARENA_FACTOR = 5
ARENA_BYTES = 4 << 20


class Throughput:
    params = [ENGINES, TRACES]
    param_names = ["engine", "trace"]
    number = 1
    repeat = (5, 50, 10.0)
    warmup_time = 0.0

    def setup(self, engine, trace):
        need_replay()
        if Replayer is None:
            raise NotImplementedError("this commit has no Replayer")
        ops = load_trace(trace)
        arena = Arena.anonymous(ARENA_FACTOR * peak_live(ops) + ARENA_BYTES)
        settings = {"engine": engine, "grow_pages": GROW_PAGES}
        self.replayer = Replayer(ops, arena, settings, 1, None)
        self.replayer.run_pass(None, False)
        if self.replayer.seen()["failed"]:
            raise RuntimeError("requests failed")

    def time_replay(self, engine, trace):
        self.replayer.run_pass(None, False)
