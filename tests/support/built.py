# SPDX-License-Identifier: BSD-3-Clause
"""The sdist of the working tree, the wheel of the sdist, and where it is installed.

The files of the tree are copied, an sdist is made of the copy, and a wheel of
nothing but the sdist. Both builds use the tools that are installed here, so that
no network is needed. Made once for all tests.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("XMEM_", "PIP_", "PYTHON"))
}


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=CLEAN | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


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
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("sdist")
    run(
        *(sys.executable, "-P", "-m", "build", "--no-isolation", "--sdist"),
        *("--outdir", out, tree),
        cwd=out,
    )
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="session")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist unpacks to."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="session")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what is in the sdist; not optimised, to be quick."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(unpacked, tree)
    settings = tree / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"-O3"', '"-O0"'))
    out = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps"),
        *("--no-build-isolation", "--no-index", "--wheel-dir", out, tree),
        cwd=out,
    )
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
