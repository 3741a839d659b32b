# SPDX-License-Identifier: BSD-3-Clause
"""Arithmetic on words, compared with Python's.

Built with all requirements on: a broken one aborts the run.
"""

import random

from support.models import ceil_log2, round_up


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
