# SPDX-License-Identifier: BSD-3-Clause
"""A bit per 16 bytes: each is its own, and no other integer has one."""


def test_each_grain_has_its_bit(probe):
    grains = probe.Grains()
    for i in range(256):
        grains.set(16 * i)
        assert grains.words()[i // 64] == (1 << (i % 64 + 1)) - 1
        assert [grains.test(16 * k) for k in (i, i + 1)] == [True, False]
    assert not any(grains.test(i) for i in range(4096) if i % 16)
    for i in range(0, 256, 2):
        grains.clear(16 * i)
    assert [grains.test(16 * i) for i in range(256)] == [False, True] * 128


def test_what_lies_outside_has_none(probe):
    grains = probe.Grains()
    for i in range(256):
        grains.set(16 * i)
    for offset in (4096, 4112, 1 << 20, 2**63, 2**64 - 16):
        assert not grains.test(offset)
