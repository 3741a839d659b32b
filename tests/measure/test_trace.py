# SPDX-License-Identifier: BSD-3-Clause
"""Traces: their format, their files, their peaks, and the figures of a result."""

import math
import random
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tracing import EMPTY, GOOD, trace

import xmem
from xmem.data import demo_trace_path
from xmem.measure.replay import ReplayResult, load, replay
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
    check_trace,
    peak_live,
)

# The format --------------------------------------------------------------------


def test_the_demo_trace_is_one():
    ops = load(demo_trace_path())
    assert ops.dtype == TRACE_DTYPE
    assert len(ops) == 150_000
    assert np.array_equal(check_trace(ops), ops)


def test_a_trace_travels_through_a_file(tmp_path):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, ops=trace(*GOOD))
    for name in (path, str(path), str(path).encode()):
        assert np.array_equal(load(name), trace(*GOOD))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([(5, 0, 1)], "operation 0 is of unknown kind 5"),
        ([*GOOD, (255, 1, 1)], "operation 3 is of unknown kind 255"),
        ([(OP_MEMALIGN, 0, 8, 45)], "operation 0 requests an alignment of more"),
        ([(OP_MALLOC, 0, (1 << 44) + 1)], r"operation 0 requests more than 2\*\*44"),
        ([*GOOD, (OP_FREE, 0, 0)], "operation 3 uses object 0 outside its life"),
        ([*GOOD, (OP_REALLOC, 0, 9)], "operation 3 uses object 0 outside its life"),
        ([*GOOD, (OP_MALLOC, 0, 9)], "operation 3 uses object 0 outside its life"),
        ([(OP_FREE, 0, 0), *GOOD], "operation 0 uses object 0 outside its life"),
        ([(OP_REALLOC, 7, 8)], "operation 0 uses object 7 outside its life"),
        ([(OP_MALLOC, 0, 8), (OP_CALLOC, 0, 8)], "operation 1 uses object 0 outside"),
        ([(OP_MALLOC, 1 << 31, 8)], "ids must be indices"),
        ([(OP_MALLOC, 0, 8), (OP_FREE, 0, 8)], "operation 1 is a free and has a size"),
    ],
)
def test_what_the_format_forbids(lines, message, tmp_path):
    ops = trace(*lines)
    with pytest.raises(xmem.BadArgument, match=message):
        check_trace(ops)
    with pytest.raises(xmem.BadArgument, match=message):
        replay(ops)
    path = tmp_path / "bad.npz"
    np.savez(path, ops=ops)
    with pytest.raises(xmem.TraceFormatError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def reshaped(dtype):
    return np.zeros(3, dtype=[(name, dtype) for name in TRACE_DTYPE.names])


@pytest.mark.parametrize(
    "ops",
    [
        None,
        [],
        b"",
        np.zeros(3),
        np.zeros(3, dtype=[("op", "u1")]),
        np.zeros(3, dtype=TRACE_DTYPE.descr[::-1]),
        reshaped("f8"),
        reshaped("i8"),
        reshaped("U5"),
        reshaped("O"),
        reshaped("M8[s]"),
        reshaped("u8"),
        reshaped("i1"),
        reshaped(("u1", (2,))),
    ],
    ids=repr,
)
def test_what_is_no_trace_at_all(ops):
    with pytest.raises(xmem.BadArgumentType, match="unsigned fields op, align"):
        check_trace(ops)
    with pytest.raises(xmem.BadArgumentType):
        replay(ops)


def test_a_trace_has_one_dimension():
    with pytest.raises(xmem.BadArgument, match="one dimension, not 2"):
        check_trace(np.zeros((2, 2), dtype=TRACE_DTYPE))


def test_a_trace_in_pieces_or_foreign_byte_order_is_made_whole():
    ops = trace(*GOOD)
    spread = np.zeros(6, dtype=TRACE_DTYPE)
    spread[::2] = ops
    for same in (spread[::2], ops.astype(TRACE_DTYPE.newbyteorder(">"))):
        found = check_trace(same)
        assert found.flags.c_contiguous
        assert found.dtype == TRACE_DTYPE
        assert np.array_equal(found, ops)


@pytest.fixture
def files(tmp_path):
    """Files that are no traces, by what is wrong with them."""
    np.savez(tmp_path / "good.npz", ops=trace(*GOOD))
    good = (tmp_path / "good.npz").read_bytes()
    np.savez(tmp_path / "other.npz", calls=trace(*GOOD))
    np.save(tmp_path / "single.npy", trace(*GOOD))
    np.savez(tmp_path / "pickled.npz", ops=np.array([{}, None], dtype=object))
    np.savez(tmp_path / "plain.npz", ops=np.zeros(4))
    (tmp_path / "text.npz").write_text("op,id,size\n0,0,100\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "truncated.npz").write_bytes(good[: len(good) // 2])
    flipped = bytearray(good)
    flipped[good.index(b"NUMPY") + 160] ^= 0x40
    (tmp_path / "flipped.npz").write_bytes(flipped)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.npz", "the array 'ops', and this one has 'calls'"),
        ("single.npy", "not an .npz file"),
        ("pickled.npz", "not a trace"),
        ("plain.npz", "structured array with the unsigned fields op"),
        ("text.npz", "not an .npz file"),
        ("empty.npz", "not an .npz file"),
        ("truncated.npz", "not an .npz file"),
        ("flipped.npz", "not a trace"),
    ],
)
def test_files_that_are_no_traces(files, name, message):
    with pytest.raises(xmem.TraceFormatError, match=message) as caught:
        load(files / name)
    assert name in str(caught.value)


def test_a_trace_may_unpack_to_an_eighth_of_the_memory(tmp_path, monkeypatch):
    file = tmp_path / "zeros.npz"
    np.savez_compressed(file, ops=trace(*((0, i, 8) for i in range(1000))))
    with zipfile.ZipFile(file) as archive:
        n_bytes = archive.getinfo("ops.npy").file_size
    monkeypatch.setattr("xmem.measure.trace.machine_bytes", lambda: 8 * n_bytes)
    assert len(load(file)) == 1000
    monkeypatch.setattr("xmem.measure.trace.machine_bytes", lambda: 8 * n_bytes - 8)
    with pytest.raises(xmem.TraceFormatError, match="an eighth of this machine's"):
        load(file)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


# Peak of live bytes ------------------------------------------------------------


def slow_peak(ops):
    """Greatest sum of live sizes, by keeping them."""
    sizes = {}
    peak = 0
    for op, _, _, name, size in ops.tolist():
        if op == OP_FREE:
            del sizes[name]
        else:
            sizes[name] = size
        peak = max(peak, sum(sizes.values()))
    return peak


@st.composite
def traces(draw):
    """Any trace that obeys the format."""
    lines = []
    live = []
    for name in range(draw(st.integers(0, 12))):
        lines.append((draw(st.sampled_from([0, 3, 4])), name, draw(SIZE)))
        live.append(name)
        for _ in range(draw(st.integers(0, 3))):
            if live:
                old = draw(st.sampled_from(live))
                if draw(st.booleans()):
                    lines.append((OP_REALLOC, old, draw(SIZE)))
                else:
                    lines.append((OP_FREE, old, 0))
                    live.remove(old)
    return trace(*lines)


SIZE = st.one_of(st.integers(0, 100), st.integers(0, 1 << 40))


@given(traces())
def test_peak_live_is_the_greatest_sum_of_live_sizes(ops):
    assert peak_live(ops) == slow_peak(check_trace(ops))


def test_peak_live_of_the_demo_trace():
    ops = load(demo_trace_path())[:3000]
    assert peak_live(ops) == slow_peak(ops)
    assert peak_live(EMPTY) == 0


# Figures -----------------------------------------------------------------------


def result_of(kinds, cycles, raw=None):
    """A result with these cycles; the rest does not matter."""
    return ReplayResult(
        engine="tlsf",
        n_ops=len(kinds),
        failed=0,
        skipped=0,
        was_run=np.ones(len(kinds), dtype=bool),
        ns_per_op=1.5,
        kinds=np.array(kinds, dtype=np.uint8),
        cycles=np.array(cycles, dtype=np.uint64),
        raw_cycles=np.array(cycles if raw is None else raw, dtype=np.uint64),
        peak_live_bytes=1,
        peak_live_blocks=1,
        peak_page_bytes=4096,
        arena_bytes=1 << 20,
        tsc_hz=1e9,
        repeats=1,
        content_errors=0,
        stats=None,
    )


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 100, 101, 999, 1000, 1001, 2000, 9999])
def test_percentiles_are_the_least_value_that_so_many_do_not_exceed(n, seed):
    cycles = random.Random(f"{seed} {n}").choices(range(10 * n), k=n)
    summary = result_of([OP_FREE] * n, cycles).summary("xfree")
    ordered = sorted(cycles)
    for name, share in [("p50", "1/2"), ("p99", "99/100"), ("p999", "999/1000")]:
        assert summary[name] == ordered[math.ceil(Fraction(share) * n) - 1]
    assert summary["worst"] == summary["raw_worst"] == ordered[-1]
    assert all(type(value) is int for value in summary.values())


def test_verbs_are_summed_up_apart():
    kinds = [OP_MALLOC, OP_CALLOC, OP_MEMALIGN, OP_FREE, OP_REALLOC]
    result = result_of(kinds, [10, 20, 30, 40, 50], [11, 21, 99, 41, 51])
    assert result.summary("xmalloc") == {
        **{"p50": 20, "p99": 30, "p999": 30, "worst": 30, "raw_worst": 99}
    }
    assert result.summary("xfree")["worst"] == 40
    assert result.summary("xrealloc")["raw_worst"] == 51
    with pytest.raises(xmem.BadArgument, match="kind must be one of"):
        result.summary("malloc")


def test_a_verb_that_does_not_occur_is_all_zero():
    summary = result_of([OP_FREE], [5]).summary("xmalloc")
    assert set(summary.values()) == {0}
