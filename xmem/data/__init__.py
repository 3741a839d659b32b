# SPDX-License-Identifier: BSD-3-Clause
"""The small real trace that ships with xmem; README.md says what it is."""

from importlib.resources import files
from pathlib import Path

DEMO_TRACE = "redis.npz"


def demo_trace_path() -> Path:
    """Return the path of the trace that `xmem demo` replays.

    Returns
    -------
    Path
        An ``.npz`` that `xmem.measure.replay.load` reads.
    """
    return Path(str(files(__name__) / DEMO_TRACE))
