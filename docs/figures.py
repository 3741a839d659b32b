# SPDX-License-Identifier: BSD-3-Clause
"""Write the measured tables of docs/worst-case.md: ``make figures``.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` is
replaced by what is measured now, on the build that is installed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measured import fill, machine, require_release, table

from xmem.measure import insn
from xmem.measure.cycles import cost
from xmem.measure.replay import load
from xmem.measure.scenarios import SCENARIOS

PAGE = Path(__file__).with_name("worst-case.md")
ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT / "asv_bench" / "traces"
GRAPH = "calls.Calls.track_xfree_worst_instructions"
FREE_BLOCKS = (10, 1000, 100_000)
#: A call of the legacy engine over the last of them is stepped for half a minute:
#: counted for these scenarios only. Cycles are taken of all.
SHOWN = ("isolated", "splitting the largest")
N_OPS = 2000
WARM_REPEATS = 101
COLD_REPEATS = 25


def scenarios() -> str:
    """Instructions of every scenario."""
    rows = []
    for what in SCENARIOS:
        for engine in what.engines:
            row = [what.verb, what.name, engine]
            for n_free in FREE_BLOCKS:
                pool, arguments = what.make(n_free, engine)
                with pool.arena:
                    is_slow = engine == "firstfit" and n_free == FREE_BLOCKS[-1]
                    if is_slow and what.name not in SHOWN:
                        row.append("")
                        continue
                    row.append(f"{insn.cost(pool, what.verb, *arguments)[0]:,}")
            rows.append(row)
    heads = [f"{n:,} free" for n in FREE_BLOCKS]
    return table(["verb", "scenario", "engine", *heads], rows, text=range(3))


def timed() -> str:
    """Cycles of every scenario, warm and cold."""
    rows = []
    for what in SCENARIOS:
        for engine in what.engines:
            row = [what.verb, what.name, engine]
            for n_free in FREE_BLOCKS:
                pool, arguments = what.make(n_free, engine)
                with pool.arena:
                    warm = cost(pool, what.verb, *arguments, repeats=WARM_REPEATS)
                    cold = cost(
                        pool, what.verb, *arguments, repeats=COLD_REPEATS, cold=True
                    )
                row += [f"{int(warm.min()):,}", f"{int(np.median(cold)):,}"]
            rows.append(row)
    heads = [head for n in FREE_BLOCKS for head in (f"{n:,} free: warm", "cold")]
    return table(["verb", "scenario", "engine", *heads], rows, text=range(3))


def taken_on() -> str:
    """One line about the machine on which the cycles were taken."""
    return f"Taken on {machine()}"


def history() -> None:
    """Publish the history and keep a picture of its graph of worst xfree."""
    bench = ROOT / "asv_bench"
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads((bench / "asv.history.json").read_text())
        config |= {
            "repo": str(ROOT),
            "benchmark_dir": str(bench / "benchmarks"),
            "results_dir": str(bench / "history"),
            "html_dir": "html",
            "env_dir": "env",
        }
        file = Path(folder) / "asv.conf.json"
        file.write_text(json.dumps(config))
        subprocess.run([sys.executable, bench / "publish.py", file], check=True)
        subprocess.run(
            [
                sys.executable,
                bench / "browser.py",
                file.parent / "html",
                GRAPH,
                ROOT / "docs" / "history.png",
            ],
            check=True,
        )


def traces() -> str:
    """Worst and mean instructions over the beginning of each trace."""
    rows = []
    for path in sorted(TRACES.glob("*.npz")):
        counts = insn.count(load(path)[:N_OPS])
        row = [path.stem]
        for verb in ("xmalloc", "xfree"):
            summary = counts.summary(verb)
            if summary is None:
                row += ["", "", ""]
            else:
                row += [f"{summary.mean:.0f}", f"{summary.most:,}", summary.worst_path]
        rows.append(row)
    heads = [
        head
        for verb in ("xmalloc", "xfree")
        for head in (f"{verb} mean", "worst", "its path")
    ]
    return table(["trace", *heads], rows, text=(0, 3, 6))


def main() -> None:
    """Replace the tables."""
    require_release()
    fill(
        PAGE,
        {
            "scenarios": scenarios,
            "traces": traces,
            "machine": taken_on,
            "cycles": timed,
        },
    )
    history()


if __name__ == "__main__":
    main()
