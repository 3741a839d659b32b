# SPDX-License-Identifier: BSD-3-Clause
"""Damage at random, for a process of its own: whatever only reads must end."""

import contextlib
import ctypes
import signal

import numpy as np

import support.damage as fmt
from support.damage import damaged
from xmem import Arena, BadArgument, HeapCorruption, Pool, PoolDestroyed
from xmem.arena import FRAME_CONTROL

PAGE = 4096


def random_damage(seed: int, n_times: int) -> None:
    """Overwrite words at random; whatever only reads must end, by an error or not."""
    rng = np.random.default_rng(seed)
    arena = Arena.anonymous(24 * PAGE, page_size=PAGE, max_pools=3)
    pools = [
        Pool(arena, name="tlsf", grow_pages=2),
        Pool(arena, name="single", grow_pages=1, join_regions=False),
        Pool(arena, name="legacy", engine="firstfit"),
    ]
    blocks = [
        (pool, pool.xmalloc(int(n))) for pool in pools for n in rng.integers(0, 900, 12)
    ]
    for pool, block in blocks[::3]:
        pool.xfree(block)
    tables = np.arange(fmt.STATE, arena.first_page * PAGE, 4)
    controls = [
        page * PAGE + i
        for page, _, state, _, _ in arena.frames().tolist()
        if state == FRAME_CONTROL
        for i in range(0, fmt.CONTROL_BYTES, 4)
    ]
    headers = [
        offset + i
        for pool in pools
        for offset in pool.walk()["offset"].tolist()
        for i in (-64, -56, -48, -40, -8, 0, 8)
    ]
    for n in range(n_times):
        print(seed, n, flush=True)
        signal.alarm(20)
        with damaged(arena) as words:
            for _ in range(int(rng.integers(1, 5))):
                places = (tables, controls, headers)[int(rng.integers(3))]
                place = int(places[int(rng.integers(len(places)))])
                value = (
                    int(rng.integers(1 << 63)),
                    int(rng.integers(arena.n_bytes)) & -8,
                    int(rng.integers(64)),
                    -int(rng.integers(64)),
                    words.word(place) ^ 1 << int(rng.integers(64)),
                    words.word(place) + int(rng.integers(-16, 17)) * fmt.SIZE,
                )[int(rng.integers(6))]
                words.set(place, value)
            readers = [arena.check, arena.frames, arena.pools, arena.trim]
            for pool in pools:
                readers += [pool.check, pool.stats, pool.walk]
                for verify in (False, True):
                    readers.append(
                        lambda name=pool.name, verify=verify: Pool.open(
                            arena, name, verify=verify
                        )
                    )
            held = words.bytes(0, arena.n_bytes)
            for call in readers:
                with contextlib.suppress(HeapCorruption, PoolDestroyed, BadArgument):
                    call()
                if call == arena.trim:
                    # What it took for free pages is zero now, by right.
                    ctypes.memmove(arena.address(0), held, len(held))
            signal.alarm(0)
        for pool in pools:
            pool.check()
