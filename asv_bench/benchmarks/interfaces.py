# SPDX-License-Identifier: BSD-3-Clause
"""Near-page sizes, half a page to PAGE_SIZE - DELTA, under each interface.

These are the sizes for which the proposal of 2008 was made. The load is a store that
fills, then replaces its contents, then empties, in random order. It uses each
interface as a ported program would (`xmem.measure.replay.replay`). Latency is taken
as in ``latency``, pages as in ``pages``.
"""

import numpy as np

from .common import REPEATS, REPLAY, TRACE_DTYPE, replay

try:
    HAS_INTERFACES = "interface" in REPLAY.ReplayResult.__dataclass_fields__
except AttributeError:
    HAS_INTERFACES = False

# Fixed, as in common: PAGE_SIZE and PAGE_SIZE - DELTA are those of 4096 bytes.
INTERFACES = ["strict", "array", "subpage", "legacy", "merged"]
SIZES = ["2048", "2560", "3072", "3584", "4072", "mixed"]
PAGE_BYTES = 4096
N_BLOCKS = 1000
SEED = 2008


def near_page_load(size):
    """Make a trace: fill, replace each block in random order, empty likewise."""
    rng = np.random.default_rng(SEED)
    n = N_BLOCKS
    ops = np.zeros(4 * n, dtype=TRACE_DTYPE)
    fill, replace, empty = ops[:n], ops[n : 3 * n], ops[3 * n :]
    fill["id"] = np.arange(n)
    replace["op"][::2] = 1
    replace["id"][::2] = rng.permutation(n)
    replace["id"][1::2] = np.arange(n, 2 * n)
    empty["op"] = 1
    empty["id"] = n + rng.permutation(n)
    born = ops["op"] == 0
    if size == "mixed":
        ops["size"][born] = rng.integers(PAGE_BYTES // 2, 4072, 2 * n, endpoint=True)
    else:
        ops["size"][born] = int(size)
    return ops


def figures_of(interface, size):
    """Return what the benchmarks report of one replay."""
    result = replay(
        near_page_load(size),
        interface=interface,
        repeats=REPEATS,
        page_size=PAGE_BYTES,
    )
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed")
    return {
        "xmalloc": result.summary("xmalloc"),
        "xfree": result.summary("xfree"),
        "pages_per_live_byte": result.peak_page_bytes / result.peak_live_bytes,
    }


class NearPage:
    """One replay per interface and size, done once per commit: see Measured."""

    params = [INTERFACES, SIZES]
    param_names = ["interface", "size"]

    def setup_cache(self):
        if not HAS_INTERFACES:
            return {}  # not None, which asv would not pass on
        return {
            (interface, size): figures_of(interface, size)
            for interface in INTERFACES
            for size in SIZES
        }

    setup_cache.timeout = 900

    def setup(self, figures, interface, size):
        if not HAS_INTERFACES:
            raise NotImplementedError("this commit cannot replay on an interface")


class NearPageLatency(NearPage):
    unit = "cycles"

    def track_xfree_worst_cycles(self, figures, interface, size):
        return figures[interface, size]["xfree"]["worst"]

    def track_xmalloc_worst_cycles(self, figures, interface, size):
        return figures[interface, size]["xmalloc"]["worst"]


class NearPagePages(NearPage):
    unit = "bytes/byte"

    def track_pages_per_live_byte(self, figures, interface, size):
        return figures[interface, size]["pages_per_live_byte"]
