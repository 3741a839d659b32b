# SPDX-License-Identifier: BSD-3-Clause
"""Replays: their results, failed requests, progress, ends."""

import os
import signal

import numpy as np
import pytest
from support.tracing import EMPTY, ENGINES, GOOD, trace

import xmem
from xmem.data import demo_trace_path
from xmem.measure.replay import load, replay
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
    ample_arena_bytes,
    peak_live,
)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_replay_returns(engine):
    ops = load(demo_trace_path())[:5000]
    result = replay(ops, engine=engine, repeats=3, arena_bytes=64 << 20)
    assert (result.engine, result.n_ops, result.repeats) == (engine, 5000, 3)
    assert result.arena_bytes == 64 << 20
    assert np.array_equal(result.kinds, ops["op"])
    for cycles in (result.cycles, result.raw_cycles):
        assert cycles.shape == (5000,)
        assert cycles.dtype == np.uint64
        assert cycles.max() < 1 << 62
    assert (result.raw_cycles >= result.cycles).all()
    assert result.ns_per_op > 0
    assert result.tsc_hz > 0
    assert result.peak_live_bytes == peak_live(ops)
    live = set()
    most = 0
    for op, _, _, name, _ in ops.tolist():
        live = live - {name} if op == OP_FREE else live | {name}
        most = max(most, len(live))
    assert result.peak_live_blocks == most
    assert result.stats.live_blocks == len(live)
    record = result.record("redis")
    assert (record["trace"], record["ops"]) == ("redis", 5000)
    assert record["xfree_cycles"] == result.summary("xfree")


def test_the_same_heap_in_every_pass_and_every_replay():
    ops = load(demo_trace_path())[:5000]
    first = replay(ops, repeats=1)
    second = replay(ops, repeats=5, verify=True)
    assert first.stats == second.stats
    assert first.peak_page_bytes == second.peak_page_bytes


def test_settings_reach_the_pool():
    ops = trace((OP_MALLOC, 0, 100))
    assert replay(ops, grow_pages=3, repeats=1).stats.n_pages == 3
    assert replay(ops, max_pages=2, repeats=1).stats.n_pages == 2
    three = trace((OP_MALLOC, 0, 3 * 4096))
    assert replay(three, page_size=4096, max_pages=3, repeats=1).failed == 1
    large = replay(ops, page_size=65536, grow_pages=1, repeats=1)
    assert large.peak_page_bytes == 65536


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"repeats": 0}, xmem.BadArgument),
        ({"repeats": -1}, xmem.BadArgument),
        ({"repeats": 2**64}, xmem.BadArgument),
        ({"repeats": 10**6 + 1}, xmem.BadArgument),
        ({"verify": "no"}, xmem.BadArgumentType),
        ({"verify": 1}, xmem.BadArgumentType),
        ({"progress": 3}, xmem.BadArgumentType),
        ({"cold": [True]}, xmem.BadArgumentType),
        ({"cold": np.ones(2**10, dtype=bool)}, xmem.BadArgument),
        ({"repeats": 1.0}, xmem.BadArgumentType),
        ({"engine": "buddy"}, xmem.BadArgument),
        ({"engine": 1}, xmem.BadArgumentType),
        ({"arena_bytes": 0}, xmem.BadArgument),
        ({"arena_bytes": "1"}, xmem.BadArgumentType),
        ({"grow_pages": 0}, xmem.BadArgument),
        ({"max_pages": 0}, xmem.BadArgument),
        ({"page_size": 5000}, xmem.BadArgument),
    ],
    ids=repr,
)
def test_settings_that_cannot_be(settings, error):
    with pytest.raises(error):
        replay(trace(*GOOD), **settings)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("verify", [False, True])
def test_an_empty_trace(engine, verify):
    called = []
    result = replay(
        EMPTY, engine=engine, verify=verify, progress=lambda *seen: called.append(seen)
    )
    assert (result.n_ops, result.failed, result.ns_per_op) == (0, 0, 0.0)
    assert len(result.cycles) == 0
    assert result.peak_live_bytes == result.peak_page_bytes == 0
    assert set(result.summary("xfree").values()) == {0}
    assert called == []


# Failed requests ---------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("verify", [False, True])
def test_requests_that_fail_are_counted_and_forgotten(engine, verify):
    """Every kind of call, on objects that are there and on ones that are not."""
    size = 300_000
    lines = [(OP_MALLOC, name, size) for name in range(10)]
    lines += [(OP_CALLOC, 10, 10), (OP_MEMALIGN, 11, 10, 12)]
    lines += [(OP_MALLOC, 12, 1 << 44), (OP_MEMALIGN, 13, 8, 44)]
    lines += [(OP_REALLOC, name, size + 1) for name in range(10)]
    lines += [(OP_FREE, name, 0) for name in range(14)]
    lines += [(OP_MALLOC, 14, size)]
    result = replay(
        trace(*lines),
        engine=engine,
        arena_bytes=1 << 20,
        verify=verify,
        repeats=2,
        page_size=4096,
    )
    # The frames hold one run of 512 KiB: one block of this size or two.
    served = 10 - (result.failed - 2) // 2
    assert 1 <= served <= 3
    assert result.failed == 2 * (10 - served) + 2 + result.failed % 2
    assert result.content_errors == 0
    assert result.stats.live_blocks == 1
    assert result.peak_live_bytes >= served * size
    assert result.peak_live_bytes < peak_live(trace(*lines))


@pytest.mark.parametrize("engine", ENGINES)
def test_calls_on_objects_that_were_never_made_are_no_calls(engine):
    ops = trace(
        *[(OP_MALLOC, 0, 1 << 40), (OP_REALLOC, 0, 10), (OP_FREE, 0, 0)],
        *[(OP_MALLOC, 1, 10), (OP_FREE, 1, 0)],
    )
    result = replay(ops, engine=engine, arena_bytes=1 << 20, repeats=2)
    assert result.was_run.tolist() == [True, False, False, True, True]
    assert (result.failed, result.skipped) == (2, 2)
    assert (
        result.cycles[[1, 2]].tolist() == result.raw_cycles[[1, 2]].tolist() == [0, 0]
    )
    assert set(result.summary("xrealloc").values()) == {0}
    # One free alone was made: it is every percentile.
    assert result.summary("xfree")["p50"] == result.summary("xfree")["worst"]
    assert result.summary("xfree")["worst"] == result.cycles[4]


def test_a_resize_that_fails_leaves_its_object():
    ops = trace((OP_MALLOC, 0, 1000), (OP_REALLOC, 0, 1 << 30), (OP_REALLOC, 0, 500))
    result = replay(ops, arena_bytes=1 << 20, verify=True, repeats=1)
    assert (result.failed, result.content_errors) == (1, 0)
    assert result.stats.live_blocks == 1
    assert result.peak_live_bytes == 1000


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pages_of_a_limit_are_all_used_and_no_more(engine):
    ops = trace(*[(OP_MALLOC, name, 3000) for name in range(40)])
    result = replay(ops, engine=engine, max_pages=7, grow_pages=2, repeats=1)
    assert result.peak_page_bytes == 7 * xmem.Arena.anonymous(1 << 20).page_size
    assert result.failed == 40 - result.stats.live_blocks > 0


def test_a_trace_that_changes_meanwhile_does_not_matter():
    ops = trace(*[(OP_MALLOC, name, 5000) for name in range(20_000)])
    calls = []

    def spoil(done, total):
        calls.append(done)
        ops["id"] = 0xFFFFFFFF
        ops["size"] = 1 << 44

    result = replay(ops, repeats=1, verify=True, progress=spoil)
    assert calls
    assert (result.failed, result.content_errors) == (0, 0)
    assert result.stats.live_blocks == 20_000


WEIGHTY = {
    "tiny blocks": [(OP_MALLOC, 1, 0)] * 600_000,
    "wide alignments": [(OP_MEMALIGN, 10, 20)] * 200,
    "just over a page": [(OP_MALLOC, 4097, 0), (OP_MEMALIGN, 70_000, 13)] * 2000,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("page_size", [4096, 1 << 20])
@pytest.mark.parametrize("load", WEIGHTY)
def test_the_default_arena_is_ample(load, page_size, engine):
    lines = WEIGHTY[load]
    if page_size > 4096:
        lines = lines[:20_000]
    ops = np.zeros(len(lines), dtype=TRACE_DTYPE)
    ops["op"], ops["size"], ops["align_log2"] = zip(*lines, strict=True)
    ops["id"] = np.arange(len(ops))
    result = replay(ops, engine=engine, repeats=1, page_size=page_size)
    assert result.failed == 0


def test_an_arena_is_never_larger_than_arenas_can_be():
    ops = trace((OP_MALLOC, 0, 1 << 44), (OP_MALLOC, 1, 1 << 44))
    assert ample_arena_bytes(ops, 4096, 1) == (1 << 44) - 4096
    assert ample_arena_bytes(ops, 65536, 1) == 1 << 44
    assert ample_arena_bytes(EMPTY, 4096, 16) == (64 << 20) + 4 * 16 * 4096


@pytest.mark.parametrize("verify", [False, True])
def test_memory_that_the_machine_has_not_is_refused(verify, monkeypatch):
    figures = {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", figures.__getitem__)
    lines = [(OP_MALLOC, 0, 1 << 20), (OP_REALLOC, 0, 1 << 19)]
    with pytest.raises(xmem.BadArgument, match="this machine has 409600"):
        replay(trace(*lines[: 1 if verify else 2]), verify=verify, repeats=1)
    # A trace that touches no memory may be as large as it likes.
    assert replay(trace(lines[0]), repeats=1).failed == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_emptied_caches_do_not_change_what_is_done(engine):
    ops = load(demo_trace_path())[:300]
    cold = np.zeros(len(ops), dtype=bool)
    cold[::10] = True
    chilled = replay(ops, engine=engine, repeats=2, cold=cold, arena_bytes=16 << 20)
    warm = replay(ops, engine=engine, repeats=2, arena_bytes=16 << 20)
    assert chilled.stats == warm.stats
    assert chilled.was_run.all()
    assert chilled.peak_page_bytes == warm.peak_page_bytes


# Progress ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeats", "verify", "passes"), [(1, 0, 2), (2, 1, 5), (5, 0, 8)]
)
def test_progress_goes_up_to_the_whole(repeats, verify, passes):
    ops = load(demo_trace_path())[:4000]
    seen = []
    replay(
        ops,
        repeats=repeats,
        verify=bool(verify),
        progress=lambda done, total: seen.append((done, total)),
    )
    totals = {total for _, total in seen}
    done = [done for done, _ in seen]
    assert totals == {passes * len(ops)}
    assert done == sorted(set(done))
    assert done[-1] == passes * len(ops)
    assert {k * len(ops) for k in range(1, passes + 1)} <= set(done)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_what_progress_raises_comes_through(error):
    ops = load(demo_trace_path())[:4000]
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        replay(ops, progress=progress)
    assert len(calls) == 2
    # Nothing of it is left behind.
    assert replay(ops, repeats=1).failed == 0


def test_a_signal_ends_a_replay():
    """The handler runs between two slices, also without a progress callback."""
    ops = load(demo_trace_path())
    ops = ops[ops["op"] == OP_MALLOC][:2000]

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            replay(ops, progress=lambda *seen: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_progress_that_cannot_be_called():
    with pytest.raises(TypeError):
        replay(trace(*GOOD), progress=5)
