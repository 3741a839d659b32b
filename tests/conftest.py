# SPDX-License-Identifier: BSD-3-Clause
"""What several tests share: the seed, small arenas, the white-box probe.

Random tests take the fixture ``seed``: ``XMEM_TEST_SEED`` if it is set, else
one that is always the same. It is printed at the head of the run. The state
machines are drawn by hypothesis; ``XMEM_TEST_PROFILE=soak`` makes them run
many more examples, each time others.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from support.built import installed, sdist, unpacked, wheel  # noqa: F401

import xmem

SEED = int(os.environ.get("XMEM_TEST_SEED", "20"))
PROBE = Path(__file__).parent / "support" / "_probe.pyx"
BUILD_PROBE = """
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="probe",
    ext_modules=cythonize(
        [
            Extension(
                "_probe",
                ["_probe.pyx"],
                # It calls engines by themselves: nobody would tell the memory
                # checkers which memory is whose.
                define_macros=[("XMEM_CHECKED", None), ("XMEM_NO_MEMCHECK", None)],
                extra_compile_args=["-O1", "-finstrument-functions"],
            )
        ],
        include_path=[sys.argv.pop()],
        quiet=True,
    ),
)
"""

hypothesis.settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "soak",
    deadline=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile(os.environ.get("XMEM_TEST_PROFILE", "quick"))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "no_asan: the test is not for a process with ASan's runtime"
    )


#: Tests that damage an arena, which a build with checks would end the process for.
DAMAGING = {
    "test_blocks",
    "test_check_step",
    "test_every_bit",
    "test_front",
    "test_hardening",
    "test_heap_family",
    "test_invariants",
    "test_many",
    "test_proofs",
}


@pytest.fixture(autouse=True)
def audits(request, monkeypatch):
    """Let a build with checks assert all invariants, but where they are broken."""
    if request.module.__name__ in DAMAGING:
        monkeypatch.setenv("XMEM_AUDIT", "0")


def pytest_collection_modifyitems(items):
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        skip = pytest.mark.skip(reason="ASan's runtime is in the way")
        for item in items:
            if item.get_closest_marker("no_asan"):
                item.add_marker(skip)


def pytest_report_header():
    return f"XMEM_TEST_SEED={SEED}"


@pytest.fixture
def seed():
    """Seed of a random test; printed, so that a failure shows it."""
    print(f"XMEM_TEST_SEED={SEED}")
    return SEED


@pytest.fixture
def small_arena():
    """An anonymous arena of 1 MiB in pages of 4096 bytes."""
    with xmem.Arena.anonymous(1 << 20, page_size=4096) as arena:
        yield arena


@pytest.fixture
def arena_path(tmp_path):
    """A path at which no file is yet."""
    return tmp_path / "arena.xmem"


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    """The core's headers as a module, requirements on, function calls counted."""
    folder = tmp_path_factory.mktemp("probe")
    shutil.copy(PROBE, folder)
    (folder / "build.py").write_text(BUILD_PROBE)
    done = subprocess.run(
        [
            *[sys.executable, "build.py", "-q", "build_ext", "--inplace"],
            str(Path(xmem.__file__).parents[1]),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = next(path for path in folder.iterdir() if path.suffix in {".so", ".pyd"})
    spec = importlib.util.spec_from_file_location("_probe", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
