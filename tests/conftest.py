# SPDX-License-Identifier: BSD-3-Clause
"""What several tests share: the seed, small arenas, the white-box probe.

Random tests take the fixture ``seed``: ``XMEM_TEST_SEED`` if it is set, else
one that is always the same. The run prints it first. Hypothesis draws the state
machines, always the same; ``XMEM_TEST_PROFILE=fresh`` makes it draw others each time,
or by ``--hypothesis-seed``, and ``soak`` many more. ``make random`` runs all of them
with a fresh seed. ``unshrunk`` leaves a failing example as it was found.
"""

import gc
import os
from pathlib import Path

import hypothesis
import pytest
from support.builds import builds  # noqa: F401
from support.built import installed, sdist, unpacked, wheel  # noqa: F401
from support.refusals import Refusals

import xmem
from xmem.measure import insn

SEED = int(os.environ.get("XMEM_TEST_SEED", "20"))
REFUSED = "refused calls"
PROBE = Path(__file__).parent / "support" / "_probe.pyx"

hypothesis.settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "unshrunk",
    hypothesis.settings.get_profile("quick"),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
for name in ("fresh", "soak"):
    hypothesis.settings.register_profile(
        name,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
hypothesis.settings.load_profile(os.environ.get("XMEM_TEST_PROFILE", "quick"))


#: Fixtures that build packages or modules. Of the first that a test uses all tests
#: run in one worker, so that no other waits for the build.
BUILDING = (
    *("site", "installed", "wheel", "sdist"),
    *("probe", "caller", "broken_engine", "shared_module"),
)
#: The wheel takes minutes: it is built with the programs that use it.
WHEEL = {"site", "installed", "wheel"}


@pytest.fixture(autouse=True)
def audits(request, monkeypatch):
    """Let a build with checks assert all invariants, but where they are broken."""
    if request.node.get_closest_marker("damages"):
        monkeypatch.setenv("XMEM_AUDIT", "0")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what builds, keep it in one worker, and leave out what cannot run here."""
    asan = "libasan" in os.environ.get("LD_PRELOAD", "")
    for item in items:
        building = [name for name in BUILDING if name in item.fixturenames]
        if building:
            item.add_marker("builds")
            if not item.get_closest_marker("xdist_group"):
                group = "wheel" if building[0] in WHEEL else building[0]
                item.add_marker(pytest.mark.xdist_group(group))
        if WHEEL & set(building):
            item.add_marker("programs")
        if {"builds", "programs", "proofs"} & {
            mark.name for mark in item.iter_markers()
        }:
            item.add_marker("slow")
        if "seed" in item.fixturenames or getattr(
            item.obj, "is_hypothesis_test", False
        ):
            item.add_marker("random")
        if insn.BUILD != "release" and item.get_closest_marker("release"):
            item.add_marker(
                pytest.mark.skip(reason="the figures are those of a release build")
            )
        if asan and item.get_closest_marker("no_asan"):
            item.add_marker(pytest.mark.skip(reason="ASan's runtime is in the way"))


#: The file of the last test that was set up.
last_file = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Spare the collections of a file's tests all that was made before the file."""
    global last_file
    if item.path != last_file:
        last_file = item.path
        gc.collect()
        gc.freeze()


def pytest_report_header():
    return f"XMEM_TEST_SEED={SEED}"


def pytest_terminal_summary(terminalreporter):
    """Say how many calls were refused as they should be, in all processes together."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("")]
    n_calls = sum(
        count
        for report in reports
        if report.when == "teardown"
        for name, count in report.user_properties
        if name == REFUSED
    )
    if n_calls:
        terminalreporter.write_line(f"{n_calls:,} calls were refused")


@pytest.fixture
def seed():
    """Seed of a random test; printed, so that a failure shows it."""
    print(f"XMEM_TEST_SEED={SEED}")
    return SEED


@pytest.fixture
def refusals(record_property):
    """Refuses tables of wrong values; the end of the run says how many there were."""
    refusals = Refusals()
    yield refusals
    record_property(REFUSED, refusals.n_calls)


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
def probe(builds):  # noqa: F811
    """The core's headers as a module, requirements on, function calls counted."""
    # It calls engines by themselves: nobody would tell the memory checkers which
    # memory is whose.
    return builds.module(
        PROBE,
        macros=("XMEM_CHECKED", "XMEM_NO_MEMCHECK"),
        flags=("-O1", "-finstrument-functions"),
    )


@pytest.fixture(scope="session")
def shared_module(builds):  # noqa: F811
    """Shared pools at C level; see support/_shared.pyx."""
    return builds.module(PROBE.with_name("_shared.pyx"))
