# SPDX-License-Identifier: BSD-3-Clause
"""TLSF over plain memory, without arena or pool: a walk finds every invariant kept.

Built with all requirements on: a broken one aborts the run.
"""

import random

from support.models import round_up


def check_engine(engine, regions, live, probe):
    """B1 to B7, F1 and F2 by a walk of every region."""
    listed = engine.listed()
    free = {}
    used = {}
    for start, end in regions:
        blocks = engine.walk(start)
        prev = {"free": False}
        at = start + 8
        for block in blocks:
            assert block["block"] == at
            assert block["tag"] == engine.tag
            assert block["prev_free"] == prev["free"]
            if block["prev_free"]:
                assert block["left"] == prev["block"]
            assert not (block["free"] and prev["free"])
            assert not (block["free"] and block["aligned"])
            if block["size"]:
                assert block["size"] >= 32
                assert block["size"] % 16 == 0
                assert (block["block"] + 8) % 4096
                (free if block["free"] else used)[block["block"]] = block
            prev = block
            at += block["size"]
        assert at == end - 8
        assert not blocks[-1]["free"]
    assert set(used) == set(live)
    for block, (need, align) in live.items():
        assert used[block]["size"] >= need
        assert used[block]["align"] == align
        assert (block + 8) % align == 0
    assert engine.used == (len(used), sum(block["size"] for block in used.values()))
    assert listed == {
        block: -1 if block == engine.aside else probe.mapping(found["size"])[0]
        for block, found in free.items()
    }


class Blocks:
    """Live blocks of an engine over plain memory, and what they hold."""

    def __init__(self, engine, regions, source):
        self.engine = engine
        self.regions = regions
        self.source = source
        self.live = {}
        self.data = {}

    def _fill(self, block, need, align):
        self.live[block] = (need, align)
        self.data[block] = self.source.randbytes(need - 8)
        self.engine.fill(block, self.data[block])

    def _size(self, block):
        return len(self.engine.payload(block)) + 8

    def alloc(self, need, align):
        block = self.engine.alloc(need, align)
        if block:
            self._fill(block, need, align)

    def free(self, block):
        data = self.data.pop(block)
        assert self.engine.payload(block)[: len(data)] == data
        self.engine.free(block)
        del self.live[block]

    def resize(self, block, need):
        """As a pool does: in place, else leftwards, else not at all."""
        before = self._size(block)
        moved = block
        if not self.engine.resize(block, need):
            assert need > before, "a shrink was refused"
            moved = self.engine.resize_left(block, need)
            if not moved:
                assert self._size(block) == before
                return
            assert moved < block
        _, align = self.live.pop(block)
        data = self.data.pop(block)[: need - 8]
        assert self.engine.payload(moved)[: len(data)] == data
        self._fill(moved, need, align)


def test_tlsf_over_plain_memory(probe, seed):
    source = random.Random(seed)
    engine = probe.Engine(1 << 17)
    middle = engine.first + (1 << 15)
    regions = [(engine.first, middle), (middle + 4096, 1 << 17)]
    for start, end in regions:
        engine.add_region(start, end)
    blocks = Blocks(engine, regions, source)
    for step in range(6000):
        roll = source.random()
        largest = source.choice([48, 200, 1500, 5000])
        need = round_up(source.randrange(32, largest), 16)
        if blocks.live and roll < (0.3 if step % 1500 < 750 else 0.6):
            blocks.free(source.choice(list(blocks.live)))
        elif blocks.live and roll < 0.7:
            blocks.resize(source.choice(list(blocks.live)), need)
        else:
            align = source.choice([16, 16, 16, 32, 64, 256, 1024, 2048])
            blocks.alloc(need, align)
        if step % 5 == 0:
            check_engine(engine, regions, blocks.live, probe)
    for block in list(blocks.live):
        blocks.free(block)
    check_engine(engine, regions, {}, probe)
    assert len(engine.listed()) == 2


def test_a_request_is_never_inflated(probe):
    engine = probe.Engine(1 << 16)
    engine.add_region(engine.first, 1 << 16)
    for need in (32, 48, 1040, 2064, 4112):
        block = engine.alloc(need)
        size = engine.walk(engine.first)[0]["size"]
        assert need <= size <= need + 16
        engine.free(block)


def test_an_exact_fit_that_rounding_up_would_miss_is_found(probe):
    first = probe.Engine(1 << 16).first
    inexact = 0
    for need in range(1024, 20000, 16):
        kept, searched = probe.mapping(need)
        inexact += kept != searched
        engine = probe.Engine(1 << 16)
        engine.add_region(first, first + 16 + need)
        assert engine.alloc(need) == first + 8, need
        assert engine.alloc(32) == 0
    assert inexact > 1000


def test_a_block_grows_leftwards_into_exactly_what_is_free(probe):
    """Not a byte of its two free neighbours is left over, and none is missing."""
    for need, freed in ((192, "left"), (288, "both")):
        engine = probe.Engine(1 << 16)
        engine.add_region(engine.first, 1 << 16)
        left, block, right, wall = (engine.alloc(96) for _ in range(4))
        engine.free(left)
        if freed == "both":
            engine.free(right)
        engine.fill(block, bytes(range(88)))
        assert not engine.resize(block, need + 16)
        assert engine.resize_left(block, need + 16) == 0
        assert engine.resize_left(block, need) == left
        assert engine.payload(left)[:88] == bytes(range(88))
        live = {left: (need, 16), wall: (96, 16)}
        if freed == "left":
            live[right] = (96, 16)
        check_engine(engine, [(engine.first, 1 << 16)], live, probe)


def test_a_region_is_extended_leftwards(probe):
    for used in (False, True):
        engine = probe.Engine(1 << 16)
        seam = engine.first + 8192
        engine.add_region(seam, 1 << 16)
        live = {engine.alloc(64): (64, 16)} if used else {}
        engine.add_region_before(engine.first, seam)
        check_engine(engine, [(engine.first, 1 << 16)], live, probe)
        assert len(engine.listed()) == 1 + used
