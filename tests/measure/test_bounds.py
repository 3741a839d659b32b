# SPDX-License-Identifier: BSD-3-Clause
"""The bound of each verb, and the heaps in which calls come closest to it."""

import pytest
from support.compiler import compiled_by

import xmem
from xmem import Arena, Pool
from xmem.measure import insn
from xmem.measure.bounds import BOUNDS, KINDS, ORDERS, PROOF, VERBS, bound, bound_of
from xmem.measure.scenarios import EXTREMES, scenario

#: Of other compilers and versions.
TOLERANCE = 1.25
#: In an arena of 2**20 pages.
LIMITS = {"plain": 1500, "quick": 1500, "hardened": 4000}

traced = pytest.mark.skipif(
    not insn.is_available(), reason="the system lets nobody trace a child"
)


@pytest.mark.parametrize(("verb", "kind"), BOUNDS)
def test_no_bound_is_greater_than_was_promised(verb, kind):
    assert bound(verb, ORDERS, kind, checked=True) <= LIMITS[kind] + PROOF
    assert bound(verb, ORDERS, kind) <= LIMITS[kind]
    assert BOUNDS[verb, kind].at(6) == bound(verb, 6, kind)


def test_a_bound_is_linear_in_the_orders():
    for verb in VERBS:
        for kind in KINDS:
            steps = {bound(verb, k + 1, kind) - bound(verb, k, kind) for k in range(32)}
            assert len(steps) == 1


def test_what_a_bound_depends_on():
    with Arena.anonymous(100 << 12, page_size=4096) as arena:
        pool = Pool(arena)
        assert bound_of(pool, "xfree") == bound("xfree", 7)
        assert bound_of(pool, "xfree", checked=True) == bound("xfree", 7) + PROOF
        assert bound_of(pool, "xmalloc", checked=True) == bound("xmalloc", 7)
        quick = Pool(arena, quick=True)
        assert bound_of(quick, "xmalloc") == bound("xmalloc", 7, "quick")
        hardened = Pool(arena, hardened=["poison"])
        assert bound_of(hardened, "xrealloc") == bound("xrealloc", 7, "hardened")
        with pytest.raises(xmem.BadArgument, match="no bound of 'free'"):
            bound_of(pool, "free")


def test_each_bound_has_a_heap_that_comes_close_to_it():
    reached = {(e.verb, e.kind) for e in EXTREMES}
    assert reached >= {(v, k) for v, k in BOUNDS if not v.startswith("page")}
    assert reached >= {("page_alloc", "plain"), ("page_free", "plain")}
    for found in EXTREMES:
        assert scenario(found.verb, found.name) is found


@traced
@pytest.mark.release
@pytest.mark.parametrize("what", EXTREMES, ids=lambda e: f"{e.verb}-{e.kind}-{e.name}")
def test_a_call_comes_close_to_its_bound_and_does_not_exceed_it(what):
    pool, arguments = what.make(0)
    with pool.arena:
        pool.check()
        assert pool.arena.n_pages == 1 << ORDERS
        count, _ = insn.cost(pool, what.verb, *arguments)
        limit = bound_of(pool, what.verb)
    assert count <= limit * (1 if built_alike() else TOLERANCE)
    assert count > limit * 0.8 / (1 if built_alike() else TOLERANCE)


def built_alike():
    """Whether the bounds are those of this build."""
    return insn.BUILD == "release" and compiled_by() == "x86_64, gcc 12"
