# SPDX-License-Identifier: BSD-3-Clause
"""The sdist of the working tree, the wheel of the sdist, and where it is installed.

The files of the tree are copied, an sdist is made of the copy, and a wheel of
nothing but the sdist. Both builds use the tools that are installed here, so that
no network is needed.
"""

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.builds import QUICK, ROOT, Builds, run


def sources() -> list[str]:
    """Files of the working tree that git would know; all, where there is no git."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = run(
            *("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"),
            *("--cached", "--others", "--exclude-standard"),
            cwd=ROOT,
        )
        return [name for name in listed.split("\0") if (ROOT / name).is_file()]
    return [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if path.is_file()
        and path.suffix not in {".c", ".so", ".pyc"}
        and not path.relative_to(ROOT).parts[0].startswith((".venv", "build", "dist"))
    ]


@pytest.fixture(scope="session")
def sdist(builds: Builds) -> Path:
    """An sdist of a copy of the tree."""

    def make(folder: Path) -> None:
        tree = folder / "tree"
        for name in sources():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
        run(
            *(sys.executable, "-P", "-m", "build", "--no-isolation", "--sdist"),
            *("--outdir", folder, tree),
            cwd=folder,
        )

    (made,) = builds.once("sdist", make).glob("*.tar.gz")
    return made


@pytest.fixture(scope="session")
def unpacked(builds: Builds, sdist: Path) -> Path:
    """The folder that the sdist unpacks to."""

    def make(folder: Path) -> None:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")

    (root,) = builds.once("unpacked", make).iterdir()
    return root


@pytest.fixture(scope="session")
def wheel(builds: Builds, unpacked: Path) -> Path:
    """A wheel of what is in the sdist; not optimised, to be quick."""

    def make(folder: Path) -> None:
        tree = folder / "tree"
        shutil.copytree(unpacked, tree)
        run(
            *(sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--no-index", "--wheel-dir", folder, tree),
            cwd=folder,
            **QUICK,
        )
        shutil.rmtree(tree)

    (made,) = builds.once("wheel", make).glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(builds: Builds, wheel: Path) -> Path:
    """A folder into which the wheel is installed."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)

    return builds.once("installed", make)
