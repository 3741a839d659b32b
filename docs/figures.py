# SPDX-License-Identifier: BSD-3-Clause
"""Write the measured tables of docs/worst-case.md: ``make figures``.

Everything between a line ``<!-- NAME -->`` and the next ``<!-- end -->`` is
replaced by what is measured now, on the build that is installed.
"""

import re
import sys
from pathlib import Path

from xmem import insn
from xmem.replay import load
from xmem.scenarios import SCENARIOS

PAGE = Path(__file__).with_name("worst-case.md")
TRACES = Path(__file__).parents[1] / "asv_bench" / "traces"
FREE_BLOCKS = (10, 1000, 100_000)
#: A call of the legacy engine over more would be stepped for minutes.
LEGACY_BLOCKS = (10, 1000)
N_OPS = 2000


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
                if engine == "firstfit" and n_free not in LEGACY_BLOCKS:
                    cells.append("")
                    continue
                pool, arguments = what.make(n_free, engine)
                with pool.arena:
                    cells.append(f"{insn.cost(pool, what.verb, *arguments)[0]:,}")
            lines.append(
                f"| {what.verb} | {what.name} | {engine} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


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
    if insn.BUILD != "release":
        sys.exit(f"figures are those of a release build, not of a {insn.BUILD} one")
    text = PAGE.read_text()
    for name, table in (("scenarios", scenarios()), ("traces", traces())):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}",
            text,
            count=1,
            flags=re.DOTALL,
        )
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
