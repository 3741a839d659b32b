# SPDX-License-Identifier: BSD-3-Clause
"""Integers from Python as words: what is taken, and the error of what is not."""

import numpy as np
import pytest

from xmem.base.errors import BadArgument, BadArgumentType, NotABlock

WORD = 2**64


class Index:
    """An integer by its method alone."""

    def __index__(self):
        return 64


@pytest.mark.parametrize("kind", ["size", "offset", "align"])
def test_words_are_taken_as_they_are(probe, kind):
    values = [1 << i for i in range(64)]
    if kind != "align":
        values += [0, 3, WORD - 2, WORD - 1]
    for value in values:
        assert probe.argument(kind, value) == value
    for value in (np.uint8(64), np.int64(64), Index()):
        assert probe.argument(kind, value) == 64


def test_a_size_above_every_word_is_the_greatest_word(probe):
    assert probe.argument("size", WORD) == WORD - 1
    assert probe.argument("size", 1 << 500) == WORD - 1


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        ("size", -1, BadArgument),
        ("size", -WORD, BadArgument),
        ("offset", -1, NotABlock),
        ("offset", WORD, NotABlock),
        ("align", 0, BadArgument),
        ("align", 48, BadArgument),
        ("align", -16, BadArgument),
        ("align", WORD, BadArgument),
        ("align", WORD - 1, BadArgument),
    ],
)
def test_values_that_cannot_be_meant(probe, kind, value, error):
    with pytest.raises(error, match=str(value)):
        probe.argument(kind, value)


@pytest.mark.parametrize("value", [None, "5", 5.0, b"5", [5], np.float64(5)])
@pytest.mark.parametrize("kind", ["size", "offset", "align", "switch"])
def test_what_is_no_integer(probe, kind, value):
    with pytest.raises(BadArgumentType, match=f"not {type(value).__name__}"):
        probe.argument(kind, value)


def test_a_switch_is_true_or_false(probe):
    for value in (True, False, np.True_, np.False_):
        assert probe.argument("switch", value) == bool(value)
    for value in (0, 1):
        with pytest.raises(BadArgumentType):
            probe.argument("switch", value)


def test_a_count_has_its_least_value(probe):
    assert probe.count(5, 5) == 5
    with pytest.raises(BadArgument, match="number must be at least 5, not 4"):
        probe.count(4, 5)
    with pytest.raises(BadArgument, match="not -1"):
        probe.count(-1, 0)
    with pytest.raises(BadArgumentType, match="number must be an integer, not str"):
        probe.count("5", 0)


@pytest.mark.parametrize("are_offsets", [False, True])
def test_many_words_are_a_copy(probe, are_offsets):
    for values in ([0, 1, 2], (0, 1, 2), range(3), np.arange(3, dtype=np.int8)):
        found = probe.words(values, are_offsets)
        assert found.dtype == np.uint64
        assert found.tolist() == [0, 1, 2]
    given = np.arange(3, dtype=np.uint64)
    found = probe.words(given, are_offsets)
    given[0] = 9
    assert found.tolist() == [0, 1, 2]


def test_many_words_that_cannot_be(probe):
    for values in ([-1], np.array([-1])):
        with pytest.raises(BadArgument):
            probe.words(values, False)
        with pytest.raises(NotABlock):
            probe.words(values, True)
    with pytest.raises(BadArgument, match="one dimension, not 2"):
        probe.words(np.zeros((1, 1), dtype=int), True)
    for values in (5, ["5"], np.array([5.0]), np.array([True])):
        with pytest.raises(BadArgumentType):
            probe.words(values, True)
