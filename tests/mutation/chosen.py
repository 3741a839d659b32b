# SPDX-License-Identifier: BSD-3-Clause
"""The changes that are tried: a sample of all, by area, which a seed draws.

A change keeps its place in the draw when other lines are edited, so that a later run
tries the same ones. At most one is drawn of a statement.
"""

import hashlib
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mutation.operators import Mutant, mutants_of
from mutation.tree import ROOT

AREAS = Path(__file__).with_name("areas.toml")
#: Operators that are drawn so many times less often: each needs a build.
RARE = {"constant": 3, "bound": 3}


@dataclass(frozen=True)
class Area:
    """Files whose lines are changed, and the tests that are to notice."""

    name: str
    files: tuple[str, ...]
    tries: int
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def areas() -> list[Area]:
    """All areas, in the order of the table."""
    return [
        Area(
            name,
            tuple(table["files"]),
            table["tries"],
            tuple(table["modules"]),
            tuple(table["tests"]),
        )
        for name, table in tomllib.loads(AREAS.read_text()).items()
    ]


def drawn(mutants: list[Mutant], n_drawn: int, seed: int) -> list[Mutant]:
    """A sample, spread over the operators."""

    def place(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    by_operator: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in sorted(mutants, key=place):
        by_operator[mutant.operator].append(mutant)
    rows = sorted(
        (
            (rank * RARE.get(mutant.operator, 1), place(mutant), mutant)
            for row in by_operator.values()
            for rank, mutant in enumerate(row)
        ),
        key=lambda entry: entry[:2],
    )
    sample: list[Mutant] = []
    statements: set[tuple[str, int]] = set()
    for _, _, mutant in rows:
        where = (mutant.path, mutant.line)
        if len(sample) < n_drawn and where not in statements:
            statements.add(where)
            sample.append(mutant)
    return sorted(sample, key=lambda one: (one.path, one.start, one.name))


def choose(area: Area, seed: int) -> list[Mutant]:
    """The changes of an area that a seed draws."""
    every = [
        mutant
        for path in area.files
        for mutant in mutants_of(path, (ROOT / path).read_text())
    ]
    return drawn(every, area.tries, seed)
