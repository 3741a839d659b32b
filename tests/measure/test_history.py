# SPDX-License-Identifier: BSD-3-Clause
"""The history in the repository is complete and can be published."""

import html
import importlib
import json
import math
import re
import subprocess
import sys
from importlib.util import find_spec
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


def load_tool(name):
    """A tool of asv_bench, as a module."""
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCH))


def test_an_unknown_library_is_an_error(tmp_path):
    page = tmp_path / "index.html"
    page.write_text('<script src="https://x.org/a/unknown.js" integrity="b"></script>')
    with pytest.raises(FileNotFoundError, match=r"unknown\.js"):
        load_tool("publish").localize(tmp_path)


# Rises that have a reason --------------------------------------------------------

FIGURE = "calls.Calls.track_worst(tlsf, 10)"
LISTED = f"""
[[rise]]
figure = "{FIGURE}"
from = 100
to = 107
commit = "Look twice"
reason = "Once was <not> enough."
"""


@pytest.fixture
def rises(tmp_path):
    """A file of one made-up rise, read."""
    (tmp_path / "rises.toml").write_text(LISTED)
    return load_tool("rises").read_rises(tmp_path / "rises.toml")


@pytest.fixture
def made_up(tmp_path):
    """Records of four commits: not measured, then 100, 107 and 107."""
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / "machine.json").write_text("{}")
    for date, values in enumerate([None, [100, 9], [107, 9], [107, math.nan]]):
        name = FIGURE.partition("(")[0]
        params = [["'tlsf'"], ["10", "1000"]]
        record = {
            "commit_hash": f"{date}" * 40,
            # Newest files first, to see that they are sorted by date.
            "date": date,
            "results": {name: [values, params, "1"], "gone.Gone.track_it": None},
        }
        (folder / f"{9 - date}abc-env.json").write_text(json.dumps(record))
    return folder


def test_exactly_the_listed_rise_is_accepted(rises):
    compare = load_tool("regress").compare
    assert compare({FIGURE: 100}, {FIGURE: 100}, rises) == ([], False)
    lines, is_worse = compare({FIGURE: 100}, {FIGURE: 107}, rises)
    assert not is_worse
    assert "listed" in lines[0]
    assert "Once was <not> enough." in lines[1]
    for before, after in ((100, 106), (100, 108), (99, 107), (101, 107)):
        assert compare({FIGURE: before}, {FIGURE: after}, rises)[1]
    other = FIGURE.replace("10)", "1000)")
    assert compare({other: 100}, {other: 107}, rises)[1]
    both = {FIGURE: 107, other: 1}, {FIGURE: 100, other: 2}
    lines, is_worse = compare(*both, rises)
    assert is_worse
    assert [line.split()[0] for line in lines] == ["better", "WORSE"]


def test_regress_runs_as_it_runs_itself(tmp_path):
    """Without its folder on the path, from another place, under the same Python."""
    done = subprocess.run(
        [sys.executable, "-P", BENCH / "regress.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--figures" in done.stdout


def test_a_new_figure_is_printed_and_one_that_is_gone_is_worse(rises):
    compare = load_tool("regress").compare
    assert compare({"a": 1}, {"a": 1, "b": 2}, rises) == (["  new    b"], False)
    assert compare({"a": 1, "b": 2}, {"a": 1}, rises) == (["  GONE   b"], True)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("to = 107", "to = 100", "does not rise"),
        ("to = 107", "", "has figure, from, to"),
        ("Once was <not> enough.", " ", "without a reason"),
        ('reason = "', 'other = 1\nreason = "', "has figure, from, to"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, old, new, match):
    (tmp_path / "rises.toml").write_text(LISTED.replace(old, new))
    with pytest.raises(ValueError, match=match):
        load_tool("rises").read_rises(tmp_path / "rises.toml")


def test_a_rise_is_shown_at_its_commit(rises, made_up):
    tool = load_tool("rises")
    assert list(tool.where(rises, made_up)) == [(2, "2" * 40, rises[0])]
    page = tool.page(rises, made_up)
    assert "22222222" in page
    assert "Once was &lt;not&gt; enough." in page
    later = [rises[0]._replace(after=108.0)]
    assert list(tool.where(later, made_up)) == []
    assert "not measured yet" in tool.page(later, made_up)


def test_the_newest_record_gives_the_figures_to_compare_with(made_up):
    commit, found = load_tool("rises").newest(made_up)
    assert commit == "3" * 40
    assert found == {FIGURE: 107}


def test_a_clone_without_the_base_is_compared_with_the_history(
    rises, made_up, monkeypatch, capsys
):
    regress = load_tool("regress")
    monkeypatch.setattr(regress, "HISTORY", made_up)
    monkeypatch.setattr(regress, "MODULES", ("calls",))
    monkeypatch.setattr(regress, "is_there", lambda commit: commit == "HEAD")
    monkeypatch.setattr(sys, "argv", ["regress.py"])
    for figure, status in ((107, None), (108, 1)):
        monkeypatch.setattr(regress, "measured", lambda *_, now=figure: {FIGURE: now})
        if status is None:
            regress.main()
        else:
            with pytest.raises(SystemExit) as end:
                regress.main()
            assert end.value.code == status
        printed = capsys.readouterr().out
        assert "NOT COMPARED WITH HEAD~1" in printed
        assert "33333333" in printed
        assert "1 figures of" in printed
    monkeypatch.setattr(regress, "measured", lambda *_: {"other": 1})
    with pytest.raises(SystemExit, match="no figure in common"):
        regress.main()
    monkeypatch.setattr(regress, "is_there", lambda commit: False)
    with pytest.raises(SystemExit, match="there is no commit HEAD"):
        regress.main()


def test_the_listed_rises_are_those_of_commits_and_figures():
    """Of a figure that the history has; the commit is there, or yet to be made."""
    tool = load_tool("rises")
    known = set().union(*(tool.figures(record) for record in records()))
    listed = tool.read_rises()
    assert {rise.figure for rise in listed} <= known
    assert len({rise[:3] for rise in listed}) == len(listed)


def test_the_published_pages_show_the_rises(published):
    text = (published / "html" / "index.html").read_text()
    assert 'href="rises.html"' in text
    page = (published / "html" / "rises.html").read_text()
    for rise in load_tool("rises").read_rises():
        assert f"<td>{rise.after:g}</td>" in page
        assert html.escape(rise.reason) in page


def test_pages_without_the_menu_are_an_error(tmp_path, rises, made_up):
    (tmp_path / "index.html").write_text("<nav></nav>")
    with pytest.raises(ValueError, match="menu"):
        load_tool("publish").show_rises(tmp_path, rises, made_up)


def test_the_picture_shows_every_line_and_every_reason(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    figures = importlib.import_module("figures")
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, file: drawn.append(figure))
    figures.draw_history(tmp_path / "history.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert len(lines) == 4
    assert all(len(points) == len(measured(CALLS)) for points in lines.values())
    tlsf = [one[1] for one in measured_in_order()]
    assert list(lines["tlsf, 1,000 free blocks"]) == tlsf
    for rise in load_tool("rises").read_rises():
        if rise.figure.startswith(CALLS):
            assert rise.reason in axes.get_xlabel()


def measured_in_order():
    """Figures of the calls, the oldest commit first."""
    found = sorted(records(), key=lambda record: record["date"])
    results = [record["results"].get(CALLS) for record in found]
    return [result[0] for result in results if result and result[0]]
