# SPDX-License-Identifier: BSD-3-Clause
"""What the format of an arena costs a trace."""

import numpy as np
import pytest
from support.tracing import trace

from xmem import Arena, Pool
from xmem.measure.formats import PAGE_BYTES, blocks_at_peak, least_format_bytes
from xmem.measure.peers import Peer, serves
from xmem.measure.trace import OP_FREE, OP_MALLOC, OP_REALLOC, peak_live


def test_the_blocks_are_those_that_live_at_the_peak() -> None:
    ops = trace(
        *((OP_MALLOC, 0, 100), (OP_MALLOC, 1, 5000), (OP_MALLOC, 2, 0)),
        *((OP_FREE, 0, 0), (OP_REALLOC, 1, 7000), (OP_MALLOC, 3, 24)),
        *((OP_REALLOC, 1, 10), (OP_MALLOC, 4, 2000), (OP_FREE, 3, 0)),
    )
    assert peak_live(ops) == 7024
    # 7000 and a header, rounded up; 0 bytes take the least block, 24 fill it.
    assert sorted(blocks_at_peak(ops).tolist()) == [32, 32, 7008]


def test_a_block_is_as_large_as_that_of_a_pool() -> None:
    sizes = [*range(200), 1000, 4087, 4088, 4089, 100_000]
    blocks = blocks_at_peak(trace(*((OP_MALLOC, i, n) for i, n in enumerate(sizes))))
    with Arena.anonymous(8 << 20) as arena:
        pool = Pool(arena)
        before = 0
        for i, n_bytes in enumerate(sizes):
            pool.xmalloc(n_bytes)
            assert pool.used_size - before >= blocks[i]
            # But for what keeps a payload off the start of a page, and rests too small.
            assert pool.used_size - before <= blocks[i] + 32
            before = pool.used_size


@pytest.mark.parametrize("n", [1, 300, 5000])
def test_no_arena_of_less_serves(n: int) -> None:
    source = np.random.default_rng(n)
    sizes = source.integers(0, 3000, n)
    ops = trace(*((OP_MALLOC, i, int(size)) for i, size in enumerate(sizes)))
    least = least_format_bytes(ops)
    assert least % PAGE_BYTES == 0
    assert not serves(Peer.engine(), ops, least - PAGE_BYTES)
    # Without a free, next to nothing is lost.
    assert serves(Peer.engine(), ops, least + max(PAGE_BYTES, least // 100))


def test_a_trace_without_operations_needs_an_arena_and_a_pool() -> None:
    least = least_format_bytes(trace())
    with Arena.anonymous(least, page_size=PAGE_BYTES) as arena:
        Pool(arena)
        assert arena.n_free_pages <= 2
