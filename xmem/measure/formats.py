# SPDX-License-Identifier: BSD-3-Clause
"""What the format of an arena costs a trace, whatever an allocator does.

The blocks that live at the trace's peak, each with its header and rounded up to the
grain, the arena's tables for so many pages, and the pool's control block: no allocator
of this format serves the trace in less.
"""

import numpy as np
import numpy.typing as npt

from xmem.arena import Arena
from xmem.measure.trace import OP_FREE, live_after
from xmem.pool import Pool

__all__ = ["blocks_at_peak", "least_format_bytes"]

PAGE_BYTES = 4096
HEADER_BYTES = 8
GRAIN_BYTES = 16
BLOCK_MIN_BYTES = 32
#: First word and sentinel of the region in which the blocks lie.
ENDS_BYTES = 16


def blocks_at_peak(ops: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Return the bytes of the blocks that live when a trace's live bytes are greatest.

    Parameters
    ----------
    ops : numpy.ndarray
        A trace, as `xmem.measure.replay.load` returns it.

    Returns
    -------
    numpy.ndarray of uint64
        Of each object: what was requested with a header, rounded up to 16 bytes, and
        at least 32.
    """
    if not len(ops):
        return np.zeros(0, dtype=np.uint64)
    until = int(live_after(ops, ops["size"]).argmax()) + 1
    # The last operation on each object until then.
    _, last = np.unique(ops["id"][:until][::-1], return_index=True)
    last = until - 1 - last
    live = ops["size"][last[ops["op"][last] != OP_FREE]].astype(np.uint64)
    rounded = (live + HEADER_BYTES + GRAIN_BYTES - 1) // GRAIN_BYTES * GRAIN_BYTES
    blocks: npt.NDArray[np.uint64] = np.maximum(rounded, BLOCK_MIN_BYTES)
    return blocks


def least_format_bytes(ops: npt.NDArray[np.void]) -> int:
    """Return the bytes of the least arena that has room for a trace's live blocks.

    Parameters
    ----------
    ops : numpy.ndarray
        As in `blocks_at_peak`.

    Returns
    -------
    int
        Whole pages, with the arena's tables and the control block of one pool.
    """
    needed = -(-(int(blocks_at_peak(ops).sum()) + ENDS_BYTES) // PAGE_BYTES)
    n_pages = needed
    while True:
        with Arena.anonymous((n_pages + 2) * PAGE_BYTES, page_size=PAGE_BYTES) as arena:
            own = arena.first_page + Pool(arena).stats().control_pages
            if arena.n_pages - own >= needed:
                return arena.n_bytes
        n_pages = max(n_pages + 1, needed + own - 2)
