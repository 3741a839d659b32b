# SPDX-License-Identifier: BSD-3-Clause
"""How long one call takes, in cycles of the processor's clock.

A trace is replayed 15 times on an arena that is formatted anew each time and
whose pages have been touched. Of each operation the least over the repeats
counts, because an interrupt does not strike the same operation each time; of
the operations the percentile or the greatest. A mean would hide what is
asked for.
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
