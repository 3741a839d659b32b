# SPDX-License-Identifier: BSD-3-Clause
"""A player verifies what blocks hold, and survives what it finds."""

import ctypes
import gc

import pytest
from support.tracing import ENGINES, trace

import xmem
from xmem.measure.replay import replay
from xmem.measure.trace import (
    OP_FREE,
    OP_MALLOC,
    OP_REALLOC,
)


def replaying_pool():
    """The pool of the replay that is running, found among all objects."""
    arenas = [
        found
        for found in gc.get_objects()
        if isinstance(found, xmem.Arena) and not found.closed
    ]
    pools = [arena for arena in arenas if "replay" in arena.pools()]
    assert len(pools) == 1
    return xmem.Pool.open(pools[0], "replay")


def spoil(pool, size):
    """Change one byte in the middle of each live block of a capacity."""
    rows = pool.walk()
    chosen = rows[rows["used"] & (rows["capacity"] == size)]
    for row in chosen:
        where = pool.arena.address(int(row["offset"])) + size // 2
        ctypes.c_uint8.from_address(where).value ^= 1
    return len(chosen)


@pytest.mark.parametrize("engine", ENGINES)
def test_spoiled_contents_are_seen_at_the_end(engine):
    """The progress callback, between the last call and the verification."""
    size = {"tlsf": 1016, "firstfit": 1024}[engine]
    lines = [(OP_MALLOC, name, size) for name in range(20)]
    lines += [(OP_MALLOC, name, 2 * size) for name in range(20, 30)]
    ops = trace(*lines)
    spoiled = []

    def progress(done, total):
        if done == len(ops) and not spoiled:
            spoiled.append(spoil(replaying_pool(), size))

    result = replay(ops, engine=engine, verify=True, repeats=1, progress=progress)
    assert spoiled == [20]
    assert result.content_errors == 20
    assert replay(ops, engine=engine, verify=True, repeats=1).content_errors == 0


@pytest.mark.parametrize("last", [(OP_FREE, 0, 0), (OP_REALLOC, 0, 3000)])
@pytest.mark.parametrize("engine", ENGINES)
def test_spoiled_contents_are_seen_at_free_and_resize(engine, last):
    """Filling large blocks takes so long that progress comes in between."""
    size = {"tlsf": 1016, "firstfit": 1024}[engine]
    large = [
        (op, name, (32 << 20) if op == OP_MALLOC else 0)
        for name in range(1, 60)
        for op in (OP_MALLOC, OP_FREE)
    ]
    ops = trace((OP_MALLOC, 0, size), *large, last)
    spoiled = []

    def progress(done, total):
        if not spoiled:
            assert done < len(ops)
            spoiled.append(spoil(replaying_pool(), size))

    result = replay(*[ops], engine=engine, verify=True, repeats=1, progress=progress)
    assert spoiled == [1]
    assert result.content_errors == 1


def test_a_damaged_heap_is_corruption_not_a_crash():
    ops = trace(*[(OP_MALLOC, name, 100) for name in range(20)])

    def progress(done, total):
        pool = replaying_pool()
        block = int(pool.walk()["offset"][3])
        header = pool.arena.address(block - 8)
        ctypes.c_uint64.from_address(header).value ^= 1

    with pytest.raises(xmem.HeapCorruption):
        replay(ops, verify=True, repeats=1, progress=progress)
