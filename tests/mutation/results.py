# SPDX-License-Identifier: BSD-3-Clause
"""What came of the mutants: ``results.json``, and the table of docs/reliability.md."""

import json
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from mutation.chosen import areas
from mutation.operators import Mutant
from mutation.tree import ROOT
from mutation.trials import Outcome

RESULTS = Path(__file__).with_name("results.json")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Result:
    """A mutant as it is kept, and its verdict: 'dead', 'survived' or 'not compiled'."""

    name: str
    area: str
    path: str
    function: str
    line: int
    operator: str
    original: str
    changed: str
    verdict: str
    by: str


def result(mutant: Mutant, area: str, outcome: Outcome) -> Result:
    """The result of one mutant."""
    return Result(
        mutant.name,
        area,
        mutant.path,
        mutant.function,
        mutant.line,
        mutant.operator,
        mutant.original,
        mutant.changed,
        outcome.verdict,
        outcome.by,
    )


def read_results(path: Path = RESULTS) -> dict[str, Result]:
    """The results that are kept, by the name of the mutant."""
    if not path.exists():
        return {}
    return {one["name"]: Result(**one) for one in json.loads(path.read_text())}


def write_results(results: dict[str, Result], path: Path = RESULTS) -> None:
    """Keep results, one line for each."""
    rows = sorted(
        results.values(), key=lambda one: (one.area, one.path, one.line, one.name)
    )
    lines = ",\n".join(json.dumps(asdict(one)) for one in rows)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f"[\n{lines}\n]\n")
    unfinished.replace(path)


def equivalents(path: Path = EQUIVALENT) -> dict[str, dict[str, str]]:
    """Changes that make no difference, by name, each with its reason."""
    return tomllib.loads(path.read_text()) if path.exists() else {}


def short(text: str) -> str:
    """A statement in one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def change(one: Result) -> str:
    """A line of a list: what became what, and where."""
    where = one.path.partition("/")[2]
    if one.function:
        where += f", `{one.function.split('.')[-1]}`"
    original, changed = (" ".join(text.split()) for text in (one.original, one.changed))
    return f"- {where}: `{original}` became `{changed}`."


def table(
    results: dict[str, Result], equal: dict[str, dict[str, str]], n_drawn: int
) -> str:
    """The score by area, and the survivors that make no difference."""
    tried = [one for one in results.values() if one.verdict != "not compiled"]
    rows = ["| area | tried | noticed | equivalent | not noticed | score |"]
    rows.append("|---|---:|---:|---:|---:|---:|")
    total = [0, 0, 0, 0]
    names = sorted({one.area for one in tried})
    for name in [*names, ""]:
        here = [one for one in tried if one.area == name]
        dead = sum(one.verdict == "dead" for one in here)
        same = sum(one.verdict == "survived" and one.name in equal for one in here)
        counts = [len(here), dead, same, len(here) - dead - same]
        if name:
            total = [a + b for a, b in zip(total, counts, strict=True)]
        else:
            counts = total
        score = 100 * counts[1] / max(counts[0] - counts[2], 1)
        cells = [name or "all", *map(str, counts), f"{score:.0f} %"]
        rows.append("| " + " | ".join(cells) + " |")
    n_tried = len(results)
    rows += ["", f"{n_tried} of the {n_drawn} changes that were drawn have been tried."]
    if n_tried > len(tried):
        rows[-1] += f" {n_tried - len(tried)} of them do not compile."
    alive = sorted(
        (one for one in tried if one.verdict == "survived"),
        key=lambda one: (one.path, one.line),
    )
    for title, found in (
        ("No test has noticed these:", [one for one in alive if one.name not in equal]),
        ("These make no difference:", [one for one in alive if one.name in equal]),
    ):
        if found:
            rows += ["", title, ""]
        rows += [
            change(one) + (f" {equal[one.name]['reason']}" if one.name in equal else "")
            for one in found
        ]
    return "\n".join(rows)


def n_drawn() -> int:
    """How many changes a seed draws."""
    return sum(area.tries for area in areas())


def fill_page(text: str, lines: str) -> str:
    """The page with the table between its marks."""
    pattern = re.compile(r"(<!-- mutants -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
    assert pattern.search(text), "reliability.md has no place for the table"
    return pattern.sub(lambda found: found[1] + lines + found[2], text)


def write_page() -> None:
    """Write the table into docs/reliability.md."""
    lines = table(read_results(), equivalents(), n_drawn())
    PAGE.write_text(fill_page(PAGE.read_text(), lines))
