# SPDX-License-Identifier: BSD-3-Clause
"""The control block of a new pool: its size, and what it says."""

import pytest

import xmem

TLSF, FIRSTFIT = 1, 2


@pytest.mark.parametrize("n_bytes", [1 << 20, 1 << 24])
def test_bins_and_quick_lists_follow_the_block(probe, n_bytes):
    bytes_of_pool, place, bytes_of_lists = probe.control_parts()
    assert place == 704
    assert place - 64 < bytes_of_pool <= place
    assert bytes_of_lists == 32 + 8 * 256
    with xmem.Arena.anonymous(n_bytes, page_size=4096) as arena:
        plain, with_lists = probe.control_sizes(arena, TLSF)
        assert plain == place + 8 * probe.n_bins(arena.n_bytes)
        assert with_lists == plain + bytes_of_lists
        # The legacy engine has neither.
        assert probe.control_sizes(arena, FIRSTFIT) == (bytes_of_pool,) * 2


@pytest.mark.parametrize(
    ("settings", "takes_short_path"),
    [
        ({}, True),
        ({"hardened": True}, False),
        ({"quick": True}, False),
        ({"engine": "firstfit"}, False),
    ],
)
def test_what_a_new_block_says(probe, small_arena, settings, takes_short_path):
    pool = xmem.Pool(small_arena, max_pages=50, **settings)
    assert probe.control_word(pool, 0) & 0xFFFFFFFF == 0x4C4F4F50
    assert probe.control_word(pool, 0) >> 32 == pool.id
    assert probe.control_word(pool, 16) == small_arena.n_bytes - 4096
    assert probe.control_word(pool, 56) == 50
    assert probe.control_word(pool, 64) == 0
    short_limit = 1001 if takes_short_path else 0
    assert probe.control_word(pool, 112) == short_limit
    assert (probe.control_word(pool, 120) != 0) == ("quick" in settings)
    assert probe.control_word(pool, 128) == (4089 if "quick" in settings else 0)
