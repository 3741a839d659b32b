# SPDX-License-Identifier: BSD-3-Clause
"""Compare the exact figures of two commits: ``make regress BASE=COMMIT``.

Both commits are built in environments of their own, and measured by the benchmarks
of this working tree, `calls`, `instructions` and `memory`. These figures are the same
on every machine and each time, so any difference is a difference of the code. HEAD=
names another commit than the current one. With --built=PYTHON what that interpreter has
installed is measured for HEAD, as after `make test` in a clone that was not changed.

Exits with 1 when a figure is gone or became worse, unless exactly that rise is listed
with its reason in ``history/rises.toml`` (see `rises`). Where BASE is not there, as in
a shallow clone, HEAD is compared with the newest commit in ``history/`` instead, and
the output says so.
"""

import argparse
import importlib
import inspect
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Python runs this without the folder on its path (-P) where xmem is measured.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from rises import Rise, is_listed, newest, read_rises

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HISTORY = HERE / "history" / "reference"
MODULES = ("calls", "instructions", "memory")
CHANGES_THE_BUILD = (
    "CFLAGS",
    "XMEM_CHECKED",
    "XMEM_FLAGS",
    "XMEM_MODULES",
    "XMEM_TRACE",
)


# In the environment of a commit --------------------------------------------------


def figures() -> dict[str, float]:
    """Every deterministic figure of the xmem that is installed here, by name."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.{name}")
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                found.update(figures_of(f"{name}.{kind.__name__}", kind))
    return found


def figures_of(name: str, kind: Any) -> dict[str, float]:
    """Figures of one benchmark class, for each combination of its parameters."""
    found = {}
    tracks = [track for track in vars(kind) if track.startswith("track_")]
    for values in itertools.product(*kind.params):
        benchmark = kind()
        try:
            benchmark.setup(*values)
        except NotImplementedError:
            continue  # the commit cannot do this
        try:
            for track in tracks:
                where = ", ".join(map(str, values))
                found[f"{name}.{track}({where})"] = getattr(benchmark, track)(*values)
        finally:
            getattr(benchmark, "teardown", lambda *_: None)(*values)
    return found


# From outside ----------------------------------------------------------------------


def clean() -> dict[str, str]:
    """Return this process's environment without what changes a build or an import."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", *CHANGES_THE_BUILD)
    }


def measure_installed(python: Path, folder: Path) -> dict[str, float]:
    """Measure the xmem that an interpreter imports."""
    done = subprocess.run(
        [python, "-P", __file__, "--figures"],
        env=clean(),
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(commit: str, folder: Path) -> dict[str, float]:
    """Build a commit and measure it."""
    tree, env = folder / "tree", folder / "env"
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "-f", tree, commit], **quiet)
    try:
        subprocess.run([sys.executable, "-m", "venv", env], **quiet)
        python = env / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", tree], env=clean(), **quiet
        )
        return measure_installed(python, folder)
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "-f", tree], **quiet)


def compare(
    base: dict[str, float], head: dict[str, float], rises: list[Rise]
) -> tuple[list[str], bool]:
    """Return a line for each difference, and whether HEAD is worse.

    Parameters
    ----------
    base, head : dict
        Figures by name.
    rises : list of Rise
        Rises that are accepted: those of the same figure, from and to the same value.
    """
    lines = []
    is_worse = False
    for name in sorted(base.keys() | head.keys()):
        before, after = base.get(name), head.get(name)
        if before is None:
            lines.append(f"  new    {name}")
            continue
        if after is None:
            lines.append(f"  GONE   {name}")
            is_worse = True
            continue
        if before == after:
            continue
        reason = is_listed(rises, name, before, after)
        if after < before:
            sign = "better"
        elif reason:
            sign = "listed"
        else:
            sign = "WORSE "
            is_worse = True
        change = after - before
        lines.append(f"  {sign} {change:+10.6g}  {before:g} -> {after:g}  {name}")
        if after > before and reason:
            lines.append(f"         because: {reason}")
    return lines, is_worse


def is_there(commit: str) -> bool:
    """Tell whether this clone has a commit."""
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--quiet", "--verify", commit + "^{commit}"],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def measured(commit: str, built: Path | None = None) -> dict[str, float]:
    """Build a commit and measure it, or measure what is ``built``.

    End the program if nothing can be measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        if built is None:
            print(f"Building and measuring {commit}: a minute or two.", flush=True)
            found = measure(commit, Path(folder))
        else:
            print(f"Measuring what {built} has for {commit}.", flush=True)
            found = measure_installed(built.absolute(), Path(folder))
    if not any(name.startswith("instructions.") for name in found):
        sys.exit(f"{commit} has no figures: can instructions be counted here?")
    return found


def main() -> None:
    """Compare two commits; exit with 1 if HEAD is worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", action="store_true", help="of what is installed")
    parser.add_argument("base", nargs="?", default="HEAD~1")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument(
        "--built", type=Path, help="interpreter that has HEAD installed: no build"
    )
    options = parser.parse_args()
    if options.figures:
        json.dump(figures(), sys.stdout)
        return
    if not is_there(options.head):
        sys.exit(f"there is no commit {options.head}")
    name = options.base
    if is_there(name):
        base = measured(name)
    else:
        name, known = newest(HISTORY)
        base = {key: known[key] for key in known if key.split(".")[0] in MODULES}
        print(
            f"!!! NOT COMPARED WITH {options.base}: this clone does not have it.\n"
            f"!!! Comparing with {name[:8]}, the newest commit in asv_bench/history.\n"
            "!!! `git fetch --deepen=1` brings the commit before into a shallow clone.",
            flush=True,
        )
    head = measured(options.head, options.built)
    lines, is_worse = compare(base, head, read_rises())
    shared = base.keys() & head.keys()
    if not shared:
        sys.exit(f"{name} and {options.head} have no figure in common")
    print(f"{len(shared)} figures of {name} and {options.head} compared:")
    print("\n".join(lines) or "  no difference")
    if is_worse:
        print("A figure that has to rise is listed in asv_bench/history/rises.toml.")
        sys.exit(1)


if __name__ == "__main__":
    main()
