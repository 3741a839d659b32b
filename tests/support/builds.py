# SPDX-License-Identifier: BSD-3-Clause
"""What tests compile, each thing once in a run, whichever worker asks for it first.

Whatever is made lies in a folder that the workers of pytest-xdist share, under a name
with a digest of what it was made of. A lock on a file keeps the others waiting until
it is complete. Nothing outlives the run, unless ``XMEM_TEST_BUILDS`` names a folder.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import xmem

ROOT = Path(__file__).parents[2]
#: Where the headers of xmem are that users compile against.
INCLUDE = Path(xmem.__file__).parents[1]
#: An environment without settings of ours, of pip or of the interpreter.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("XMEM_", "PIP_", "PYTHON"))
}
#: Builds that nobody measures are not optimised.
QUICK = {"XMEM_FLAGS": "-O0 -g0"}


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


class Builds:
    """Makes things once for all workers of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[Path], None], *sources: str) -> Path:
        """The folder that ``make`` has filled, now or before, from these sources."""
        digest = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:12]
        folder = self.folder / f"{name}-{digest}"
        failure = folder.with_suffix(".failed")
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if failure.exists():
                pytest.fail(failure.read_text(), pytrace=False)
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                unfinished.mkdir()
                try:
                    make(unfinished)
                except Exception as error:
                    failure.write_text(f"{name} cannot be built: {error}")
                    raise
                unfinished.rename(folder)
        return folder

    def module(
        self,
        source: Path,
        macros: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        name: str | None = None,
    ) -> ModuleType:
        """A Cython module, built against the installed package and imported.

        With the ``name`` of a module of xmem it has that module's header, and takes
        its place for what is imported later.
        """
        extension = {
            "define_macros": [(macro, None) for macro in macros],
            "extra_compile_args": list(flags),
        }
        script = BUILD.format(
            name=name or source.stem,
            source=source.name,
            extension=extension,
            include=INCLUDE,
        )

        def make(folder: Path) -> None:
            shutil.copy(source, folder)
            if name is not None:
                (folder / name.replace(".", "/")).parent.mkdir()
            (folder / "build.py").write_text(script)
            run(sys.executable, "build.py", "-q", "build_ext", "--inplace", cwd=folder)

        folder = self.once(source.stem, make, source.read_text(), script)
        full_name = name or source.stem
        (built,) = folder.glob(full_name.replace(".", "/") + ".*.so")
        spec = importlib.util.spec_from_file_location(full_name, built)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        if name is not None:
            sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


#: An editable install puts no folder on the path where Cython would look.
BUILD = """
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="{name}",
    ext_modules=cythonize(
        [Extension("{name}", ["{source}"], **{extension})],
        include_path=["{include}"],
        quiet=True,
    ),
)
"""


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Makes things once for all workers of a run; for all runs with a kept folder."""
    if "XMEM_TEST_BUILDS" in os.environ:
        return Builds(Path(os.environ["XMEM_TEST_BUILDS"]))
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    shared = folder / "builds"
    shared.mkdir(exist_ok=True)
    return Builds(shared)
