# SPDX-License-Identifier: BSD-3-Clause
"""A plugin of pytest: each test runs with NumPy's data in a pool.

For NumPy's own tests: ``pytest -p support.numpy_under_xmem --pyargs ...``. At the end
the pool is checked.
"""

import gc
import os

import numpy as np
import pytest

import xmem

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # NumPy 1
    from numpy.core.multiarray import get_handler_name

arena = xmem.Arena.anonymous(2 << 30)
pool = xmem.Pool(arena, hardened=os.environ.get("NUMPY_UNDER_XMEM") == "hardened")
seen = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    global seen
    with xmem.numpy_memory(pool):
        seen += get_handler_name(np.zeros(3)) == "xmem"
        return (yield)


def pytest_sessionfinish(session):
    gc.collect()
    pool.check()
    arena.check()
    print(f"\nunder xmem: {seen} tests, peak {pool.stats().peak_pages} pages")
