# SPDX-License-Identifier: BSD-3-Clause
"""An arena and the processes that share it, for tests."""

import os
from collections.abc import Callable

#: Of the arena that they share.
PAGE = 4096
N_BYTES = 1 << 20


def in_child(deed: Callable[[], object]) -> int:
    """Do something in a forked child; returns its status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            deed()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
