# SPDX-License-Identifier: BSD-3-Clause
"""An arena's file: what it holds, changing its bytes, damage at random."""

import os
import signal
import zlib
from pathlib import Path

import numpy as np

import support.damage as fmt
from xmem import Arena, ArenaFormatError, HeapCorruption, Pool

PAGE = 4096
N_BYTES = 1 << 18
MAX_POOLS = 48
TABLES = fmt.SUPERBLOCK_BYTES + MAX_POOLS * fmt.ENTRY_BYTES
KEPT = b"what was written stays"


def fill(arena: Arena) -> None:
    """Two pools, some blocks, some runs, a root."""
    for engine in ("tlsf", "firstfit"):
        pool = Pool(arena, name=engine, engine=engine, grow_pages=2)
        blocks = [pool.xmalloc(n) for n in (100, 200, 300)]
        pool.view(blocks[2])[: len(KEPT)] = KEPT
        pool.xfree(blocks[1])
        arena.root = blocks[2]
    arena.page_free(arena.page_alloc(0))
    arena.page_alloc_exact(3)


def patch(path: Path, offset: int, held: bytes, seal: bool = False) -> None:
    """Overwrite bytes of a file; ``seal`` makes the fixed part's checksum right."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(held)
        if seal:
            file.seek(0)
            crc = zlib.crc32(file.read(fmt.FIXED_BYTES))
            file.seek(fmt.FIXED_CRC)
            file.write(crc.to_bytes(4, "little"))


def random_superblocks(path: str, seed: int, n_times: int) -> None:
    """Random words in the fixed part, its checksum right; tables as they were."""
    rng = np.random.default_rng(seed)
    file = Path(path)
    held = file.read_bytes()
    words = list(range(8, fmt.FIXED_BYTES, 4))
    special = [
        0,
        1,
        2,
        4095,
        4096,
        1 << 31,
        (1 << 32) - 1,
        len(held),
        len(held) // PAGE,
    ]
    for n in range(n_times):
        print(seed, n, flush=True)
        signal.alarm(20)
        for _ in range(int(rng.integers(1, 4))):
            value = int(
                rng.choice(special) if rng.integers(2) else rng.integers(1 << 32)
            )
            place = int(rng.choice(words))
            patch(file, place, value.to_bytes(4, "little"), seal=True)
        if rng.integers(3) == 0:
            os.truncate(file, int(rng.integers(1 << 20)))
        try:
            with Arena.open(file) as arena:
                for name in arena.pools():
                    Pool.open(arena, name)
        except (ArenaFormatError, HeapCorruption):
            pass
        signal.alarm(0)
        file.write_bytes(held)
