# SPDX-License-Identifier: BSD-3-Clause
"""Publish the pages of a configuration of asv so that they need no network.

``python publish.py CONFIG`` does what ``asv publish --config CONFIG`` does; then
the libraries that the pages would load from elsewhere are put beside them.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

LIBRARIES = Path(__file__).resolve().parent / "www" / "libraries"
#: A script or a style sheet from elsewhere, with how it is to be checked.
ELSEWHERE = re.compile(
    r'(?P<name>src|href)="https://[^"]*/(?P<file>[^"/]+\.(?:js|css))"'
    r' integrity="[^"]*"(?: (?:crossorigin|referrerpolicy)="[^"]*")*'
)


def localize(html: Path) -> None:
    """Let the published pages load their libraries from beside them.

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


def main() -> None:
    """Publish the configuration that is named."""
    config = Path(sys.argv[1] if len(sys.argv) > 1 else "asv.conf.json")
    done = subprocess.run(
        [sys.executable, "-m", "asv", "publish", "--config", config], check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    localize(config.parent / json.loads(config.read_text())["html_dir"])


if __name__ == "__main__":
    main()
