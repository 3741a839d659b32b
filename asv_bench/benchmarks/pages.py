# SPDX-License-Identifier: BSD-3-Clause
"""How much memory a trace takes, over the bytes that it has live at its peak.

Pages: the most that the pool held at a time. Arena: the smallest arena in which no
request fails, including superblock, tables and control block. Both are exact, and
the same on every machine with the same page size.
"""

from .common import GROW_PAGES, Measured, load_trace, module, replay

XmemError = getattr(module("xmem.base.errors", "xmem.errors"), "XmemError", MemoryError)

# The smallest arena is determined to this fraction of its size.
PRECISION = 1 / 512
ROOM_BYTES = 4 << 20


def fits(ops, engine, arena_bytes):
    """Whether an arena of this size serves every request of a trace."""
    try:
        result = replay(
            ops,
            engine=engine,
            repeats=1,
            arena_bytes=arena_bytes,
            grow_pages=GROW_PAGES,
        )
    except XmemError:
        return False
    return result.failed == 0


def least_arena(ops, engine, too_small):
    """Return the size of the smallest arena that serves a trace, by bisection.

    A larger arena usually serves whatever a smaller one does, but not always: the
    result is a size that serves, within PRECISION of one that does not.
    """
    enough = 2 * too_small + ROOM_BYTES
    while not fits(ops, engine, enough):
        too_small, enough = enough, 2 * enough
    while enough - too_small > PRECISION * enough:
        middle = (too_small + enough) // 2
        if fits(ops, engine, middle):
            enough = middle
        else:
            too_small = middle
    return enough


class Pages(Measured):
    unit = "bytes/byte"

    def track_pages_per_live_byte(self, figures, engine, trace):
        found = figures[engine, trace]
        return found["peak_page_bytes"] / found["peak_live_bytes"]

    def track_arena_per_live_byte(self, figures, engine, trace):
        live = figures[engine, trace]["peak_live_bytes"]
        return least_arena(load_trace(trace), engine, live) / live
