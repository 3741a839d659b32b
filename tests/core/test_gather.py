# SPDX-License-Identifier: BSD-3-Clause
"""A large block out of what lies side by side, where no run of pages is long enough.

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
LOOKS = 4


class Row:
    """Six runs of eight pages side by side, all in use, in an arena that is full.

    Runs 1 and 2, and 3 and 4, become one when both are free; no others do.
    """

    def __init__(self, **options: Any) -> None:
        self.arena = arena = Arena.anonymous(256 * PAGE, page_size=PAGE, max_pools=4)
        self.pool = Pool(arena, grow_pages=RUN, **options)
        runs = []
        while arena.largest_free_order >= 3:
            runs.append(arena.page_alloc(3))
        while arena.largest_free_order >= 0:
            arena.page_alloc(arena.largest_free_order)
        runs.sort()
        for i, first in enumerate(runs):
            self.runs = runs[i : i + 6]
            if first // (RUN * PAGE) % 4 == 1 and (
                self.runs[-1] == first + 5 * RUN * PAGE
            ):
                return
        raise AssertionError("no such row")

    def free(self, *which: int) -> None:
        for i in which:
            self.arena.page_free(self.runs[i])

    def region(self, *which: int) -> None:
        """Make each of these runs an empty region of the pool."""
        for i in which:
            self.free(i)
            assert self.pool.reserve(RUN) == RUN
            assert self.state(i) == FRAME_REGION

    def state(self, i: int) -> int:
        return int(self.frame(i)["state"])

    def frame(self, i: int) -> Any:
        frames = self.arena.frames()
        return frames[frames["page"] == self.runs[i] // PAGE][0]

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


def taken(probe: Any, row: Row, n_bytes: int, align: int = 16) -> tuple[int, int, int]:
    """Payload, and how often the search looked to the right and to the left."""
    payload, counts = probe.counted_alloc(row.pool, n_bytes, align)
    if payload:
        assert row.pool.usable_size(payload) >= n_bytes
        row.pool.view(payload)[:] = b"\xa5" * row.pool.usable_size(payload)
    row.check()
    return payload, counts["stretch_right"], counts["stretch_left"]


def refused(probe: Any, row: Row, n_bytes: int, align: int = 16) -> None:
    """The request is in vain, and changes no byte."""
    before = row.everything()
    payload, counts = probe.counted_alloc(row.pool, n_bytes, align)
    assert payload == 0
    assert counts["stretch_right"] + counts["stretch_left"] <= LOOKS
    assert row.everything() == before


def test_first_to_the_right_then_to_the_left(probe, make):
    """Over a free region on either side of a free run."""
    row = make()
    row.region(0, 2)
    row.free(1)
    refused(probe, row, whole(3 * RUN) + 1)
    # Right: a region, and what is in use; left: a region.
    assert taken(probe, row, whole(3 * RUN)) == (row.start(0), 2, 1)
    assert [row.state(i) for i in range(3)] == [
        FRAME_REGION,
        FRAME_JOINED,
        FRAME_JOINED,
    ]
    stats = row.pool.stats()
    assert (stats.n_regions, stats.n_pages, stats.free_bytes) == (3, 3 * RUN, 0)
    assert row.arena.n_free_pages == 0


def test_the_right_side_alone_is_taken_where_it_suffices(probe, make):
    row = make()
    row.region(0, 2)
    row.free(1)
    assert taken(probe, row, whole(2 * RUN)) == (row.start(1), 1, 0)
    assert row.state(0) == FRAME_REGION
    assert row.pool.stats().free_bytes >= whole(RUN)


def test_free_runs_on_the_right(probe, make):
    """The longest run is the first of them."""
    row = make()
    row.free(1, 2, 3)
    assert row.arena.largest_free_order == 4
    assert taken(probe, row, whole(3 * RUN)) == (row.start(1), 1, 0)
    assert row.pool.stats().n_regions == 2


def test_a_region_and_a_free_run_on_the_left(probe, make):
    """Beyond a region that is wholly free, too."""
    row = make()
    row.region(2)
    row.free(1, 3, 4)
    assert taken(probe, row, whole(4 * RUN)) == (row.start(1), 1, 2)
    assert row.state(1) == FRAME_REGION
    assert row.state(2) == row.state(3) == FRAME_JOINED
    assert row.pool.stats().n_regions == 3


def test_what_is_behind_a_region_on_the_left_that_is_partly_used(probe, make):
    """Its free end is taken, and nothing beyond it."""
    row = make()
    row.region(1)
    block = row.pool.xmalloc(PAGE)
    tail = row.pool.stats().largest_free_bytes + 8
    assert block == row.start(1)
    row.free(0, 2)
    most = tail + RUN * PAGE - 8
    refused(probe, row, most + 1)
    payload, n_right, n_left = taken(probe, row, most)
    assert payload == block + row.pool.usable_size(block) + 8
    assert (n_right, n_left) == (1, 1)
    assert row.state(0) == FRAME_FREE
    assert row.arena.n_free_pages == RUN


def test_a_region_on_the_left_whose_last_block_is_in_use(probe, make):
    row = make()
    row.region(0)
    row.pool.xmalloc(whole(RUN))
    row.free(1)
    refused(probe, row, whole(RUN) + 1)


@pytest.mark.parametrize("n_free", [0, 2 * PAGE])
def test_a_region_on_the_right_whose_first_block_is_in_use(probe, make, n_free):
    """The words at the seam are won, and the free block in front of it."""
    row = make()
    row.region(2)
    hole = row.pool.xmalloc(n_free) if n_free else 0
    wall = row.pool.xmalloc(PAGE)
    if hole:
        assert hole == row.start(2)
        row.pool.xfree(hole)
    row.free(1, 3)
    assert row.arena.largest_free_order == 3
    most = wall - 16 - row.runs[1]
    # The end of the region is in use, so that the run behind it cannot have that.
    row.pool.xmalloc(row.pool.stats().largest_free_bytes)
    most -= 8
    refused(probe, row, most + 1)
    payload, _, _ = taken(probe, row, most)
    assert payload == row.start(1)
    assert row.state(1) == FRAME_REGION
    assert row.state(2) == FRAME_JOINED
    assert row.state(3) == FRAME_FREE
    row.pool.xfree(payload)
    row.pool.xfree(wall)
    row.check()


def test_the_limit_takes_the_first_pages_of_a_run(probe, make):
    row = make(max_pages=12)
    row.region(0)
    row.pool.xmalloc(2 * PAGE)
    tail = row.pool.stats().largest_free_bytes + 8
    row.free(1)
    most = tail + 4 * PAGE - 8
    refused(probe, row, most + 1)
    # No look to the right of pages that end within the run.
    assert taken(probe, row, most)[1:] == (0, 1)
    frame = row.frame(1)
    assert (int(frame["state"]), int(frame["n_pages"])) == (FRAME_JOINED, 4)
    stats = row.pool.stats()
    assert (stats.n_pages, stats.peak_pages, row.arena.n_free_pages) == (12, 12, 4)


def test_the_limit_leaves_a_free_neighbour_out(probe, make):
    """It is not cut: a run that is next to the first is taken as a whole."""
    row = make(max_pages=3 * RUN - 1)
    row.free(1, 2, 3)
    refused(probe, row, whole(3 * RUN - 1))
    assert taken(probe, row, whole(2 * RUN))[0] == row.start(1)


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


def pieces(row: Row, order: int) -> int:
    """Free adjacent runs of 2**(order - 1), ..., 4, 2 and 1 pages; where they start."""
    arena = row.arena
    arena.close()
    row.arena = arena = Arena.anonymous(256 * PAGE, page_size=PAGE, max_pools=4)
    row.pool = Pool(arena, grow_pages=1)
    start = arena.page_alloc(order)
    while arena.largest_free_order >= 0:
        arena.page_alloc(arena.largest_free_order)
    arena.page_free(start)
    assert arena.page_alloc(0) == start + PAGE * ((1 << order) - 1)
    return start


def test_the_search_looks_at_four_neighbours(probe, make):
    row = make()
    start = pieces(row, 5)
    assert taken(probe, row, whole(31)) == (start + 16, 4, 0)
    assert row.arena.n_free_pages == 0


def test_the_search_looks_at_no_fifth_neighbour(probe, make):
    row = make()
    start = pieces(row, 6)
    before = row.everything()
    assert taken(probe, row, whole(63)) == (0, 4, 0)
    assert taken(probe, row, whole(62) + 1) == (0, 4, 0)
    assert row.everything() == before
    assert taken(probe, row, whole(62)) == (start + 16, 4, 0)
    assert row.arena.n_free_pages == 1


def test_all_runs_together_get_four_looks(probe, make):
    """Not four each. That there is nothing more to look at counts as one, too."""
    row = make()
    row.free(0, 2, 4)
    assert taken(probe, row, whole(RUN) + 1) == (0, 2, 1)


def test_a_pool_that_does_not_join_gathers_nothing(probe, make):
    row = make(join_regions=False)
    row.free(0, 1)
    assert taken(probe, row, whole(2 * RUN)) == (0, 0, 0)


def test_another_pool_s_region_is_no_neighbour(probe, make):
    row = make()
    row.free(5)
    other = Pool(row.arena, grow_pages=RUN)
    row.free(2)
    assert other.reserve(RUN) == RUN
    row.free(3)
    refused(probe, row, whole(RUN) + 1)
    other.check()
    assert row.pool.stats().n_regions == 0


def test_the_least_block_of_a_region_is_known_after_gathering(probe, make):
    """A region that came of a short run leaves when it is empty."""
    row = make()
    row.free(0, 1)
    payload, _, _ = taken(probe, row, whole(2 * RUN))
    row.pool.xfree(payload)
    row.check()
    assert probe.control_word(row.pool, fmt.RELEASE_BYTES) == RUN * PAGE - 16
    row.pool.shrink()
    assert row.pool.stats().n_pages == 0
    assert row.arena.n_free_pages == 2 * RUN
    row.check()
