# SPDX-License-Identifier: BSD-3-Clause
"""Every header-only layer by itself, below arena and pool.

Bits, block sizes, the mapping, free lists, and both engines over plain memory,
against references in Python. Built with all requirements on: a broken one
aborts the run.
"""

import random
from collections import defaultdict
from itertools import pairwise

import pytest
from support.models import ceil_log2, round_up

MAX_LOG2 = 44


def around_powers(least, most):
    """Multiples of 16 at and beside every power of two in a range."""
    found = set()
    for log2 in range(least, most + 1):
        for bins in range(32):
            edge = (1 << log2) + (bins << log2 >> 5)
            found.update({edge - 16, edge, edge + 16})
    return sorted(size & ~15 for size in found if 32 <= size <= 1 << most)


# Bits --------------------------------------------------------------------------


def test_bits_of_every_kind_of_word(probe, seed):
    source = random.Random(seed)
    words = {1 << i for i in range(64)} | {(1 << i) - 1 for i in range(1, 65)}
    words |= {source.getrandbits(source.randrange(1, 65)) | 1 for _ in range(2000)}
    for word in words:
        found = probe.bits(word, 1)
        assert found["find_last_set"] == word.bit_length() - 1
        assert found["find_first_set"] == (word & -word).bit_length() - 1
        assert found["is_power_of_two"] == (word & (word - 1) == 0)
        assert found["ceil_log2"] == ceil_log2(word)
        assert found["align_up"] == found["align_down"] == word


def test_rounding_to_every_power_of_two(probe, seed):
    source = random.Random(seed)
    for log2 in range(45):
        unit = 1 << log2
        for word in (1, unit - 1, unit, unit + 1, source.getrandbits(60)):
            if word:
                found = probe.bits(word, unit)
                assert found["align_up"] == round_up(word, unit)
                assert found["align_down"] == word // unit * unit
    assert [probe.one_bit(i) for i in range(64)] == [1 << i for i in range(64)]


# Block sizes -------------------------------------------------------------------


def test_a_block_is_the_least_that_holds_its_payload(probe):
    for n_bytes in [*range(9000), (1 << 44) - 1, 1 << 44]:
        tlsf, legacy = probe.bytes_for(n_bytes)
        assert tlsf == max(32, round_up(n_bytes + 8, 16))
        assert legacy == 64 + round_up(max(n_bytes, 1), 64)


def test_a_split_leaves_a_block_that_keeps_the_page_rule_or_nothing(probe):
    for block in range(8, 3 * 4096, 16):
        for need in (32, 48, 512, 4064, 4080, 4096, 8176):
            for more in (0, 16, 32, 48, 64, 4096):
                kept = probe.split_size(block, need + more, need)
                assert need <= kept <= need + more
                rest = need + more - kept
                assert rest == 0 or rest >= 32
                if rest:
                    assert (block + kept + 8) % 4096
                    assert kept <= need + 16
                elif more >= 48:
                    raise AssertionError("a block's worth was not split off")


def test_the_page_rule(probe):
    broken = [block for block in range(8, 1 << 15, 16) if probe.page_rule_broken(block)]
    assert broken == list(range(4088, 1 << 15, 4096))


# Mapping -----------------------------------------------------------------------


def bin_floor(index):
    """Least size of a bin, from the picture in the design."""
    if index < 64:
        return 16 * index
    log2, step = divmod(index - 64, 32)
    return (32 + step) << (5 + log2)


def test_small_sizes_have_bins_of_their_own(probe):
    bins = [probe.mapping(size) for size in range(32, 1024, 16)]
    assert bins == [(size // 16, size // 16) for size in range(32, 1024, 16)]


def test_insert_rounds_down_and_search_rounds_up(probe):
    for size in [*range(32, 1 << 15, 16), *around_powers(10, MAX_LOG2)]:
        kept, searched = probe.mapping(size)
        assert bin_floor(kept) <= size < bin_floor(kept + 1)
        assert bin_floor(searched) >= size
        assert searched == 0 or bin_floor(searched - 1) < size
        assert searched in (kept, kept + 1)
        assert probe.n_bins(size) == kept + 1


# Free lists --------------------------------------------------------------------


def check_lists(lists, model, n_bins):
    """F1 to F4 as far as they show: order, bitmaps, what a search finds."""
    filled = {index for index, blocks in model.items() if blocks}
    upper, lower = lists.bitmaps()
    assert lower == filled
    assert upper == sum(1 << i for i in {index >> 6 for index in filled})
    for index in filled:
        assert lists.bin(index) == model[index]
    for index in {0, *filled, *(i + 1 for i in filled), n_bins - 1, n_bins}:
        later = [i for i in filled if i >= index]
        assert lists.find(index) == (model[min(later)][0] if later else 0)


def test_lists_against_lists(probe, seed):
    source = random.Random(seed)
    n_bytes = 1 << 20
    lists = probe.Lists(n_bytes, 1 << 17)
    n_bins = probe.n_bins(1 << 17)
    model = defaultdict(list)
    where = {}
    places = [(1 << 15) + 64 * i + 8 for i in range(4000)]
    # Few different sizes, so that lists are long; a block's bytes are not used.
    sizes = [source.randrange(2, 1 << 13) * 16 for _ in range(25)]
    for step in range(6000):
        fill = step % 2000 < 1000
        if where and (source.random() < (0.35 if fill else 0.75)):
            block = source.choice(list(where)) if step % 7 else min(where)
            model[where.pop(block)].remove(block)
            lists.remove(block)
            places.append(block)
        else:
            block = places.pop(source.randrange(len(places)))
            size = source.choice(sizes)
            where[block] = probe.mapping(size)[0]
            model[where[block]].insert(0, block)
            lists.insert(block, size)
        if step % 20 == 0:
            check_lists(lists, model, n_bins)
    for block in list(where):
        model[where.pop(block)].remove(block)
        lists.remove(block)
    check_lists(lists, model, n_bins)
    assert lists.bitmaps() == (0, set())


def test_a_bin_in_the_last_word_is_found(probe):
    lists = probe.Lists(1 << 16, 1 << 43)
    n_bins = probe.n_bins(1 << 43)
    lists.insert(40008, 1 << 43)
    assert lists.find(0) == lists.find(n_bins - 1) == 40008
    assert lists.find(n_bins) == 0
    lists.remove(40008)
    assert lists.find(0) == 0


# TLSF over plain memory --------------------------------------------------------


def check_engine(engine, regions, live, probe):
    """B1 to B7 and F1, F2 by a walk of every region."""
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
        block: probe.mapping(found["size"])[0] for block, found in free.items()
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


def test_a_region_is_extended_leftwards(probe):
    for used in (False, True):
        engine = probe.Engine(1 << 16)
        seam = engine.first + 8192
        engine.add_region(seam, 1 << 16)
        live = {engine.alloc(64): (64, 16)} if used else {}
        engine.add_region_before(engine.first, seam)
        check_engine(engine, [(engine.first, 1 << 16)], live, probe)
        assert len(engine.listed()) == 1 + used


# The legacy engine over plain memory -------------------------------------------


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
