# SPDX-License-Identifier: BSD-3-Clause
"""The history in the repository: published, and seen by a browser."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "asv_bench"
RESULTS = BENCH / "history" / "reference"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
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
    """Address of the published pages, served on loopback."""
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
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=folder / "html"
    )
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_graph_is_published(published):
    folder, _ = published
    graphs = list((folder / "html" / "graphs").rglob(f"{GRAPH}.json"))
    assert graphs
    points = json.loads(graphs[0].read_text())
    assert points
    assert any(isinstance(values, list) and any(values) for _, values in points)


def browse(folder, address, *options):
    """Run the browser on the page of the graph."""
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,1000",
            "--virtual-time-budget=20000",
            f"--user-data-dir={folder / 'profile'}",
            *options,
            f"{address}/#{GRAPH}?x-axis=commit",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium here")
def test_a_browser_sees_the_worst_xfree_with_its_points(published):
    import matplotlib.image

    folder, address = published
    seen = browse(folder, address, "--dump-dom").stdout
    assert "flot-overlay" in seen  # the plot has been drawn
    assert "tlsf" in seen
    assert "firstfit" in seen
    assert "instructions" in seen
    browse(folder, address, "--screenshot=graph.png")
    picture = matplotlib.image.imread(folder / "graph.png")[..., :3]
    spread = picture.max(axis=2) - picture.min(axis=2)
    # Points and lines are coloured; the page around the graph is grey.
    left, right = picture.shape[1] // 4, picture.shape[1] - 20
    coloured = np.argwhere(spread[100:, left:right] > 0.3)
    assert len(coloured) > 100
