# SPDX-License-Identifier: BSD-3-Clause
"""Where the next region of a pool that joins regions goes.

The arena is full but for the runs of a row: what is next to what is known.
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import support.damage as fmt

from xmem import Arena, Pool
from xmem.arena import FRAME_FREE, FRAME_JOINED, FRAME_REGION

PAGE = 4096
RUN = 8  # pages of each run of the row
LOOKS = 2


class Row:
    """Twelve runs of eight pages side by side, in an arena that is full."""

    def __init__(self, **options: Any) -> None:
        self.arena = arena = Arena.anonymous(256 * PAGE, page_size=PAGE, max_pools=4)
        self.pool = Pool(arena, **{"grow_pages": RUN, **options})
        self.runs = [arena.page_alloc_exact(RUN) for _ in range(12)]
        assert self.runs == [self.runs[0] + i * RUN * PAGE for i in range(12)]
        self.wall = arena.page_alloc_exact(1)
        arena.page_alloc_exact(arena.n_free_pages)

    def free(self, *which: int) -> None:
        for i in which:
            self.arena.page_free(self.runs[i])

    def region(self, *which: int) -> None:
        """Make each of these runs an empty region of the pool."""
        for i in which:
            self.free(i)
            assert self.pool.reserve(RUN) == RUN
            assert self.state(i) in (FRAME_REGION, FRAME_JOINED)

    def state(self, i: int) -> int:
        return self.record(self.runs[i] // PAGE)[0]

    def record(self, page: int) -> tuple[int, int]:
        """State and pages of the run that starts there."""
        frames = self.arena.frames()
        frame = frames[frames["page"] == page][0]
        return int(frame["state"]), int(frame["n_pages"])

    def start(self, i: int) -> int:
        """Where the payload of a block that begins run ``i`` starts."""
        return self.runs[i] + 16

    def check(self) -> None:
        self.arena.check()
        self.pool.check()

    def everything(self) -> tuple[object, ...]:
        self.check()
        return (
            self.pool.stats(),
            self.arena.n_free_pages,
            ctypes.string_at(self.arena.address(0), self.arena.n_bytes),
        )


@pytest.fixture
def make() -> Iterator[Callable[..., Row]]:
    rows = []

    def made(**options: Any) -> Row:
        rows.append(Row(**options))
        return rows[-1]

    yield made
    for row in rows:
        row.arena.close()


def whole(n_pages: int) -> int:
    """Most bytes of a block in a region of so many pages."""
    return n_pages * PAGE - 24


def taken(probe: Any, row: Row, n_bytes: int, align: int = 16) -> tuple[int, int]:
    """Payload, and how many stretches were looked at."""
    payload, counts = probe.counted_alloc(row.pool, n_bytes, align)
    if payload:
        assert row.pool.usable_size(payload) >= n_bytes
        row.pool.view(payload)[:] = b"\xa5" * row.pool.usable_size(payload)
    row.check()
    return payload, counts["place_in"]


def refused(probe: Any, row: Row, n_bytes: int, align: int = 16) -> None:
    """The request is in vain, and changes no byte."""
    before = row.everything()
    payload, counts = probe.counted_alloc(row.pool, n_bytes, align)
    assert payload == 0
    assert counts["place_in"] <= LOOKS
    assert row.everything() == before


@pytest.mark.parametrize("n_pages", [1, 2, RUN, RUN + 1, 3 * RUN])
def test_the_lowest_stretch_that_is_long_enough_is_taken(probe, make, n_pages):
    """From its first page on: ``grow_pages``, or what the block needs."""
    row = make()
    row.free(0, 2, 3, 5, 6, 7, 9, 10, 11)
    first = 0 if n_pages <= RUN else 2 if n_pages <= 2 * RUN else 5
    assert taken(probe, row, whole(n_pages))[0] == row.start(first)
    assert row.record(row.runs[first] // PAGE) == (FRAME_REGION, max(RUN, n_pages))


@pytest.mark.parametrize("n_pages", [1, 5, 8, 9, 15])
def test_a_stretch_serves_what_it_holds_alone_to_the_page(probe, make, n_pages):
    """Wherever it starts, and where less is left than ``grow_pages``."""
    for first in range(5):
        row = make()
        row.free(0, 1)
        start = row.runs[0] // PAGE
        before = row.arena.page_alloc_exact(first + 1)
        between = row.arena.page_alloc_exact(n_pages) if n_pages + first < 15 else 0
        rest = row.arena.n_free_pages
        if rest:
            row.arena.page_alloc_exact(rest)
        if not between:
            continue
        row.arena.page_free(between)
        refused(probe, row, whole(n_pages) + 1)
        payload, _ = taken(probe, row, whole(n_pages))
        assert payload == (start + first + 1) * PAGE + 16
        assert row.arena.n_free_pages == 0
        row.arena.page_free(before)


def test_the_region_on_the_left_is_extended(probe, make):
    """Its free end counts, to the byte, and no page more than is needed is taken."""
    row = make(grow_pages=1)
    row.region(1)
    block = row.pool.xmalloc(PAGE)
    tail = row.pool.stats().largest_free_bytes + 8
    row.free(2)
    refused(probe, row, tail + RUN * PAGE - 8 + 1)
    payload, looks = taken(probe, row, tail + 3 * PAGE - 8)
    assert looks == 1
    assert payload == block + row.pool.usable_size(block) + 8
    # What is shorter than the regions become with it is another region.
    assert row.record(row.runs[2] // PAGE) == (FRAME_JOINED, 3)
    assert row.arena.n_free_pages == RUN - 3
    row.pool.xfree(payload)
    assert taken(probe, row, tail + RUN * PAGE - 8)[0] == payload
    assert row.arena.n_free_pages == 0


def test_a_short_extension_makes_the_region_longer(probe, make):
    """So that no region is shorter than ``grow_pages`` if it can be joined."""
    row = make()
    row.region(1)
    row.pool.xmalloc(2 * PAGE)
    tail = row.pool.stats().largest_free_bytes + 8
    row.free(2)
    row.arena.page_alloc_exact(5)
    hole = row.arena.frames()
    hole = hole[hole["state"] == FRAME_FREE][0]
    assert (hole["n_pages"], hole["page"]) == (3, row.runs[2] // PAGE + 5)
    row.arena.page_free(row.runs[2])
    row.arena.page_alloc_exact(3)
    row.arena.page_free(row.runs[2])
    assert row.arena.page_alloc(0) == row.runs[2]
    row.arena.page_free(row.runs[2])
    held = row.arena.page_alloc_exact(RUN)
    row.arena.page_free(held)
    # Three pages are free next to the region, the others are not.
    run = row.arena.page_alloc_exact(RUN)
    assert run == row.runs[2]
    row.arena.page_free(run)
    low = row.arena.page_alloc_exact(3)
    row.arena.page_alloc_exact(RUN - 3)
    row.arena.page_free(low)
    assert taken(probe, row, tail + 2 * PAGE - 8)[0]
    assert row.record(row.runs[1] // PAGE) == (FRAME_REGION, RUN + 3)
    stats = row.pool.stats()
    assert (stats.n_regions, stats.n_pages) == (1, RUN + 3)


def test_the_region_on_the_right_is_extended_where_the_left_cannot(probe, make):
    """From the end of the stretch, over the free block with which it begins."""
    row = make(grow_pages=1)
    row.region(2)
    hole = row.pool.xmalloc(2 * PAGE)
    wall = row.pool.xmalloc(PAGE)
    row.pool.xmalloc(row.pool.stats().largest_free_bytes)
    row.pool.xfree(hole)
    assert hole == row.start(2)
    row.free(1)
    most = wall - 16 - row.runs[1] - 8
    refused(probe, row, most + 1)
    payload, looks = taken(probe, row, most - 5 * PAGE)
    assert looks == 1
    assert payload == row.start(1) + 5 * PAGE
    assert row.record(row.runs[1] // PAGE + 5) == (FRAME_REGION, 3)
    assert row.state(2) == FRAME_JOINED
    row.pool.xfree(payload)
    assert taken(probe, row, most)[0] == row.start(1)
    assert row.arena.n_free_pages == 0


def test_the_words_of_a_seam_are_won_where_the_right_begins_in_use(probe, make):
    row = make()
    row.region(2)
    row.pool.xmalloc(whole(RUN))
    row.free(1)
    refused(probe, row, RUN * PAGE - 8 + 1)
    payload, _ = taken(probe, row, RUN * PAGE - 8)
    assert payload == row.start(1)
    assert (row.state(1), row.state(2)) == (FRAME_REGION, FRAME_JOINED)
    row.pool.xfree(payload)
    row.check()


def test_both_neighbours_are_counted_where_all_of_the_stretch_is_taken(probe, make):
    row = make()
    row.region(0, 2)
    row.free(1)
    assert taken(probe, row, whole(3 * RUN))[0] == row.start(0)
    states = [row.state(i) for i in range(3)]
    assert states == [FRAME_REGION, FRAME_JOINED, FRAME_JOINED]
    stats = row.pool.stats()
    assert (stats.n_regions, stats.n_pages, stats.free_bytes) == (3, 3 * RUN, 0)
    assert row.arena.n_free_pages == 0


def test_the_left_alone_is_taken_where_it_suffices(probe, make):
    row = make()
    row.region(0, 2)
    row.free(1)
    assert taken(probe, row, whole(RUN + 1))[0] in (row.start(0), row.start(2))
    assert row.pool.stats().n_regions == 3


def test_a_region_on_the_left_whose_last_block_is_in_use_is_no_neighbour(probe, make):
    row = make()
    row.region(0)
    row.pool.xmalloc(whole(RUN))
    row.free(1)
    refused(probe, row, whole(RUN) + 1)
    assert taken(probe, row, whole(RUN))[0] == row.start(1)
    assert row.state(1) == FRAME_REGION


@pytest.mark.parametrize("max_pages", [9, 12, 15])
def test_the_limit_holds_to_the_page(probe, make, max_pages):
    row = make(max_pages=max_pages)
    row.region(0)
    row.pool.xmalloc(2 * PAGE)
    tail = row.pool.stats().largest_free_bytes + 8
    row.free(1)
    n_pages = max_pages - RUN
    most = tail + n_pages * PAGE - 8
    refused(probe, row, most + 1)
    assert taken(probe, row, most)[0]
    stats = row.pool.stats()
    assert (stats.n_pages, stats.peak_pages) == (max_pages, max_pages)
    assert row.arena.n_free_pages == RUN - n_pages
    refused(probe, row, PAGE)


@pytest.mark.parametrize("align", [32, 64, 512, 2048])
def test_an_aligned_block_takes_its_gap_into_account(probe, make, align):
    row = make()
    row.free(0, 1)
    start = row.start(0)
    aligned = -(-start // align) * align
    if 0 < aligned - start < 32:
        aligned += align
    most = row.runs[0] + whole(2 * RUN) + 16 - aligned
    refused(probe, row, most + 1, align)
    assert taken(probe, row, most, align)[0] == aligned
    assert row.arena.n_free_pages == 0


@pytest.mark.parametrize("is_longest", [True, False])
def test_where_none_is_long_enough_alone_the_longest_is_looked_at(
    probe, make, is_longest
):
    """With the free ends of the regions next to it; no other is."""
    row = make()
    row.region(3)
    if not is_longest:
        row.free(6, 7)
        row.arena.page_alloc_exact(RUN - 1)
    row.free(4)
    assert row.arena.longest_free_run == (RUN if is_longest else RUN + 1)
    payload, looks = taken(probe, row, whole(2 * RUN))
    assert (payload, looks) == (row.start(3) if is_longest else 0, 1)


def test_stretches_that_are_long_enough_alone_come_first(probe, make):
    """Wherever the help is."""
    row = make()
    row.region(0)
    row.free(1, 4, 5)
    assert taken(probe, row, whole(2 * RUN)) == (row.start(4), 1)


def test_a_pool_that_does_not_join_takes_what_is_long_enough_alone(probe, make):
    row = make(join_regions=False)
    row.region(0)
    row.free(1, 2)
    assert taken(probe, row, whole(2 * RUN)) == (row.start(1), 0)
    row = make(join_regions=False)
    row.region(0)
    row.free(1, 2)
    assert taken(probe, row, whole(2 * RUN) + 1) == (0, 0)


def test_another_pool_s_region_is_no_neighbour(probe, make):
    row = make()
    other = Pool(row.arena, grow_pages=RUN) if row.arena.n_free_pages else None
    assert other is None
    row.free(0)
    other = Pool(row.arena, grow_pages=RUN)
    assert other.reserve(RUN - 1 - other.stats().control_pages + 1) > 0
    row.free(1)
    refused(probe, row, whole(RUN) + 1)
    other.check()
    assert row.pool.stats().n_regions == 0


def test_the_least_block_of_a_region_is_known(probe, make):
    """A region that came of a short stretch leaves when it is empty."""
    row = make()
    row.free(0, 1)
    payload, _ = taken(probe, row, whole(2 * RUN))
    row.pool.xfree(payload)
    row.check()
    assert probe.control_word(row.pool, fmt.RELEASE_BYTES) == 2 * RUN * PAGE - 16
    row.pool.shrink()
    assert row.pool.stats().n_pages == 0
    assert row.arena.n_free_pages == 2 * RUN
    row.check()
