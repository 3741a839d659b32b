# SPDX-License-Identifier: BSD-3-Clause
"""A scene for tests of misuse: an arena in which memory of every kind lies."""

import ctypes
from collections.abc import Iterator

from xmem import Arena, Pool
from xmem.arena import FRAME_CONTROL, FRAME_FREE, FRAME_REGION

ENGINES = ("tlsf", "firstfit")
PAGE = 4096
ARENA_BYTES = 512 << 10
PATTERN = bytes(range(256)) * 256


class Scene:
    """An arena in which memory of every kind lies, and what is where."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.arena = arena = Arena.anonymous(ARENA_BYTES, page_size=PAGE, max_pools=6)
        self.pool = pool = Pool(
            arena, name="mine", engine=engine, grow_pages=2, max_pages=60
        )
        self.other = Pool(arena, name="other", engine=engine)
        alien = ENGINES[1 - ENGINES.index(engine)]
        self.alien = Pool(arena, name="alien", engine=alien)

        # Next to each other: the freed block keeps its place between two live ones.
        self.left = pool.xmalloc(100)
        self.freed = pool.xmalloc(200)
        self.live = pool.xmalloc(300)
        self.right = pool.xmalloc(400)
        self.aligned = pool.xmalloc(100, align=512)
        self.whole = pool.xmalloc(3 * PAGE, align=2 * PAGE)
        pool.xfree(self.freed)

        self.other_live = self.other.xmalloc(100)
        self.other_freed = self.other.xmalloc(100)
        self.other_right = self.other.xmalloc(100)
        self.other.xfree(self.other_freed)
        self.alien_live = self.alien.xmalloc(100)
        self.alien_whole = self.alien.xmalloc(2 * PAGE, align=2 * PAGE)

        self.run = arena.page_alloc(1)
        self.run_freed = arena.page_alloc(0)
        self.run_exact = arena.page_alloc_exact(3)
        arena.page_free(self.run_freed)
        arena.root = self.live
        for owner, offset in self.memory():
            view = owner.view(offset)
            start = (offset >> 4) & 0xFF
            view[:] = PATTERN[start : start + len(view)]

    @property
    def pools(self) -> tuple[Pool, Pool, Pool]:
        return self.pool, self.other, self.alien

    def memory(self) -> Iterator[tuple[Arena | Pool, int]]:
        """Owner and offset of everything live."""
        for pool in self.pools:
            blocks = pool.walk()
            for offset in blocks["offset"][blocks["used"]]:
                yield pool, int(offset)
        yield self.arena, self.run
        yield self.arena, self.run_exact

    def page_in(self, state: int, owner: int) -> int:
        """Offset of the first run in ``state`` of ``owner``."""
        frames = self.arena.frames()
        found = frames[(frames["state"] == state) & (frames["owner"] == owner)]
        return int(found["page"][0]) * PAGE

    @property
    def never(self) -> int:
        """Offset of the last free page, which was never allocated."""
        frames = self.arena.frames()
        last = frames[frames["state"] == FRAME_FREE][-1]
        return (int(last["page"]) + int(last["n_pages"]) - 1) * PAGE

    @property
    def region(self) -> int:
        return self.page_in(FRAME_REGION, self.pool.id)

    @property
    def control(self) -> int:
        return self.page_in(FRAME_CONTROL, self.pool.id)

    @property
    def other_control(self) -> int:
        return self.page_in(FRAME_CONTROL, self.other.id)

    def snapshot(self) -> tuple[object, ...]:
        """Everything that a caller can see, and every byte of the arena."""
        arena = self.arena
        return (
            arena.root,
            arena.n_free_pages,
            arena.frames().tobytes(),
            arena.pools(),
            [pool.walk().tobytes() for pool in self.pools],
            [pool.stats() for pool in self.pools],
            [bytes(owner.view(offset)) for owner, offset in self.memory()],
            ctypes.string_at(arena.address(0), arena.n_bytes),
        )

    def check(self) -> None:
        self.arena.check()
        for pool in self.pools:
            pool.check()

    def close(self) -> None:
        self.arena.close()
