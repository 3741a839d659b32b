# SPDX-License-Identifier: BSD-3-Clause
"""From a size to a bin: insertion rounds down, the search rounds up.

Built with all requirements on: a broken one aborts the run.
"""

MAX_LOG2 = 44


def around_powers(least, most):
    """Multiples of 16 at and next to every power of two in a range."""
    found = set()
    for log2 in range(least, most + 1):
        for bins in range(32):
            edge = (1 << log2) + (bins << log2 >> 5)
            found.update({edge - 16, edge, edge + 16})
    return sorted(size & ~15 for size in found if 32 <= size <= 1 << most)


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
