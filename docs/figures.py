# SPDX-License-Identifier: BSD-3-Clause
"""Write the measured tables of docs/worst-case.md: ``make figures``.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` is
replaced by what is measured now, on the build that is installed.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measured import fill, require_release

from xmem.measure import insn
from xmem.measure.cycles import cost
from xmem.measure.peers import Peer, measure
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
    heads = [f"{n:,} free" for n in FREE_BLOCKS]
    lines = [
        f"| verb | scenario | engine | {' | '.join(heads)} |",
        "|---|---|---|" + "---:|" * len(heads),
    ]
    for what in SCENARIOS:
        for engine in what.engines:
            cells = []
            for n_free in FREE_BLOCKS:
                pool, arguments = what.make(n_free, engine)
                with pool.arena:
                    is_slow = engine == "firstfit" and n_free == FREE_BLOCKS[-1]
                    if is_slow and what.name not in SHOWN:
                        cells.append("")
                        continue
                    cells.append(f"{insn.cost(pool, what.verb, *arguments)[0]:,}")
            lines.append(
                f"| {what.verb} | {what.name} | {engine} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def timed() -> str:
    """Cycles of every scenario, warm and cold."""
    heads = [f"{n:,} free: warm | cold" for n in FREE_BLOCKS]
    lines = [
        f"| verb | scenario | engine | {' | '.join(heads)} |",
        "|---|---|---|" + "---:|" * (2 * len(heads)),
    ]
    for what in SCENARIOS:
        for engine in what.engines:
            cells = []
            for n_free in FREE_BLOCKS:
                pool, arguments = what.make(n_free, engine)
                with pool.arena:
                    warm = cost(pool, what.verb, *arguments, repeats=WARM_REPEATS)
                    cold = cost(
                        pool, what.verb, *arguments, repeats=COLD_REPEATS, cold=True
                    )
                cells += [f"{int(warm.min()):,}", f"{int(np.median(cold)):,}"]
            lines.append(
                f"| {what.verb} | {what.name} | {engine} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def machine() -> str:
    """One line about the machine on which the cycles were taken."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    ticks = load(TRACES / "redis.npz")[:1]
    hz = measure(Peer.null(), ticks, repeats=1).tsc_hz
    return (
        f"Taken on {platform.system()} {platform.machine()}, {model}, time-stamp "
        f"counter {hz / 1e9:.2f} GHz."
    )


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
    lines = [
        "| trace | xmalloc mean | worst | its path | xfree mean | worst | its path |",
        "|---|---:|---:|---|---:|---:|---|",
    ]
    for path in sorted(TRACES.glob("*.npz")):
        counts = insn.count(load(path)[:N_OPS])
        cells = []
        for verb in ("xmalloc", "xfree"):
            found = counts.summary(verb)
            if found is None:
                cells += ["", "", ""]
            else:
                cells += [f"{found.mean:.0f}", f"{found.most:,}", found.worst_path]
        lines.append(f"| {path.stem} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Replace the tables."""
    require_release()
    fill(
        PAGE,
        {
            "scenarios": scenarios,
            "traces": traces,
            "machine": machine,
            "cycles": timed,
        },
    )
    history()


if __name__ == "__main__":
    main()
