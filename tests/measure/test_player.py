# SPDX-License-Identifier: BSD-3-Clause
"""A player verifies what blocks hold, and survives what it finds."""

import ctypes
import gc

import pytest
from support.tracing import ENGINES, trace

import xmem
from xmem.measure.replay import replay
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
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


@pytest.mark.parametrize("kind", [OP_MALLOC, OP_CALLOC, OP_MEMALIGN, OP_REALLOC])
def test_a_block_that_is_not_aligned_is_an_error(probe, kind):
    for align_log2 in range(4, 13):
        for payload, wrong in (
            (3 << align_log2, 0),
            ((3 << align_log2) + (1 << align_log2 - 1), 1),
            ((3 << align_log2) + 8, 1),
        ):
            held = bytearray(20)
            assert probe.errors_of_object(kind, align_log2, payload, held) == wrong
            held = bytearray(20)
            assert not probe.errors_of_object(
                kind, align_log2, payload, held, verify=False
            )
            assert held == bytes(20)


@pytest.mark.parametrize("n_bytes", [1, 7, 8, 9, 100])
def test_a_byte_of_calloc_that_is_not_zero_is_an_error(probe, n_bytes):
    assert probe.errors_of_object(OP_CALLOC, 4, 64, bytearray(n_bytes)) == 0
    for place in range(n_bytes):
        for kind, wrong in ((OP_CALLOC, 1), (OP_MALLOC, 0), (OP_MEMALIGN, 0)):
            held = bytearray(n_bytes)
            held[place] = 128
            assert probe.errors_of_object(kind, 4, 64, held) == wrong


def test_a_byte_that_a_resize_did_not_keep_is_an_error(probe):
    for kept in (0, 1, 8, 33):
        held = probe.pattern(100, 0)
        assert probe.errors_of_object(OP_REALLOC, 4, 64, held, kept) == 0
        for place in (0, kept - 1, kept):
            held = probe.pattern(100, 0)
            held[place] ^= 1
            assert probe.errors_of_object(OP_REALLOC, 4, 64, held, kept) == (
                place < kept
            ) * (kept > 0)


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
