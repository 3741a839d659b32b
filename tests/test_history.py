# SPDX-License-Identifier: BSD-3-Clause
"""The history in the repository: whole, and published."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "asv_bench"
RESULTS = BENCH / "history" / "reference"
GRAPH = "instructions.Worst.track_xfree_worst_instructions"

pytestmark = pytest.mark.skipif(
    not RESULTS.is_dir() or not (ROOT / ".git").exists(),
    reason="the history is in a checkout only",
)


def records():
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-*.json"))]


def test_the_history_has_one_record_for_a_commit():
    commits = [record["commit_hash"] for record in records()]
    assert len(commits) > 20
    assert len(set(commits)) == len(commits)
    assert {record["params"]["machine"] for record in records()} == {"reference"}


def test_the_history_has_the_worst_xfree_of_both_engines():
    found = [r["results"][GRAPH] for r in records() if GRAPH in r["results"]]
    assert found
    for figures, params, *_ in found:
        assert params[0] == ["'tlsf'", "'firstfit'"]
        tlsf_10, tlsf_1000, legacy_10, legacy_1000 = figures
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
        [sys.executable, "-m", "asv", "publish", "--config", "asv.conf.json"],
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
    measured = [values for _, values in points if any(values or [])]
    assert len(measured) >= sum(GRAPH in record["results"] for record in records())
    assert all(len(values) == 4 for values in measured)
