# SPDX-License-Identifier: BSD-3-Clause
"""Each engine against a model of a pool, by random programs of hypothesis.

After every step the checkers of arena and pool pass, no two blocks overlap,
every block is aligned and holds what was written to it, the figures agree with
the model and no limit is exceeded. A request is refused only when the model
says that it may be, and what was just freed can be had again.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from support.models import FrameModel, PoolModel, examples, make_arena, snapshot

import xmem

WHICH = st.integers(0, 1 << 16)
# Small ones, and pages with a little more or less.
SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(0, 3000),
    st.builds(
        lambda pages, more: max(0, pages * 4096 + more),
        st.integers(1, 20),
        st.integers(-100, 40),
    ),
)
ALIGNS = st.one_of(st.just(16), st.sampled_from([1 << k for k in range(15)]))


class PoolMachine(RuleBasedStateMachine):
    """Blocks come, go and change; ``engine`` and ``joins`` by subclass."""

    engine = "tlsf"
    joins = True

    @initialize(
        page_log2=st.sampled_from([12, 12, 13, 16]),
        n_pages=st.integers(12, 90),
        grow_pages=st.integers(1, 20),
        max_pages=st.one_of(st.none(), st.integers(1, 40)),
    )
    def make(self, page_log2, n_pages, grow_pages, max_pages):
        self.arena = make_arena(n_pages, 1 << page_log2)
        self.pool = xmem.Pool(
            self.arena,
            engine=self.engine,
            grow_pages=min(grow_pages, n_pages),
            max_pages=max_pages,
            join_regions=self.joins,
        )
        self.unused = self.arena.frames().tobytes()
        self.model = PoolModel(self.pool)
        self.runs = []
        self.model.compare()

    def _pick(self, which):
        return self.model.starts[which % len(self.model.starts)]

    def _held(self):
        return self.pool.total_size

    def _alloc(self, verb, n_bytes, align):
        """Allocate, or see it rightly refused."""
        held, frames = self._held(), self.arena.frames().tobytes()
        try:
            offset = verb(n_bytes, align)
        except xmem.OutOfMemory:
            assert not self.model.must_serve(n_bytes, align), "refused for no reason"
            # Empty regions in hand may have been given back in vain.
            assert self._held() <= held
            self.model.compare()
            return
        if align <= 16 and not self.model.could_serve(n_bytes):
            assert self.arena.frames().tobytes() != frames, "served without room"
        self.model.allocated(offset, n_bytes, align, zeroed=verb == self.pool.xzalloc)

    # Rules

    @rule(n_bytes=SIZES, align=ALIGNS)
    def xmalloc(self, n_bytes, align):
        self._alloc(self.pool.xmalloc, n_bytes, align)
        self.model.compare()

    @rule(n_bytes=SIZES, align=ALIGNS)
    def xzalloc(self, n_bytes, align):
        self._alloc(self.pool.xzalloc, n_bytes, align)
        self.model.compare()

    @rule(n_bytes=SIZES, count=st.integers(2, 12))
    def several(self, n_bytes, count):
        for _ in range(count):
            self._alloc(self.pool.xmalloc, n_bytes, 16)
            self.model.rows = self.pool.walk()
        self.model.compare()

    @precondition(lambda self: self.model.live)
    @rule(which=WHICH)
    def xfree(self, which):
        offset = self._pick(which)
        self.pool.xfree(offset)
        self.model.freed(offset)
        self.model.compare()
        before = snapshot(self.pool)
        with pytest.raises((xmem.DoubleFree, xmem.NotABlock)):
            self.pool.xfree(offset)
        assert snapshot(self.pool) == before

    @precondition(lambda self: self.model.live)
    @rule(which=WHICH)
    def free_and_have_again(self, which):
        offset = self._pick(which)
        block = self.model.live[offset]
        self.pool.xfree(offset)
        self.model.freed(offset)
        self.model.compare()
        if block.align <= 16:
            self.model.allocated(self.pool.xmalloc(block.n_bytes), block.n_bytes)
        else:
            self._alloc(self.pool.xmalloc, block.n_bytes, block.align)
        self.model.compare()

    @precondition(lambda self: self.model.live)
    @rule(which=WHICH, n_bytes=SIZES, align=ALIGNS)
    def xrealloc(self, which, n_bytes, align):
        offset = self._pick(which)
        block = self.model.live[offset]
        usable = self.pool.usable_size(offset)
        try:
            moved = self.pool.xrealloc(offset, n_bytes, align)
        except xmem.OutOfMemory:
            greatest = max(align, block.align)
            assert n_bytes > usable or align > block.align, "a shrink was refused"
            assert not self.model.must_serve(n_bytes, greatest)
            assert self.pool.usable_size(offset) == usable
            self.model.compare()
            return
        self.model.resized(offset, moved, n_bytes, align)
        self.model.compare()

    @precondition(lambda self: self.model.live)
    @rule(first=WHICH, count=st.integers(2, 12), step=st.integers(1, 3))
    def free_several(self, first, count, step):
        for offset in self.model.starts[first % len(self.model.starts) :: step][:count]:
            self.pool.xfree(offset)
            self.model.freed(offset)
            self.pool.check()
        self.model.compare()

    @precondition(lambda self: self.model.live)
    @rule(which=WHICH)
    def pinned(self, which):
        offset = self._pick(which)
        before = snapshot(self.pool)
        with self.pool.view(offset):
            for refused in (
                lambda: self.pool.xfree(offset),
                lambda: self.pool.xrealloc(offset, 1),
                self.arena.close,
            ):
                with pytest.raises(BufferError):
                    refused()
            self.model.compare()
        assert snapshot(self.pool) == before

    @rule(order=st.integers(0, 4))
    def take_pages_away(self, order):
        free = self.arena.largest_free_order
        if order <= free:
            self.runs.append(self.arena.page_alloc(order))
        else:
            with pytest.raises(xmem.OutOfMemory):
                self.arena.page_alloc(order)
        self.model.compare()

    @precondition(lambda self: self.runs)
    @rule(which=WHICH)
    def give_pages_back(self, which):
        self.arena.page_free(self.runs.pop(which % len(self.runs)))
        self.model.compare()

    @rule()
    def shrink(self):
        held = self._held()
        given = self.pool.shrink()
        assert held - self._held() == given * self.arena.page_size
        self.model.reserved = False
        self.model.compare()
        assert self.model.regions_inside_holes() == []
        assert self.pool.shrink() == 0

    @rule(n_pages=st.integers(0, 30))
    def reserve(self, n_pages):
        if self.engine != "tlsf":
            with pytest.raises(xmem.BadArgument):
                self.pool.reserve(n_pages)
            return
        held = self._held() // self.arena.page_size
        room = self.arena.n_free_pages
        if self.pool.max_pages:
            room = min(room, self.pool.max_pages - held)
        got = self.pool.reserve(n_pages)
        assert got == min(n_pages, room)
        assert self._held() // self.arena.page_size == held + got
        self.model.reserved = True
        self.model.compare()

    def teardown(self):
        if not hasattr(self, "model"):
            return
        for offset in list(self.model.starts):
            self.pool.xfree(offset)
            self.model.freed(offset)
        self.model.compare()
        self.pool.shrink()
        assert self._held() == 0
        for run in self.runs:
            self.arena.page_free(run)
        self.model.compare()
        # The free lists may be in another order; the runs are the same.
        assert self.arena.frames().tobytes() == self.unused
        self.pool.destroy()
        fresh = FrameModel(self.arena.first_page, self.arena.n_pages)
        fresh.compare(self.arena)
        self.arena.close()


class SplitMachine(PoolMachine):
    """Regions that lie side by side stay apart."""

    joins = False


class LegacyMachine(PoolMachine):
    """The first-fit engine."""

    engine = "firstfit"


SETTINGS = settings(max_examples=examples(150), stateful_step_count=50)
TestJoined = PoolMachine.TestCase
TestJoined.settings = SETTINGS
TestSplit = SplitMachine.TestCase
TestSplit.settings = SETTINGS
TestLegacy = LegacyMachine.TestCase
TestLegacy.settings = SETTINGS
