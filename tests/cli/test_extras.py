# SPDX-License-Identifier: BSD-3-Clause
"""Each command asks for the extras that it uses, and for no others.

Libraries are hidden from a process of its own by a finder that refuses them.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from support.tracing import trace

from xmem.cli.extras import DISTRIBUTIONS, EXTRAS, is_missing
from xmem.measure.insn import is_available
from xmem.measure.trace import OP_FREE, OP_MALLOC

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
PROGRAM = """
import sys

hidden = {hidden!r}


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Hide())
if __name__ == "__main__":
    from xmem.cli import main

    sys.argv = {argv!r}
    {before}
    main.{entry}()
"""
#: Everything but what every command needs.
OPTIONAL = {
    name for extra in ("plot", "hgrm", "lines", "stores") for name in EXTRAS[extra]
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("small.npz", ops=trace((OP_MALLOC, 0, 100), (OP_FREE, 0, 0)))
    return tmp_path


def run(hidden, command, before="pass"):
    """Run a command without some libraries."""
    program, *options = command.split()
    entry = program.removeprefix("xmem-").replace("-", "_")
    code = PROGRAM.format(
        hidden=set(hidden),
        argv=[program, *options],
        entry="main" if entry == "xmem" else entry,
        before=before,
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


MISSING = [
    *(("xmem --help", name, "xmem", "cli") for name in EXTRAS["cli"]),
    ("xmem replay small.npz", "click", "xmem", "cli"),
    ("xmem demo", "matplotlib", "xmem demo", "plot"),
    ("xmem replay small.npz --plot p.png", "matplotlib", "xmem replay --plot", "plot"),
    ("xmem versus small.npz --plot p.png", "matplotlib", "xmem versus --plot", "plot"),
    ("xmem waste --plot p.png", "matplotlib", "xmem waste --plot", "plot"),
    ("xmem replay small.npz --hgrm f", "hdrh", "xmem replay --hgrm", "hgrm"),
    *(
        (f"xmem-stress{what} --help", name, f"xmem-stress{what}", "cli")
        for what in ("", "-frames", "-tmem", "-diffengine")
        for name in EXTRAS["cli"]
    ),
    *(
        (f"xmem-stress-{what} --help", name, f"xmem-stress-{what}", "stores")
        for what in ("tmem", "diffengine")
        for name in EXTRAS["stores"]
    ),
]


@pytest.mark.parametrize(("command", "library", "asker", "extra"), MISSING)
def test_a_missing_library_is_named_in_one_line(here, command, library, asker, extra):
    done = run({library}, command)
    name = DISTRIBUTIONS.get(library, library)
    line = f"{asker} needs {name}: pip install 'xmem-tlsf[{extra}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert [path.name for path in here.iterdir()] == ["small.npz"]


def test_all_that_is_missing_is_named_at_once():
    done = run({"rich", "lz4", "xxhash"}, "xmem-stress-tmem")
    assert done.returncode == 2
    assert done.stderr == (
        "xmem-stress-tmem needs rich, lz4, xxhash: "
        "pip install 'xmem-tlsf[cli,stores]'\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "xmem --help",
        "xmem replay small.npz --repeats 1",
        pytest.param(
            "xmem insn small.npz",
            marks=pytest.mark.skipif(not is_available(), reason="ptrace is forbidden"),
        ),
        "xmem waste --interface strict",
        pytest.param(
            "xmem versus small.npz --rounds 1 --repeats 1 --library libc.so.6",
            marks=pytest.mark.no_asan,  # it preloads libraries before ASan's
        ),
        "xmem-stress --ops 1000",
        "xmem-stress-frames --ops 1000",
    ],
)
def test_a_command_runs_without_what_it_does_not_use(here, command):
    done = run(OPTIONAL, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
def test_the_demo_needs_no_compressor_and_no_histograms(here):
    done = run(
        {*EXTRAS["stores"], *EXTRAS["hgrm"]},
        "xmem demo",
        "from xmem.cli import founding; founding.N_BLOCKS = (100, 300)",
    )
    assert done.returncode == 0, done.stderr
    assert (here / "demo-output" / "worst-xfree.png").is_file()


def test_stores_are_stressed_without_pictures(here):
    hidden = {*EXTRAS["plot"], *EXTRAS["hgrm"]}
    done = run(hidden, "xmem-stress-tmem --ops 1000 --pages self")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["--help", "replay --help", "versus --help"])
def test_help_imports_nothing_that_is_optional(command):
    done = run(
        set(),
        f"xmem {command}",
        "import atexit; atexit.register(lambda: print(sorted(sys.modules)))",
    )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.splitlines()[-1]
    assert "'click'" in modules
    assert not any(f"'{name}'" in modules for name in OPTIONAL)


def test_the_extras_are_those_of_the_project():
    if not PYPROJECT.is_file():
        pytest.skip("pyproject.toml is in a checkout only")
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        named = [entry.split(">=")[0] for entry in extras[extra]]
        own = {name for name in named if not name.startswith("xmem-tlsf")}
        assert own == {DISTRIBUTIONS.get(module, module) for module in modules}
    assert extras["tools"] == [f"xmem-tlsf[{','.join(EXTRAS)}]"]


def test_a_broken_entry_of_a_module_counts_as_missing(monkeypatch):
    assert not is_missing("click")
    monkeypatch.setitem(sys.modules, "click", None)
    assert is_missing("click")
    assert is_missing("no_such_module_anywhere")
