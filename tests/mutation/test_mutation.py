# SPDX-License-Identifier: BSD-3-Clause
"""The command that changes lines: what it changes, and what it says of the tests."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from mutation.chosen import AREAS, areas, choose, drawn
from mutation.operators import mutants_of
from mutation.results import (
    PAGE,
    Result,
    equivalents,
    fill_page,
    n_drawn,
    read_results,
    table,
    write_results,
)
from mutation.sources import statements
from mutation.tree import ROOT, BuildFailed, Single, Tree, woven
from mutation.trials import Baseline, take_baseline, try_mutant

CYTHON = '''"""A header."""

from libc.stdint cimport uint64_t

cdef enum:
    MOST = 4


cdef inline bint fits(char* base, uint64_t size) noexcept nogil:
    """Whether it fits."""
    cdef uint64_t rest = <uint64_t>size + 1
    if size < MOST and not base[0]:
        return True
    return_to(base, rest)
    return False
'''
PYTHON = '''"""A module."""

MOST = 4


def clamped(size):
    """At most MOST."""
    if size > MOST:
        size = (
            MOST
        )
    return size - 0
'''


def changes(path, text):
    return {(one.operator, one.line, one.changed) for one in mutants_of(path, text)}


def test_statements_know_their_function_and_place():
    found = statements(CYTHON)
    assert [(one.function, one.line, one.indent) for one in found][-4:] == [
        ("fits", 12, 4),
        ("fits", 13, 8),
        ("fits", 14, 4),
        ("fits", 15, 4),
    ]
    assert [one.line for one in found if one.is_in_enum] == [6]


def test_what_is_changed_in_a_header():
    assert changes("a.pxd", CYTHON) == {
        ("constant", 6, "MOST = 5"),
        # A cast is no comparison.
        ("arithmetic", 11, "<uint64_t>size - 1"),
        ("number", 11, "<uint64_t>size + 2"),
        ("comparison", 12, "size <= MOST and not base[0]"),
        ("logic", 12, "size < MOST or not base[0]"),
        ("logic", 12, "size < MOST and  base[0]"),
        ("number", 12, "size < MOST and not base[1]"),
        ("condition", 12, "not base[0]"),
        ("condition", 12, "size < MOST"),
        ("condition", 12, "True"),
        ("condition", 12, "False"),
        ("logic", 13, "return False"),
        ("deletion", 14, "pass"),
        ("logic", 15, "return True"),
    }


def test_what_only_checks_see_is_left_alone():
    text = CYTHON.replace("return_to(base, rest)", "require(rest > 1)")
    assert not [one for one in mutants_of("a.pxd", text) if one.line == 14]


@pytest.mark.parametrize(
    ("line", "changed", "expected"),
    [
        (3, "MOST = 5", [3, 5, 5]),
        (8, "False", [3, 5, 9]),
        (8, "size >= MOST", [3, 4, 4]),
        (12, "return size + 0", [3, 4, 4]),
        (12, "return size - 1", [2, 3, 3]),
        (None, None, [3, 4, 4]),
    ],
)
def test_a_change_is_in_force_when_it_is_named(monkeypatch, line, changed, expected):
    every = {}
    used = set()
    for one in mutants_of("a.py", PYTHON):
        wanted = (one.line, one.changed) == (line, changed)
        if wanted or (one.line not in used and one.line != line):
            used.add(one.line)
            every[7 if wanted else 100 + len(every)] = one
    assert len(every) >= 3
    monkeypatch.setenv("MUTANT", "7")
    space = {}
    exec(woven(PYTHON, "a.py", every), space)
    assert [space["clamped"](size) for size in (3, 5, 9)] == expected


def test_a_file_without_changes_is_as_it_was():
    assert woven(CYTHON, "a.pxd", {}) == CYTHON


def test_a_draw_is_the_same_again_and_survives_edits_elsewhere():
    text = (ROOT / "xmem/core/hardening.pxd").read_text()
    path = "xmem/core/hardening.pxd"
    first = drawn(mutants_of(path, text), 12, 1)
    assert len({one.line for one in first}) == 12
    moved = text.replace("cdef enum:", "# A new line.\ncdef enum:", 1)
    again = drawn(mutants_of(path, moved), 12, 1)
    assert [one.name for one in again] == [one.name for one in first]
    assert all(b.line == a.line + 1 for a, b in zip(first, again, strict=True))
    other = drawn(mutants_of(path, text), 12, 2)
    assert {one.name for one in other} != {one.name for one in first}


def test_areas_name_files_and_tests_that_exist():
    modules = {
        entry["name"]
        for entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
            "setuptools"
        ]["ext-modules"]
    }
    files = [name for area in areas() for name in area.files]
    assert len(files) == len(set(files))
    for area in areas():
        assert all((ROOT / name).is_file() for name in area.files + area.tests)
        assert set(area.modules) <= modules
        assert len(choose(area, 1)) == area.tries, area.name
    assert sum(area.tries for area in areas()) >= 300
    assert AREAS.is_file()


RESULT = Result(
    "name",
    "growth",
    "xmem/core/hardening.pxd",
    "f",
    3,
    "number",
    "a | 1",
    "a | 2",
    "",
    "",
)


def results(**verdicts):
    return {
        name: dataclasses.replace(RESULT, name=name, verdict=verdict)
        for name, verdict in verdicts.items()
    }


def test_the_score_leaves_out_what_makes_no_difference():
    found = results(a="dead", b="dead", c="dead", d="survived", e="survived")
    explained = {"d": {"reason": "No call comes here."}}
    lines = table(found, explained, 9).splitlines()
    assert lines[2] == "| growth | 5 | 3 | 1 | 1 | 75 % |"
    assert lines[3] == "| all | 5 | 3 | 1 | 1 | 75 % |"
    assert lines[5] == "5 of the 9 changes that were drawn have been tried."
    assert lines[-1] == (
        "- core/hardening.pxd, `f`: `a | 1` became `a | 2`. No call comes here."
    )


def test_what_does_not_compile_was_not_tried():
    found = results(a="dead", b="not compiled")
    lines = table(found, {}, 2)
    assert "| growth | 1 | 1 | 0 | 0 | 100 % |" in lines
    assert lines.endswith("have been tried. 1 of them do not compile.")


def test_results_are_read_as_they_were_written(tmp_path):
    found = results(a="dead", b="survived")
    write_results(found, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == found
    assert read_results(tmp_path / "none.json") == {}


def test_the_page_shows_the_results_that_are_kept():
    if not PAGE.is_file():
        pytest.skip("the pages are in a checkout only")
    page = PAGE.read_text()
    assert fill_page(page, table(read_results(), equivalents(), n_drawn())) == page


def test_only_survivors_are_explained():
    found = read_results()
    for name, explained in equivalents().items():
        assert name in found, f"{name} is no longer tried"
        assert found[name].verdict == "survived", f"{name} no longer survives"
        assert explained["reason"].endswith("."), name


# The tests of a small project ----------------------------------------------------

MODULE = """\"\"\"A module.\"\"\"

import os

MUTANT = int(os.environ["MUTANT"])


def answer():
    if MUTANT == 1:
        return 41
    if MUTANT == 2:
        os.abort()
    while MUTANT == 3:
        pass
    return 42
"""
TESTS = """
import pathlib

import module


def test_answer():
    assert module.answer() == 42


def test_that_fails_anyway():
    assert False
"""


@pytest.fixture
def project(tmp_path):
    tree = Tree(tmp_path / "project", "-O1")
    tree.write("pyproject.toml", b'[tool.pytest.ini_options]\nmarkers = ["programs"]\n')
    tree.write("module.py", MODULE.encode())
    tree.write("tests/test_module.py", TESTS.encode())
    (tree.folder / "tests/mutation").symlink_to(Path(__file__).parent)
    return tree


@pytest.mark.slow
def test_what_the_tests_say_of_a_change(project, monkeypatch):
    monkeypatch.setattr("mutation.trials.LEAST_SECONDS", 1)
    tests = ["tests/test_module.py"]
    baseline = Baseline()
    take_baseline(project, tests, baseline)
    assert baseline.failing == {"tests/test_module.py::test_that_fails_anyway"}
    outcomes = [try_mutant(project, tests, n, baseline) for n in range(4)]
    assert [one.verdict for one in outcomes] == ["survived", "dead", "dead", "dead"]
    name = "tests/test_module.py::test_answer"
    assert [one.by for one in outcomes] == [
        "",
        name,
        f"{name}: signal 6",
        f"{name}: it does not end",
    ]


@pytest.mark.slow
def test_tests_that_cannot_run_are_no_verdict(project):
    project.write("tests/test_module.py", b"")
    with pytest.raises(RuntimeError, match="no test ran of"):
        take_baseline(project, ["tests/test_module.py"], Baseline())
    with pytest.raises(RuntimeError, match="no test ran of"):
        try_mutant(project, ["tests/test_module.py"], 1, Baseline())


def test_a_changed_constant_is_taken_back(tmp_path, monkeypatch):
    tree = Single(tmp_path)
    tree.write("a.pxd", CYTHON.encode())
    place = tree.place_of("module")
    place.write_bytes(b"sound")
    (mutant,) = (one for one in mutants_of("a.pxd", CYTHON) if one.is_single)

    def build(modules):
        assert "MOST = 5" in (tree.folder / "a.pxd").read_text()
        place.write_bytes(b"changed")
        if "broken" in modules:
            raise BuildFailed

    monkeypatch.setattr(tree, "build", build)
    with tree.changed(mutant, ("module",)):
        assert place.read_bytes() == b"changed"
    assert place.read_bytes() == b"sound"
    assert (tree.folder / "a.pxd").read_text() == CYTHON
