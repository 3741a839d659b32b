# SPDX-License-Identifier: BSD-3-Clause
"""Every size: 0 to two pages one by one, limits and pages at powers of two."""

import random

import pytest
from support.models import PoolModel, contents, make_arena

import xmem

PAGE_SIZES = [4096 << i for i in range(5)]
ENGINES = ["tlsf", "firstfit"]
TWO_PAGES = 2 * 4096


@pytest.fixture(params=["tlsf", "tlsf-split", "firstfit"])
def pool(request):
    """A pool of each engine in 512 pages; TLSF with and without joins."""
    engine, _, split = request.param.partition("-")
    with make_arena(512) as arena:
        yield xmem.Pool(arena, engine=engine, join_regions=not split)


def fill(pool, n_bytes):
    """Blocks of one size until no more fits."""
    blocks = []
    while True:
        try:
            blocks.append(pool.xmalloc(n_bytes))
        except xmem.OutOfMemory:
            return blocks


def fill_aligned(pool, n_bytes, align):
    """Blocks of one size and alignment until no more fits."""
    blocks = []
    while True:
        try:
            blocks.append(pool.xmalloc(n_bytes, align))
        except xmem.OutOfMemory:
            return blocks


# Every size by itself ----------------------------------------------------------


def test_alloc_and_free_of_every_size(pool):
    pool.xmalloc(1)
    blank = pool.walk().tobytes()
    for n_bytes in range(TWO_PAGES + 1):
        block = pool.xmalloc(n_bytes)
        assert block % 16 == 0
        usable = pool.usable_size(block)
        assert usable >= n_bytes
        pool.view(block)[:] = b"\xff" * usable
        if n_bytes % 16 < 2:
            pool.check()
        pool.xfree(block)
        with pytest.raises(xmem.InvalidFree):
            pool.xfree(block)
    assert pool.walk().tobytes() == blank
    pool.check()


def test_every_size_side_by_side(pool):
    """All live at once: none overlaps, each holds its contents."""
    sizes = [*range(600), *range(600, TWO_PAGES + 1, 37)]
    random.Random(len(sizes)).shuffle(sizes)
    model = PoolModel(pool)
    for n_bytes in sizes[:1000]:
        try:
            block = pool.xmalloc(n_bytes)
        except xmem.OutOfMemory:
            break
        model.allocated(block, n_bytes)
    assert len(model.live) > 100
    model.compare()
    for block in model.starts[::2]:
        pool.xfree(block)
        model.freed(block)
    model.compare()
    for block in list(model.starts):
        pool.xfree(block)
        model.freed(block)
    model.compare()


def test_zeroed_memory_of_every_size(pool):
    for n_bytes in range(0, TWO_PAGES + 1):
        dirty = pool.xmalloc(n_bytes)
        pool.view(dirty)[:] = b"\xa5" * pool.usable_size(dirty)
        pool.xfree(dirty)
        block = pool.xzalloc(n_bytes)
        assert bytes(pool.view(block, n_bytes)) == bytes(n_bytes)
        pool.xfree(block)
    pool.check()


def test_realloc_up_through_every_size(pool):
    data = contents(1, TWO_PAGES)
    block = pool.xmalloc(0)
    for n_bytes in range(1, TWO_PAGES + 1):
        block = pool.xrealloc(block, n_bytes)
        assert pool.usable_size(block) >= n_bytes
        pool.view(block)[n_bytes - 1] = data[n_bytes - 1]
        if n_bytes % 64 < 2:
            assert bytes(pool.view(block, n_bytes)) == data[:n_bytes]
            pool.check()
    assert bytes(pool.view(block, TWO_PAGES)) == data
    assert pool.stats().live_blocks == 1


def test_realloc_down_through_every_size(pool):
    data = contents(2, TWO_PAGES)
    block = pool.xmalloc(TWO_PAGES)
    pool.view(block, TWO_PAGES)[:] = data
    for n_bytes in range(TWO_PAGES - 1, -1, -1):
        block = pool.xrealloc(block, n_bytes)
        assert pool.usable_size(block) >= n_bytes
        assert bytes(pool.view(block, n_bytes)) == data[:n_bytes]
        if n_bytes % 64 < 2:
            pool.check()
    assert pool.stats().live_blocks == 1
    # The rest is free again: the block holds no more than a small one needs.
    assert pool.usable_size(block) < 128


def test_realloc_between_neighbours_keeps_them(pool, seed):
    source = random.Random(seed)
    model = PoolModel(pool)
    for _ in range(12):
        model.allocated(pool.xmalloc(500), 500)
    for _ in range(3000):
        block = source.choice(model.starts)
        n_bytes = source.randrange(TWO_PAGES + 1)
        model.resized(block, pool.xrealloc(block, n_bytes), n_bytes)
    model.compare()


def test_realloc_over_every_pair_of_alignments(pool):
    for initial in [1 << k for k in range(4, 14)]:
        for wanted in [1 << k for k in range(14)]:
            for n_bytes, more in [(100, 3000), (3000, 100), (5000, 9000)]:
                model = PoolModel(pool)
                model.allocated(pool.xmalloc(n_bytes, initial), n_bytes, initial)
                block = model.starts[0]
                model.resized(block, pool.xrealloc(block, more, wanted), more, wanted)
                model.compare()
                pool.xfree(model.starts[0])


# The page rule -----------------------------------------------------------------


def test_only_page_runs_are_page_aligned():
    with make_arena(512) as arena:
        for joins in (True, False):
            pool = xmem.Pool(arena, grow_pages=3, join_regions=joins)
            live = []
            for n_bytes in range(TWO_PAGES + 1):
                align = 16 << (n_bytes % 8)
                block = pool.xmalloc(n_bytes, align)
                assert block % 4096
                assert block % align == 0
                live.append(block)
                if len(live) > 40:
                    pool.xfree(live.pop(n_bytes % 40))
            pool.check()
            for align in (4096, 8192, 1 << 16):
                run = pool.xmalloc(100, align)
                assert run % align == 0
                live.append(run)
            pool.check()
            for block in live:
                pool.xfree(block)


@pytest.mark.parametrize("joins", [True, False])
def test_fillings_that_end_just_before_a_page_keep_the_rule(joins):
    """The next block would begin where its payload is page-aligned."""
    for n_bytes in range(4096 - 160, 4096 + 48):
        with make_arena(64) as arena:
            pool = xmem.Pool(arena, grow_pages=4, join_regions=joins)
            blocks = fill(pool, n_bytes)
            assert len(blocks) > 20
            small = fill(pool, 1)
            assert all(block % 4096 for block in blocks + small)
            pool.check()


# A full pool -------------------------------------------------------------------

SHAPES = [
    {"grow_pages": 1, "max_pages": 5},
    {"grow_pages": 4, "max_pages": 7},
    {"grow_pages": 4, "max_pages": 7, "join_regions": False},
    {"grow_pages": 16, "max_pages": 6, "join_regions": False},
    {"engine": "firstfit", "max_pages": 7},
]
# Sizes beyond two pages, many near edges of pages and of bins.
LARGE = sorted(
    {
        size + more
        for size in [k * 4096 for k in range(2, 20)]
        + [(32 + k) << j for j in (8, 9, 10, 11) for k in range(0, 32, 3)]
        for more in (-25, -24, -8, 0, 1, 500)
        if size + more > TWO_PAGES
    }
)


def same_size_again(pool, blocks, n_bytes, victims):
    """Free a block of a full pool and ask for its size once more."""
    for k in victims:
        pool.xfree(blocks[k])
        blocks[k] = pool.xmalloc(n_bytes)
        # A region that went and came may have been joined on both sides, which
        # makes room: the pool is to be full again.
        blocks += fill(pool, n_bytes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_free_then_same_size_in_a_full_pool(shape):
    with make_arena(24) as arena:
        pool = xmem.Pool(arena, **shape)
        for n_bytes in range(TWO_PAGES + 1):
            blocks = fill(pool, n_bytes)
            assert blocks
            same_size_again(pool, blocks, n_bytes, {0, len(blocks) // 2, -1})
            if n_bytes % 50 == 0:
                pool.check()
            assert len(set(blocks)) == len(blocks) == pool.stats().live_blocks
            for block in blocks:
                pool.xfree(block)
        pool.check()


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("max_pages", [None, 40, 61])
def test_free_then_same_large_size_in_a_full_pool(joins, max_pages):
    for n_bytes in LARGE:
        with make_arena(66) as arena:
            pool = xmem.Pool(arena, max_pages=max_pages, join_regions=joins)
            blocks = fill(pool, n_bytes)
            same_size_again(pool, blocks, n_bytes, range(len(blocks)))
            pool.check()


@pytest.mark.parametrize("engine", ["tlsf", "tlsf-split", "firstfit"])
@pytest.mark.parametrize("max_pages", [None, 37])
def test_free_then_same_size_among_mixed_sizes(engine, max_pages, seed):
    engine, _, split = engine.partition("-")
    for number in range(150):
        source = random.Random(f"{seed} {number}")
        with make_arena(source.randrange(12, 100)) as arena:
            pool = xmem.Pool(
                arena,
                engine=engine,
                grow_pages=source.choice([1, 2, 5, 8]),
                max_pages=max_pages,
                join_regions=not split,
            )
            live = []
            for step in range(250):
                largest = source.choice([300, 5000, 40000, 150000])
                n_bytes = source.randrange(largest)
                try:
                    live.append((pool.xmalloc(n_bytes), n_bytes))
                except xmem.OutOfMemory:
                    if not live:
                        continue
                    k = source.randrange(len(live))
                    block, n_bytes = live[k]
                    pool.xfree(block)
                    live[k] = pool.xmalloc(n_bytes), n_bytes
                if live and step % 3 == 0:
                    pool.xfree(live.pop(source.randrange(len(live)))[0])
            pool.check()


# Limits ------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("engine", ENGINES)
def test_max_pages_is_exact(page_size, engine):
    around = sorted({(1 << k) + d for k in range(7) for d in (-1, 0, 1)} - {0})
    with make_arena(200, page_size) as arena:
        for max_pages in around:
            pool = xmem.Pool(arena, engine=engine, max_pages=max_pages)
            assert pool.max_pages == max_pages
            blocks = fill(pool, page_size // 2 - 100)
            stats = pool.stats()
            assert stats.n_pages == stats.peak_pages == max_pages
            assert len(blocks) >= max_pages
            pool.check()
            pool.destroy(force=True)


@pytest.mark.parametrize("grow_pages", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("joins", [True, False])
def test_grow_pages_are_taken_at_a_time(grow_pages, joins):
    with make_arena(256) as arena:
        pool = xmem.Pool(arena, grow_pages=grow_pages, join_regions=joins)
        pool.xmalloc(1)
        assert pool.stats().n_pages == grow_pages
        block = pool.xmalloc(pool.maxalloc)
        assert pool.stats().n_regions == 2
        assert pool.stats().n_pages == 2 * grow_pages
        # Joined regions have no head and sentinel between them.
        assert pool.usable_size(block) in (pool.maxalloc, pool.maxalloc + 16)
        # One byte more than a region holds takes more pages, just as many as
        # are needed.
        pool.xmalloc(pool.maxalloc + 1)
        assert pool.stats().n_pages in (3 * grow_pages, 3 * grow_pages + 1)
        pool.check()


@pytest.mark.parametrize("page_size", [*PAGE_SIZES, 2 << 20])
@pytest.mark.parametrize("engine", ENGINES)
def test_pages_of_every_size(page_size, engine, seed):
    source = random.Random(seed)
    with make_arena(48, page_size) as arena:
        pool = xmem.Pool(arena, engine=engine, grow_pages=2)
        assert arena.page_size == page_size
        model = PoolModel(pool)
        for _ in range(120):
            n_bytes = source.choice([0, 64, page_size // 2, page_size, 2 * page_size])
            n_bytes = max(0, n_bytes + source.randrange(-70, 70))
            align = source.choice([16, 16, 16, 512, 4096, page_size])
            try:
                block = pool.xmalloc(n_bytes, align)
            except xmem.OutOfMemory:
                model.compare()
                assert not model.must_serve(n_bytes, align)
                block = source.choice(model.starts)
                pool.xfree(block)
                model.freed(block)
            else:
                model.allocated(block, n_bytes, align)
        model.compare()
        for block in list(model.starts):
            pool.xfree(block)
            model.freed(block)
        model.compare()
        pool.shrink()
        assert pool.total_size == 0


@pytest.mark.parametrize("log2", range(16, 25, 2))
@pytest.mark.parametrize("engine", ENGINES)
def test_arenas_at_and_near_powers_of_two(log2, engine):
    for n_bytes in [(1 << log2) + more for more in (-4096, -1, 0, 1, 4095, 4096)]:
        with xmem.Arena.anonymous(n_bytes, page_size=4096) as arena:
            assert arena.n_bytes == -(-n_bytes // 4096) * 4096
            assert arena.n_pages == arena.n_bytes // 4096
            free = arena.n_free_pages
            pool = xmem.Pool(arena, engine=engine)
            room = arena.n_free_pages
            assert free - room == pool.stats().control_pages
            blocks = fill(pool, 2000)
            assert arena.n_free_pages == 0
            assert pool.stats().n_pages == room
            arena.check()
            # The last page too, to its end, unless the control block is there.
            top = max(blocks)
            if arena.frames()["owner"][-1] and arena.frames()["state"][-1] in (3, 5):
                assert top + pool.usable_size(top) > arena.n_bytes - 4096
            pool.view(top)[:] = b"\xee" * pool.usable_size(top)
            pool.check()
            for block in blocks:
                pool.xfree(block)
            pool.destroy()
            assert arena.n_free_pages == free
            arena.check()


def test_an_arena_too_small_for_its_tables_says_so():
    for n_bytes in (1, 4095, 4096):
        with pytest.raises(xmem.BadArgument, match="too few"):
            xmem.Arena.anonymous(n_bytes, page_size=4096)


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("grow_pages", [1, 2, 5])
def test_an_emptied_pool_serves_all_of_its_limit(joins, grow_pages, seed):
    """The spare region does not prevent it."""
    source = random.Random(seed)
    with make_arena(150) as arena:
        for max_pages in range(1, 64):
            pool = xmem.Pool(
                arena, grow_pages=grow_pages, max_pages=max_pages, join_regions=joins
            )
            blocks = []
            for _ in range(60):
                try:
                    blocks.append(pool.xmalloc(source.randrange(9000)))
                except xmem.OutOfMemory:
                    break
            source.shuffle(blocks)
            for block in blocks:
                pool.xfree(block)
            # With joins there may be several, and a request gives back few.
            while True:
                held = pool.total_size
                try:
                    block = pool.xmalloc(max_pages * 4096 - 24)
                    break
                except xmem.OutOfMemory:
                    assert joins
                    assert pool.total_size < held
            assert pool.stats().n_pages == max_pages
            with pytest.raises(xmem.OutOfMemory):
                pool.xmalloc(1 << 13)
            pool.check()
            pool.xfree(block)
            run = pool.xmalloc(max_pages * 4096, 4096)
            assert pool.stats().run_pages == max_pages
            pool.xfree(run)
            pool.destroy()


@pytest.mark.parametrize("engine", ["tlsf", "tlsf-split", "firstfit"])
def test_an_emptied_pool_serves_all_of_its_arena(engine, seed):
    source = random.Random(seed)
    engine, _, split = engine.partition("-")
    with make_arena(130) as arena:
        pool = xmem.Pool(arena, engine=engine, grow_pages=5, join_regions=not split)
        largest = 4096 << arena.largest_free_order
        for _ in range(50):
            blocks = [pool.xmalloc(source.randrange(9000)) for _ in range(40)]
            source.shuffle(blocks)
            for block in blocks:
                pool.xfree(block)
            while True:
                held = pool.total_size
                try:
                    block = pool.xmalloc(largest - 64)
                    break
                except xmem.OutOfMemory:
                    assert pool.join_regions
                    assert pool.total_size < held
            pool.check()
            pool.xfree(block)


@pytest.mark.parametrize("align", [32, 64, 256, 1024])
@pytest.mark.parametrize("n_bytes", [100, 1100, 1500, 3001, 5000])
def test_a_full_pool_serves_the_aligned_size_just_freed(n_bytes, align):
    """Of every size: a search that only rounds up would find nothing."""
    with make_arena(64) as arena:
        pool = xmem.Pool(arena, grow_pages=1, max_pages=32)
        blocks = fill_aligned(pool, n_bytes, align)
        fill(pool, 1)
        for block in blocks[:: len(blocks) // 4]:
            pool.xfree(block)
            assert pool.xmalloc(n_bytes, align) == block
            with pytest.raises(xmem.OutOfMemory):
                pool.xmalloc(n_bytes, align)
        pool.check()


# Regions come and go -----------------------------------------------------------


@pytest.mark.parametrize("order", ["up", "down", "random"])
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("grow_pages", [1, 4, 16])
def test_empty_regions_are_given_back(order, joins, grow_pages, seed):
    with make_arena(2048) as arena:
        pool = xmem.Pool(arena, grow_pages=grow_pages, join_regions=joins)
        blocks = [pool.xmalloc(1000) for _ in range(5000)]
        held = pool.total_size
        if order == "random":
            random.Random(seed).shuffle(blocks)
        else:
            blocks.sort(reverse=order == "down")
        for block in blocks:
            pool.xfree(block)
        pool.check()
        stats = pool.stats()
        assert held > 1000 * 4096
        # Joined regions are returned one at a free, and one block can be the
        # last in two of them.
        assert stats.n_regions <= (3 if joins else 1)
        given = pool.shrink()
        assert given == stats.n_pages
        assert pool.total_size == 0
        assert pool.shrink() == 0
        pool.check()


@pytest.mark.parametrize("joins", [True, False])
def test_a_pool_at_the_edge_of_a_region_does_not_thrash(joins):
    with make_arena(256) as arena:
        pool = xmem.Pool(arena, grow_pages=4, join_regions=joins)
        while pool.stats().n_regions < 3:
            block = pool.xmalloc(3000)
        held = pool.total_size
        for _ in range(50):
            pool.xfree(block)
            assert pool.total_size == held
            block = pool.xmalloc(3000)
            assert pool.total_size == held
        pool.check()


def test_a_block_behind_an_interior_page_is_no_region():
    """It begins as the first block of a region does, 8 bytes into a page."""
    with make_arena(64) as arena:
        pool = xmem.Pool(arena, grow_pages=4, join_regions=False)
        blocks = [pool.xmalloc(8)]
        while blocks[-1] % 4096 != 16 or len(blocks) == 1:
            size = 4096 + 16 - (blocks[-1] + 24) % 4096 - 8
            blocks.append(pool.xmalloc(size if size > 100 else 8))
            if len(blocks) > 500:
                raise AssertionError("no block came to lie there")
        pool.check()
        # Nothing but it lies in front of the sentinel: freed, it reaches there.
        pool.xfree(blocks[-1])
        pool.check()
        filler = [pool.xmalloc(3000) for _ in range(8)]
        for block in filler:
            pool.view(block)[:] = b"\xff" * pool.usable_size(block)
        for block in filler + blocks[:-1]:
            pool.xfree(block)
            pool.check()


def test_the_legacy_engine_returns_a_page_as_soon_as_it_is_whole(seed):
    with make_arena(256) as arena:
        pool = xmem.Pool(arena, engine="firstfit")
        blocks = [pool.xmalloc(700) for _ in range(500)]
        random.Random(seed).shuffle(blocks)
        while blocks:
            pool.xfree(blocks.pop())
            rows = pool.walk()
            assert pool.stats().n_regions == len({block // 4096 for block in blocks})
            assert set(rows["region"].tolist()) == {block // 4096 for block in blocks}
        assert pool.total_size == 0


def test_legacy_runs_are_powers_of_two_with_their_header():
    with make_arena(256) as arena:
        pool = xmem.Pool(arena, engine="firstfit")
        for n_bytes in (4033, 4096, 8128, 8129, 5 * 4096, 16 * 4096 - 64):
            block = pool.xmalloc(n_bytes)
            pages = -(-(n_bytes + 64) // 4096)
            pages = 1 << (pages - 1).bit_length()
            assert pool.stats().run_pages == pages
            assert pool.usable_size(block) == pages * 4096 - 64
            pool.xfree(block)
            assert pool.stats().run_pages == 0


# What can never be -------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_sizes_that_no_arena_can_serve(engine):
    with make_arena(64) as arena:
        pool = xmem.Pool(arena, engine=engine)
        kept = pool.xmalloc(100)
        before = pool.walk().tobytes(), pool.stats()
        sizes = [arena.n_bytes + d for d in range(-64 * 100, 64, 64)]
        sizes += [(1 << k) + d for k in range(20, 68) for d in (-17, -1, 0, 1)]
        for n_bytes in sizes:
            for verb in (
                lambda n_bytes=n_bytes: pool.xmalloc(n_bytes),
                lambda n_bytes=n_bytes: pool.xzalloc(n_bytes, 1024),
                lambda n_bytes=n_bytes: pool.xmalloc(n_bytes, 4096),
                lambda n_bytes=n_bytes: pool.xrealloc(kept, n_bytes),
            ):
                with pytest.raises(xmem.OutOfMemory):
                    verb()
        assert (pool.walk().tobytes(), pool.stats()) == before
        pool.check()
