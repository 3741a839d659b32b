# SPDX-License-Identifier: BSD-3-Clause
"""A process of its own for what may crash, or must not share addresses."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

#: For a process that imports modules of the tests as well as xmem.
CHILD_ENV = os.environ | {
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep)
}


def apart(
    function: Callable[..., object], *arguments: object, cwd: Path | None = None
) -> str:
    """Call a function of a support module in a process of its own; its error output.

    The process must end with status 0. If it does not, the failure shows the last
    line that it printed, which says how far it came.
    """
    name = function.__name__
    code = f"from {function.__module__} import {name}; {name}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code],
        cwd=cwd,
        env=CHILD_ENV,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{done.returncode} after {last}: {done.stderr}"
    return done.stderr
