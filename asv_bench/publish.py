# SPDX-License-Identifier: BSD-3-Clause
"""Publish the pages of a configuration of asv so that they need no network.

``python publish.py CONFIG`` does what ``asv publish --config CONFIG`` does. Then it
puts the libraries that the pages would load from elsewhere next to them, and adds a
page of the rises that are listed with a reason.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rises import Rise, page, read_rises

LIBRARIES = Path(__file__).resolve().parent / "www" / "libraries"
#: The last entry of the menu; ours follows it.
MENU = re.compile(r'(<li id="nav-li-regressions">.*?</li>)')
#: A script or a style sheet from elsewhere, and its checksum.
ELSEWHERE = re.compile(
    r'(?P<name>src|href)="https://[^"]*/(?P<file>[^"/]+\.(?:js|css))"'
    r' integrity="[^"]*"(?: (?:crossorigin|referrerpolicy)="[^"]*")*'
)


def localize(html: Path) -> None:
    """Let the published pages load their libraries from their own folder.

    Parameters
    ----------
    html : pathlib.Path
        Folder of the pages.

    Raises
    ------
    FileNotFoundError
        This asv wants a library that is not kept here.
    """

    def local(found: re.Match[str]) -> str:
        name = re.sub(r"-[\d.]+(?=\.min\.|\.js$)", "", found["file"])
        for file in (name, name.replace(".min.", ".")):
            if (LIBRARIES / file).is_file():
                return f'{found["name"]}="libraries/{file}"'
        raise FileNotFoundError(
            f"this version of asv loads {found['file']}; put it into {LIBRARIES}"
        )

    page = html / "index.html"
    page.write_text(ELSEWHERE.sub(local, page.read_text()))
    shutil.copytree(LIBRARIES, html / "libraries", dirs_exist_ok=True)


def show_rises(html: Path, rises: list[Rise], records: Path) -> None:
    """Add a page of the listed rises, and its place in the menu.

    Parameters
    ----------
    html : pathlib.Path
        Folder of the pages.
    rises : list of Rise
        Those that are listed.
    records : pathlib.Path
        Folder of the records in which they happened.

    Raises
    ------
    ValueError
        The pages of this asv have no menu that we know.
    """
    (html / "rises.html").write_text(page(rises, records))
    index = html / "index.html"
    text, n_found = MENU.subn(
        r'\1\n<li><a href="rises.html">Listed rises</a></li>', index.read_text()
    )
    if n_found != 1:
        raise ValueError(f"{index}: there is no menu to add the listed rises to")
    index.write_text(text)


def main() -> None:
    """Publish the configuration that is named."""
    config = Path(sys.argv[1] if len(sys.argv) > 1 else "asv.conf.json")
    done = subprocess.run(
        [sys.executable, "-m", "asv", "publish", "--config", config], check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    settings = json.loads(config.read_text())
    html = config.parent / settings["html_dir"]
    localize(html)
    results = config.parent / settings["results_dir"]
    if (results / "rises.toml").is_file():
        rises = read_rises(results / "rises.toml")
        show_rises(html, rises, results / "reference")


if __name__ == "__main__":
    main()
