# SPDX-License-Identifier: BSD-3-Clause
"""Pages taken by TLSF for the beginning of a trace: exact, and quick.

For the history of all commits; `pages` has the whole traces and both engines.
"""

from .common import load_trace, need_replay, run_trace

TRACES = ["redis", "sqlite", "tmem", "subpage-patch"]
N_OPS = 20_000


class Memory:
    params = [TRACES]
    param_names = ["trace"]
    unit = "bytes/byte"
    version = "1"

    def setup(self, trace):
        need_replay()

    def track_pages_per_live_byte(self, trace):
        result = run_trace(load_trace(trace)[:N_OPS], "tlsf", repeats=1)
        return result.peak_page_bytes / result.peak_live_bytes
