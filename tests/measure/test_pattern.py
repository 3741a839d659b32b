# SPDX-License-Identifier: BSD-3-Clause
"""The pattern of live blocks: every other byte, and every other object, is noticed."""

import pytest


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 8, 9, 63, 100])
def test_each_changed_byte_is_noticed(probe, n_bytes):
    held = probe.pattern(n_bytes, 5)
    assert len(held) == n_bytes
    assert probe.holds_pattern(held, 5)
    for i in range(n_bytes):
        held[i] ^= 1
        assert not probe.holds_pattern(held, 5)
        held[i] ^= 1
    assert probe.holds_pattern(held, 5)


def test_no_two_objects_share_a_word(probe):
    words = [
        bytes(probe.pattern(800, name)[i : i + 8])
        for name in range(200)
        for i in range(0, 800, 8)
    ]
    assert len(set(words)) == len(words)


def test_bytes_of_nearby_words_differ(probe):
    """A single byte copied from another place of the block is noticed, too."""
    held = probe.pattern(8 * 256, 5)
    assert len(set(held[::8])) == 256


def test_a_longer_block_begins_alike(probe):
    longer = probe.pattern(1000, 7)
    assert all(probe.pattern(n, 7) == longer[:n] for n in range(1000))


def test_zero_is_zero_to_the_last_byte(probe):
    held = bytearray(100)
    assert probe.is_zero(held)
    assert probe.is_zero(bytearray())
    for i in range(100):
        held[i] = 0x80
        assert not probe.is_zero(held)
        held[i] = 0
