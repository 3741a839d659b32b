# SPDX-License-Identifier: BSD-3-Clause
"""How much memory a trace takes, over the bytes that it has live at its peak.

Pages: the most that the pool held at a time. Arena: the least arena in which
no request fails, everything counted: superblock, tables, control block.
Both are exact and the same on every machine of one page size.
"""

from .common import Measured, load_trace, need_replay, replay

try:
    from xmem.errors import XmemError
except ImportError:
    XmemError = MemoryError

# The search ends when it knows the least arena to this share of it.
PRECISION = 1 / 512
GROW_PAGES = 16


def fits(ops, engine, arena_bytes):
    """Whether an arena of so many bytes serves every request of a trace."""
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


def least_arena(ops, engine, floor):
    """Bytes of the least arena that serves a trace, by bisection.

    ``floor`` is surely too small. That a larger arena serves what a smaller one
    does is the rule and no law, so this is where the two meet, to PRECISION.
    """
    ceiling = 2 * floor + (4 << 20)
    while not fits(ops, engine, ceiling):
        floor, ceiling = ceiling, 2 * ceiling
    while ceiling - floor > PRECISION * ceiling:
        middle = (floor + ceiling) // 2
        if fits(ops, engine, middle):
            ceiling = middle
        else:
            floor = middle
    return ceiling


class Pages(Measured):
    def track_pages_per_live_byte(self, figures, engine, trace):
        found = figures[engine, trace]
        return found["peak_page_bytes"] / found["peak_live_bytes"]

    track_pages_per_live_byte.unit = "bytes/byte"


class LeastArena(Measured):
    def track_arena_per_live_byte(self, figures, engine, trace):
        live = figures[engine, trace]["peak_live_bytes"]
        return least_arena(load_trace(trace), engine, live) / live

    track_arena_per_live_byte.unit = "bytes/byte"
