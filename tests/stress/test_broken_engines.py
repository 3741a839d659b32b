# SPDX-License-Identifier: BSD-3-Clause
"""Engines with one line broken on purpose: the stress commands find them.

Each is built from a copy of the sources. The command ends with status 1 on it, writes
a short list of operations, and prints a command that shows the fault again. The same
command finds no fault in the sound engine.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.builds import INCLUDE, QUICK, ROOT, Builds
from support.builds import run as build


@dataclass(frozen=True)
class Break:
    """One line of a header, and what takes its place."""

    header: str
    line: str
    broken: str


BREAKS = {
    "a coalesce is skipped": Break(
        "engine/tlsf.pxd",
        "are overwritten.\n    if with_right:\n",
        "are overwritten.\n    if with_right and size == 0:\n",
    ),
    "a flag is forgotten": Break(
        "engine/tlsf.pxd",
        "        clear_prev_free(base, block + size)\n",
        "        pass\n",
    ),
    "a split overlaps": Break(
        "engine/tlsf.pxd",
        "        block_write(base, block, need, tlsf.tag | bits)\n",
        "        block_write(base, block, need + 16, tlsf.tag | bits)\n",
    ),
    "free pages are not merged": Break(
        "arena/frames.pxd",
        "    if frame_state(left) != FRAME_FREE:\n",
        "    if frame_state(left) != FRAME_FREE or n_pages == 4:\n",
    ),
}


pytestmark = pytest.mark.programs

#: Modules that the stress commands do without.
UNUSED = ("xmem.capi", "xmem.datamem", "xmem.measure.")


def sources() -> dict[str, Path]:
    """Compiled modules and their sources."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = project["tool"]["setuptools"]["ext-modules"]
    return {entry["name"]: ROOT / entry["sources"][0] for entry in table}


def cimports(path: Path) -> set[str]:
    """Modules of xmem from which a file cimports."""
    return set(re.findall(r"^\s*from (xmem[\w.]+) cimport", path.read_text(), re.M))


def includes(module: str, header: str) -> bool:
    """Whether a compiled module has the code of a header in it."""
    seen: set[str] = set()
    waiting = cimports(sources()[module]) | {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        place = ROOT / name.replace(".", "/")
        for path in (place.with_suffix(".pxd"), place / "__init__.pxd"):
            if path.exists():
                waiting |= cimports(path) - seen
    return "xmem." + header.removesuffix(".pxd").replace("/", ".") in seen


def broken(folder: Path, what: Break) -> None:
    """Make a copy of the package with one line broken.

    Modules without that line in them are those of the installed package.
    """
    modules = [
        module
        for module in sources()
        if includes(module, what.header) and not module.startswith(UNUSED)
    ]
    assert "xmem.pool" in modules
    rebuilt = tuple(module.replace(".", "/") + "." for module in modules)
    for name in ("xmem", "pyx", "arena"):
        ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in (INCLUDE / "xmem").rglob("*.so"):
        name = str(path.relative_to(INCLUDE))
        if not name.startswith(rebuilt):
            shutil.copy(path, folder / name)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    header = folder / "xmem" / what.header
    text = header.read_text()
    assert text.count(what.line) == 1, what
    header.write_text(text.replace(what.line, what.broken))
    build(
        *(sys.executable, "-c", "from setuptools import setup; setup()"),
        *("-q", "build_ext", "--inplace"),
        cwd=folder,
        XMEM_MODULES=" ".join(modules),
        **QUICK,
    )


@pytest.fixture
def broken_engine(builds: Builds, name: str) -> Path:
    """The folder of a broken engine."""
    if not (ROOT / "pyx" / "pool.pyx").exists():
        pytest.skip("the sources are not here")
    what = BREAKS[name]
    return builds.once("broken", lambda folder: broken(folder, what), repr(what))


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


def case(name: str, program: str, options: tuple[object, ...] = ()) -> object:
    """A broken engine and a command; one worker has all cases of an engine."""
    return pytest.param(name, program, options, marks=pytest.mark.xdist_group(name))


CASES = [
    case("a coalesce is skipped", "xmem-stress"),
    case("a flag is forgotten", "xmem-stress"),
    case("a split overlaps", "xmem-stress"),
    case(
        "a split overlaps", "xmem-stress", ("--interface", "strict", "--load", "pages")
    ),
    case("a split overlaps", "xmem-stress-tmem", ("--check-every", 500)),
    case("a flag is forgotten", "xmem-stress-diffengine", ("--check-every", 500)),
    case("free pages are not merged", "xmem-stress-frames"),
]


@pytest.mark.no_asan
@pytest.mark.parametrize(("name", "program", "options"), CASES)
def test_it_is_found(
    broken_engine: Path, tmp_path: Path, program: str, options: tuple[object, ...]
) -> None:
    end = run(
        broken_engine,
        tmp_path,
        program,
        *options,
        *("--seconds", 60, "--seed", 5, "--json", "record.json"),
    )
    assert end.returncode == 1, end.stdout + end.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    fault = record["fault"]
    assert fault["command"] in end.stdout
    again = shlex.split(fault["command"])
    assert again[0] == program
    replayed = run(broken_engine, tmp_path, *again, "--fault-file", "again.npz")
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    with np.load(tmp_path / fault["file"]) as file:
        assert len(file["ops"]) == fault["ops"]
    # One operation less shows nothing, and the engine as it is finds no fault.
    sound = run(INCLUDE, tmp_path, *again)
    assert sound.returncode == 0, sound.stdout + sound.stderr
