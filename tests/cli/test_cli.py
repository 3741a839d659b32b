# SPDX-License-Identifier: BSD-3-Clause
"""The command `xmem`: every option, what it prints and writes, how it ends.

No test asserts a timing: only that the figure is there and of the right kind.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import xmem.cli.progress as progress_module
from xmem.base.errors import HeapCorruption, OutOfMemory
from xmem.cli import contenders, founding
from xmem.cli.group import xmem
from xmem.cli.plots.distributions import tail_shares
from xmem.cli.progress import Progress
from xmem.cli.tables.replay import ratio
from xmem.data import demo_trace_path
from xmem.measure.replay import load
from xmem.measure.trace import OP_FREE, OP_MALLOC, OP_REALLOC, TRACE_DTYPE, check_trace

SEED = 20
RECORD_KEYS = [
    "trace",
    "engine",
    "ops",
    "failed",
    "ns_per_op",
    "xmalloc_cycles",
    "xfree_cycles",
    "peak_live_bytes",
    "peak_page_bytes",
    "arena_bytes",
]
CYCLES_KEYS = ["p50", "p99", "p999", "worst", "raw_worst"]
#: Without the current folder, whose `xmem` has no compiled part.
PYTHON = [sys.executable, "-P"]
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def make_ops(n_blocks: int, size: int = 100, seed: int = SEED) -> np.ndarray:
    """Each block is allocated, reallocated half as large again, and freed."""
    rng = np.random.default_rng(seed)
    ops = np.zeros(3 * n_blocks, dtype=TRACE_DTYPE)
    for i, op in enumerate((OP_MALLOC, OP_REALLOC, OP_FREE)):
        part = ops[i * n_blocks : (i + 1) * n_blocks]
        part["op"] = op
        part["id"] = rng.permutation(n_blocks) if op else np.arange(n_blocks)
        part["size"] = (size, size * 3 // 2, 0)[i]
    return ops


def save_trace(path: Path, ops: np.ndarray) -> Path:
    np.savez_compressed(path, ops=ops)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return save_trace(tmp_path / "small.npz", make_ops(60))


@pytest.fixture
def other_trace(tmp_path: Path) -> Path:
    return save_trace(tmp_path / "other.npz", make_ops(40, size=3000))


def run(*arguments: object) -> Result:
    """Run the command in this process; standard error is kept apart."""
    result = CliRunner().invoke(xmem, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def replay(*arguments: object) -> Result:
    """Run `xmem replay` with few repeats."""
    return run("replay", "--repeats", 2, *arguments)


def rows(result: Result) -> list[list[str]]:
    """Return the cells of the table's rows, found by their engine."""
    lines = [line.split() for line in result.stdout.splitlines()]
    return [
        cells for cells in lines if len(cells) == 13 and cells[1] in contenders.ENGINES
    ]


def assert_failed(result: Result, status: int, *words: str) -> None:
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in " ".join(result.stderr.split())


# The table


def test_prints_one_row_per_engine_by_default(trace: Path) -> None:
    result = replay(trace)
    assert result.exit_code == 0
    assert [cells[:2] for cells in rows(result)] == [
        ["small", "tlsf"],
        ["small", "firstfit"],
    ]


def test_table_has_every_heading_and_is_not_truncated(trace: Path) -> None:
    text = replay(trace).stdout
    headings = ["trace", "engine", "per op", "xmalloc", "xfree"]
    headings += ["p50", "p99", "p99.9", "worst", "pages", "/ live"]
    for heading in [*headings, "failed", "requests"]:
        assert heading in text
    assert "…" not in text


def test_table_is_whole_on_a_narrow_terminal(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    result = replay(trace)
    assert len(rows(result)) == 2
    assert "…" not in result.stdout


def test_says_what_the_figures_mean(trace: Path) -> None:
    text = replay(trace).stdout
    assert "time-stamp counter" in text
    assert "GHz" in text
    assert "the least of 2 repeats" in text
    assert "the maximum over all calls" in text
    assert "Verified" not in text


def test_figures_are_numbers(trace: Path) -> None:
    for cells in rows(replay(trace)):
        figures = [float(cell.replace(",", "")) for cell in cells[2:]]
        assert figures[-1] == 0
        assert figures[-2] >= 1
        assert all(figure >= 0 for figure in figures)


def test_stdout_holds_no_progress(trace: Path) -> None:
    result = replay(trace)
    assert "done" not in result.stdout
    assert "small on tlsf: done" in result.stderr
    assert "small on firstfit: done" in result.stderr


def test_two_traces_times_two_engines_make_one_table(
    trace: Path, other_trace: Path
) -> None:
    result = replay(trace, other_trace)
    assert [cells[:2] for cells in rows(result)] == [
        ["small", "tlsf"],
        ["small", "firstfit"],
        ["other", "tlsf"],
        ["other", "firstfit"],
    ]
    assert result.stdout.count("engine") == 1


def test_traces_of_one_stem_go_by_their_paths(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    twin = save_trace(tmp_path / "again" / trace.name, make_ops(5))
    result = replay(trace, twin, "--engine", "tlsf")
    assert [cells[0] for cells in rows(result)] == [str(trace), str(twin)]


def test_a_verb_that_a_trace_never_calls_has_no_figures(trace: Path) -> None:
    result = replay(trace, "--max-ops", 1, "--engine", "tlsf")
    assert result.exit_code == 0
    assert rows(result)[0][7:11] == ["-", "-", "-", "-"]


def test_ratio_without_live_bytes_is_a_dash() -> None:
    assert ratio(None) == "-"
    assert ratio(2.0) == "2.00"


# Options


@pytest.mark.parametrize("engine", contenders.ENGINES)
def test_engine_chooses_one(trace: Path, engine: str) -> None:
    assert [cells[1] for cells in rows(replay(trace, "--engine", engine))] == [engine]


def test_engine_may_be_given_twice_and_keeps_its_order(trace: Path) -> None:
    options = ("--engine", "firstfit", "--engine", "tlsf", "--engine", "firstfit")
    result = replay(trace, *options)
    assert [cells[1] for cells in rows(result)] == ["firstfit", "tlsf"]


def test_repeats_are_printed(trace: Path) -> None:
    assert "the least of 3 repeats" in run("replay", trace, "--repeats", 3).stdout


def test_a_single_repeat_is_called_noisy(trace: Path) -> None:
    text = run("replay", trace, "--repeats", 1).stdout
    assert "one pass only, interrupts included" in text


def test_max_ops_cuts_every_trace(
    trace: Path, other_trace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    replay(trace, other_trace, "--max-ops", 50, "--json", file)
    assert [record["ops"] for record in json.loads(file.read_text())] == [50] * 4


def test_max_ops_beyond_the_end_keeps_all(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    replay(trace, "--max-ops", 10**9, "--json", file)
    assert {record["ops"] for record in json.loads(file.read_text())} == {180}


def test_arena_bytes_sets_the_arena(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert replay(trace, "--arena-bytes", "8M", "--json", file).exit_code == 0
    for record in json.loads(file.read_text()):
        assert record["arena_bytes"] == 8 << 20


def test_a_size_may_have_a_unit(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    for text in ("4 MiB", "4mb", "4096K"):
        assert replay(trace, "--arena-bytes", text, "--json", file).exit_code == 0
        assert json.loads(file.read_text())[0]["arena_bytes"] == 4 << 20


def test_grow_pages_reaches_the_replay(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(ops: np.ndarray, **options: object) -> object:
        seen.append(options["grow_pages"])
        return real(ops, **options)

    real = contenders.replay_ops
    monkeypatch.setattr(contenders, "replay_ops", spy)
    assert replay(trace, "--grow-pages", 4).exit_code == 0
    assert seen == [4, 4]


def test_verify_says_so(trace: Path, other_trace: Path) -> None:
    result = replay(trace, other_trace, "--verify")
    assert result.exit_code == 0
    assert "Verified" in result.stdout
    assert "check() was clean" in result.stdout


@pytest.mark.parametrize(
    "option", [("--hardened", "poison"), ("--quick",), ("--reserve",)]
)
def test_what_tlsf_alone_has_runs_tlsf_alone(
    trace: Path, option: tuple[str, str]
) -> None:
    result = replay(trace, *option)
    assert result.exit_code == 0, result.output
    assert [cells[1] for cells in rows(result)] == ["tlsf"]
    for command in ("replay", "insn"):
        if command == "insn" and option == ("--reserve",):
            continue
        assert_failed(
            run(command, trace, *option, "--engine", "firstfit"), 2, option[0]
        )
    both = ("--hardened", "all", "--quick")
    assert_failed(replay(trace, *both), 2, "--quick and --hardened")


def test_quick_lists_are_for_no_interface(trace: Path) -> None:
    result = replay(trace, "--quick", "--interface", "strict")
    assert_failed(result, 2, "--quick is for the engine tlsf alone")


def test_pages_are_reserved_for_no_interface(trace: Path) -> None:
    result = replay(trace, "--reserve", "--interface", "strict")
    assert_failed(result, 2, "--reserve is for the engine tlsf alone")
    result = run("versus", trace, "--reserve", "--engine", "firstfit")
    assert_failed(result, 2, "--reserve is for the engine tlsf alone")
    result = replay(trace, "--reserve")
    assert "pages / live says nothing" in result.stdout


def test_hardening_takes_names_or_all(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(ops: np.ndarray, **options: object) -> object:
        seen.append(options["hardened"])
        return real(ops, **options)

    real = contenders.replay_ops
    monkeypatch.setattr(contenders, "replay_ops", spy)
    names = ("--hardened", "poison", "--hardened", "canaries", "--hardened", "poison")
    for options in ((), names, (*names, "--hardened", "all")):
        assert replay(trace, "--engine", "tlsf", *options).exit_code == 0
    assert seen == [(), ("poison", "canaries"), True]


# Files


def test_json_is_a_list_of_records_with_exact_keys_and_types(
    trace: Path, other_trace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    replay(trace, other_trace, "--json", file)
    records = json.loads(file.read_text())
    assert [(record["trace"], record["engine"]) for record in records] == [
        ("small", "tlsf"),
        ("small", "firstfit"),
        ("other", "tlsf"),
        ("other", "firstfit"),
    ]
    for record in records:
        assert list(record) == RECORD_KEYS
        assert type(record["ns_per_op"]) is float
        for key in ("ops", "failed", *RECORD_KEYS[-3:]):
            assert type(record[key]) is int
        for key in ("xmalloc_cycles", "xfree_cycles"):
            assert list(record[key]) == CYCLES_KEYS
            assert all(type(figure) is int for figure in record[key].values())
            assert record[key]["p50"] <= record[key]["worst"]
            assert record[key]["worst"] <= record[key]["raw_worst"]


def test_json_has_zeros_where_there_is_no_call(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    replay(trace, "--max-ops", 1, "--engine", "tlsf", "--json", file)
    record = json.loads(file.read_text())[0]
    assert record["xfree_cycles"] == dict.fromkeys(CYCLES_KEYS, 0)


def test_json_replaces_a_file(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old")
    replay(trace, "--json", file)
    assert len(json.loads(file.read_text())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("n_traces", [1, 2, 3])
def test_plot_is_a_png_and_its_path_is_printed(tmp_path: Path, n_traces: int) -> None:
    traces = [
        save_trace(tmp_path / f"t{i}.npz", make_ops(20 + i)) for i in range(n_traces)
    ]
    file = tmp_path / "plot.png"
    result = replay(*traces, "--plot", file)
    assert result.exit_code == 0
    assert str(file) in result.stdout
    assert_is_png(file)


def test_plot_draws_a_trace_without_frees(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    assert replay(trace, "--max-ops", 3, "--plot", file).exit_code == 0
    assert_is_png(file)


def assert_is_png(file: Path) -> None:
    data = file.read_bytes()
    assert data.startswith(PNG_MAGIC)
    width, height = np.frombuffer(data[16:24], dtype=">u4")
    assert width > 600
    assert height > 400


def test_tail_shares_fall_from_one_to_one_call() -> None:
    values, shares = tail_shares(np.array([5, 0, 9, 5], dtype=np.uint64))
    assert values.tolist() == [1, 5, 9]
    assert shares.tolist() == [1.0, 0.75, 0.25]


# How it ends


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert_failed(replay(tmp_path / "absent.npz"), 2, "absent.npz", "does not exist")


def test_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    assert_failed(replay(tmp_path), 2, "is a directory")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_trace_is_a_usage_error(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "wrong.npz"
    file.write_bytes(content)
    result = replay(file)
    assert_failed(result, 2, "wrong.npz")
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_trace_is_a_usage_error(trace: Path) -> None:
    data = bytearray(trace.read_bytes())
    data[len(data) // 2] ^= 0xFF
    trace.write_bytes(data)
    assert_failed(replay(trace), 2, "small.npz")


def test_an_npz_without_ops_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "wrong.npz"
    np.savez(file, other=np.arange(3))
    assert_failed(replay(file), 2, "wrong.npz")


def test_an_npy_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "wrong.npy"
    np.save(file, make_ops(3))
    assert_failed(replay(file), 2, "wrong.npy")


def test_ops_of_another_type_are_a_usage_error(tmp_path: Path) -> None:
    file = save_trace(tmp_path / "wrong.npz", np.arange(3))
    assert_failed(replay(file), 2, "wrong.npz")


def test_an_empty_trace_is_a_usage_error(tmp_path: Path) -> None:
    file = save_trace(tmp_path / "empty.npz", make_ops(0))
    assert_failed(replay(file), 2, "empty.npz", "empty")


def test_a_bad_second_trace_is_seen_before_anything_runs(
    trace: Path, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.npz"
    file.write_bytes(b"hello")
    result = replay(trace, file)
    assert_failed(result, 2, "wrong.npz")
    assert "done" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "options",
    [
        ("--engine", "slab"),
        ("--repeats", "0"),
        ("--repeats", "many"),
        ("--max-ops", "0"),
        ("--grow-pages", "0"),
        ("--arena-bytes", "64X"),
        ("--arena-bytes", "0"),
        ("--colour",),
    ],
)
def test_a_wrong_option_is_a_usage_error(trace: Path, options: tuple[str]) -> None:
    assert_failed(run("replay", trace, *options), 2, options[0])


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_seen_first(
    trace: Path, tmp_path: Path, option: str
) -> None:
    result = replay(trace, option, tmp_path / "absent" / "out")
    assert_failed(result, 2, option, "absent")
    assert "done" not in result.stderr


def test_no_trace_at_all_is_a_usage_error() -> None:
    assert_failed(run("replay"), 2, "TRACE")


def test_an_arena_that_cannot_be_is_a_usage_error(trace: Path) -> None:
    assert_failed(replay(trace, "--arena-bytes", "1"), 2, "small on tlsf")


def test_failed_requests_end_with_status_1_after_table_and_file(
    tmp_path: Path,
) -> None:
    big = save_trace(tmp_path / "big.npz", make_ops(200, size=100_000))
    file = tmp_path / "out.json"
    result = replay(big, "--arena-bytes", "4M", "--engine", "tlsf", "--json", file)
    assert_failed(result, 1, "big on tlsf", "requests failed")
    failed = json.loads(file.read_text())[0]["failed"]
    assert failed > 0
    assert rows(result)[0][-1] == str(failed)


def test_lost_contents_end_with_status_1(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = contenders.replay_ops
    monkeypatch.setattr(
        contenders,
        "replay_ops",
        lambda *a, **k: replace(real(*a, **k), content_errors=3),
    )
    result = replay(trace, "--verify", "--engine", "tlsf")
    assert_failed(result, 1, "small on tlsf", "3 blocks lost their contents")
    assert "Verified" not in result.stdout


@pytest.mark.parametrize(
    "error", [HeapCorruption("B5", 0x1000, "PREV_FREE is wrong"), OutOfMemory("no map")]
)
def test_an_error_of_the_second_replay_keeps_the_first(
    trace: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_second_replay(monkeypatch, error)
    result = replay(trace)
    assert_failed(result, 1, "small on firstfit", type(error).__name__, str(error))
    assert [cells[1] for cells in rows(result)] == ["tlsf"]


def test_ctrl_c_ends_with_status_130_and_keeps_what_was_finished(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_second_replay(monkeypatch, KeyboardInterrupt())
    file = tmp_path / "out.json"
    result = replay(trace, "--json", file)
    assert_failed(result, 130, "Interrupted: 1 of 2 replays were finished")
    assert [cells[1] for cells in rows(result)] == ["tlsf"]
    assert not file.exists()


def break_second_replay(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    real = contenders.replay_ops
    calls = []

    def broken(*positional: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(*positional, **options)

    monkeypatch.setattr(contenders, "replay_ops", broken)


def test_ctrl_c_before_any_replay_ends_with_status_130(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(contenders, "load", interrupted)
    assert_failed(replay(trace), 130, "Interrupted")


def test_a_real_sigint_stops_a_slow_replay(trace: Path, tmp_path: Path) -> None:
    slow = save_trace(tmp_path / "slow.npz", founding.founding_load(20_000))
    command = [*PYTHON, "-m", "xmem.cli.main", "replay", str(trace), str(slow)]
    with subprocess.Popen(
        [*command, "--engine", "firstfit"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as these tests may be, ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        assert "small on firstfit: done" in process.stderr.readline()
        time.sleep(0.5)  # into the slow replay, which takes many seconds
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted: 1 of 2 replays were finished" in err
    assert "Traceback" not in err
    assert "small" in out


# Progress


def test_bars_move_on_a_terminal() -> None:
    screen = io.StringIO()
    with (
        Progress(2, Console(file=screen, force_terminal=True)) as progress,
        progress.task("cc1 on tlsf") as report,
    ):
        for done in (10, 50):
            report(done, 100)
            progress._bars.refresh()
    for text in ("cc1 on tlsf", "10%", "50%", "all replays"):
        assert text in screen.getvalue()


def test_one_task_has_one_bar_with_its_step() -> None:
    screen = io.StringIO()
    with (
        Progress(console=Console(file=screen, force_terminal=True)) as progress,
        progress.task("xmem versus") as report,
    ):
        report(3, 12, "jemalloc")
        progress._bars.refresh()
    assert "xmem versus, jemalloc" in screen.getvalue()
    assert "25%" in screen.getvalue()
    assert "all replays" not in screen.getvalue()


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    log = io.StringIO()
    with (
        Progress(1, Console(file=log)) as progress,
        progress.task("cc1 on tlsf") as report,
    ):
        report(10, 100)
    first, last = log.getvalue().splitlines()
    assert first.startswith("cc1 on tlsf: 10%")
    assert last.startswith("cc1 on tlsf: done")


def test_a_log_gets_a_line_only_now_and_then() -> None:
    log = io.StringIO()
    with (
        Progress(1, Console(file=log)) as progress,
        progress.task("cc1 on tlsf") as report,
    ):
        for done in range(100):
            report(done, 100)
    assert len(log.getvalue().splitlines()) == 1


# The demo


@pytest.mark.slow
def test_demo_prints_the_table_the_ratio_and_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(founding, "N_BLOCKS", (100, 300, 900))
    folder = tmp_path / "new" / "folder"
    result = run("demo", "--out", folder)
    assert result.exit_code == 0, result.output
    assert [cells[1] for cells in rows(result)] == list(contenders.ENGINES)
    assert "Worst xfree with 900 blocks live" in result.stdout
    assert "Ratio legacy / TLSF" in result.stdout
    picture = Path(result.stdout.splitlines()[-1].removeprefix("Picture: "))
    assert picture.parent == folder
    assert_is_png(picture)


def test_demo_refuses_a_folder_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert_failed(run("demo", "--out", file), 2, "--out")
    assert_failed(run("demo", "--out", file / "below"), 2, "--out")


def test_demo_ends_with_status_130_on_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_second_replay(monkeypatch, KeyboardInterrupt())
    assert_failed(run("demo", "--out", tmp_path), 130, "Interrupted")


def test_the_shipped_trace_is_small_and_whole() -> None:
    assert demo_trace_path().stat().st_size < 400_000
    ops = load(demo_trace_path())
    assert len(ops) >= 100_000
    assert set(np.unique(ops["op"])) >= {OP_MALLOC, OP_FREE, OP_REALLOC}


def test_founding_load_frees_in_a_seeded_random_order() -> None:
    ops = founding.founding_load(1000)
    assert (ops["op"] == [OP_MALLOC] * 1000 + [OP_FREE] * 1000).all()
    assert (ops["size"][:1000] == founding.BLOCK_BYTES).all()
    order = ops["id"][1000:]
    assert sorted(order) == list(range(1000))
    assert order.tolist() != sorted(order)
    assert (founding.founding_load(1000) == ops).all()
    assert (founding.founding_load(1000, n_frees=5) == ops[:1005]).all()


def test_founding_load_in_rounds_keeps_as_many_blocks_live() -> None:
    ops = check_trace(founding.founding_load(100, n_frees=7, rounds=3))
    live = np.cumsum(np.where(ops["op"] == OP_MALLOC, 1, -1))
    assert live.max() == 100
    assert live[100:].min() == 93
    assert (ops["op"] == OP_FREE).sum() == 21
    assert (founding.founding_load(100, n_frees=7) == ops[:107]).all()


def test_worst_xfree_is_least_over_rounds_and_greatest_over_frees() -> None:
    result = contenders.replay_ops(founding.founding_load(100, 3, rounds=2), repeats=1)
    cycles = np.full(result.n_ops, 999, dtype=np.uint64)
    cycles[result.of_kind("xfree")] = [10, 50, 7, 40, 20, 30]
    result = replace(result, cycles=cycles)
    assert founding.worst_xfree(result, rounds=2) == 20
    assert founding.worst_xfree(result) == 50


def test_the_demo_reaches_fifty_thousand_blocks() -> None:
    assert min(founding.N_BLOCKS) == 1_000
    assert max(founding.N_BLOCKS) == 50_000


def test_worst_ratio_compares_at_the_right_end() -> None:
    points = [
        founding.Point("tlsf", 10, 100, 1e9),
        founding.Point("tlsf", 50, 200, 1e9),
        founding.Point("firstfit", 10, 1000, 1e9),
        founding.Point("firstfit", 50, 9000, 1e9),
    ]
    legacy, tlsf, ratio = founding.worst_ratio(points)
    assert (legacy.worst_cycles, tlsf.worst_cycles, ratio) == (9000, 200, 45.0)


# The command itself


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "demo replay --version"),
        ("demo", "--out"),
        (
            "replay",
            "TRACE... --engine --repeats --arena-bytes --grow-pages --max-ops"
            " --verify --json --plot",
        ),
    ],
)
def test_help_names_everything(command: str, words: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    for word in words.split():
        assert word in result.stdout


def test_version_is_printed() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("xmem, version ")
