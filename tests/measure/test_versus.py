# SPDX-License-Identifier: BSD-3-Clause
"""`xmem versus`: rounds in processes of their own, and the report on them."""

import ctypes.util
import json
import statistics

import numpy as np
import pytest
from click.testing import CliRunner
from support import malloc
from support.peer import APART, WHOLE, build
from support.tracing import trace

from xmem.base.errors import BadArgument, PeerError
from xmem.cli.group import xmem
from xmem.cli.versus import enter
from xmem.data import demo_trace_path
from xmem.measure import versus as measure
from xmem.measure.peers import Peer
from xmem.measure.trace import OP_FREE, OP_MALLOC, peak_live
from xmem.measure.versus import (
    Contender,
    compare,
    engines,
    least_arena,
    libraries,
    memory_of,
    overall,
    run_child,
    system_name,
    uses_arena,
)

# Its children preload allocators, not ASan's runtime.
pytestmark = [pytest.mark.no_asan, pytest.mark.slow]

RECORD_KEYS = {
    *("name", "trace", "ops", "failed", "ns", "ratio"),
    *("xmalloc_cycles", "xfree_cycles", "memory", "memory_from", "format"),
    *("ranks", "mean_worst"),
}
OPS = trace(
    *((OP_MALLOC, i, 1000 + i) for i in range(300)),
    *((OP_FREE, i, 0) for i in range(0, 300, 2)),
)


@pytest.fixture
def small(tmp_path):
    np.savez(tmp_path / "small.npz", ops=OPS)
    return tmp_path / "small.npz"


def versus(*arguments):
    return CliRunner().invoke(xmem, ["versus", *map(str, arguments)])


def test_all_run_in_each_round(small):
    contenders = [*engines(), Contender("libc", "system")]
    seen = []
    found = compare(
        contenders,
        [small, demo_trace_path()],
        rounds=2,
        repeats=2,
        max_ops=2000,
        progress=lambda *what: seen.append(what),
    )
    assert [(r["name"], r["trace"]) for r in found] == [
        (name, trace)
        for name in ("xmem", "xmem, quick", "xmem, checked", "libc")
        for trace in ("small", "redis")
    ]
    for record in found:
        assert set(record) == RECORD_KEYS
        assert len(record["ns"]) == len(record["ratio"]) == 2
        (reference,) = [r for r in found[:2] if r["trace"] == record["trace"]]
        assert record["ratio"] == [
            mine / its for mine, its in zip(record["ns"], reference["ns"], strict=True)
        ]
        assert record["failed"] == 0
        # None: what the process has at hand serves a small trace.
        assert record["memory"] is None or record["memory"] >= 1
        assert record["memory"] or record["name"] == "libc"
    assert [record["ratio"] for record in found[:2]] == [[1.0, 1.0]] * 2
    # The order turns, so that nobody always runs behind the same.
    assert [name for name, _, _ in seen[:5]] == [
        "null",
        "xmem",
        "xmem, quick",
        "xmem, checked",
        "libc",
    ]
    assert [name for name, _, _ in seen[5:]] == [
        "xmem",
        "xmem, quick",
        "xmem, checked",
        "libc",
        "null",
    ]
    means = overall(found)
    assert [mean["name"] for mean in means] == [
        "xmem",
        "xmem, quick",
        "xmem, checked",
        "libc",
    ]
    for mean in means:
        mine = [r for r in found if r["name"] == mean["name"]]
        by_round = [
            statistics.geometric_mean(r["ratio"][i] for r in mine) for i in range(2)
        ]
        assert mean["ratio"] == [
            statistics.median(by_round),
            min(by_round),
            max(by_round),
        ]
        assert mean["xfree_cycles"]["worst_of_all"] == max(
            r["xfree_cycles"]["worst"] for r in mine
        )


def fake_child(times, worst=None, memory=None):
    """A child whose nanoseconds and cycles are given, round by round."""
    turns = dict.fromkeys(times, 0)

    def run(contender, traces, *, repeats=1, memory_of=memory, **keywords):
        name = contender.name
        if keywords.get("memory"):
            return [{"trace": t.stem, "memory": memory_of[name]} for t in traces]
        i = turns[name]
        turns[name] += 1
        cycles = {"p50": 1, "p999": 2, "worst": (worst or times)[name][i]}
        return [
            {
                "trace": t.stem,
                "ops": 7,
                "failed": 0,
                "ns_per_op": times[name][i],
                "memory_from": "system",
                "xmalloc_cycles": cycles,
                "xfree_cycles": cycles,
            }
            for t in traces
        ]

    return run


def test_ratios_are_of_times_less_the_rig_s_and_cycles_are_medians(small, monkeypatch):
    times = {"null": [10, 20, 30], "first": [60, 70, 80], "other": [110, 70, 55]}
    worst = {"null": [0, 0, 0], "first": [5, 100, 7], "other": [9, 1, 3]}
    memory = {"first": 3 * peak_live(OPS), "other": peak_live(OPS)}
    monkeypatch.setattr(measure, "run_child", fake_child(times, worst, memory))
    first, other = compare(
        [Contender("first", "engine"), Contender("other", "engine")], [small], rounds=3
    )
    assert first["ns"] == [50, 50, 50]
    assert other["ns"] == [100, 50, 25]
    assert first["ratio"] == [1, 1, 1]
    assert other["ratio"] == [2, 1, 0.5]
    assert first["xfree_cycles"] == {"p50": 1, "p999": 2, "worst": 7}
    assert other["xmalloc_cycles"]["worst"] == 3
    assert (first["memory"], other["memory"]) == (3, 1)
    assert first["ranks"] == {"xmalloc": 2, "xfree": 2}
    assert other["ranks"] == {"xmalloc": 1, "xfree": 1}
    assert other["mean_worst"] == pytest.approx({"xmalloc": 3, "xfree": 3})
    mean = overall([first, other])[1]
    assert mean["ratio"] == [1, 0.5, 2]
    assert mean["ns"] == pytest.approx(50)


def test_means_over_traces_are_geometric():
    def result(name, ratio, ns, cycles):
        verb = {"p50": cycles, "p999": cycles, "worst": cycles}
        return {
            **{"name": name, "failed": 1, "ratio": ratio, "ns": ns},
            **{"trace": f"of {cycles}", "memory": cycles},
            **{"xmalloc_cycles": verb, "xfree_cycles": verb},
        }

    (mean,) = overall(
        [result("a", [1, 4, 9], [2, 8, 18], 2), result("a", [4, 1, 1], [8, 2, 2], 8)]
    )
    assert mean["ratio"] == pytest.approx([2, 2, 3])
    assert mean["ns"] == pytest.approx(4)
    assert mean["xfree_cycles"]["worst"] == pytest.approx(4)
    assert mean["xfree_cycles"]["worst_of_all"] == 8
    assert (mean["memory"], mean["failed"]) == (pytest.approx(4), 2)
    # Means over different traces would not compare.
    lacks = {**result("b", [1, 1, 1], [1, 1, 1], 8), "memory": None}
    also = result("b", [1, 1, 1], [1, 1, 1], 2)
    mean = overall([lacks, also, result("c", [1, 1, 1], [1, 1, 1], 8)])[0]
    assert (mean["name"], mean["memory"]) == ("b", None)


def test_a_peer_of_ones_own_enters(small, tmp_path):
    file = build(tmp_path, WHOLE)
    result = versus(
        *(small, "--peer", file, "--rounds", 1, "--repeats", 1, "--json", "-"),
        *(
            "--plot",
            tmp_path / "versus.png",
            "--library",
            ctypes.util.find_library("c"),
        ),
    )
    assert result.exit_code == 0, result.output
    names = [record["name"] for record in json.loads(result.stdout)]
    assert names[:3] == ["xmem", "xmem, quick", "xmem, checked"]
    assert names[-1] == "bump"
    assert len(names) == 6
    assert "bump" in result.stderr
    assert (tmp_path / "versus.png").read_bytes().startswith(b"\x89PNG")


def test_a_library_that_replaces_malloc_enters_as_a_peer(small, tmp_path):
    file = malloc.build(tmp_path, "libanother.so.1")
    result = versus(
        *(small, "--peer", file, "--rounds", 1, "--repeats", 1, "--json", "-")
    )
    assert result.exit_code == 0, result.output
    records = {r["name"]: r for r in json.loads(result.stdout)}
    assert records["libanother.so.1"]["failed"] == 0
    result = versus(small, "--peer", malloc.build(tmp_path, "no.so", malloc.NOTHING))
    assert result.exit_code == 2
    assert "no object PEER" in result.stderr


def test_a_peer_with_memory_of_its_own_is_measured_as_a_library(tmp_path):
    """An arena of any size would serve it, and say nothing of what it takes."""
    ops = trace(*((OP_MALLOC, i, 30_000) for i in range(200)))
    np.save(tmp_path / "live.npy", ops)
    apart, within = tmp_path / "apart", tmp_path / "within"
    apart.mkdir()
    within.mkdir()
    peers = [Peer.load(build(apart, APART)), Peer.load(build(within, WHOLE))]
    assert [uses_arena(peer) for peer in [*peers, Peer.engine(), Peer.system()]] == [
        *(False, True, True, False)
    ]
    sizes = [memory_of(peer, tmp_path / "live.npy") for peer in peers]
    # 16 bytes are lost of each block, and a page of the whole.
    assert 1 <= sizes[0] / peak_live(ops) < 1.2
    assert least_arena(peers[1], ops) == sizes[1]


def test_memory_that_was_at_hand_is_not_counted_as_thrift(tmp_path, monkeypatch):
    np.save(tmp_path / "small.npy", OPS)
    monkeypatch.setattr(measure, "growth", lambda peer, ops: peak_live(ops) - 1)
    assert memory_of(Peer.system(), tmp_path / "small.npy") is None
    monkeypatch.setattr(measure, "growth", lambda peer, ops: peak_live(ops))
    assert memory_of(Peer.system(), tmp_path / "small.npy") == peak_live(OPS)


def test_a_library_that_cannot_be_loaded_late_has_no_memory(tmp_path):
    np.save(tmp_path / "small.npy", OPS)
    refusing = Contender("refusing", "system", preload="libmissing-malloc.so.1")
    (record,) = run_child(refusing, [tmp_path / "small.npy"], memory=True)
    assert record == {"trace": "small", "memory": None}


def test_engines_of_xmem_are_named_as_elsewhere():
    ours = {
        engines: [c.name for c in enter(engines=engines) if c.kind == "engine"]
        for engines in (("tlsf",), ("firstfit",), ("firstfit", "tlsf"))
    }
    assert ours == {
        ("tlsf",): ["xmem", "xmem, quick", "xmem, checked"],
        ("firstfit",): ["xmem, legacy"],
        ("firstfit", "tlsf"): ["xmem", "xmem, quick", "xmem, checked", "xmem, legacy"],
    }
    assert [c.name for c in enter()][:3] == ours["tlsf",]


def test_pools_of_tlsf_can_have_their_pages_before(small):
    entered = enter(engines=("tlsf", "firstfit"), ways=(True,))
    assert [(c.name, c.settings) for c in entered[:4]] == [
        ("xmem, reserved", {"reserved": True}),
        ("xmem, quick, reserved", {"quick": True, "reserved": True}),
        ("xmem, checked, reserved", {"checked": True, "reserved": True}),
        ("xmem, legacy", {"engine": "firstfit"}),
    ]
    result = versus(small, "--reserve", "--rounds", 1, "--repeats", 1, "--json", "-")
    assert result.exit_code == 0, result.output
    assert "have their pages before the clock starts" in result.stderr
    assert all(record["memory"] < 8 for record in json.loads(result.stdout)[:3])


def test_one_command_asks_both_questions(small, tmp_path):
    """Each record says where the memory comes from, and so does each row."""
    file = build(tmp_path, WHOLE)
    few = ("--rounds", 1, "--repeats", 1, "--peer", file, "--library", "libc.so.6")
    result = versus(small, "--reserve-too", *few, "--json", "-")
    assert result.exit_code == 0, result.output
    assert {r["name"]: r["memory_from"] for r in json.loads(result.stdout)} == {
        **dict.fromkeys(["xmem", "xmem, quick", "xmem, checked"], "grown"),
        "xmem, reserved": "reserved",
        "xmem, quick, reserved": "reserved",
        "xmem, checked, reserved": "reserved",
        system_name(): "system",
        "libc.so.6": "system",
        "bump": "reserved",
    }
    assert "as they grow, and with their pages reserved" in result.stderr
    assert "Worst free on each trace: cycles (rank)" in result.stderr
    (row,) = [r for r in result.stderr.splitlines() if r.startswith("bump  ")][:1]
    assert row.split()[1] == "reserved"


def test_ways_that_exclude_each_other_are_refused(small):
    result = versus(small, "--reserve", "--reserve-too")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr
    result = versus(small, "--reserve-too", "--engine", "firstfit")
    assert result.exit_code == 2
    assert "--reserve-too is for the engine tlsf" in result.stderr


@pytest.mark.programs
def test_installed_libraries_are_preloaded(tmp_path):
    np.save(tmp_path / "small.npy", OPS)
    for contender in libraries():
        (record,) = run_child(contender, [tmp_path / "small.npy"])
        assert (record["engine"], record["failed"]) == (contender.name, 0)


def test_a_library_without_a_malloc_is_no_figure(tmp_path):
    """It is preloaded, and the C library's malloc would be measured under its name."""
    np.save(tmp_path / "small.npy", OPS)
    file = malloc.build(tmp_path, "libhollow.so", malloc.NOTHING)
    with pytest.raises(PeerError, match="has no malloc"):
        run_child(
            Contender("hollow", "system", preload=str(file)), [tmp_path / "small.npy"]
        )


def test_a_library_that_is_not_there_is_no_figure(tmp_path):
    np.save(tmp_path / "small.npy", OPS)
    missing = Contender("missing", "system", preload="libmissing-malloc.so.1")
    with pytest.raises(PeerError, match="was not preloaded"):
        run_child(missing, [tmp_path / "small.npy"])


def test_what_cannot_be_run_is_refused(small, tmp_path):
    result = versus(small, "--library", "libmissing.so", "--rounds", 1)
    assert result.exit_code == 1
    assert "libmissing.so" in result.stderr
    result = versus(small, "--peer", small)
    assert result.exit_code == 2
    assert "cannot load" in result.stderr
    file = build(tmp_path, WHOLE.replace("bump", "xmem"))
    result = versus(small, "--peer", file)
    assert result.exit_code == 2
    assert "2 allocators are called xmem" in result.stderr
    result = versus(small, "--json", small)
    assert result.exit_code == 2
    assert "would overwrite" in result.stderr
    with pytest.raises(BadArgument, match="different names"):
        compare([], [small])
    with pytest.raises(BadArgument, match="different names"):
        compare([Contender("null", "null")], [small])
    with pytest.raises(BadArgument, match="two traces"):
        compare(engines(), [small, small], rounds=1)


def test_a_trace_that_lives_nowhere_has_no_memory(tmp_path):
    np.savez(tmp_path / "empty.npz", ops=trace((OP_MALLOC, 0, 0)))
    found = compare(engines()[:1], [tmp_path / "empty.npz"], rounds=1, repeats=1)
    assert found[0]["memory"] is None
    assert overall(found)[0]["memory"] is None
    result = versus(tmp_path / "empty.npz", "--rounds", 1, "--repeats", 1)
    assert result.exit_code == 0, result.output
