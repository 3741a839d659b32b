# SPDX-License-Identifier: BSD-3-Clause
"""Free lists and their bitmaps, compared with lists in Python.

Built with all requirements on: a broken one aborts the run.
"""

import random
from collections import defaultdict


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
