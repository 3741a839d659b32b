# SPDX-License-Identifier: BSD-3-Clause
"""The exact figures in docs/ are those that the build measures now.

Bytes and counts are compared everywhere, and exactly. So are instructions where
architecture and compiler are those that the page prints with the table; those of
another build have to lie within a quarter of them. The name of each test says which it
was.
"""

import importlib
import itertools
import re
import sys
from pathlib import Path

import pytest
from support.compiler import compiled_by

from xmem.measure import insn

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="the pages are in a checkout only"
)
traced = pytest.mark.skipif(
    not insn.is_available(), reason="the system lets nobody trace a child"
)
if DOCS.is_dir():
    sys.path.insert(0, str(DOCS))
    measured = importlib.import_module("measured")
    figures = importlib.import_module("figures")
    performance = importlib.import_module("performance")
    stores = importlib.import_module("stores")
    engines = importlib.import_module("engines")
    proven = importlib.import_module("proven")
    sys.path.remove(str(DOCS))

#: By which the instructions of another build may differ.
QUARTER = 0.25
#: The tables of instructions: the page and part, and what measures how much of it.
#: A table that takes longer than some seconds is compared in part, and as a whole by
#: `make programs`.
COUNTED = (
    {
        "bounds": (figures.WORST_CASE, figures.bounds),
        "scenarios": (figures.WORST_CASE, figures.scenarios),
        "traces": (figures.WORST_CASE, lambda: figures.traces("redis")),
        "proof": (figures.RELIABILITY, figures.proof),
        "hardened": (figures.RELIABILITY, figures.hardened),
    }
    if DOCS.is_dir()
    else {}
)
#: The tables of bytes and counts.
EXACT = (
    {
        "waste": (figures.INTERFACES, figures.waste),
        "stages": (figures.INTERFACES, figures.stages),
        "regions": (stores.PAGE, lambda: stores.regions(is_drawn=False)),
    }
    if DOCS.is_dir()
    else {}
)


# Tables of pages -----------------------------------------------------------------


def cells(part):
    """Cells of a table by the text in front of a row and the head of the column."""
    lines = [line for line in part.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    heads, rule, *rows = rows
    n_text = len(list(itertools.takewhile(lambda cell: set(cell) == {"-"}, rule)))
    # Columns may share a head, as "worst" does: the first of them is 0.
    columns = [(head, heads[:i].count(head)) for i, head in enumerate(heads)]
    return {
        (*row[:n_text], *column): cell
        for row in rows
        for column, cell in list(zip(columns, row, strict=True))[n_text:]
    }


def built_by(part):
    """Architecture and compiler that a part names."""
    (found,) = re.findall(r"^Instructions on (.*)\.$", part, re.M)
    return found


def agree(cell, there, tolerance):
    """Whether two cells are the same or, if both are numbers, close enough."""
    if cell == there or not tolerance or there is None:
        return cell == there
    numbers = [one.replace(",", "") for one in (cell, there)]
    if not all(re.fullmatch(r"[\d.]+", one) for one in numbers):
        return False
    here, there = map(float, numbers)
    return abs(here - there) <= tolerance * there


def differences(shown, now, tolerance=0.0):
    """A line for each cell that the page lacks or that has another figure there.

    ``tolerance`` is the share by which a number may differ.
    """
    return [
        f"{', '.join(map(str, key))}: {cell}, the page has {shown.get(key)}"
        for key, cell in now.items()
        if not agree(cell, shown.get(key), tolerance)
    ]


def test_tables_are_read_and_compared():
    part = "| a | b | n | n |\n|---|---|---:|---:|\n| x | y | 1,000 | 5 |\n"
    assert cells(part) == {("x", "y", "n", 0): "1,000", ("x", "y", "n", 1): "5"}
    changed = cells(part.replace("1,000", "1,001"))
    assert differences(cells(part), cells(part)) == []
    assert differences(cells(part), changed) == [
        "x, y, n, 0: 1,001, the page has 1,000"
    ]
    assert len(differences(cells(part), cells(part.replace("x", "z")))) == 2
    near = cells(part.replace("1,000", "1,250").replace("5", "4"))
    assert len(differences(cells(part), near)) == 2
    assert differences(cells(part), near, QUARTER) == []
    far = cells(part.replace("1,000", "749").replace("5", "no"))
    assert len(differences(cells(part), far, QUARTER)) == 2


# Exact everywhere ----------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_bytes_and_counts_are_those_of_the_page(name):
    page, measure = EXACT[name]
    now = cells(measure())
    assert now
    assert differences(cells(measured.part_of(page, name)), now) == []


def test_memory_with_and_without_quick_lists_is_that_of_the_page():
    shown = cells(measured.part_of(performance.PAGE, "quick"))
    field = cells(measured.part_of(performance.PAGE, "field"))
    for is_quick, row, allocator in (
        (False, "no", "xmem"),
        (True, "yes", "xmem, quick"),
    ):
        memory = performance.memory_per_live(is_quick)
        assert shown[row, "memory / live", 0] == memory
        assert field[allocator, "memory / live", 0] == memory


# Instructions --------------------------------------------------------------------


def pages_of_instructions():
    """Each table of instructions, with how it is compared as the name of the test."""
    for name, (page, _) in COUNTED.items():
        yield page, name
    for name in ("live", "arenas"):
        yield performance.PAGE, name


def manner(page, name):
    """By how much a table may differ here, and how that is called."""
    there, here = built_by(measured.part_of(page, name)), measured.build()
    if there == here:
        return 0.0, f"exactly, {here}"
    return QUARTER, f"within a quarter, {here} and not {there}"


COMPARED = [
    pytest.param(
        page,
        name,
        id=f"{name}: {manner(page, name)[1]}",
        marks=pytest.mark.programs if name == "scenarios" else (),
    )
    for page, name in (pages_of_instructions() if DOCS.is_dir() else ())
]


def measured_now(name):
    """Cells of a table of instructions that are measured now."""
    if name in COUNTED:
        found = cells(COUNTED[name][1]())
        # Left out for its time; the page may have it.
        return {key: cell for key, cell in found.items() if cell}
    heads = [head for head in performance.COST_HEADS if head.endswith("instructions")]
    sizes = (
        {f"{n:,}": (n,) for n in performance.LIVE_BLOCKS[:3]}
        if name == "live"
        else {f"2^{log2}": (1000, 1 << log2) for log2 in performance.ARENA_LOG2}
    )
    return {
        (row, head, 0): f"{n}"
        for row, size in sizes.items()
        for head, n in zip(heads, performance.instructions(*size), strict=True)
    }


@pytest.mark.slow
@pytest.mark.release
@traced
@pytest.mark.parametrize(("page", "name"), COMPARED)
def test_instructions_are_those_of_the_page(page, name):
    now = measured_now(name)
    assert now
    shown = cells(measured.part_of(page, name))
    assert differences(shown, now, manner(page, name)[0]) == []


@pytest.mark.release
@traced
@pytest.mark.programs
@pytest.mark.parametrize(
    ("page", "name", "measure"),
    [
        (figures.WORST_CASE, "traces", figures.traces),
        (performance.PAGE, "quick", performance.quick),
    ]
    if DOCS.is_dir()
    else [],
)
def test_tables_that_take_minutes_are_those_of_the_page(page, name, measure):
    shown = cells(measured.part_of(page, name))
    now = cells(measure())
    assert now
    assert now.keys() <= shown.keys()
    assert differences(shown, now, manner(page, name)[0]) == []


@pytest.mark.release
@traced
def test_the_output_of_insn_is_that_of_the_page():
    now = figures.insn_of_redis()
    shown = measured.part_of(figures.COMMANDS, "insn")
    if manner(figures.WORST_CASE, "scenarios")[0]:
        # The build of another compiler: the same lines, with other figures.
        now, shown = (re.sub(r"[\d,.]+", "n", text).split() for text in (now, shown))
    assert now == shown


def test_a_build_by_another_compiler_may_differ_by_a_quarter(monkeypatch):
    assert "gcc" in measured.build() or "clang" in measured.build()
    assert measured.build() == compiled_by()
    monkeypatch.setattr(measured, "build", lambda: "riscv64, cc 1")
    tolerance, name = manner(figures.WORST_CASE, "scenarios")
    assert tolerance == QUARTER
    assert name.startswith("within a quarter, riscv64, cc 1 and not ")


# Who writes what -----------------------------------------------------------------


def test_every_marked_part_of_a_page_has_its_command():
    marked = {
        (page, name)
        for page in (ROOT / "README.md", *DOCS.glob("*.md"))
        for name in re.findall(r"^<!-- ([\w-]+) -->$", page.read_text(), re.M)
        if name != "end"
    }
    # The score by area is written by `make mutants`, and held by tests/mutation.
    score = (DOCS / "reliability.md", "mutants")
    proofs = (proven.PAGE, proven.PART)
    written = {*figures.PARTS, *performance.PARTS, *engines.PARTS, *stores.PARTS}
    assert marked == written | {score, proofs}


def test_no_figure_is_written_by_hand():
    """Measured figures stand in marked parts only."""
    unit = r"\d[\d,.]* (?:to \d[\d,.]* )?(?:instructions|cycles|nanoseconds|ns)\b"
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        text = re.sub(
            r"<!-- [\w-]+ -->\n.*?<!-- end -->", "", page.read_text(), flags=re.S
        )
        assert re.findall(unit, text) == [], page
