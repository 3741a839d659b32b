# SPDX-License-Identifier: BSD-3-Clause
"""A plugin of pytest: reports each test, and ends the process when one takes too long.

``MUTATION_PLAN`` names a JSON file with the tests to leave out, the seconds that each
may take, and the file to report to: one line for each test.
"""

import faulthandler
import json
import os
import time
from pathlib import Path

import pytest

PLAN = json.loads(Path(os.environ["MUTATION_PLAN"]).read_text())
ERRORS = os.fdopen(os.dup(2), "w")
#: When the test that is running was started.
started: dict[str, float] = {}


def say(**what):
    """One line of the report."""
    with Path(PLAN["report"]).open("a") as report:
        print(json.dumps(what), file=report)


def pytest_collection_modifyitems(items):
    """Leave out the tests that fail, or are too slow, without any change."""
    skipped = set(PLAN["skip"])
    items[:] = [item for item in items if item.nodeid not in skipped]


def pytest_runtest_logstart(nodeid):
    """Say which test runs. Its fixtures may build a module."""
    say(started=nodeid)
    started[nodeid] = time.monotonic()
    faulthandler.dump_traceback_later(PLAN["setup"], exit=True, file=ERRORS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """Set the limit of the test's own time."""
    limit = PLAN["limits"].get(item.nodeid, PLAN["limit"])
    faulthandler.dump_traceback_later(limit, exit=True, file=ERRORS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown():
    """What a test leaves behind may take its time to go."""
    faulthandler.dump_traceback_later(PLAN["setup"], exit=True, file=ERRORS)


def pytest_runtest_logreport(report):
    """Say which tests fail."""
    if report.failed:
        say(failed=report.nodeid, when=report.when)


def pytest_runtest_logfinish(nodeid):
    """Say how long a test took."""
    faulthandler.cancel_dump_traceback_later()
    say(finished=nodeid, seconds=time.monotonic() - started.pop(nodeid))
