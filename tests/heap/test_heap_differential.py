# SPDX-License-Identifier: BSD-3-Clause
"""One random program, run under every interface that admits its calls.

A program is a list of calls with sizes: small ones, which all five serve, arrays
of any size, which ``strict`` does not, and large ones, which ``strict`` and
``array`` do not. Each interface runs it with its own routines; what is in memory
must be the same, no byte may be lost, and the heaps stay sound.
"""

import hypothesis
import pytest
from hypothesis import strategies as st
from support.heaps import INTERFACES, PAGE, heap_of, held_pages

#: Kinds of request, by the interfaces that serve them.
ADMITS = {
    "small": INTERFACES,
    "zeroed": INTERFACES,
    "pages": INTERFACES,
    "array": ("array", "subpage", "legacy", "merged"),
    "large": ("subpage", "legacy", "merged"),
}
SMALL = st.integers(0, 3900) | st.integers(3800, PAGE - 128)
LARGE = st.integers(PAGE - 130, PAGE + 130) | st.integers(0, 6 * PAGE)
ALIGN = st.sampled_from([1, 16, 16, 16, 64])

steps = st.one_of(
    st.tuples(st.just("small"), SMALL, ALIGN),
    st.tuples(st.just("zeroed"), SMALL, ALIGN),
    st.tuples(st.just("array"), LARGE, ALIGN),
    st.tuples(st.just("large"), LARGE, ALIGN),
    st.tuples(st.just("pages"), st.integers(1, 5), st.just(1)),
    st.tuples(st.just("free"), st.integers(0, 99), st.just(1)),
    st.tuples(st.just("free"), st.integers(0, 99), st.just(1)),
    st.tuples(st.just("resize"), st.integers(0, 99), SMALL),
    st.tuples(st.just("check"), st.just(0), st.just(1)),
)


def contents(name, n):
    """Bytes that an object holds, by its name and length."""
    return bytes((name * 37 + i * 11 + (i >> 8)) & 255 for i in range(n))


class Program:
    """A program on one interface."""

    def __init__(self, heap):
        self.heap = heap
        self.live = {}
        self.start = heap.arena.n_free_pages
        self.seen = []

    def small(self, n, align, routine="xmalloc"):
        if self.heap.interface == "subpage" and routine == "xmalloc":
            return "xfree_subpage", self.heap.xmalloc_subpage(n, align=align)
        return "xfree", getattr(self.heap, routine)(n, align=align)

    def give(self, kind, n, align):
        heap = self.heap
        if kind == "small":
            return self.small(n, align)
        if kind == "zeroed":
            return self.small(n, align, "xzalloc")
        if kind == "array":
            return "xfree", heap.xmalloc_array(n, 1, align=align)
        if kind == "large":
            return "xfree", heap.xmalloc(n, align=align)
        return "page_free", heap.page_alloc_exact(n)

    def read(self, offset, n):
        view = self.heap.view(offset, n)
        found = bytes(view)
        view.release()
        return found

    def run(self, program):
        for name, (kind, a, b) in enumerate(program):
            if kind in ADMITS:
                routine, offset = self.give(kind, a, b)
                assert offset % max(b, 16) == 0
                n = a * PAGE if kind == "pages" else a
                if kind == "zeroed":
                    assert self.read(offset, n) == bytes(n)
                view = self.heap.view(offset, n)
                view[:] = contents(name, n)
                view.release()
                self.live[name] = (routine, offset, name, n)
            elif kind == "check":
                self.heap.check()
            elif self.live:
                key = sorted(self.live)[a % len(self.live)]
                if kind == "free":
                    self.free(key)
                else:
                    self.resize(key, b)

    def free(self, key):
        routine, offset, name, n = self.live.pop(key)
        found = self.read(offset, n)
        assert found == contents(name, n)
        self.seen.append(found)
        getattr(self.heap, routine)(offset)

    def resize(self, key, n):
        """By xrealloc, or as the program must where there is none."""
        routine, offset, name, old = self.live[key]
        if routine == "page_free":
            return
        kept = min(old, n)
        if routine == "xfree_subpage":
            moved = self.heap.xmalloc_subpage(n)
            self.heap.view(moved, kept)[:] = self.read(offset, kept)
            self.heap.xfree_subpage(offset)
        elif self.heap.interface == "array":
            moved = self.heap.xrealloc_array(offset, n, 1)
        else:
            moved = self.heap.xrealloc(offset, n)
        assert self.read(moved, kept) == contents(name, old)[:kept]
        view = self.heap.view(moved, n)
        view[:] = contents(name, n)
        view.release()
        self.live[key] = (routine, moved, name, n)

    def end(self):
        """Free all: no byte and no page may be lost."""
        for key in sorted(self.live):
            self.free(key)
        self.heap.check()
        stats = self.heap.stats()
        assert (stats.live_blocks, stats.used_bytes) == (0, 0)
        self.heap.shrink()
        assert held_pages(self.heap) == 0
        assert self.heap.arena.n_free_pages == self.start


def interfaces_for(program):
    """The interfaces that admit every call of a program."""
    kinds = {kind for kind, _, _ in program} & set(ADMITS)
    return [i for i in INTERFACES if all(i in ADMITS[kind] for kind in kinds)]


def run_everywhere(program):
    """Run a program wherever it can run; return the number of interfaces."""
    seen = {}
    for interface in interfaces_for(program):
        with heap_of(interface, 16 << 20) as heap:
            one = Program(heap)
            one.run(program)
            one.end()
            seen[interface] = one.seen
    assert len({tuple(found) for found in seen.values()}) == 1
    return len(seen)


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.lists(steps, min_size=5, max_size=60))
def test_programs_of_every_kind_of_call(program):
    assert run_everywhere(program) >= 3


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    st.lists(
        steps.filter(lambda step: step[0] not in ("array", "large")),
        min_size=5,
        max_size=60,
    )
)
def test_programs_that_the_proposal_admits_run_everywhere(program):
    assert run_everywhere(program) == 5


@pytest.mark.parametrize("kinds", [("array",), ("array", "large"), ("large",)])
def test_which_interfaces_admit_what(kinds):
    program = [(kind, 100, 1) for kind in kinds]
    assert run_everywhere(program) == (3 if "large" in kinds else 4)


def test_a_lost_byte_would_be_seen():
    with heap_of("merged") as heap:
        program = Program(heap)
        program.run([("small", 100, 1), ("large", 9000, 1)])
        heap.xmalloc(1)  # which the program has forgotten
        with pytest.raises(AssertionError):
            program.end()
    with heap_of("strict") as heap:
        program = Program(heap)
        program.run([("small", 100, 1)])
        _, offset, _, _ = program.live[0]
        heap.view(offset)[50] ^= 1
        with pytest.raises(AssertionError):
            program.end()
