# SPDX-License-Identifier: BSD-3-Clause
"""Instructions of one call from Python: exact, and for every commit.

`instructions` counts only the verbs, with the commit's own tool. This counts all that
the compiled modules do for `pool.xfree(offset)`, including arguments and lock, with
the tool in stepping. Both engines free, and allocate, between neighbours of each
kind, over free blocks that the legacy engine walks. The call counted is an ordinary
one: another goes before it, because the first after a fork does more.
"""

from .common import ENGINES
from .stepping import CannotCount, count

try:
    from xmem import Arena, Pool
except ImportError:
    Arena = Pool = None

FREE_BLOCKS = [10, 1000]
PAGE_BYTES = 4096
HOLE_BYTES = 400
BLOCK_BYTES = 600
#: Which of five adjacent blocks are free while the middle one is freed.
NEIGHBOURS = [(), (1,), (3,), (1, 3)]


def heap(engine, n_free):
    """Make a pool with ``n_free`` free blocks, none larger than HOLE_BYTES."""
    pages = 1 << (n_free + 200).bit_length()
    pool = Pool(
        Arena.anonymous(pages * PAGE_BYTES, page_size=PAGE_BYTES), engine=engine
    )
    if engine == "firstfit":
        # A block that fills its page is shrunk, which walks no list.
        for _ in range(n_free):
            offset = pool.xmalloc(PAGE_BYTES - 128)
            pool.xrealloc(offset, PAGE_BYTES - HOLE_BYTES)
        return pool
    holes = []
    for i in range(n_free):
        holes.append(pool.xmalloc(24 + i * 13 % (HOLE_BYTES - 24)))
        pool.xmalloc(24)
    for offset in holes:
        pool.xfree(offset)
    return pool


def side_by_side(pool):
    """Allocate five adjacent blocks."""
    blocks = []
    while len(blocks) < 5:
        offset = pool.xmalloc(BLOCK_BYTES)
        if blocks and not BLOCK_BYTES < offset - blocks[-1] < BLOCK_BYTES + 128:
            blocks = []
        blocks.append(offset)
    return blocks


def ordinary(pool, live, call, argument):
    """Count a call that is not the first of its process; ``live`` is a block in use."""
    return count(call, argument, before=lambda: pool.usable_size(live))


class Calls:
    params = [ENGINES, FREE_BLOCKS]
    param_names = ["engine", "free_blocks"]
    unit = "instructions"
    version = "2"
    timeout = 300

    def setup(self, engine, free_blocks):
        if Pool is None:
            raise NotImplementedError("this commit has no Pool")
        try:
            count(len, ())
        except CannotCount as error:
            raise NotImplementedError(str(error)) from None

    def track_xfree_worst_instructions(self, engine, free_blocks):
        worst = 0
        for free in NEIGHBOURS:
            pool = heap(engine, free_blocks)
            blocks = side_by_side(pool)
            for i in free:
                pool.xfree(blocks[i])
            steps = ordinary(pool, blocks[0], pool.xfree, blocks[2])
            worst = max(worst, steps)
        return worst

    def track_xmalloc_worst_instructions(self, engine, free_blocks):
        worst = 0
        for free in NEIGHBOURS:
            pool = heap(engine, free_blocks)
            blocks = side_by_side(pool)
            for i in free:
                pool.xfree(blocks[i])
            steps = ordinary(pool, blocks[0], pool.xmalloc, BLOCK_BYTES)
            worst = max(worst, steps)
        return worst
