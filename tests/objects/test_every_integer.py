# SPDX-License-Identifier: BSD-3-Clause
"""Every integer of a small arena, and some beyond it, as an offset.

The frame table and a walk tell what each one is. The verbs must agree with that, and
accept nothing but the exact start of live memory.
"""

import ctypes
from collections.abc import Iterable

import pytest
from support.scene import ENGINES, PAGE

from xmem import (
    Arena,
    DoubleFree,
    InvalidFree,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
    Pool,
    XmemError,
)
from xmem.arena import (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
)


def integers_around(arena: Arena) -> Iterable[int]:
    """Every integer of the arena and some beyond each of its ends."""
    return (
        *range(-200, arena.n_bytes + 2 * PAGE),
        *(
            (1 << power) + i
            for power in (31, 32, 44, 62, 63, 64, 65)
            for i in (-4096, -16, -1, 0, 1, 16, 4096)
        ),
        *(arena.address(0) + i for i in (-16, 0, 16, arena.n_bytes)),
    )


def small_arena(engine: str, grow_pages: int) -> tuple[Arena, Pool, Pool, list[int]]:
    """An arena of 96 KiB with two pools and some runs; live blocks of one."""
    arena = Arena.anonymous(96 << 10, page_size=PAGE, max_pools=4)
    alien = ENGINES[1 - ENGINES.index(engine)]
    pool = Pool(arena, engine=engine, grow_pages=grow_pages)
    other = Pool(arena, engine=alien, grow_pages=1)
    blocks = []
    for n, align in (
        (0, 16),
        (1, 16),
        (24, 16),
        (25, 16),
        (100, 256),
        (1000, 16),
        (40, 1024),
        (3000, 16),
        (5000, 16),
        (64, 4096),
    ):
        blocks.append(pool.xmalloc(n, align=align))
        other.xmalloc(n % 700)
    for i in (1, 4, 7):
        pool.xfree(blocks[i])
        blocks[i] = 0
    arena.page_free(arena.page_alloc(0))
    arena.page_alloc_exact(1)
    return arena, pool, other, [block for block in blocks if block]


def class_expected(arena: Arena, pool: Pool) -> list[type[XmemError] | None]:
    """By tables and walk alone: what each offset is for ``pool``; None = live."""
    expected: list[type[XmemError] | None] = [NotABlock] * arena.n_bytes
    for page, n_pages, state, _, owner in arena.frames().tolist():
        kind: type[XmemError]
        if state == FRAME_FREE:
            kind = DoubleFree
        elif state == FRAME_CONTROL:
            kind = NotABlock
        elif owner != pool.id:
            kind = MismatchedFree
        elif state in (FRAME_REGION, FRAME_JOINED):
            kind = DoubleFree
        else:
            kind = NotABlock
        span = slice(page * PAGE, (page + n_pages) * PAGE)
        expected[span] = [kind] * (n_pages * PAGE)
        if state in (FRAME_REGION, FRAME_JOINED) and owner == pool.id:
            for i in range(span.start, span.stop):
                if i % 16:
                    expected[i] = NotABlock
    for offset, _, capacity, used, _, _ in pool.walk().tolist():
        if used:
            expected[offset : offset + capacity] = [NotABlock] * capacity
            expected[offset] = None
    return expected


@pytest.mark.parametrize("grow_pages", [1, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_integer_as_a_block(engine: str, grow_pages: int) -> None:
    """Only the exact start of a live block is accepted, by any verb."""
    arena, pool, _, blocks = small_arena(engine, grow_pages)
    expected = class_expected(arena, pool)
    assert [i for i, kind in enumerate(expected) if kind is None] == sorted(blocks)
    before = ctypes.string_at(arena.address(0), arena.n_bytes)
    for verb in (
        pool.usable_size,
        pool.view,
        lambda offset: pool.xrealloc(offset, 1 << 62),
    ):
        accepted = []
        wrong = []
        for i in integers_around(arena):
            kind = expected[i] if 0 <= i < arena.n_bytes else NotABlock
            try:
                verb(i)
            except OutOfMemory:
                accepted.append(i)
            except InvalidFree as error:
                if type(error) is not kind:
                    wrong.append((hex(i), kind, error))
            else:
                accepted.append(i)
        assert accepted == sorted(blocks)
        assert not wrong
    assert ctypes.string_at(arena.address(0), arena.n_bytes) == before
    pool.check()


@pytest.mark.parametrize("grow_pages", [1, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_integer_freed(engine: str, grow_pages: int) -> None:
    """In ascending order: the live starts are freed, once, and nothing else is."""
    arena, pool, other, blocks = small_arena(engine, grow_pages)
    others = other.walk().tobytes()
    freed = []
    wrong = []
    expected = class_expected(arena, pool)
    state = ctypes.string_at(arena.address(0), arena.n_bytes)
    for i in integers_around(arena):
        kind = expected[i] if 0 <= i < arena.n_bytes else NotABlock
        try:
            pool.xfree(i)
        except InvalidFree as error:
            if type(error) is not kind:
                wrong.append((hex(i), kind, error))
            if i % PAGE == 0:
                assert ctypes.string_at(arena.address(0), arena.n_bytes) == state
            continue
        assert kind is None, f"{i:#x} was freed"
        freed.append(i)
        with pytest.raises(InvalidFree):
            pool.xfree(i)
        pool.check()
        other.check()
        expected = class_expected(arena, pool)
        state = ctypes.string_at(arena.address(0), arena.n_bytes)
    assert freed == sorted(blocks)
    assert not wrong
    assert pool.stats().live_blocks == 0
    assert other.walk().tobytes() == others


@pytest.mark.parametrize("engine", ENGINES)
def test_every_integer_as_a_page_run(engine: str) -> None:
    arena, pool, other, _ = small_arena(engine, 2)
    runs = [arena.page_alloc(0)]
    frames = arena.frames()
    starts = [
        int(row["page"]) * PAGE
        for row in frames
        if row["state"] == FRAME_RUN and row["owner"] == 0
    ]
    assert len(starts) > len(runs)
    before = ctypes.string_at(arena.address(0), arena.n_bytes)
    for verb in (arena.run_pages, arena.view):
        accepted = []
        for i in integers_around(arena):
            try:
                verb(i)
            except InvalidFree:
                continue
            accepted.append(i)
        assert accepted == starts
    assert ctypes.string_at(arena.address(0), arena.n_bytes) == before
    freed = []
    for i in integers_around(arena):
        try:
            arena.page_free(i)
        except InvalidFree:
            continue
        freed.append(i)
        arena.check()
    assert freed == starts
    pool.check()
    other.check()
