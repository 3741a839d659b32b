# SPDX-License-Identifier: BSD-3-Clause
"""Sizes of blocks: for a payload, after a split, and the page rule.

Built with all requirements on: a broken one aborts the run.
"""

from support.models import round_up


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
