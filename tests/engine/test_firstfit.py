# SPDX-License-Identifier: BSD-3-Clause
"""The legacy engine over plain memory, without arena or pool.

Built with all requirements on: a broken one aborts the run.
"""

import random
from itertools import pairwise

import pytest


def test_legacy_takes_the_first_block_that_fits(probe):
    engine = probe.Legacy(8 * 4096)
    pages = [4096, 8192, 12288]
    heads = [engine.take_page(page, 1024) for page in pages]
    # Last in, first out: not the lowest address, not the best fit.
    assert engine.listed() == [page + 1024 for page in reversed(pages)]
    assert engine.alloc(512) == 12288 + 1024
    assert engine.listed()[0] == 12288 + 1024 + 512
    assert engine.alloc(3072) == 8192 + 1024
    assert engine.listed() == [12288 + 1536, 4096 + 1024]
    assert engine.alloc(3072) == 4096 + 1024
    assert engine.alloc(4096) == 0
    assert engine.used == (6, 3 * 1024 + 512 + 2 * 3072)
    assert engine.free(heads[0]) == (4096, 1024)


def test_legacy_splits_when_two_headers_remain(probe):
    for rest in range(0, 512, 64):
        engine = probe.Legacy(2 * 4096)
        engine.take_page(4096, 4096 - rest)
        blocks = engine.walk(4096)
        assert len(blocks) == (2 if rest >= 128 else 1)
        assert engine.used[1] == (4096 - rest if rest >= 128 else 4096)


def test_legacy_merges_within_a_page_only(probe):
    engine = probe.Legacy(4 * 4096)
    first = engine.take_page(4096, 2048)
    right = engine.alloc(2048)
    second = engine.take_page(8192, 2048)
    assert right == 4096 + 2048
    assert engine.free(right) == (right, 2048)
    # The page behind starts where the free block ends; it stays apart.
    assert engine.free(second) == (8192, 4096)
    assert engine.free(first) == (4096, 4096)
    assert engine.listed() == []
    assert engine.used == (0, 0)


def test_legacy_merges_on_both_sides_wherever_they_are_listed(probe, seed):
    source = random.Random(seed)
    for _ in range(200):
        engine = probe.Legacy(6 * 4096)
        live = {}
        for page in range(4096, 6 * 4096, 4096):
            block = engine.take_page(page, source.randrange(2, 30) * 64)
            live[block] = page
            while (need := source.randrange(2, 20) * 64) and (
                block := engine.alloc(need)
            ):
                live[block] = block & ~4095
        order = list(live)
        source.shuffle(order)
        gone = set()
        for block in order:
            start, size = engine.free(block)
            page = live.pop(block)
            if size == 4096:
                assert start == page
                gone.add(page)
            walked = [
                entry
                for page in range(4096, 6 * 4096, 4096)
                if page not in gone
                for entry in engine.walk(page)
            ]
            for (left, size, free), (right, _, right_free) in pairwise(walked):
                if left + size == right and left & ~4095 == right & ~4095:
                    assert not (free and right_free)
            assert sorted(engine.listed()) == [w[0] for w in walked if w[2]]
            assert {w[0] for w in walked if not w[2]} == set(live)
        assert engine.listed() == []
        assert engine.used == (0, 0)


@pytest.mark.parametrize("neighbour", ["free", "used", "none"])
def test_legacy_cuts_a_block_down(probe, neighbour):
    engine = probe.Legacy(2 * 4096)
    size = 4096 if neighbour == "none" else 2048
    block = engine.take_page(4096, size)
    if neighbour == "used":
        assert engine.alloc(2048) == 4096 + 2048
    engine.shrink(block, 512)
    rest = 2048 - 512 if neighbour == "used" else 4096 - 512
    assert engine.walk(4096)[:2] == [(4096, 512, False), (4096 + 512, rest, True)]
    assert engine.listed() == [4096 + 512]
    assert engine.used[1] == (512 + 2048 if neighbour == "used" else 512)
