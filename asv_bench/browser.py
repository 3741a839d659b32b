# SPDX-License-Identifier: BSD-3-Clause
"""Open a published graph in a headless browser: what is drawn, and a picture of it.

``python browser.py HTML GRAPH PICTURE.png`` says how many points the browser drew
of each line and keeps a picture. HTML is the folder of the pages, GRAPH the name
of a benchmark. Needs chromium; the pages are served on loopback.
"""

import contextlib
import functools
import html
import http.server
import json
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: Milliseconds of the page's own time for scripts and data to load.
BUDGET_MS = 30_000
WIDTH, HEIGHT = 1400, 900

# Waits until the graph is drawn, then writes down what it consists of: of each
# line its label and its points, and how many pixels of its colour there are.
PROBE = string.Template("""<!doctype html>
<iframe id="page" width="$width" height="$height" src="index.html#$graph"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("page");
function look() {
    const page = frame.contentWindow;
    const plot = page.jQuery && page.jQuery("#main-graph").data("plot");
    if (!plot || !plot.getData().length) { setTimeout(look, 50); return; }
    const canvas = plot.getCanvas();
    const seen = new Map();
    const pixels = canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3] < 255) continue;
        const key = pixels[i] + "," + pixels[i + 1] + "," + pixels[i + 2];
        seen.set(key, (seen.get(key) || 0) + 1);
    }
    const lines = plot.getData().map(line => ({
        label: line.label,
        points: line.data.filter(point => point && point[1] !== null)
            .map(point => point[1]),
        pixels: seen.get(line.color.replace(/[^0-9,]/g, "")) || 0,
    }));
    document.getElementById("found").textContent = JSON.stringify(lines);
}
look();
</script>
""")


class Line(NamedTuple):
    """One line of a graph, as the browser drew it."""

    label: str
    points: list[float]
    pixels: int


def find_chromium() -> str | None:
    """Path of a headless browser, None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def serve(folder: Path, graph: str) -> Iterator[str]:
    """Serve the pages and the probe on loopback; the address."""
    probe = PROBE.substitute(graph=html.escape(graph), width=WIDTH, height=HEIGHT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/probe.html":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(probe.encode())

        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def chromium(*arguments: str, timeout_seconds: float = 120) -> str:
    """Run the browser on an empty profile, without the network; what it prints."""
    browser = find_chromium()
    if browser is None:
        raise FileNotFoundError(
            "there is no chromium; install the package of that name"
        )
    # What is preloaded here, such as a sanitizer's library, is not for a browser.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={profile}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--virtual-time-budget={BUDGET_MS}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout_seconds,
            env=environment,
        )
    return done.stdout


def look(folder: Path, graph: str) -> list[Line]:
    """Lines of a published graph, as the browser drew them.

    Parameters
    ----------
    folder : pathlib.Path
        Of the published pages.
    graph : str
        Name of a benchmark.

    Returns
    -------
    list of Line
        Empty if no graph appeared.

    Raises
    ------
    FileNotFoundError
        There is no browser.
    """
    with serve(folder, graph) as address:
        page = chromium("--dump-dom", f"{address}/probe.html")
    found = re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)
    text = html.unescape(found[1]) if found else ""
    return [Line(**line) for line in json.loads(text)] if text else []


def shoot(folder: Path, graph: str, picture: Path) -> None:
    """Keep a picture of a published graph; parameters as for `look`."""
    with serve(folder, graph) as address:
        chromium(f"--screenshot={picture.resolve()}", f"{address}/index.html#{graph}")


def main() -> None:
    """Look and shoot."""
    folder, graph, picture = sys.argv[1:]
    lines = look(Path(folder), graph)
    if not lines:
        sys.exit(f"the browser drew no graph of {graph}")
    for line in lines:
        print(f"{line.label}: {len(line.points)} points, {line.pixels} pixels")
    shoot(Path(folder), graph, Path(picture))


if __name__ == "__main__":
    main()
