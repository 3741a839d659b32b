# SPDX-License-Identifier: BSD-3-Clause
"""Write the exact tables of docs/, and the picture of the history: ``make figures``.

``python docs/figures.py NAME...`` writes some of them; `verbs` and `modules` take no
time and need no release build. All but `cycles` are exact: the
same each time and on every machine, instructions on every build by the same compiler
for the same architecture. ``tests/measure/test_figures.py`` compares them with what
the build measures.
"""

import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from matplotlib.figure import Figure
from measured import (
    DOCS,
    ROOT,
    TRACES,
    counted,
    fill,
    machine,
    require_release,
    table,
)

from xmem import Arena, Heap
from xmem.cli.group import xmem as command
from xmem.cli.plots.style import save, style_grid
from xmem.data import demo_trace_path
from xmem.measure import insn
from xmem.measure.bounds import BOUNDS, ORDERS
from xmem.measure.cycles import cost
from xmem.measure.replay import load
from xmem.measure.scenarios import EXTREMES, SCENARIOS, Scenario
from xmem.pool import HARDENING

sys.path.insert(0, str(ROOT / "asv_bench"))
from rises import figures, read_rises, records, where

WORST_CASE = DOCS / "worst-case.md"
COMMANDS = DOCS / "commands.md"
DEVELOPING = DOCS / "developing.md"
RELIABILITY = DOCS / "reliability.md"
INTERFACES = DOCS / "interfaces.md"
RECORDS = ROOT / "asv_bench" / "history" / "reference"
GRAPH = "calls.Calls.track_xfree_worst_instructions"
FREE_BLOCKS = (10, 1000, 100_000)
#: A call of the legacy engine over the last of them is stepped for half a minute:
#: counted for these scenarios only. Cycles are taken of all.
SHOWN = ("isolated", "splitting the largest")
N_OPS = 2000
WARM_REPEATS = 101
COLD_REPEATS = 25
PAGE_BYTES = 4096


# Scenarios -----------------------------------------------------------------------


def counted_of(
    what: Scenario, n_free: int, engine: str = "tlsf", **settings: Any
) -> tuple[int, str]:
    """Return instructions and path of a scenario over ``n_free`` free blocks."""
    pool, arguments = what.make(n_free, engine, **settings)
    with pool.arena:
        return insn.cost(pool, what.verb, *arguments)


def scenarios() -> str:
    """Count the instructions of every scenario.

    The legacy engine over the most free blocks takes long, and is counted where shown.
    """
    rows = []
    for what in SCENARIOS:
        for engine in what.engines:
            row = [what.verb, what.name, engine]
            for n_free in FREE_BLOCKS:
                is_slow = engine == "firstfit" and n_free == FREE_BLOCKS[-1]
                if is_slow and what.name not in SHOWN:
                    row.append("")
                else:
                    row.append(f"{counted_of(what, n_free, engine)[0]:,}")
            rows.append(row)
    heads = ["verb", "scenario", "engine", *(f"{n:,} free" for n in FREE_BLOCKS)]
    return counted(table(heads, rows, n_text=3))


def cycles() -> str:
    """Time every scenario, warm and cold."""
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
    heads = ["verb", "scenario", "engine"]
    for n_free in FREE_BLOCKS:
        heads += [f"{n_free:,} free: warm", "cold"]
    return table(heads, rows, n_text=3)


def traces(pattern: str = "*") -> str:
    """Count worst and mean over the beginning of each trace of such a name."""
    rows = []
    for path in sorted(TRACES.glob(f"{pattern}.npz")):
        counts = insn.count(load(path)[:N_OPS])
        row = [path.stem]
        for verb in ("xmalloc", "xfree"):
            found = counts.summary(verb)
            if found is None:
                row += ["", "", ""]
            else:
                row += [f"{found.mean:.0f}", f"{found.most:,}", found.worst_path]
        rows.append(row)
    heads = ["trace"]
    for verb in ("xmalloc", "xfree"):
        heads += [f"{verb} mean", "worst", "its path"]
    return counted(table(heads, rows))


def insn_of_redis() -> str:
    """Return what ``xmem insn`` prints of the first calls of the demo's trace."""
    line = ["insn", str(demo_trace_path()), "--max-ops", "50"]
    done = CliRunner(env={"COLUMNS": "88"}).invoke(
        command, line, catch_exceptions=False
    )
    shown = "\n".join(row.rstrip() for row in done.stdout.strip().splitlines())
    return f"```text\n{shown}\n```"


# Bounds --------------------------------------------------------------------------


def bounds() -> str:
    """Return the bound of each verb, and count the heap that comes closest to it."""
    rows = []
    for what in EXTREMES:
        formula = BOUNDS[what.verb, what.kind]
        pool, arguments = what.make(0)
        with pool.arena:
            count, _ = insn.cost(pool, what.verb, *arguments)
        rows.append(
            [
                f"`{what.verb}`",
                "any" if what.verb.startswith("page") else what.kind,
                f"{formula.base}"
                + (f" + {formula.per_order} k" if formula.per_order else ""),
                what.name,
                f"{formula.at(ORDERS):,}",
                f"{count:,}",
            ]
        )
    heads = ["verb", "pool", "at most", "scenario", f"k = {ORDERS}", "counted"]
    return counted(table(heads, rows, n_text=4))


# Proof and hardening -------------------------------------------------------------


def proof() -> str:
    """Count what the proof of an offset adds."""
    rows = []
    for verb, name in (
        ("xfree", "isolated"),
        ("xfree", "both"),
        ("xrealloc", "shrinking"),
    ):
        (what,) = (w for w in SCENARIOS if (w.verb, w.name) == (verb, name))
        pool, arguments = what.make(FREE_BLOCKS[0], "tlsf")
        with pool.arena:
            both = [
                insn.cost(pool, verb, *arguments, checked=checked)[0]
                for checked in (False, True)
            ]
        rows.append([f"`{verb}`, {name}", *(f"{n:,}" for n in both)])
    return counted(table(["call", "without the proof", "with it"], rows))


def hardened(free_blocks: Collection[int] = (0, 10, 2000)) -> str:
    """Count the worst xfree over all scenarios, for each kind of hardening."""
    rows = []
    kinds: list[tuple[str, ...]] = [(), *((name,) for name in HARDENING), HARDENING]
    for flags in kinds:
        keeping, leaving = 0, 0
        for what in SCENARIOS:
            if what.verb != "xfree":
                continue
            for n_free in free_blocks:
                n, path = counted_of(what, n_free, hardened=flags)
                if "returned" in path:
                    leaving = max(leaving, n)
                else:
                    keeping = max(keeping, n)
        shown = {(): "`False`", tuple(HARDENING): "`True`"}.get(
            tuple(flags), f"`{list(flags)}`".replace("'", '"')
        )
        rows.append([shown, f"{keeping:,}", f"{max(keeping, leaving):,}"])
    return counted(table(["hardened", "xfree", "that returns a region"], rows))


# Pages ---------------------------------------------------------------------------

#: How each group of interfaces is asked for memory, and what is shown of it.
ROUTINES: tuple[tuple[str, str, str], ...] = (
    ("`strict`, `array`, `merged`", "merged", "xmalloc"),
    ("`subpage`: `xmalloc_subpage`", "subpage", "xmalloc_subpage"),
    ("`legacy`, `subpage`: `xmalloc`", "legacy", "xmalloc"),
)


def pages_taken(interface: str, routine: str, n_bytes: int) -> str:
    """Return the pages that each of many such requests takes, or that it is refused."""
    with Arena.anonymous(64 << 20, page_size=PAGE_BYTES) as arena:
        heap = Heap(arena, interface)
        take: Callable[[int], int] = getattr(heap, routine)
        before = arena.n_free_pages
        try:
            take(n_bytes)
        except ValueError:
            return "refused"
        n_pages = before - arena.n_free_pages
        n_blocks = 1
        while n_pages == 1 and before - arena.n_free_pages == 1:
            take(n_bytes)
            n_blocks += 1
        return f"1/{n_blocks - 1}" if n_blocks > 2 else f"{n_pages}"


def waste() -> str:
    """Count the pages that requests of some sizes take under each interface."""
    most = PAGE_BYTES - 24
    sizes = {
        1: "1 byte",
        most: f"{most} bytes (`XMALLOC_MAX`)",
        PAGE_BYTES - 1: f"{PAGE_BYTES - 1} bytes",
        PAGE_BYTES: f"{PAGE_BYTES} bytes: one page",
        PAGE_BYTES + 1: f"{PAGE_BYTES + 1} bytes",
        2 * PAGE_BYTES: f"{2 * PAGE_BYTES} bytes: two pages",
        3 * PAGE_BYTES: f"{3 * PAGE_BYTES} bytes: three pages",
        4 * PAGE_BYTES: f"{4 * PAGE_BYTES} bytes: four pages",
    }
    rows = [
        [name, *(pages_taken(*where, n_bytes) for _, *where in ROUTINES)]
        for n_bytes, name in sizes.items()
    ]
    heads = ["pages that each request takes", *(head for head, *_ in ROUTINES)]
    return table(heads, rows)


def stages() -> str:
    """Run the programs of interfaces.md and return the pages that each took."""
    code = "\n".join(
        re.findall(r"^```python\n(.*?)^```$", INTERFACES.read_text(), re.M | re.S)
    )
    found: dict[str, Any] = {"__name__": "page"}
    exec(code.replace("print(", "str("), found)
    rows = [[f"`{stage}`", f"{n:,}"] for stage, n in found["pages"].items()]
    return table(["stage", "pages"], rows)


# Lists for developers ------------------------------------------------------------


def verbs() -> str:
    """Return the table of the verbs of make, with what ``make help`` says of each."""
    rows = []
    for line in (ROOT / "Makefile").read_text().splitlines():
        if line.startswith("##@ "):
            rows.append([f"**{line[4:]}**", ""])
        elif found := re.match(r"([\w-]+):.*## (.*)", line):
            rows.append([f"`make {found[1]}`", found[2]])
    return table(["command", "does"], rows, n_text=2)


def first_sentence(module: Path) -> str:
    """Return the first paragraph of a docstring; a module's is that of its header."""
    name = module.relative_to(ROOT / "xmem")
    source = ROOT.joinpath("arena" if name.parts[0] == "arena" else "pyx")
    inside = name.relative_to("arena") if name.parts[0] == "arena" else name
    suffixes = (".py", ".pxd") if module.name == "__init__" else (".pxd", ".py")
    for path in (
        *(module.with_suffix(suffix) for suffix in suffixes),
        source / inside.with_suffix(".pyx"),
    ):
        found = path.is_file() and re.search(
            r'"""(.*?)"""', path.read_text(), re.DOTALL
        )
        if found:
            return " ".join(found[1].split("\n\n")[0].split())
    raise LookupError(f"{module} has no docstring")


def modules() -> str:
    """Return the list of modules, layer by layer from the lowest up."""
    (line,) = re.findall(r"^    (base < .*)$", DEVELOPING.read_text(), re.MULTILINE)
    layers = re.split(" < |, ", line)
    package = ROOT / "xmem"
    lines = []
    for layer in [*layers, "data"]:
        folder = package / layer
        if folder.is_dir():
            lines.append((f"{layer}/", first_sentence(folder / "__init__")))
        else:
            folder = package
        found = [
            path.relative_to(folder).with_suffix("")
            for suffix in ("*.pxd", "*.py", "*.pyi")
            for path in (
                folder.glob(suffix) if folder == package else folder.rglob(suffix)
            )
        ]
        names = {str(path) for path in found if path.name != "__init__"}
        if folder == package:
            names = {"verbs"} if layer == "verbs" else names - {"verbs"}
        indent = "" if folder == package else "    "
        for name in sorted(names):
            lines.append((indent + name, first_sentence(folder / name)))
    width = max(len(name) for name, _ in lines)
    shown = "\n".join(f"{name:{width}}  {sentence}" for name, sentence in lines)
    return f"```text\n{shown}\n```"


# History -------------------------------------------------------------------------


def draw_history(file: Path) -> None:
    """Draw the worst xfree from Python over the commits, with the listed rises."""
    found = [figures(record) for record in records(RECORDS)]
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for engine, style in (("tlsf", "-"), ("firstfit", "--")):
        for n_free in (10, 1000):
            name = f"{GRAPH}({engine}, {n_free})"
            points = [(i, one[name]) for i, one in enumerate(found) if name in one]
            label = f"{engine}, {n_free:,} free blocks"
            axes.plot(*zip(*points, strict=True), style, marker=".", label=label)
    reasons = []
    for index, commit, rise in where(read_rises(), RECORDS):
        if rise.figure.startswith(GRAPH):
            reasons.append(f"{len(reasons) + 1}  {commit[:8]}: {rise.reason}")
            axes.annotate(
                f"{len(reasons)}",
                (index, rise.after),
                (0, 24),
                textcoords="offset points",
                ha="center",
                arrowprops={"arrowstyle": "->"},
            )
    axes.set(yscale="log")
    axes.set_xlabel("commits that touched the core\n\n" + "\n".join(reasons))
    axes.set_ylabel("instructions of one xfree, the worst")
    axes.set_title("Worst xfree from Python, commit by commit", fontweight="bold")
    axes.legend(frameon=False)
    style_grid(axes)
    save(figure, file)


# All -----------------------------------------------------------------------------

PARTS: dict[tuple[Path, str], Callable[[], str]] = {
    (DEVELOPING, "verbs"): verbs,
    (DEVELOPING, "modules"): modules,
    (WORST_CASE, "bounds"): bounds,
    (WORST_CASE, "scenarios"): scenarios,
    (WORST_CASE, "traces"): traces,
    (WORST_CASE, "machine"): machine,
    (WORST_CASE, "cycles"): cycles,
    (COMMANDS, "insn"): insn_of_redis,
    (RELIABILITY, "proof"): proof,
    (RELIABILITY, "hardened"): hardened,
    (INTERFACES, "waste"): waste,
    (INTERFACES, "stages"): stages,
}


#: Parts that are read from the files.
READ = {"verbs", "modules"}


def main() -> None:
    """Replace the parts that are named; all, and the picture, if none is."""
    names = set(sys.argv[1:])
    if not names or names - READ:
        require_release()
    fill(PARTS)
    if not names:
        draw_history(DOCS / "history.png")


if __name__ == "__main__":
    main()
