# SPDX-License-Identifier: BSD-3-Clause
"""Runs that become shorter, and pages out of free runs: every length, to 64."""

import pytest
from support.models import FrameModel

import xmem
from xmem import Arena, Pool
from xmem.arena import FRAME_FREE

PAGE = 4096
ORDER = 6
MOST = 1 << ORDER


class Place:
    """64 aligned pages that are free, between 64 on either side that are in use."""

    def __init__(self) -> None:
        self.arena = arena = Arena.anonymous(4 * MOST * PAGE, page_size=PAGE)
        self.pool = Pool(arena)
        runs = sorted(arena.page_alloc(ORDER) for _ in range(3))
        assert runs[2] - runs[1] == runs[1] - runs[0] == MOST * PAGE
        self.left, self.start, self.right = runs
        self.fill()
        arena.page_free(self.start)

    def fill(self) -> None:
        """Let no page be free."""
        while self.arena.largest_free_order >= 0:
            self.arena.page_alloc(self.arena.largest_free_order)

    def order(self, page: int) -> int:
        """Order that is recorded of the run at ``page``."""
        frames = self.arena.frames()
        return int(frames["order"][frames["page"] == page][0])

    def model(self) -> FrameModel:
        """What the frame table says now."""
        model = FrameModel(self.arena.first_page, self.arena.n_pages)
        for frame in self.arena.frames():
            if frame["state"] != FRAME_FREE:
                model.live[int(frame["page"])] = int(frame["n_pages"])
        model.compare(self.arena)
        return model


@pytest.mark.parametrize("around", ["as it is", "free", "in use"])
def test_a_run_shrinks_to_any_length(around: str) -> None:
    """``around``: what is next to it, within its power of two and outside."""
    for n_pages in range(1, MOST + 1):
        for n_kept in range(n_pages):
            place = Place()
            pool = place.pool
            run = pool.xmalloc(n_pages * PAGE, PAGE)
            page = run // PAGE
            assert run == place.start
            if around == "free":
                place.arena.page_free(place.left)
                place.arena.page_free(place.right)
            elif around == "in use":
                place.fill()
            model = place.model()
            assert model.live[page] == n_pages
            pool.view(run)[:8] = b"contents"
            if n_kept:
                assert pool.xrealloc(run, n_kept * PAGE) == run
                model.live[page] = n_kept
                assert bytes(pool.view(run)[:8]) == b"contents"
            else:
                pool.xfree(run)
                model.freed(page)
            model.compare(place.arena)
            assert pool.total_size == n_kept * PAGE
            if n_kept:
                assert place.order(page) == (n_kept - 1).bit_length()
            place.arena.close()


def test_pages_are_taken_from_anywhere_in_a_free_run(probe) -> None:
    for first in range(MOST):
        for n_pages in range(1, MOST - first + 1):
            place = Place()
            model = place.model()
            taken = place.start + first * PAGE
            probe.page_take(place.arena, place.start, taken, n_pages)
            model.allocated(taken // PAGE, n_pages)
            model.compare(place.arena)
            place.arena.page_free(taken)
            model.freed(taken // PAGE)
            model.compare(place.arena)
            with pytest.raises(xmem.InvalidFree):
                place.arena.page_free(taken)
            place.arena.close()
