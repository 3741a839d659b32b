# SPDX-License-Identifier: BSD-3-Clause
"""Engines with one line broken on purpose: the stress commands find them.

Each is built out of a copy of the sources; the command, running on it, ends with
status 1 and writes a short run, which the command it prints shows to be at fault
again, and in which the engine as it is finds none.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
#: What the commands need.
MODULES = {
    "xmem.base.arguments",
    "xmem.arena.superblock",
    "xmem.arena.vm",
    "xmem.arena.arena",
    "xmem.arena.sites",
    "xmem.check.diagnosis",
    "xmem.pool",
    "xmem.heap",
    "xmem.stress.load",
}
TABLE = re.compile(
    r"\[\[tool\.setuptools\.ext-modules\]\]\nname = \"([\w.]+)\"\n.*?\n\n", re.S
)


@dataclass(frozen=True)
class Break:
    """One line of a header, and what takes its place."""

    header: str
    line: str
    broken: str


BREAKS = {
    "a coalesce is skipped": Break(
        "tlsf.pxd",
        "are overwritten.\n    if right_word & BLOCK_FREE:\n",
        "are overwritten.\n    if right_word & BLOCK_FREE and size == 0:\n",
    ),
    "a flag is forgotten": Break(
        "tlsf.pxd",
        "        clear_prev_free(base, block + size)\n",
        "        pass\n",
    ),
    "a split overlaps": Break(
        "tlsf.pxd",
        "        block_write(base, block, need, tlsf.tag | bits)\n",
        "        block_write(base, block, need + 16, tlsf.tag | bits)\n",
    ),
    "a buddy is not merged": Break(
        "arena/frames.pxd",
        "        if arena.frames[buddy].word != free_word(order):\n",
        "        if arena.frames[buddy].word != free_word(order) or order == 2:\n",
    ),
}


def copied(to: Path, what: Break) -> None:
    """Copy the sources, with one line broken and what is not needed left out."""
    for name in ("xmem", "pyx", "arena"):
        shutil.copytree(
            ROOT / name,
            to / name,
            ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"),
        )
    for name in ("README.md", "LICENSE", "setup.cfg"):
        shutil.copy(ROOT / name, to / name)
    text = (ROOT / "pyproject.toml").read_text() + "\n"
    text = TABLE.sub(lambda found: found[0] if found[1] in MODULES else "", text)
    (to / "pyproject.toml").write_text(text.replace('"-O3"', '"-O0", "-g0"'))
    header = to / "xmem" / what.header
    source = header.read_text()
    assert source.count(what.line) == 1, what
    header.write_text(source.replace(what.line, what.broken))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The broken engines, built two at a time."""
    if not (ROOT / "pyx" / "stress.pyx").exists():
        pytest.skip("the sources are not here")
    folders = {}
    waiting = []
    for name, what in BREAKS.items():
        folder = tmp_path_factory.mktemp("broken")
        copied(folder, what)
        folders[name] = folder
        waiting.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from setuptools import setup; setup()",
                    *("-q", "build_ext", "--inplace"),
                ],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        if len(waiting) == 2:
            finish(waiting)
    finish(waiting)
    return folders


def finish(builds: list[subprocess.Popen[str]]) -> None:
    """Wait for builds."""
    while builds:
        build = builds.pop()
        output, _ = build.communicate(timeout=600)
        assert build.returncode == 0, output


def run(
    folder: Path, cwd: Path, program: str, *options: object
) -> subprocess.CompletedProcess:
    """Run a command on an engine."""
    module, name = {
        "xmem-stress": ("main", "stress"),
        "xmem-stress-frames": ("main", "stress_frames"),
        "xmem-stress-tmem": ("main", "stress_tmem"),
        "xmem-stress-diffengine": ("main", "stress_diffengine"),
    }[program]
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"from xmem.cli.{module} import {name}\n"
            f"if __name__ == '__main__': {name}()",
            *map(str, options),
        ],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


CASES = [
    ("a coalesce is skipped", "xmem-stress", ()),
    ("a flag is forgotten", "xmem-stress", ()),
    ("a split overlaps", "xmem-stress", ()),
    ("a split overlaps", "xmem-stress", ("--interface", "strict", "--load", "pages")),
    ("a split overlaps", "xmem-stress-tmem", ("--check-every", 500)),
    ("a flag is forgotten", "xmem-stress-diffengine", ("--check-every", 500)),
    ("a buddy is not merged", "xmem-stress-frames", ()),
]


@pytest.mark.no_asan
@pytest.mark.parametrize(("name", "program", "options"), CASES)
def test_it_is_found(
    engines: dict[str, Path],
    tmp_path: Path,
    name: str,
    program: str,
    options: tuple[object, ...],
) -> None:
    end = run(
        engines[name],
        tmp_path,
        program,
        *options,
        *("--seconds", 60, "--seed", 5, "--json", "record.json"),
    )
    assert end.returncode == 1, end.stdout + end.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["seconds"] < 30
    fault = record["fault"]
    assert fault["command"] in end.stdout
    again = shlex.split(fault["command"])
    assert again[0] == program
    replayed = run(engines[name], tmp_path, *again, "--fault-file", "again.npz")
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    with np.load(tmp_path / fault["file"]) as file:
        assert len(file["ops"]) == fault["ops"]
    # One operation less shows nothing, and the engine as it is finds no fault.
    sound = run(ROOT, tmp_path, *again)
    assert sound.returncode == 0, sound.stdout + sound.stderr
