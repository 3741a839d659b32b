# SPDX-License-Identifier: BSD-3-Clause
"""The asv suite: each benchmark runs, without asv, on shortened traces."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xmem.measure import insn
from xmem.measure.replay import load, replay

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"
MODULES = (
    "calls",
    "common",
    "founding",
    "frames",
    "hardening",
    "instructions",
    "latency",
    "memory",
    "pages",
    "python",
    "scenarios",
    "stepping",
    "stores",
    "throughput",
)
N_OPS = 2000

pytestmark = pytest.mark.skipif(
    not SUITE.is_dir(), reason="the benchmarks are in a checkout only"
)


def import_suite():
    """The modules of the suite, imported as asv does."""
    for name in [name for name in sys.modules if name.startswith("benchmarks")]:
        del sys.modules[name]
    return {name: importlib.import_module(f"benchmarks.{name}") for name in MODULES}


@pytest.fixture
def suite(monkeypatch, tmp_path):
    """The suite on the first operations of each trace."""
    monkeypatch.syspath_prepend(str(SUITE))
    suite = import_suite()
    for path in suite["common"].FOLDER.glob("*.npz"):
        np.savez(tmp_path / path.name, ops=load(path)[:N_OPS])
    monkeypatch.setattr(suite["common"], "FOLDER", tmp_path)
    return suite


def cells(benchmark):
    """Every combination of a benchmark's two parameters."""
    first, second = benchmark.params
    return [(one, other) for one in first for other in second]


def test_the_traces_are_those_that_the_readme_describes():
    text = (SUITE / "traces" / "README.md").read_text()
    rows = re.findall(r"^\| `(.*\.npz)` \|.*?\| ([\d,]+) \|", text, re.MULTILINE)
    described = {name: int(calls.replace(",", "")) for name, calls in rows}
    found = {path.name: len(load(path)) for path in (SUITE / "traces").glob("*.npz")}
    assert described == found


def test_every_trace_is_a_parameter(suite):
    names = {path.stem for path in suite["common"].FOLDER.glob("*.npz")}
    assert set(suite["common"].TRACES) == names


def test_latency_and_pages_report_figures_of_every_replay(suite):
    figures = suite["common"].Measured().setup_cache()
    latency, pages = suite["latency"].Latency(), suite["pages"].Pages()
    for cell in cells(latency):
        latency.setup(figures, *cell)
        for verb in ("xfree", "xmalloc"):
            worst, p999, p50 = (
                getattr(latency, f"track_{verb}_{which}_cycles")(figures, *cell)
                for which in ("worst", "p999", "p50")
            )
            assert worst >= p999 >= p50 >= 0
            assert worst > 0 or verb == "xfree"  # some prefixes free nothing
    for cell in cells(pages):
        pages.setup(figures, *cell)
        assert pages.track_pages_per_live_byte(figures, *cell) >= 1.0


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_the_least_arena_serves_and_a_smaller_one_does_not(suite, engine):
    pages = suite["pages"]
    ops = suite["common"].load_trace("tmem")
    live = suite["common"].run_trace(ops, engine, 1).peak_live_bytes
    least = pages.least_arena(ops, engine, live)
    assert least > live
    assert pages.fits(ops, engine, least)
    assert not pages.fits(ops, engine, int(least * (1 - 2 * pages.PRECISION)))


def test_the_replay_that_is_timed_runs_and_repeats(suite):
    benchmark = suite["throughput"].Throughput()
    for engine, trace in cells(benchmark):
        benchmark.setup(engine, trace)
        before = benchmark.replayer.seen()
        benchmark.time_replay(engine, trace)
        assert benchmark.replayer.seen() == before


def test_the_founding_load_leaves_a_hole_in_every_page(suite, monkeypatch):
    ops = suite["founding"].founding_load(100)
    result = suite["common"].run_trace(ops, "firstfit", 1)
    n_frees = suite["founding"].N_FREES
    assert result.stats.live_blocks == 100 - n_frees
    assert result.stats.free_blocks == 100 - n_frees
    results = []

    def recorded(*arguments):
        results.append(suite["common"].run_trace(*arguments))
        return results[-1]

    monkeypatch.setattr(suite["founding"], "run_trace", recorded)
    benchmark = suite["founding"].Founding()
    benchmark.setup("firstfit", 1000)
    figure = benchmark.track_xfree_worst_cycles("firstfit", 1000)
    # The figure is that of the replay: of all its frees, and of nothing else.
    (result,) = results
    frees = result.cycles[result.of_kind("xfree")]
    assert result.contender == "firstfit"
    assert (len(frees), result.n_ops) == (n_frees, 2 * 1000 + n_frees)
    assert figure == frees.max() > 0


@pytest.mark.slow
@pytest.mark.release
def test_calls_are_counted_from_outside(suite):
    calls = suite["calls"].Calls()
    try:
        calls.setup("tlsf", 10)
    except NotImplementedError as error:
        pytest.skip(str(error))
    tlsf = [calls.track_xfree_worst_instructions("tlsf", n) for n in (10, 100)]
    legacy = [calls.track_xfree_worst_instructions("firstfit", n) for n in (10, 100)]
    assert abs(tlsf[0] - tlsf[1]) < 60
    assert legacy[1] > legacy[0] + 90
    assert calls.track_xmalloc_worst_instructions("tlsf", 10) > 100
    # Exactly: the same call, counted twice.
    assert tlsf[0] == calls.track_xfree_worst_instructions("tlsf", 10)


@pytest.mark.slow
@pytest.mark.release
def test_an_ordinary_call_is_counted_and_not_the_first_after_a_fork(suite):
    stepping = suite["stepping"]
    calls = suite["calls"]
    try:
        calls.Calls().setup("tlsf", 10)
    except NotImplementedError as error:
        pytest.skip(str(error))
    pool = calls.heap("tlsf", 10)
    live, block = calls.side_by_side(pool)[:2]

    def look():
        pool.usable_size(live)

    def look_and_free():
        look()
        pool.xfree(block)

    ordinary = calls.ordinary(pool, live, pool.xfree, block)
    assert ordinary == stepping.count(look_and_free) - stepping.count(look)
    assert ordinary < stepping.count(pool.xfree, block)


def test_a_child_that_ends_early_is_no_count(suite):
    stepping = suite["stepping"]
    try:
        stepping.count(len, ())
    except stepping.CannotCount as error:
        pytest.skip(str(error))
    with pytest.raises(stepping.CannotCount, match="ended"):
        stepping.count(os._exit, 0)
    with pytest.raises(stepping.CannotCount, match="ended"):
        stepping.count(len, 5)


def test_scenarios_are_timed_warm_and_cold(suite, monkeypatch):
    scenarios = suite["scenarios"]
    monkeypatch.setattr(scenarios, "NAMES", ["xfree both", "xmalloc exact", "none"])
    monkeypatch.setattr(scenarios, "REPEATS", {"warm": 5, "cold": 2})
    benchmark = scenarios.Scenarios()
    found = benchmark.setup_cache()
    cell = ("tlsf", "xfree both", "cold")
    benchmark.setup(found, *cell)
    worst = benchmark.track_worst_cycles(found, *cell)
    assert 0 < worst <= benchmark.track_p50_cycles(found, *cell)
    assert benchmark.track_p99_cycles(found, *cell) <= (
        benchmark.track_p999_cycles(found, *cell)
    )
    with pytest.raises(NotImplementedError):
        benchmark.setup(found, "tlsf", "none", "warm")
    whole = scenarios.XfreeWorst()
    whole.setup("tlsf", "warm")
    assert whole.track_xfree_worst_cycles("tlsf", "warm") > 0


def test_frames_and_python_calls_run(suite):
    frames = suite["frames"].Frames()
    frames.setup("page_alloc", 2)
    assert frames.track_cold_cycles("page_alloc", 2) > 0
    if insn.is_available():
        assert frames.track_instructions("page_alloc", 2) > 50
    frames.teardown("page_alloc", 2)
    pairs = suite["python"].Pairs()
    for n_bytes in pairs.params[0]:
        pairs.setup(n_bytes)
        for name in dir(pairs):
            if name.startswith("time_"):
                getattr(pairs, name)(n_bytes)
        assert pairs.pool.used_size == 0


def test_the_suite_imports_where_replay_is_missing(monkeypatch):
    monkeypatch.syspath_prepend(str(SUITE))
    monkeypatch.setitem(sys.modules, "xmem.measure.replay", None)
    suite = import_suite()
    figures = suite["common"].Measured().setup_cache()
    assert figures is not None  # asv would not hand on None
    for name, arguments in (
        ("latency", (figures, "tlsf", "tmem")),
        ("pages", (figures, "tlsf", "tmem")),
        ("throughput", ("tlsf", "tmem")),
        ("founding", ("tlsf", 1000)),
    ):
        benchmark = getattr(suite[name], name.capitalize())()
        with pytest.raises(NotImplementedError):
            benchmark.setup(*arguments)


def test_the_suite_imports_without_xmem():
    """As on a commit that cannot be built: asv imports the suite before it builds."""
    names = sorted(path.stem for path in (SUITE / "benchmarks").glob("*.py"))
    code = (
        "import importlib, sys\n"
        "sys.modules['xmem'] = None\n"
        f"sys.path.insert(0, {str(SUITE)!r})\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(f'benchmarks.{name}')\n"
        "assert not [name for name in sys.modules if name.startswith('xmem.')]\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


def test_hardening_reports_every_kind(suite, monkeypatch):
    module = suite["hardening"]
    calls, results = [], []

    def recorded(ops, repeats, **settings):
        calls.append(settings)
        results.append(replay(ops, repeats=1, **settings))
        return results[-1]

    monkeypatch.setattr(module, "replay", recorded)
    benchmark = module.Hardening()
    for kind in benchmark.params[0]:
        benchmark.setup(kind, "redis")
        worst = benchmark.track_xfree_worst_cycles(kind, "redis")
        assert worst == results[-1].summary("xfree")["worst"] > 0
        assert benchmark.track_ns_per_op(kind, "redis") == results[-1].ns_per_op
        ratio = benchmark.track_ratio_to_plain(kind, "redis")
        assert ratio == results[-2].ns_per_op / results[-1].ns_per_op
        assert calls[-1] == {}
        assert calls[-2] == calls[-3] == calls[-4]
        assert calls[-2] == {
            "plain": {},
            "checked": {"checked": True},
            "all": {"hardened": True},
        }.get(kind, {"hardened": [kind]})


@pytest.mark.slow
@pytest.mark.skipif(not insn.is_available(), reason="nobody may trace a child")
def test_instructions_are_the_same_each_time(suite):
    module = suite["instructions"]
    worst = module.Worst()
    worst.setup("tlsf", 10)
    figures = {worst.track_xfree_worst_instructions("tlsf", 10) for _ in range(3)}
    assert len(figures) == 1
    assert worst.track_xmalloc_worst_instructions("tlsf", 10) > 100
    for hardened in module.HARDENED:
        benchmark = module.Hardened()
        benchmark.setup(hardened, 10)
        assert benchmark.track_xfree_worst_instructions(hardened, 10) > 100
        assert benchmark.track_xmalloc_worst_instructions(hardened, 10) > 100
    for path in module.NAMES:
        paths = module.Paths()
        paths.setup(path)
        assert paths.track_xfree_instructions(path) > 50
        paths.teardown(path)
    traces = module.Traces()
    traces.setup("tlsf", "redis")
    worst_xmalloc = traces.track_xmalloc_worst_instructions("tlsf", "redis")
    assert worst_xmalloc >= traces.track_xmalloc_mean_instructions("tlsf", "redis")
    assert traces.track_xfree_worst_instructions("tlsf", "redis") > 50


def test_instructions_are_left_out_where_they_cannot_be_counted(suite, monkeypatch):
    module = suite["instructions"]
    monkeypatch.setattr(module.insn, "is_available", lambda: False)
    with pytest.raises(NotImplementedError):
        module.Worst().setup("tlsf", 10)
    monkeypatch.setattr(module, "insn", None)
    with pytest.raises(NotImplementedError):
        module.Worst().setup("tlsf", 10)


def test_memory_is_the_same_each_time(suite):
    benchmark = suite["memory"].Memory()
    for trace in benchmark.params[0]:
        benchmark.setup(trace)
        figures = {benchmark.track_pages_per_live_byte(trace) for _ in range(2)}
        assert len(figures) == 1
        assert 1 < figures.pop() < 10


@pytest.mark.parametrize("name", ["Tmem", "DiffEngine"])
def test_stores_report_figures(suite, monkeypatch, name):
    monkeypatch.setattr(suite["stores"], "N_PAGES", 200)
    for kind in suite["stores"].KINDS:
        for method in ("track_pages_per_page", "track_xfree_worst_cycles"):
            benchmark = getattr(suite["stores"], name)()
            benchmark.setup(kind)
            assert getattr(benchmark, method)(kind) > 0
            benchmark.teardown(kind)
