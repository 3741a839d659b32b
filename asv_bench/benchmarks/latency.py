# SPDX-License-Identifier: BSD-3-Clause
"""How long one call takes, in cycles of the processor's clock.

A trace is replayed 15 times, each time on a newly formatted arena whose pages have
been touched. The least over the repeats is kept for each operation, because an
interrupt does not hit the same operation each time. Reported are percentiles and
the greatest over the operations: a mean would hide the worst case.
"""

from .common import Measured


class Latency(Measured):
    unit = "cycles"

    def track_xfree_worst_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xfree"]["worst"]

    def track_xfree_p999_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xfree"]["p999"]

    def track_xfree_p50_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xfree"]["p50"]

    def track_xmalloc_worst_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xmalloc"]["worst"]

    def track_xmalloc_p999_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xmalloc"]["p999"]

    def track_xmalloc_p50_cycles(self, figures, engine, trace):
        return figures[engine, trace]["xmalloc"]["p50"]
