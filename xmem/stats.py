# SPDX-License-Identifier: BSD-3-Clause
"""What a pool says about itself."""

from typing import NamedTuple

__all__ = ["HeapStats", "PoolStats"]


class PoolStats(NamedTuple):
    """State of a pool at one moment. Sizes are in bytes, spans in pages.

    Attributes
    ----------
    live_blocks : int
        Blocks and page runs in use.
    used_bytes : int
        Their size, headers included.
    free_bytes : int
        Size of the free blocks, headers included.
    free_blocks : int
        Number of free blocks.
    largest_free_bytes : int
        Greatest request that the largest free block can serve as it lies, in a
        hardened pool with its trailer.
    n_regions : int
        Regions obtained from the page frames and not given back.
    n_pages : int
        Pages held: ``region_pages + run_pages``.
    peak_pages : int
        Greatest ``n_pages`` so far.
    region_pages : int
        Pages that are cut into blocks.
    run_pages : int
        Pages handed out whole.
    control_pages : int
        Pages of the pool's control block, not counted in ``n_pages``.
    overhead_bytes : int
        Bytes of the pages held that no payload can use: headers, sentinels
        and the word in front of a region's first block.
    fragmentation : float
        One less the largest free block's share of the free bytes; 0 when
        nothing is free.
    waiting_blocks : int
        Freed blocks in the quarantine of a hardened pool, or in the quick lists;
        they are not live, but ``used_bytes`` includes them.
    waiting_bytes : int
        Size of these, headers included.
    lost_blocks : int
        Freed blocks that were found damaged in the quarantine, and were
        never given back.
    """

    live_blocks: int
    used_bytes: int
    free_bytes: int
    free_blocks: int
    largest_free_bytes: int
    n_regions: int
    n_pages: int
    peak_pages: int
    region_pages: int
    run_pages: int
    control_pages: int
    overhead_bytes: int
    fragmentation: float
    waiting_blocks: int
    waiting_bytes: int
    lost_blocks: int


class HeapStats(NamedTuple):
    """State of a heap: the sums over its pools, and the pools.

    Attributes
    ----------
    interface : str
    live_blocks : int
        Blocks and page runs in use.
    used_bytes : int
        Their size, headers included.
    free_bytes : int
        Size of the free blocks, headers included.
    n_pages : int
        Pages held: ``region_pages + run_pages``.
    region_pages : int
        Pages that are cut into blocks.
    run_pages : int
        Pages handed out whole, as blocks or by page_alloc.
    control_pages : int
        Pages of control blocks, not counted in ``n_pages``.
    pools : tuple of PoolStats
        The main pool, and that of xmalloc_subpage where it is another.
    """

    interface: str
    live_blocks: int
    used_bytes: int
    free_bytes: int
    n_pages: int
    region_pages: int
    run_pages: int
    control_pages: int
    pools: tuple[PoolStats, ...]
