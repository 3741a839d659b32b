# SPDX-License-Identifier: BSD-3-Clause
"""The cost of calls from Python, compared with what a user would do without xmem.

Seconds for 1000 pairs of allocating and freeing memory.
"""

import numpy as np

try:
    from xmem import Arena, Pool
except ImportError:
    Arena = Pool = None

try:
    from xmem import numpy_memory
except ImportError:
    numpy_memory = None

SIZES = [16, 256, 4000]
N_PAIRS = 1000
ARENA_BYTES = 16 << 20


class Pairs:
    params = [SIZES]
    param_names = ["bytes"]

    def setup(self, n_bytes):
        if Pool is None:
            raise NotImplementedError("this commit has no Pool")
        self.pool = Pool(Arena.anonymous(ARENA_BYTES))
        self.pool.xfree(self.pool.xmalloc(n_bytes))

    def time_xmalloc_xfree(self, n_bytes):
        xmalloc, xfree = self.pool.xmalloc, self.pool.xfree
        for _ in range(N_PAIRS):
            xfree(xmalloc(n_bytes))

    def time_xmalloc_view_xfree(self, n_bytes):
        pool = self.pool
        for _ in range(N_PAIRS):
            offset = pool.xmalloc(n_bytes)
            pool.view(offset).release()
            pool.xfree(offset)

    def time_block(self, n_bytes):
        if not hasattr(self.pool, "block"):
            raise NotImplementedError("this commit has no blocks")
        block = self.pool.block
        for _ in range(N_PAIRS):
            block(n_bytes)

    def time_empty(self, n_bytes):
        if not hasattr(self.pool, "empty"):
            raise NotImplementedError("this commit has no arrays")
        empty, kind = self.pool.empty, np.uint8
        for _ in range(N_PAIRS):
            empty(n_bytes, kind)

    def time_numpy_empty_under_xmem(self, n_bytes):
        if numpy_memory is None:
            raise NotImplementedError("this commit has no numpy_memory")
        empty, kind = np.empty, np.uint8
        with numpy_memory(self.pool):
            for _ in range(N_PAIRS):
                empty(n_bytes, kind)

    def time_bytearray(self, n_bytes):
        for _ in range(N_PAIRS):
            bytearray(n_bytes)

    def time_numpy_empty(self, n_bytes):
        empty, kind = np.empty, np.uint8
        for _ in range(N_PAIRS):
            empty(n_bytes, kind)
