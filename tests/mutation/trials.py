# SPDX-License-Identifier: BSD-3-Clause
"""Tests run on a copy: first without a change, then with one at a time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mutation.tree import VARIABLE, Tree, clean_environment

#: A mutant is dead when a test takes so many times as long as without it.
FACTOR = 5
#: Seconds that any test may take: short ones vary more.
LEAST_SECONDS = 10
#: Seconds that a test may take without a change; slower ones are left out.
SLOW_SECONDS = 60
#: Seconds in which a test has to end when nothing is known of it.
UNKNOWN_SECONDS = 600
#: Seconds for the fixtures of a test, which may have to build a module.
SETUP_SECONDS = 180
#: What pytest returns when it found no test.
NO_TESTS = 5


@dataclass(frozen=True)
class Outcome:
    """What came of the tests: ``verdict`` is 'dead' or 'survived', ``by`` says how."""

    verdict: str
    by: str


@dataclass
class Baseline:
    """What the tests of a copy do without a change."""

    seconds: dict[str, float] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    @property
    def skipped(self) -> set[str]:
        """Tests that cannot tell a mutant: they fail without, or are too slow."""
        slow = {name for name, took in self.seconds.items() if took > SLOW_SECONDS}
        return self.failing | slow

    def limits(self) -> dict[str, float]:
        """Seconds that each test may take with a change."""
        return {
            name: max(FACTOR * took, LEAST_SECONDS)
            for name, took in self.seconds.items()
        }

    def to_dict(self) -> dict[str, object]:
        """For a file of JSON."""
        return {"seconds": self.seconds, "failing": sorted(self.failing)}


@dataclass
class Report:
    """What `plugin` wrote: the test that was running last, and those that failed.

    ``output`` is what pytest printed, if no test came to its end.
    """

    running: str = ""
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    output: str = ""


def read_report(path: Path) -> Report:
    """The report of one run."""
    report = Report()
    for line in path.read_text().splitlines():
        said = json.loads(line)
        if "started" in said:
            report.running = said["started"]
        elif "failed" in said:
            report.failed.append(said["failed"])
        else:
            report.seconds[said["finished"]] = said["seconds"]
            report.running = ""
    return report


def run_tests(
    tree: Tree,
    tests: Sequence[str],
    number: int,
    baseline: Baseline | None,
    more: Sequence[str] = (),
) -> tuple[int, Report]:
    """Status and report of the tests in a copy, with one mutant in force."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as output:
        folder = Path(name)
        report = folder / "report"
        report.touch()
        plan = {
            "skip": sorted(baseline.skipped) if baseline else [],
            "limits": baseline.limits() if baseline else {},
            "limit": UNKNOWN_SECONDS,
            "setup": SETUP_SECONDS,
            "report": str(report),
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        environment = clean_environment(
            PYTHONPATH=f"{tree.folder}{os.pathsep}{tree.folder / 'tests'}",
            PYTHONDONTWRITEBYTECODE="1",
            MUTATION_PLAN=str(folder / "plan.json"),
            XMEM_TEST_PROFILE="unshrunk",
            XMEM_TEST_BUILDS=str(tree.builds),
            **{VARIABLE: str(number)},
        )
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "mutation.plugin"),
                *("-p", "no:cacheprovider", "-p", "no:faulthandler", "--tb=no"),
                *("--basetemp", folder / "temporary"),
                *("-m", "not programs", *more, *tests),
            ],
            cwd=tree.folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = child.wait()
        finally:
            # What the tests started may outlive a process that was ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        found = read_report(report)
        if not found.seconds:
            output.seek(0)
            found.output = output.read().decode(errors="replace")[-3000:]
        return status, found


def take_baseline(tree: Tree, tests: Sequence[str], baseline: Baseline) -> None:
    """Run files of tests without a change; add what they do to ``baseline``."""
    status, report = run_tests(tree, tests, 0, None)
    if report.running:
        raise RuntimeError(f"without a change, {report.running} does not end")
    if not report.seconds:
        raise RuntimeError(
            f"no test ran of {', '.join(tests)}: status {status}\n{report.output}"
        )
    baseline.seconds |= report.seconds
    baseline.failing |= set(report.failed)


def try_mutant(
    tree: Tree, tests: Sequence[str], number: int, baseline: Baseline
) -> Outcome:
    """Run the tests with a change, until one notices."""
    status, report = run_tests(tree, tests, number, baseline, ["-x"])
    if status == NO_TESTS:
        raise RuntimeError(f"no test ran of {', '.join(tests)}")
    if status == 0:
        return Outcome("survived", "")
    if report.failed:
        return Outcome("dead", report.failed[0])
    if report.running:
        end = f"signal {-status}" if status < 0 else "it does not end"
        return Outcome("dead", f"{report.running}: {end}")
    return Outcome("dead", "the tests cannot start")
