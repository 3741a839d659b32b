# SPDX-License-Identifier: BSD-3-Clause
"""Counting instructions: exact, repeatable, and nothing else is touched."""

import errno
import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from support.compiler import compiled_by
from support.tracing import EMPTY, GOOD, trace

import xmem
from xmem import Arena, Pool
from xmem.cli.group import xmem as command
from xmem.data import __file__ as DATA
from xmem.measure import insn
from xmem.measure.codes import PATH_FAILED, PATH_GROWN, PATH_RETURNED
from xmem.measure.counts import VERBS, path_name
from xmem.measure.replay import load
from xmem.measure.scenarios import SCENARIOS, scenario
from xmem.measure.trace import OP_FREE, OP_MALLOC
from xmem.pool import HARDENING

PAGE = 4096
REDIS = DATA.replace("__init__.py", "redis.npz")

pytestmark = pytest.mark.skipif(
    not insn.is_available(), reason="the system lets nobody trace a child"
)


@pytest.fixture
def pool():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield Pool(arena)


def test_a_count_is_the_same_each_time(pool):
    offset = pool.xmalloc(100)
    assert len({insn.cost(pool, "xfree", offset) for _ in range(5)}) == 1
    assert len({insn.cost(pool, "xmalloc", 100) for _ in range(5)}) == 1


def test_nothing_is_done_to_the_arena(pool):
    offset = pool.xmalloc(100)
    before = (pool.walk().tobytes(), pool.arena.frames().tobytes())
    for verb, *args in (
        ("xfree", offset),
        ("xmalloc", 5000),
        ("xrealloc", offset, 9000),
        ("page_alloc", 3),
    ):
        n, path = insn.cost(pool, verb, *args)
        assert 20 < n < 20_000
        assert path
    assert (pool.walk().tobytes(), pool.arena.frames().tobytes()) == before
    pool.xfree(offset)


@pytest.mark.release
def test_the_proof_of_an_offset_has_its_price(pool):
    offset = pool.xmalloc(100)
    plain, _ = insn.cost(pool, "xfree", offset)
    checked, _ = insn.cost(pool, "xfree", offset, checked=True)
    assert plain < checked < plain + 60


def test_addresses_are_those_of_the_instructions(pool):
    offset = pool.xmalloc(100)
    n, _ = insn.cost(pool, "xfree", offset)
    found = insn.addresses(pool, "xfree", offset)
    assert len(found) == n
    with open("/proc/self/maps") as maps:
        places = [line.split() for line in maps if "r-xp" in line]
    spans = [[int(end, 16) for end in place[0].split("-")] for place in places]
    assert all(any(a <= pc < b for a, b in spans) for pc in found.tolist())
    pool.xfree(offset)
    with pytest.raises(xmem.DoubleFree):
        insn.addresses(pool, "xfree", offset)


def test_paths_are_reported(pool):
    pool.reserve(40)
    a, b, c, d, e = (pool.xmalloc(100) for _ in range(5))
    assert insn.cost(pool, "xfree", c)[1] == "isolated"
    pool.xfree(b)
    assert insn.cost(pool, "xfree", c)[1] == "left"
    assert insn.cost(pool, "xfree", a)[1] == "right"
    pool.xfree(d)
    assert insn.cost(pool, "xfree", c)[1] == "both"
    assert insn.cost(pool, "xmalloc", 100)[1] == "exact"
    assert insn.cost(pool, "xmalloc", 120)[1] == "split"
    assert insn.cost(pool, "xmalloc", 300_000)[1] == "split, grown"
    assert insn.cost(pool, "xmalloc", 1 << 30)[1] == "failed"
    assert insn.cost(pool, "xmalloc", 10, PAGE)[1] == "run, grown"
    assert insn.cost(pool, "xrealloc", e, 50)[1] == "in place"
    assert insn.cost(pool, "xrealloc", a, 2000)[1] == "moved"
    assert insn.cost(pool, "page_alloc", 1)[1] == "page run"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("xfree", 16), xmem.NotABlock),
        (("xfree",), xmem.BadArgument),
        (("xfree", 16, 16), xmem.BadArgument),
        (("xfree", 1.5), xmem.BadArgumentType),
        (("xrealloc", 16, 5), xmem.NotABlock),
        (("xmalloc", -1), xmem.BadArgument),
        (("xmalloc", 5, 3), xmem.BadArgument),
        (("page_alloc", 0), xmem.BadArgument),
        (("page_alloc", 1 << 40), xmem.BadArgument),
        (("page_free", 0), xmem.NotABlock),
        (("free", 16), xmem.BadArgument),
        ((5, 16), xmem.BadArgumentType),
    ],
)
def test_wrong_calls_are_refused(pool, args, error):
    with pytest.raises(error):
        insn.cost(pool, *args)


def test_what_is_no_pool_is_refused(pool, arena_path):
    with pytest.raises(xmem.BadArgumentType):
        insn.cost(None, "xmalloc", 5)
    with pytest.raises(xmem.BadArgument, match="anonymous"):
        insn.Steps(pool, "xmalloc", 5)
    with Arena.create(arena_path, 1 << 20) as arena:
        mine = Pool(arena)
        with pytest.raises(xmem.BadArgument, match="file"):
            insn.cost(mine, "xmalloc", 5)
        offset = mine.xmalloc(5)
        view = mine.view(offset)
        with pytest.raises(BufferError):
            insn.Steps(mine, "xfree", offset)
        view.release()
    with pytest.raises(xmem.ArenaClosed):
        insn.cost(mine, "xmalloc", 5)
    with pytest.raises(xmem.ArenaClosed):
        insn.Steps(mine, "xmalloc", 5)


def test_steps_makes_the_call_in_the_shared_arena(arena_path):
    with Arena.create(arena_path, 1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena)
        expected, _ = pool.xmalloc(100), pool.xmalloc(24)
        pool.xfree(expected)
        pool.arena.check()
        steps = insn.Steps(pool, "xmalloc", 100)
        assert steps.value is None
        numbers = list(steps)
        assert numbers == list(range(1, steps.n_instructions + 1))
        assert (steps.value, steps.path) == (expected, "exact")
        assert pool.usable_size(expected) >= 100
        pool.check()
        assert list(steps) == []
        half = insn.Steps(pool, "xfree", expected)
        next(half)
        del half  # the child is gone; what it had done is done
        assert insn.is_available()


@pytest.mark.slow
def test_a_trace_is_counted_whole_or_in_part():
    ops = load(REDIS)[:300]
    whole = insn.count(ops)
    assert whole.index.tolist() == list(range(300))
    assert (whole.instructions > 20).all()
    part = insn.count(ops, every=7)
    assert part.index.tolist() == list(range(0, 300, 7))
    assert (part.instructions == whole.instructions[::7]).all()
    assert (part.path == whole.path[::7]).all()
    seen = []
    insn.count(ops, progress=lambda *both: seen.append(both))
    assert seen[-1][1] == 300


@pytest.mark.slow
def test_summaries_say_which_was_the_worst():
    counts = insn.count(load(REDIS)[:300])
    record = counts.record("redis")
    assert record["n_ops"] == 300
    for verb in ("xmalloc", "xfree", "xrealloc"):
        whole = counts.summary(verb)
        parts = counts.by_path(verb)
        assert sum(part.n_ops for part in parts) == whole.n_ops
        assert max(part.most for part in parts) == whole.most
        assert min(part.least for part in parts) == whole.least
        worst = counts.index.tolist().index(whole.worst_index)
        assert counts.instructions[worst] == whole.most
        assert counts.size[worst] == whole.worst_size
        assert record["verbs"][verb]["most"] == whole.most
    assert counts.summary("page_alloc") is None
    with pytest.raises(ValueError, match="verb"):
        counts.summary("verb")


def test_failed_objects_are_left_out():
    ops = trace(
        (OP_MALLOC, 0, 100),
        (OP_MALLOC, 1, 100_000),
        (OP_FREE, 1, 0),
        (OP_FREE, 0, 0),
    )
    counts = insn.count(ops, max_pages=8)
    assert counts.index.tolist() == [0, 1, 3]
    assert counts.path.tolist()[1] == PATH_FAILED


def test_empty_and_wrong_traces():
    assert len(insn.count(EMPTY).index) == 0
    with pytest.raises(xmem.BadArgumentType):
        insn.count([1, 2])
    with pytest.raises(xmem.BadArgument):
        insn.count(trace(*GOOD), every=0)
    with pytest.raises(xmem.BadArgumentType):
        insn.count(trace(*GOOD), progress=3)
    with pytest.raises(xmem.BadArgument):
        insn.count(trace(*GOOD), engine="best")


def test_path_names_of_every_bit():
    names = {path_name(v, bits) for v in range(len(VERBS)) for bits in range(256)}
    assert {"isolated", "left", "right", "both", "exact", "split", "failed"} <= names
    assert path_name(1, 3 | PATH_RETURNED) == "both, region returned"
    assert path_name(0, PATH_GROWN) == "exact, grown"


def test_the_error_says_why_and_survives_pickling():
    error = insn.SteppingUnavailable(errno.EPERM)
    assert "ptrace" in str(error)
    assert isinstance(error, xmem.XmemError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "Linux" in str(insn.SteppingUnavailable(0))


# Scenarios and their bounds ----------------------------------------------------


def counted(what, n_free, engine="tlsf", **settings):
    pool, arguments = what.make(n_free, engine, **settings)
    with pool.arena:
        pool.check()
        return insn.cost(pool, what.verb, *arguments)


@pytest.mark.parametrize(
    ("verb", "name", "path"),
    [
        ("xfree", "isolated", "isolated"),
        ("xfree", "left", "left"),
        ("xfree", "right", "right"),
        ("xfree", "both", "both"),
        ("xfree", "keeping a region", "both"),
        ("xfree", "emptying a region", "both, region returned"),
        ("xfree", "merging pages", "isolated, region returned"),
        ("xmalloc", "exact", "exact"),
        ("xmalloc", "splitting the largest", "split"),
        ("xmalloc", "aligned", "split"),
        ("xmalloc", "growing", "split, grown"),
        ("xmalloc", "failing", "failed"),
        ("xrealloc", "shrinking", "in place"),
        ("xrealloc", "growing to the right", "in place"),
        ("xrealloc", "growing to the left", "moved"),
        ("xrealloc", "moving", "moved"),
    ],
)
def test_scenarios_take_their_path(verb, name, path):
    for n_free in (10, 1000):
        assert counted(scenario(verb, name), n_free)[1] == path


@pytest.mark.release
def test_the_legacy_engine_climbs_where_tlsf_does_not():
    for name in ("isolated", "both"):
        few, many = (
            counted(scenario("xfree", name), n, "firstfit")[0] for n in (100, 2000)
        )
        assert many > 10 * few
        few, many = (counted(scenario("xfree", name), n)[0] for n in (100, 20_000))
        assert abs(few - many) <= 60  # a list on the way may be empty or not


def test_scenarios_are_found_by_name():
    for found in SCENARIOS:
        assert scenario(found.verb, found.name) is found
        assert found.work
    with pytest.raises(LookupError):
        scenario("xfree", "nothing")


#: The build whose instructions are given here, exactly; those of another may differ by
#: a quarter.
COUNTED_BUILD = "x86_64, gcc 12"
TOLERANCE = 0 if compiled_by() == COUNTED_BUILD else 0.25
#: Worst retired instructions of an xfree, without and with a region returned. The table
#: is also that of docs/reliability.md.
XFREE_WORST = {
    (): (341, 683),
    ("canaries",): (520, 843),
    ("checksums",): (501, 854),
    ("safe_links",): (683, 1044),
    ("poison",): (475, 804),
    ("quarantine",): (456, 808),
    tuple(HARDENING): (1485, 1516),
}
#: The same of each verb without hardening, over all scenarios; pages come or go in
#: the second figure.
WORST = {
    "xmalloc": (268, 525),
    "xfree": (341, 683),
    "xrealloc": (265, 265),
    "page_alloc": (323, 323),
    "page_free": (116, 116),
}
#: What a call has to do that needs no pages, whatever the neighbours.
SHORT_WORST = {"xmalloc": 167, "xfree": 115}
LEAVING = ("emptying a region", "merging pages")


def worst_of(verb, moving, **settings):
    """Worst of a verb over all scenarios: while no pages move, and of all calls."""
    staying = worst = 0
    for what in SCENARIOS:
        if what.verb == verb and "tlsf" in what.engines:
            for n_free in (0, 10, 2000):
                n, path = counted(what, n_free, **settings)
                worst = max(worst, n)
                if not any(word in path for word in moving):
                    staying = max(staying, n)
    return staying, worst


@pytest.mark.release
@pytest.mark.parametrize("flags", XFREE_WORST, ids="-".join)
def test_xfree_is_bounded_with_each_flag(flags):
    """Whatever the region and whatever the block, the worst is a constant."""
    worst = worst_of("xfree", ("returned",), hardened=flags)
    assert worst == pytest.approx(XFREE_WORST[flags], rel=TOLERANCE)


@pytest.mark.release
@pytest.mark.parametrize("verb", WORST)
def test_the_worst_of_each_verb_is_a_constant(verb):
    worst = worst_of(verb, ("returned", "grown"))
    assert worst == pytest.approx(WORST[verb], rel=TOLERANCE)


@pytest.mark.release
def test_the_short_paths_are_short():
    names = {
        "xmalloc": (
            "exact",
            "cutting the remainder",
            "replacing the remainder",
            "splitting the largest",
            "next first level",
        ),
        "xfree": ("isolated", "left", "right", "both"),
    }
    for verb, limit in SHORT_WORST.items():
        worst = max(
            counted(scenario(verb, name), n_free)[0]
            for name in names[verb]
            for n_free in (0, 10, 2000)
        )
        assert worst == pytest.approx(limit, rel=TOLERANCE)


@pytest.mark.release
def test_what_is_copied_does_not_count():
    """It is the C library's memcpy, which differs from processor to processor."""
    found = []
    for n_bytes in (5000, 37_000, 300_000):
        with Arena.anonymous(64 << 20, page_size=PAGE) as arena:
            pool = Pool(arena, reserve=4000)
            block, _behind = pool.xmalloc(n_bytes), pool.xmalloc(n_bytes)
            n, path = insn.cost(pool, "xrealloc", block, 2 * n_bytes)
            assert "moved" in path
            found.append(n)
    assert max(found) - min(found) <= 10, found


@pytest.mark.release
@pytest.mark.parametrize("flags", XFREE_WORST, ids="-".join)
def test_xfree_does_not_depend_on_the_block_or_what_it_becomes(flags):
    """From 4 KiB to 1 GiB, alone or merging with a gigabyte of free bytes."""
    seen = {}
    for n_bytes in (1 << 14, 1 << 20, 1 << 30):
        with Arena.anonymous(8 << 30, page_size=PAGE) as arena:
            pool = Pool(arena, grow_pages=4, hardened=flags)
            blocks = [pool.xmalloc(n) for n in (n_bytes, 600, n_bytes, 600, 600)]
            seen.setdefault("large", set()).add(insn.cost(pool, "xfree", blocks[2])[0])
            pool.xfree(blocks[2])
            seen.setdefault("merging", set()).add(
                insn.cost(pool, "xfree", blocks[1])[0]
            )
    for counts in seen.values():
        # One to three regions are looked at, and some words of run heads; another size
        # is another list.
        assert max(counts) - min(counts) <= 190, seen


# The command -------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_counts_a_trace(tmp_path):
    out = tmp_path / "counts.json"
    done = CliRunner().invoke(
        command, ["insn", REDIS, "--max-ops", "300", "--json", str(out), "--checked"]
    )
    assert done.exit_code == 0, done.output
    for word in ("xmalloc", "xfree", "isolated", "path of the worst"):
        assert word in done.output
    assert '"trace": "redis"' in out.read_text()


def test_the_command_refuses_what_cannot_be():
    done = CliRunner().invoke(
        command, ["insn", REDIS, "--engine", "firstfit", "--hardened", "poison"]
    )
    assert done.exit_code == 2
    done = CliRunner().invoke(command, ["insn", "no such file"])
    assert done.exit_code == 2


def test_the_command_says_where_counting_is_unavailable(monkeypatch):
    def unavailable(*_, **__):
        raise insn.SteppingUnavailable(errno.EPERM)

    monkeypatch.setattr("xmem.cli.insn.count", unavailable)
    done = CliRunner().invoke(command, ["insn", REDIS])
    assert done.exit_code == 1
    assert "ptrace" in done.output


def test_the_command_counts_scenarios():
    done = CliRunner().invoke(
        command, ["insn", "--free-blocks", "10", "--engine", "tlsf", "--json", "-"]
    )
    assert done.exit_code == 0
    assert '"scenario": "merging pages"' in done.output
    assert np.array([len(found.engines) for found in SCENARIOS]).sum() > 20


# What the counts do not depend on ----------------------------------------------

#: Lists on the way may be empty or not: some instructions more or less.
SPREAD = 60


@pytest.mark.release
@pytest.mark.parametrize("name", ["isolated", "left", "right", "both"])
def test_xfree_does_not_depend_on_live_blocks(name):
    what = scenario("xfree", name)
    counts = [counted(what, n)[0] for n in (10, 10_000, 1_000_000)]
    assert max(counts) - min(counts) <= SPREAD, counts


@pytest.mark.release
@pytest.mark.parametrize("name", ["splitting the largest", "aligned"])
def test_xmalloc_does_not_depend_on_live_blocks(name):
    what = scenario("xmalloc", name)
    counts = [counted(what, n)[0] for n in (10, 10_000, 100_000)]
    assert max(counts) - min(counts) <= SPREAD, counts


@pytest.mark.release
def test_no_verb_depends_on_the_bytes_of_the_arena():
    """From 1 MiB to 16 GiB, which is sparse."""
    seen = {}
    for log2 in (20, 24, 30, 34):
        with Arena.anonymous(1 << log2, page_size=PAGE) as arena:
            pool = Pool(arena)
            pool.reserve(16)
            a, b, c, d, e = (pool.xmalloc(600) for _ in range(5))
            pool.xfree(b)
            pool.xfree(d)
            calls = (
                ("xfree", c),
                ("xfree", a),
                ("xmalloc", 600),
                ("xmalloc", 700),
                ("xrealloc", e, 100),
            )
            for i, call in enumerate(calls):
                seen.setdefault(i, []).append(insn.cost(pool, *call)[0])
    for counts in seen.values():
        assert max(counts) - min(counts) <= SPREAD, seen


def five_in_a_row(pool, n_bytes):
    """Five blocks of which each begins where the one before ends."""
    row = [pool.xmalloc(n_bytes)]
    while len(row) < 5:
        following = pool.xmalloc(n_bytes)
        end = row[-1] + pool.usable_size(row[-1])
        row = [*row, following] if 0 < following - end <= 16 else [following]
    return row


@pytest.mark.release
def test_xfree_does_not_depend_on_history(seed):
    """Between two free blocks, far from the ends of a region."""
    rng = np.random.default_rng(seed)
    with Arena.anonymous(1 << 26, page_size=PAGE) as arena:
        pool = Pool(arena)
        live = []
        counts = []
        for _ in range(8):
            for _ in range(5000):
                if live and rng.random() < 0.5:
                    pool.xfree(live.pop(int(rng.integers(len(live)))))
                else:
                    live.append(pool.xmalloc(int(rng.integers(1, 3000))))
            row = five_in_a_row(pool, 600)
            pool.xfree(row[1])
            pool.xfree(row[3])
            n, path = insn.cost(pool, "xfree", row[2])
            assert path == "both"
            counts.append(n)
    assert max(counts) - min(counts) <= SPREAD, counts


@pytest.mark.release
def test_the_page_frames_cost_little_at_any_order():
    """At the arena's end no entry of the tree changes but for what alignment leaves."""
    for verb, most in (("page_alloc", 350), ("page_free", 140)):
        counts = [counted(scenario(verb, f"order {k}"), 0)[0] for k in range(12)]
        assert max(counts) <= most
