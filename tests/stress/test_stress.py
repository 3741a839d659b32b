# SPDX-License-Identifier: BSD-3-Clause
"""The stress commands and their parts: generators, targets, the hunt."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import xmem
from xmem.cli.stress import session
from xmem.cli.stress.heaps import stress, stress_frames
from xmem.cli.stress.stores import stress_diffengine, stress_tmem
from xmem.measure.replay import replay
from xmem.measure.trace import OP_FREE, OP_REALLOC, TRACE_DTYPE, check_trace
from xmem.stress.generator import MAX_LIFETIME, OpGenerator
from xmem.stress.hunt import Fault, Outcome, Plan, hunt
from xmem.stress.loads import FRAME_LOADS, LOADS, table
from xmem.stress.target import HeapTarget
from xmem.stress.workloads import HeapWorkload, renumbered

SIZES = np.arange(1, 4097)
LIVES = np.arange(1, 4097) % 500 + 1


def generator(seed: int = 1, **options: bool) -> OpGenerator:
    return OpGenerator(SIZES, LIVES, seed, **options)


# Generated ---------------------------------------------------------------------


def test_the_same_seed_makes_the_same_operations() -> None:
    first, second, other = generator(1), generator(1), generator(2)
    whole = first.make(5000)
    parts = [second.make(n) for n in (1, 0, 999, 4000)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, other.make(5000))


@pytest.mark.parametrize("frames", [False, True])
def test_operations_obey_the_format(frames: bool) -> None:
    ops = generator(frames=frames).make(50_000)
    live: set[int] = set()
    for op, number, size in zip(
        ops["op"].tolist(), ops["id"].tolist(), ops["size"].tolist(), strict=True
    ):
        if op == OP_FREE:
            live.remove(number)
        elif op == OP_REALLOC:
            assert number in live
            assert not frames
        else:
            assert number not in live
            live.add(number)
        assert op == OP_FREE or size in SIZES
    assert 0 < len(live) <= 500
    assert set(ops["op"].tolist()) == ({0, 1} if frames else {0, 1, 2, 3, 4})
    trace = check_trace(renumbered(ops))
    assert len(trace) == len(ops)


def test_an_object_lives_as_long_as_was_drawn() -> None:
    ops = OpGenerator(np.full(4096, 8), np.full(4096, 10), 1, frames=True).make(1000)
    now = 0
    born = {}
    for op, number in zip(ops["op"].tolist(), ops["id"].tolist(), strict=True):
        if op == OP_FREE:
            assert now - born.pop(number) == 10
        else:
            now += 1
            born[number] = now


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((SIZES[:-1], LIVES, 1), xmem.BadArgument),
        ((SIZES, LIVES * 0, 1), xmem.BadArgument),
        ((SIZES, LIVES + MAX_LIFETIME, 1), xmem.BadArgument),
        ((-SIZES, LIVES, 1), xmem.BadArgument),
        (("a", LIVES, 1), xmem.BadArgumentType),
        ((SIZES, LIVES, -1), xmem.BadArgument),
        ((SIZES, LIVES, "a"), xmem.BadArgumentType),
    ],
)
def test_tables_that_cannot_be_meant(arguments: tuple, error: type) -> None:
    with pytest.raises(error):
        OpGenerator(*arguments)


# Carried out -------------------------------------------------------------------

TARGETS = [
    ("pool", {}),
    ("pool", {"quick": True}),
    ("pool", {"hardened": True}),
    ("pool", {"engine": "firstfit"}),
    *(
        ("heap", {"interface": name})
        for name in ("strict", "array", "subpage", "legacy", "merged")
    ),
    ("frames", {}),
]


@pytest.mark.parametrize(("kind", "settings"), TARGETS)
def test_a_sound_target_has_no_fault(kind: str, settings: dict) -> None:
    target = HeapTarget(kind, settings, 16 << 20)
    ops = generator(frames=kind == "frames").make(20_000)
    if kind == "frames":
        ops["size"] = ops["size"] % 9 + (ops["op"] != OP_FREE)
    for i in range(0, 20_000, 5000):
        assert target.execute(0, ops[i : i + 5000]) == -1
        assert target.check() == 0
    stats = target.stats()
    assert stats["live"] > 0
    assert stats["worst_free"] > 0
    assert 0 <= target.fragmentation() <= 1


def test_a_full_arena_refuses_and_stays_sound() -> None:
    target = HeapTarget("pool", {}, 1 << 18)
    assert target.execute(0, generator().make(20_000)) == -1
    assert target.stats()["failed"] > 0
    assert target.check() == 0


def test_threads_take_turns() -> None:
    target = HeapTarget("pool", {}, 64 << 20, threads=2)
    turns = [np.zeros(3000, dtype=np.uint64) for _ in range(2)]
    for thread in range(2):
        assert target.execute(thread, generator(thread).make(3000), turns[thread]) == -1
    assert sorted([*turns[0].tolist(), *turns[1].tolist()]) == list(range(6000))
    assert target.check() == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.execute(1, generator().make(10)), xmem.BadArgument),
        (lambda s: s.execute(0, np.zeros(3)), xmem.BadArgumentType),
        (lambda s: s.execute(0, [1, 2]), xmem.BadArgumentType),
        (lambda s: s.execute(0, field("id", 1 << 20)), xmem.BadArgument),
        (lambda s: s.execute(0, field("op", 5)), xmem.BadArgument),
        (lambda s: s.execute(0, field("align_log2", 60)), xmem.BadArgument),
        (lambda s: s.execute(0, field("size", 1 << 50)), xmem.BadArgument),
        (lambda s: s.execute(0, np.zeros(2, dtype=TRACE_DTYPE)), xmem.BadArgument),
        (
            lambda s: s.execute(0, generator().make(9), np.zeros(3, np.uint64)),
            xmem.BadArgument,
        ),
        (lambda s: HeapTarget("heap", {"interface": "x"}, 1 << 20), xmem.BadArgument),
        (lambda s: HeapTarget("stack", {}, 1 << 20), xmem.BadArgument),
        (lambda s: HeapTarget("pool", {}, 1 << 20, threads=65), xmem.BadArgument),
        (lambda s: HeapTarget("pool", {}, 1 << 20, n_objects=0), xmem.BadArgument),
        (lambda s: HeapTarget.__new__(HeapTarget).check(), xmem.BadArgument),
        (
            lambda s: HeapTarget.__new__(HeapTarget).execute(0, generator().make(1)),
            xmem.BadArgument,
        ),
        (lambda s: OpGenerator.__new__(OpGenerator).make(1), xmem.BadArgument),
    ],
)
def test_what_cannot_be_meant(
    call: Callable[[HeapTarget], object], error: type
) -> None:
    target = HeapTarget("pool", {}, 1 << 20)
    with pytest.raises(error):
        call(target)
    assert target.check() == 0
    assert target.execute(0, generator().make(100)) == -1


def field(name: str, value: int) -> np.ndarray:
    """One operation with a field that is too great."""
    ops = np.zeros(1, dtype=TRACE_DTYPE)
    ops[name] = value
    return ops


# The hunt ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADS)
def test_every_load(name: str) -> None:
    sizes, lifetimes = table(LOADS[name], 7)
    assert (sizes.min(), lifetimes.min()) >= (1, 1)
    outcome = hunt(
        Plan(HeapWorkload("pool", {}, name, LOADS[name].arena_bytes), n_ops=100_000)
    )
    assert (outcome.fault, outcome.n_ops, outcome.n_checks) == (None, 100_000, 1)


@pytest.mark.parametrize("name", FRAME_LOADS)
def test_every_load_of_frames(name: str) -> None:
    workload = HeapWorkload("frames", {}, name, FRAME_LOADS[name].arena_bytes)
    outcome = hunt(Plan(workload, n_ops=70_000, check_every=20_000))
    assert (outcome.fault, outcome.n_checks) == (None, 4)


def test_episodes_and_threads() -> None:
    reported: list[int] = []
    outcome = hunt(
        Plan(
            HeapWorkload("heap", {"interface": "strict"}, "small", 16 << 20, threads=2),
            n_ops=50_000,
            episode_ops=20_000,
            check_every=7000,
        ),
        lambda outcome: reported.append(outcome.n_ops),
    )
    assert isinstance(outcome, Outcome)
    assert (outcome.n_ops, outcome.n_episodes, outcome.fault) == (100_000, 3, None)
    assert reported == sorted(reported)


def test_a_trace_runs_once(tmp_path: Path) -> None:
    ops = renumbered(generator().make(5000))
    workload = HeapWorkload("pool", {}, "mixed", 16 << 20)
    assert hunt(Plan(workload, ops=ops)).n_ops == 5000
    # It is a trace: `xmem replay` takes it as well.
    assert replay(ops, repeats=1, verify=True).content_errors == 0


# The commands ------------------------------------------------------------------


def run(command: object, *options: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, [str(option) for option in options])
    return result.exit_code, result.output


def test_stress_from_the_command_line(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    status, printed = run(
        stress, "--ops", 300_000, "--seed", 11, "--quick", "--json", record
    )
    assert status == 0, printed
    assert printed.startswith("seed 11\n")
    found = json.loads(record.read_text())
    assert (found["ops"], found["seed"], found["fault"]) == (300_000, 11, None)


def test_the_same_run_twice(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        record = tmp_path / "record.json"
        assert run(stress, "--ops", 200_000, "--seed", 3, "--json", record)[0] == 0
        found = json.loads(record.read_text())
        seen.append(
            (
                found["fragmentation"],
                found["stats"]["live"],
                found["stats"]["live_size"],
            )
        )
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (stress, ("--engine", "firstfit", "--load", "small")),
        (stress, ("--hardened", "all", "--threads", 2)),
        (stress, ("--interface", "subpage", "--load", "pages")),
        (stress_frames, ("--load", "exact")),
        (stress_frames, ("--threads", 2)),
    ],
)
def test_variants(command: object, options: tuple) -> None:
    status, printed = run(command, "--ops", 40_000, "--check-every", 10_000, *options)
    assert status == 0, printed
    assert "faults" in printed


@pytest.mark.parametrize("command", [stress_tmem, stress_diffengine])
@pytest.mark.parametrize(
    "options",
    [(), ("--interface", "legacy", "--threads", 2), ("--engine", "firstfit")],
)
def test_stores_from_the_command_line(
    command: object, options: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = run(
        command, "--ops", 3000, "--check-every", 1000, "--pages", "self", *options
    )
    assert status == 0, printed


@pytest.mark.parametrize(
    ("command", "options", "what"),
    [
        (stress, ("--load", "none"), "none"),
        (stress, ("--engine", "tlsf", "--interface", "strict"), "not both"),
        (stress, ("--interface", "strict", "--quick"), "--quick"),
        (stress, ("--hardened", "all", "--quick"), "quick"),
        (stress, ("--trace", __file__), "not a trace"),
        (stress, ("--threads", 0), "threads"),
        (stress, ("--fault-file", "x", "--json", "x"), "would overwrite"),
        (stress, ("--fault-file", "no/such/folder"), "is not a folder"),
        (stress_tmem, ("--pages", "/nonexistent"), "--pages"),
        (stress_tmem, ("--pages", "pid:4000000"), "--pages"),
        (stress_diffengine, ("--n-pages", 3), "n-pages"),
    ],
)
def test_usage(
    command: object,
    options: tuple,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = run(command, *options, "--seconds", 1)
    assert status == 2, printed
    assert what in printed


def test_a_file_that_is_no_run(tmp_path: Path) -> None:
    ops = np.zeros(2, dtype=TRACE_DTYPE)  # one number, allocated twice
    np.savez(tmp_path / "twice.npz", ops=ops)
    status, printed = run(stress, "--trace", tmp_path / "twice.npz")
    assert status == 2, printed
    ops["id"] = (0, 1 << 31)
    np.savez(tmp_path / "far.npz", ops=ops)
    status, printed = run(stress_frames, "--trace", tmp_path / "far.npz")
    assert status == 2, printed


@pytest.mark.parametrize("options", [(), ("--interface", "strict"), ("--quick",)])
def test_a_fault_ends_with_the_command_that_replays_it(
    options: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine is sound, so the fault is made up and the command finds nothing.
    monkeypatch.chdir(tmp_path)
    fault = Fault("B4 is broken", renumbered(generator().make(100)), 5000)
    monkeypatch.setattr(session, "watch", lambda *_: Outcome(fault=fault))
    hardened = ("--hardened", "all") if "--quick" not in options else ()
    status, printed = run(
        stress, *options, *hardened, "--seed", 1, "--json", "r.json", "--seconds", 1
    )
    assert status == 1, printed
    assert "Fault: B4 is broken" in printed
    found = json.loads(Path("r.json").read_text())["fault"]
    assert (found["file"], found["ops"]) == ("fault.npz", 100)
    assert f"    {found['command']}\n" in printed
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(found["command"])
    assert program == "xmem-stress"
    for word in map(str, (*options, *hardened)):
        assert word in words
    status, printed = run(stress, *words)
    assert status == 0, printed


def test_a_fault_that_needs_its_threads_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = Outcome(fault=Fault("lost", None, 12))
    monkeypatch.setattr(session, "watch", lambda *_: outcome)
    status, printed = run(stress_frames, "--threads", 2, "--json", "r.json")
    assert status == 1
    assert "it needs the threads" in " ".join(printed.split())
    found = json.loads(Path("r.json").read_text())["fault"]
    assert found == {"what": "lost", "file": None, "command": None}
    assert not Path("fault.npz").exists()


@pytest.mark.no_asan
def test_ctrl_c_ends_with_the_summary(tmp_path: Path) -> None:
    # A shell starts what runs behind it with Ctrl-C ignored, and so us, perhaps.
    code = (
        "import signal\n"
        "from xmem.cli.main import stress\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    stress()"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "--seconds", "100", "--seed", "1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "seed 1\n"
            time.sleep(2)
            os.killpg(process.pid, signal.SIGINT)
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "operations" in printed
    assert "faults" in printed
