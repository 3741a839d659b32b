# SPDX-License-Identifier: BSD-3-Clause
"""The history in the repository: whole, and published."""

import json
import math
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "asv_bench"
RESULTS = BENCH / "history" / "reference"
GRAPH = "instructions.Worst.track_xfree_worst_instructions"
CALLS = "calls.Calls.track_xfree_worst_instructions"

pytestmark = pytest.mark.skipif(
    not RESULTS.is_dir() or not (ROOT / ".git").exists(),
    reason="the history is in a checkout only",
)


def records():
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-*.json"))]


def measured(graph):
    """Figures of a benchmark, of the commits that could run it."""
    found = [r["results"].get(graph) for r in records()]
    return [
        figures
        for figures, *_ in filter(None, found)
        if figures and not any(f is None or math.isnan(f) for f in figures)
    ]


def test_the_history_has_one_record_for_a_commit():
    commits = [record["commit_hash"] for record in records()]
    assert len(commits) > 20
    assert len(set(commits)) == len(commits)
    assert {record["params"]["machine"] for record in records()} == {"reference"}


def test_the_history_has_the_worst_xfree_of_both_engines():
    found = measured(GRAPH)
    assert found
    for tlsf_10, tlsf_1000, legacy_10, legacy_1000 in found:
        assert abs(tlsf_1000 - tlsf_10) < 100
        assert legacy_1000 > 5 * legacy_10 > 0


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder of the published pages."""
    if find_spec("asv") is None:
        pytest.skip("asv is not installed")
    folder = tmp_path_factory.mktemp("history")
    config = json.loads((BENCH / "asv.history.json").read_text())
    config |= {
        "repo": str(ROOT),
        "benchmark_dir": str(BENCH / "benchmarks"),
        "results_dir": str(BENCH / "history"),
        "html_dir": str(folder / "html"),
        "env_dir": str(folder / "env"),
    }
    (folder / "asv.conf.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, BENCH / "publish.py", "asv.conf.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if "shallow" in done.stderr:
        pytest.skip("the clone is shallow")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_graph_is_published(published):
    (graph,) = (
        path
        for path in (published / "html" / "graphs").rglob(f"{GRAPH}.json")
        if "machine-reference" in path.parts
    )
    points = json.loads(graph.read_text())
    drawn = [values for _, values in points if any(values or [])]
    assert len(drawn) == len(measured(GRAPH))
    assert all(len(values) == 4 for values in drawn)


def test_the_history_of_calls_has_every_commit_that_builds():
    found = measured(CALLS)
    assert len(found) > 25
    for tlsf_10, tlsf_1000, legacy_10, legacy_1000 in found:
        assert abs(tlsf_1000 - tlsf_10) < 100
        assert legacy_1000 > 5 * legacy_10 > 0


def test_the_published_page_needs_no_network(published):
    page = (published / "html" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']https?:[^"']*\.(?:js|css)""", page)
    for name in re.findall(r'"(libraries/[^"]*)"', page):
        assert (published / "html" / name).is_file()
    assert len(re.findall("libraries/", page)) >= 10


def test_an_unknown_library_is_an_error(tmp_path, browser):
    page = tmp_path / "index.html"
    page.write_text('<script src="https://x.org/a/unknown.js" integrity="b"></script>')
    publish = load_tool("publish")
    with pytest.raises(FileNotFoundError, match=r"unknown\.js"):
        publish.localize(tmp_path)


def load_tool(name):
    """A tool of asv_bench, as a module."""
    spec = spec_from_file_location(name, BENCH / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def browser():
    """The tool that opens pages."""
    return load_tool("browser")


def test_a_browser_draws_the_graph_with_its_points(published, browser, tmp_path):
    if browser.find_chromium() is None:
        pytest.skip("chromium is not installed")
    (graph,) = (
        path
        for path in (published / "html" / "graphs").rglob(f"{CALLS}.json")
        if "machine-reference" in path.parts
    )
    points = [values for _, values in json.loads(graph.read_text()) if values]
    lines = browser.look(published / "html", CALLS)
    assert len(lines) == 4
    cells = [(e, n) for e in ("tlsf", "firstfit") for n in (10, 1000)]
    for i, (engine, n) in enumerate(cells):
        (line,) = (
            line
            for line in lines
            if line.label.startswith(f"engine-{engine};")
            and line.label.endswith(f"-{n}")
        )
        assert line.points == [v[i] for v in points if v[i] is not None]
        assert len(line.points) > 25
    # Lines over others hide them: of each engine one is seen.
    for engine in ("tlsf", "firstfit"):
        seen = [line.pixels for line in lines if f"engine-{engine};" in line.label]
        assert len(seen) == 2
        assert max(seen) > 100
    picture = tmp_path / "graph.png"
    browser.shoot(published / "html", CALLS, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_a_graph_that_is_not_there_is_not_seen(published, browser):
    if browser.find_chromium() is None:
        pytest.skip("chromium is not installed")
    assert browser.look(published / "html", "no.such.graph") == []
