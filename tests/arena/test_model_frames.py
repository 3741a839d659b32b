# SPDX-License-Identifier: BSD-3-Clause
"""The page frames against a model, by random programs of hypothesis."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.models import FrameModel, examples, make_arena

import xmem


class FrameMachine(RuleBasedStateMachine):
    """Runs come and go; the frame table is what the live ones say."""

    @initialize(n_pages=st.integers(8, 140), page_log2=st.sampled_from([12, 13, 16]))
    def make(self, n_pages, page_log2):
        self.page_size = 1 << page_log2
        self.arena = make_arena(n_pages, self.page_size)
        self.model = FrameModel(self.arena.first_page, self.arena.n_pages)
        self.serial = 0

    def _take(self, n_pages, order, verb, argument):
        place = self.model.place(n_pages, order)
        if place is None:
            with pytest.raises(xmem.OutOfMemory):
                verb(argument)
            return
        offset = verb(argument)
        page = offset // self.page_size
        if order:
            assert page % (1 << order) == 0
        else:
            assert page == place
        self.model.allocated(page, n_pages)
        assert self.arena.run_pages(offset) == n_pages
        # The page's own number, first and last word: no other run has it.
        self._mark(page, n_pages)

    def _mark(self, page, n_pages):
        with self.arena.view(page * self.page_size) as view:
            assert len(view) == n_pages * self.page_size
            view[:8] = view[-8:] = page.to_bytes(8, "little")

    def _pick(self, which):
        pages = sorted(self.model.live)
        return pages[which % len(pages)]

    @rule(order=st.integers(0, 8))
    def page_alloc(self, order):
        self._take(1 << order, order, self.arena.page_alloc, order)

    @rule(n_pages=st.integers(1, 150))
    def page_alloc_exact(self, n_pages):
        self._take(n_pages, 0, self.arena.page_alloc_exact, n_pages)

    @precondition(lambda self: self.model.live)
    @rule(which=st.integers(0, 1 << 16))
    def page_free(self, which):
        page = self._pick(which)
        self.arena.page_free(page * self.page_size)
        self.model.freed(page)

    @precondition(lambda self: self.model.live)
    @rule(which=st.integers(0, 1 << 16))
    def same_again(self, which):
        page = self._pick(which)
        n_pages = self.model.live[page]
        self.arena.page_free(page * self.page_size)
        self.model.freed(page)
        offset = self.arena.page_alloc_exact(n_pages)
        self.model.allocated(offset // self.page_size, n_pages)
        self._mark(offset // self.page_size, n_pages)

    @rule(distance=st.integers(-3, 1 << 20))
    def free_what_is_no_run(self, distance):
        offset = distance * 1024
        page = offset // self.page_size
        if offset % self.page_size == 0 and page in self.model.live:
            return
        with pytest.raises(xmem.InvalidFree):
            self.arena.page_free(offset)

    @rule()
    def trim(self):
        assert self.arena.trim() == self.arena.n_free_pages * self.page_size

    @invariant()
    def agrees(self):
        self.model.compare(self.arena)
        for page in self.model.live:
            view = self.arena.view(page * self.page_size)
            assert view[:8] == view[-8:] == page.to_bytes(8, "little")

    def teardown(self):
        if not hasattr(self, "model"):
            return
        for page in list(self.model.live):
            self.arena.page_free(page * self.page_size)
            self.model.freed(page)
        self.model.compare(self.arena)
        self.arena.close()


TestFrames = FrameMachine.TestCase
TestFrames.settings = settings(max_examples=examples(300), stateful_step_count=40)
