# SPDX-License-Identifier: BSD-3-Clause
"""Cycles of single calls: the heap is as it was, the arguments are proved."""

import numpy as np
import pytest

import xmem
from xmem import Arena, Pool
from xmem.measure import cycles
from xmem.measure.scenarios import SCENARIOS


@pytest.fixture
def pool():
    with Arena.anonymous(1 << 20) as arena:
        yield Pool(arena)


@pytest.mark.parametrize("what", SCENARIOS, ids=lambda s: f"{s.verb}-{s.name}")
@pytest.mark.parametrize("cold", [False, True])
def test_every_scenario_is_timed_and_changes_nothing(what, cold):
    for engine in what.engines:
        pool, arguments = what.make(20, engine)
        with pool.arena as arena:
            before = [pool.walk().tolist(), arena.frames().tolist(), pool.stats()]
            found = cycles.cost(pool, what.verb, *arguments, repeats=3, cold=cold)
            assert found.dtype == np.uint64
            assert found.shape == (3,)
            pool.check()
            assert [pool.walk().tolist(), arena.frames().tolist(), pool.stats()] == (
                before
            )


def test_cost_does_the_call_each_time(pool):
    offset = pool.xmalloc(100)
    found = cycles.cost(pool, "xfree", offset, repeats=50, checked=True)
    assert len(found) == 50
    pool.xfree(offset)  # it is live still
    assert pool.used_size == 0


@pytest.mark.parametrize(
    ("args", "settings", "error"),
    [
        (("xfree", 16), {}, xmem.NotABlock),
        (("xfree",), {}, xmem.BadArgument),
        (("none", 16), {}, xmem.BadArgument),
        ((7, 16), {}, xmem.BadArgumentType),
        (("xmalloc", 1.5), {}, xmem.BadArgumentType),
        (("xmalloc", 1), {"repeats": 0}, xmem.BadArgument),
        (("xmalloc", 1), {"repeats": 10**7}, xmem.BadArgument),
        (("xmalloc", 1), {"cold": 2}, xmem.BadArgumentType),
    ],
)
def test_wrong_calls_are_refused(pool, args, settings, error):
    with pytest.raises(error):
        cycles.cost(pool, *args, **settings)
    assert pool.used_size == 0


def test_arenas_that_cannot_be_copied_are_refused(arena_path):
    with pytest.raises(xmem.BadArgumentType):
        cycles.cost(None, "xmalloc", 1)
    with Arena.create(arena_path, 1 << 20) as arena:
        mine = Pool(arena)
        with pytest.raises(xmem.BadArgument, match="file"):
            cycles.cost(mine, "xmalloc", 1)
    with pytest.raises(xmem.ArenaClosed):
        cycles.cost(mine, "xmalloc", 1)
    with (
        Arena.anonymous(1 << 43) as arena,
        pytest.raises(xmem.BadArgument, match="smaller arena"),
    ):
        cycles.cost(Pool(arena), "xmalloc", 1)
