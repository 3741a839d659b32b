# SPDX-License-Identifier: BSD-3-Clause
"""The files that the command reads and writes: what is refused before any work."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.tracing import trace

from xmem.cli import contenders
from xmem.cli.group import xmem
from xmem.measure import trace as traces
from xmem.measure.trace import OP_FREE, OP_MALLOC, TRACE_DTYPE

OPS = [(OP_MALLOC, 0, 100), (OP_MALLOC, 1, 5000), (OP_FREE, 0, 0)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(here):
    np.savez(here / "small.npz", ops=trace(*OPS))
    return Path("small.npz")


def run(*arguments):
    return CliRunner().invoke(xmem, [str(argument) for argument in arguments])


def refused(message, *arguments):
    """A usage error with the message, before anything was replayed or measured."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
    assert "done" not in result.stderr
    assert result.stdout == ""


# Writing over what is read --------------------------------------------------------


@pytest.mark.parametrize("how", ["itself", "symlink", "hard link", "other spelling"])
@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_no_output_overwrites_a_trace(here, option, how):
    original = here / "trace.png"
    np.savez(here / "x.npz", ops=trace(*OPS))
    (here / "x.npz").rename(original)
    held = original.read_bytes()
    target = here / "link.png"
    if how == "symlink":
        target.symlink_to(original)
    elif how == "hard link":
        os.link(original, target)
    elif how == "itself":
        target = original
    else:
        (here / "folder").mkdir()
        target = here / "folder" / ".." / "trace.png"
    refused("would overwrite the trace", "replay", original, option, target)
    assert original.read_bytes() == held


@pytest.mark.parametrize("command", [["replay", "small.npz"], ["waste"]])
def test_two_outputs_do_not_go_into_one_file(small, here, command):
    refused(
        "--plot would overwrite what --json writes",
        *[*command, "--json", "out.png", "--plot", "./out.png"],
    )
    (here / "there.png").write_bytes(b"")
    (here / "link.png").symlink_to(here / "there.png")
    refused(
        "would overwrite",
        *[*command, "--json", "there.png", "--plot", "link.png"],
    )


# What kind of file ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PNG"])
@pytest.mark.parametrize("command", [["replay", "small.npz"], ["waste"]])
def test_a_plot_is_of_the_kind_that_its_name_says(small, here, command, suffix):
    if command == ["waste"]:
        command = ["waste", "--interface", "strict"]
    result = run(*command, "--plot", f"out.{suffix}")
    assert result.exit_code == 0, result.output
    head = (here / f"out.{suffix}").read_bytes()[:400]
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert head.startswith(starts[suffix.lower()])


@pytest.mark.parametrize("name", ["out.jpg", "out", "out.json", "-", ".png"])
@pytest.mark.parametrize("command", [["replay", "small.npz"], ["waste"]])
def test_a_plot_of_another_kind_is_refused(small, here, command, name):
    refused("must end in .png, .svg or .pdf", *command, "--plot", name)
    assert sorted(p.name for p in here.iterdir()) == ["small.npz"]


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("command", [["replay", "small.npz"], ["waste"]])
def test_a_folder_that_is_none_is_refused(small, command, option):
    refused("is not a folder that can be written to", *command, option, "none/out.png")


@pytest.mark.parametrize("command", [["replay", "small.npz"], ["waste"]])
def test_records_on_standard_output_stand_alone(small, here, command):
    result = run(*command, "--json", "-", "--plot", "out.png")
    assert result.exit_code == 0
    records = json.loads(result.stdout)
    assert len(records) >= 2
    assert "out.png" in result.stderr
    assert "tlsf" in result.stderr or "strict" in result.stderr
    assert not (here / "-").exists()


# Traces ---------------------------------------------------------------------------


def test_one_file_twice_is_refused(small, here):
    (here / "again.npz").symlink_to(small)
    refused("is the same file as", "replay", small, small)
    refused("is the same file as", "replay", small, "again.npz")


def test_two_traces_of_one_name_are_shown_by_their_paths(here):
    for folder in ("one", "two"):
        (here / folder).mkdir()
        np.savez(here / folder / "same.npz", ops=trace(*OPS))
    result = run("replay", "one/same.npz", "two/same.npz", "--json", "-")
    assert result.exit_code == 0
    names = {record["trace"] for record in json.loads(result.stdout)}
    assert names == {"one/same.npz", "two/same.npz"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("passwd", b"root:x:0:0:root:/root:/bin/sh\n", "not an .npz file"),
        ("empty.npz", b"", "not an .npz file"),
        ("cut.npz", b"PK\x03\x04 and so on", "not an .npz file"),
    ],
)
def test_what_is_no_trace_is_refused_plainly(here, name, content, message):
    (here / name).write_bytes(content)
    refused(message, "replay", name)
    assert "pickle" not in run("replay", name).output


def test_an_archive_of_something_else(here):
    np.savez(here / "other.npz", a=np.zeros(3), b=np.ones(2))
    refused("the array 'ops', and this one has 'a', 'b'", "replay", "other.npz")


def test_no_file_and_no_regular_file(here):
    refused("does not exist", "replay", "none.npz")
    refused("is a directory", "replay", here)


# Numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--repeats", value) for value in (0, -1, 10**7, 2**64, "many")],
        *[("--max-ops", value) for value in (0, -1, "few")],
        *[("--grow-pages", value) for value in (0, -1)],
        *[("--arena-bytes", value) for value in ("-1", "big", "1Q")],
    ],
)
def test_numbers_that_cannot_be_meant(small, option, value):
    refused(option, "replay", small, option, value)


@pytest.mark.parametrize("value", ["1", "4096", "9000000G"])
def test_arenas_that_cannot_be(small, value):
    result = run("replay", small, "--arena-bytes", value)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_small_arenas_are_used_for_what_they_hold(small):
    result = run("replay", small, "--arena-bytes", "40K", "--json", "-")
    assert result.exit_code == 0
    records = json.loads(result.stdout)
    assert [r["arena_bytes"] for r in records] == [40960] * 2
    assert [r["failed"] for r in records] == [0] * 2
    # One page less than the tables and what the trace needs: requests fail.
    result = run("replay", small, "--arena-bytes", "12K", "--json", "-")
    assert result.exit_code == 1
    records = json.loads(result.stdout)
    assert [r["arena_bytes"] for r in records] == [12288] * 2
    assert all(r["failed"] > 0 for r in records)


# What is claimed ------------------------------------------------------------------


def test_only_what_is_whole_is_called_verified(small, here):
    np.savez(here / "large.npz", ops=trace(*OPS, (OP_MALLOC, 2, 1 << 20)))
    whole = run("replay", small, "--verify")
    assert whole.exit_code == 0
    assert "Verified:" in whole.stdout
    failing = run("replay", "large.npz", "--verify", "--arena-bytes", "99K")
    assert failing.exit_code == 1
    assert "requests failed" in failing.stderr
    assert "Verified:" not in failing.stdout


def test_a_note_warns_of_few_repeats(small):
    assert "take --repeats 3 or more" in run("replay", small, "--repeats", 1).stdout
    assert "too few to be free" in run("replay", small, "--repeats", 2).stdout
    three = run("replay", small, "--repeats", 3).stdout
    assert "least of 3 repeats" in three
    assert "too few" not in three


def test_an_unwritable_file_is_reported_at_once_or_plainly(small, monkeypatch):
    """The disk may be full by the time the file is written."""

    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = run("replay", small, "--json", "out.json")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr


def test_names_of_traces():
    paths = [Path("a/x.npz"), Path("b/x.npz"), Path("b/y.npz")]
    assert contenders.trace_names(paths) == ["a/x.npz", "b/x.npz", "y"]


# Histograms -----------------------------------------------------------------------


def test_hgrm_has_a_file_for_each_replay_and_verb(small):
    result = run("replay", small, "--hgrm", "made/here", "--repeats", 3)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in Path("made/here").iterdir())
    assert names == [
        f"small.{engine}.{verb}.hgrm"
        for engine in ("firstfit", "tlsf")
        for verb in ("xfree", "xmalloc")
    ]
    for name in names:
        text = Path("made/here", name).read_text()
        assert "Percentile TotalCount 1/(1-Percentile)" in text
        n_calls = 2 if "xmalloc" in name else 1
        last = [line for line in text.splitlines() if line[:1] == " "][-1].split()
        assert int(last[2]) == n_calls
        assert float(last[1]) == 1.0


def test_hgrm_into_a_file_is_refused(small):
    Path("taken").write_text("x")
    assert run("replay", small, "--hgrm", "taken").exit_code == 2
    assert Path("taken").read_text() == "x"


# What is too large ------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replay", "versus"])
def test_a_trace_that_no_memory_holds_is_refused_at_once(here, command):
    np.savez(here / "huge.npz", ops=trace((OP_MALLOC, 0, 1 << 44), (OP_MALLOC, 1, 100)))
    refused("17,592,186,044,516 bytes live at once", command, "huge.npz")
    assert (
        run("replay", "huge.npz", "--arena-bytes", "64K", "--repeats", 1).exit_code == 1
    )


def bomb(path, n_bytes, claimed):
    """An archive whose array of ``claimed`` operations unpacks to ``n_bytes``."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(TRACE_DTYPE),
            "fortran_order": False,
            "shape": (claimed,),
        },
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ops.npy", header.getvalue() + bytes(n_bytes))


def test_an_archive_that_unpacks_to_too_much_is_no_trace(here, monkeypatch):
    bomb(here / "bomb.npz", 16 << 20, (16 << 20) // TRACE_DTYPE.itemsize)
    monkeypatch.setattr(traces, "machine_bytes", lambda: 32 << 20)
    refused("unpacks to 16,777", "replay", "bomb.npz")
    monkeypatch.undo()
    assert "unpacks" not in run("replay", "bomb.npz", "--max-ops", 1).output


def test_an_array_that_claims_too_much_is_no_trace(here):
    bomb(here / "lie.npz", 1000, 1 << 44)
    refused("claims more operations than this machine", "replay", "lie.npz")
    bomb(here / "lie.npz", 1000, 1 << 59)
    refused("lie.npz: not a trace", "replay", "lie.npz")


@pytest.mark.parametrize("option", ["stdout", "--json", "--plot", "--hgrm"])
def test_a_full_disk_is_one_line(small, option):
    """Of /dev/full every write fails as on a full disk."""
    command = [sys.executable, "-m", "xmem.cli.main", "replay", small, "--repeats", "1"]
    if option == "--json":
        command += ["--json", "/dev/full"]
    elif option == "--plot":
        Path("full.png").symlink_to("/dev/full")
        command += ["--plot", "full.png"]
    elif option == "--hgrm":
        Path("made").mkdir()
        for engine in ("tlsf", "firstfit"):
            for verb in ("xmalloc", "xfree"):
                name = f"small.{engine}.{verb}.hgrm"
                Path("made", name).symlink_to("/dev/full")
        command += ["--hgrm", "made"]
    with open("/dev/full" if option == "stdout" else "out", "w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, text=True, check=False
        )
    errors = [line for line in done.stderr.splitlines() if "done, " not in line]
    assert len(errors) == 1, done.stderr
    assert "No space left on device" in errors[0]
    assert done.returncode == 2
