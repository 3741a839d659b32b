# SPDX-License-Identifier: BSD-3-Clause
"""Compare the deterministic figures of two commits: ``make regress BASE=COMMIT``.

Both commits are built in environments of their own, and measured by the
benchmarks of this working tree, `instructions` and `memory`: exact figures, the
same on every machine and each time, so that any difference is a difference of
the code. Fails when one became worse. HEAD can be another commit by HEAD=.
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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODULES = ("instructions", "memory")


# In the environment of a commit --------------------------------------------------


def figures() -> dict[str, float]:
    """Every deterministic figure of the xmem that is installed here, by name."""
    sys.path.insert(0, str(HERE))
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


def measure(commit: str, folder: Path) -> dict[str, float]:
    """Build a commit and measure it."""
    tree, env = folder / "tree", folder / "env"
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "-f", tree, commit], **quiet)
    try:
        subprocess.run([sys.executable, "-m", "venv", env], **quiet)
        python = env / "bin" / "python"
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CFLAGS", "XMEM_CHECKED", "XMEM_TRACE", "PYTHONPATH")
        }
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", tree], env=clean, **quiet
        )
        done = subprocess.run(
            [python, "-P", __file__, "--figures"],
            env=clean,
            cwd=folder,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "-f", tree], **quiet)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def compare(base: dict[str, float], head: dict[str, float]) -> tuple[list[str], bool]:
    """Say what differs, and whether any of it is worse."""
    lines = []
    worse = False
    for name in sorted(base.keys() | head.keys()):
        before, after = base.get(name), head.get(name)
        if before is None or after is None:
            lines.append(f"  only in {'HEAD' if before is None else 'BASE'}: {name}")
        elif before != after:
            worse |= after > before
            sign = "WORSE " if after > before else "better"
            change = after - before
            lines.append(f"  {sign} {change:+10.6g}  {before:g} -> {after:g}  {name}")
    return lines, worse


def main() -> None:
    """Compare two commits; exit with 1 if HEAD is worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", action="store_true", help="of what is installed")
    parser.add_argument("base", nargs="?", default="HEAD~1")
    parser.add_argument("head", nargs="?", default="HEAD")
    options = parser.parse_args()
    if options.figures:
        json.dump(figures(), sys.stdout)
        return
    both = []
    for commit in (options.base, options.head):
        with tempfile.TemporaryDirectory() as folder:
            print(f"Building and measuring {commit}: a minute or two.", flush=True)
            both.append(measure(commit, Path(folder)))
    if not both[1]:
        sys.exit(f"{options.head} has no figures: can instructions be counted here?")
    lines, worse = compare(*both)
    shared = both[0].keys() & both[1].keys()
    print(f"{len(shared)} figures of {options.base} and {options.head} compared:")
    print("\n".join(lines) or "  no difference")
    if worse:
        sys.exit(1)


if __name__ == "__main__":
    main()
