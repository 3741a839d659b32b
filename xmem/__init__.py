# SPDX-License-Identifier: BSD-3-Clause
"""A bounded-time heap (TLSF) in a memory-mapped arena.

An `Arena` is one page-aligned mapping, anonymous or in a file. A `Pool` is a
heap in it. Offsets name memory and hold in every process that opens the arena.
`xmalloc` and its like use a pool of their own, made on first use.
"""

from xmem.allocator import Allocator, Block
from xmem.arena import Arena
from xmem.arena.sites import TRACEMALLOC_DOMAIN, trace_sites
from xmem.base.errors import (
    ArenaBusy,
    ArenaClosed,
    ArenaFormatError,
    ArenaInUse,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    HeapCorruption,
    InvalidFree,
    MismatchedFree,
    NotABlock,
    NotInInterface,
    OutOfMemory,
    PeerError,
    PoolDestroyed,
    PoolInUse,
    SizeLimitError,
    TooManyProcesses,
    TraceFormatError,
    XmemError,
)
from xmem.base.slots import ArenaStats
from xmem.capi import _C_API as _C_API
from xmem.capi import get_include
from xmem.check import repairs as _repairs  # noqa: F401  (Arena.open asks for it)
from xmem.datamem import numpy_memory
from xmem.defaults import (
    configure,
    default_pool,
    usable_size,
    view,
    xfree,
    xmalloc,
    xrealloc,
    xzalloc,
)
from xmem.heap import Heap
from xmem.pool import Pool
from xmem.stats import HeapStats, PoolStats

__all__ = [
    "TRACEMALLOC_DOMAIN",
    "Allocator",
    "Arena",
    "ArenaBusy",
    "ArenaClosed",
    "ArenaFormatError",
    "ArenaInUse",
    "ArenaStats",
    "BadArgument",
    "BadArgumentType",
    "Block",
    "DoubleFree",
    "Heap",
    "HeapCorruption",
    "HeapStats",
    "InvalidFree",
    "MismatchedFree",
    "NotABlock",
    "NotInInterface",
    "OutOfMemory",
    "PeerError",
    "Pool",
    "PoolDestroyed",
    "PoolInUse",
    "PoolStats",
    "SizeLimitError",
    "TooManyProcesses",
    "TraceFormatError",
    "XmemError",
    "configure",
    "default_pool",
    "get_include",
    "numpy_memory",
    "trace_sites",
    "usable_size",
    "view",
    "xfree",
    "xmalloc",
    "xrealloc",
    "xzalloc",
]

__version__ = "0.1.0.dev0"
