# SPDX-License-Identifier: BSD-3-Clause
"""What Xen's allocator got wrong once, each as a named test.

Facts and commits are those of Xen's public history; where no commit is given the
behaviour was described on its mailing list.
"""

import itertools

import numpy as np
import pytest
from support.heaps import INTERFACES, PAGE, WITH_SUBPAGE, heap_of, held_pages, image

import xmem
from xmem import Arena, Heap, Pool
from xmem.arena import FRAME_REGION, FRAME_WHOLE

#: Interfaces whose whole pages give their tail back, and how they are asked.
EXACT = {
    "strict": lambda heap, n: heap.page_alloc_exact(-(-n // PAGE)),
    "array": lambda heap, n: heap.xmalloc_array(n, 1),
    "merged": lambda heap, n: heap.xmalloc(n),
}


def free_of(heap):
    return heap.page_free if heap.interface == "strict" else heap.xfree


# Sizes -------------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_size_up_to_the_reported_maximum_is_served(interface):
    """ba0d6cfc6b: sizes just under a page failed though the maximum admitted them."""
    with heap_of(interface, max_pages=1) as heap:
        for n in range(heap.XMALLOC_MAX - 600, heap.XMALLOC_MAX + 1):
            if interface == "subpage":
                heap.xfree_subpage(heap.xmalloc_subpage(n))
            else:
                heap.xfree(heap.xmalloc(n))


@pytest.mark.parametrize("grow_pages", [1, 2, 3, 7])
@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_a_pool_serves_its_maxalloc(engine, grow_pages):
    """ba0d6cfc6b, for pools: ``maxalloc`` succeeds in one region, one more does not."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, engine=engine, grow_pages=grow_pages, max_pages=grow_pages)
        offset = pool.xmalloc(pool.maxalloc)
        assert pool.total_size == PAGE * (grow_pages if engine == "tlsf" else 1)
        pool.xfree(offset)
        if engine == "tlsf":
            with pytest.raises(xmem.OutOfMemory):
                pool.xmalloc(pool.maxalloc + 1)


@pytest.mark.parametrize("interface", EXACT)
def test_tails_of_multi_page_requests_are_given_back(interface):
    """b829a0ff57, fb034f4264: 33 pages cost 64; the tail is free again at once."""
    with heap_of(interface, 4 << 20) as heap:
        start = heap.arena.n_free_pages
        for n_pages in range(1, 257):
            for n in (n_pages * PAGE - 1, n_pages * PAGE, n_pages * PAGE + 1):
                if interface == "merged" and n <= heap.XMALLOC_MAX:
                    continue
                offset = EXACT[interface](heap, n)
                taken = -(-n // PAGE)
                assert start - heap.arena.n_free_pages == taken
                assert held_pages(heap) == taken
                assert heap.usable_size(offset) == taken * PAGE
                free_of(heap)(offset)
                assert heap.arena.n_free_pages == start


@pytest.mark.parametrize("interface", EXACT)
def test_a_tail_serves_the_next_request(interface):
    """b829a0ff57: what was given back is usable, not only counted."""
    with heap_of(interface, 1 << 20) as heap:
        first = EXACT[interface](heap, 5 * PAGE)
        # The pages behind a run of five are the next to be used.
        second = EXACT[interface](heap, 2 * PAGE)
        third = EXACT[interface](heap, PAGE)
        assert (second, third) == (first + 5 * PAGE, first + 7 * PAGE)
        for offset in (first, second, third):
            free_of(heap)(offset)
        heap.arena.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_no_stale_order_after_whole_pages_are_freed_and_used_again(interface):
    """0fbf3208d9: a freed run's order was left behind and freed too much later."""
    with heap_of(interface, 2 << 20) as heap:
        start = heap.arena.n_free_pages
        rng = np.random.default_rng(2009)
        for _ in range(400):
            order = int(rng.integers(5))
            run = heap.page_alloc(order)
            heap.page_free(run)
            exact = heap.page_alloc_exact(
                int(rng.integers(1, 1 << order, endpoint=True))
            )
            small = heap.xmalloc(3000)
            heap.page_free(exact)
            single = heap.page_alloc(0)
            assert heap.usable_size(single) == PAGE
            before = heap.arena.n_free_pages
            heap.page_free(single)
            assert heap.arena.n_free_pages == before + 1
            heap.xfree(small)
        heap.shrink()
        assert heap.arena.n_free_pages == start
        heap.arena.check()


# Alignment ---------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["array", "subpage", "legacy", "merged"])
def test_alignment_greater_than_the_size(interface):
    """ac2cba2901: an alignment above the size was not honoured for whole pages."""
    sizes = {n * PAGE + d for n in range(65) for d in (-1, 0, 1)}
    with heap_of(interface, 8 << 20) as heap:
        start = heap.arena.n_free_pages
        for n, log2 in itertools.product(sorted(sizes - {-1}), range(19)):
            align = 1 << log2
            offset = heap.xmalloc_array(n, 1, align=align)
            assert offset % align == 0
            assert heap.usable_size(offset) >= n
            heap.view(offset, n)[:1] = b"x"[: min(n, 1)]
            heap.xfree(offset)
        heap.shrink()
        assert heap.arena.n_free_pages == start


def test_small_alignments_greater_than_the_size_under_the_proposal():
    """ac2cba2901, where no whole pages come: every pair below the limit."""
    with heap_of("strict") as heap:
        for n, log2 in itertools.product([0, 1, 7, 16, 33, 100, 1000, 1900], range(12)):
            offset = heap.xmalloc(n, align=1 << log2)
            assert offset % (1 << log2) == 0
            heap.xfree(offset)


@pytest.mark.parametrize("interface", INTERFACES)
def test_overflow_near_the_largest_size(interface):
    """cf38b4926e: sizes near the largest integer wrapped to small blocks.

    Every entry point is walked by test_heap_family; here are the sums that the
    engines themselves make: headers, alignment, rounding to pages.
    """
    with heap_of(interface) as heap:
        before = image(heap.arena)
        for n in range((1 << 64) - 5000, 1 << 64, 7):
            with pytest.raises((xmem.OutOfMemory, xmem.SizeLimitError)):
                heap.xmalloc(n)
        for n, align in itertools.product(
            [(1 << 64) - 1, (1 << 64) - 64, (1 << 63), (1 << 44) - 1, 1 << 44],
            [16, 64, 2048, PAGE, 1 << 20],
        ):
            with pytest.raises((xmem.OutOfMemory, xmem.SizeLimitError)):
                heap.xmalloc(n, align=align)
            with pytest.raises((xmem.OutOfMemory, xmem.SizeLimitError)):
                heap.xmalloc_flex_struct(8, 1, n - 8, align=align)
        assert image(heap.arena) == before


ALIGNS = (16, 32, 64, 256, 2048, PAGE, 4 * PAGE)


@pytest.mark.parametrize("interface", INTERFACES)
def test_realloc_keeps_contents_and_alignment(interface):
    """Over every pair of old and new alignment, up and down."""
    small = interface in ("strict", "array")
    aligns = ALIGNS[:4] if small else ALIGNS
    sizes = (0, 100, 1500) if small else (0, 100, 1500, PAGE, 3 * PAGE + 5)
    with heap_of(interface, 4 << 20) as heap:
        for old, new in itertools.product(aligns, repeat=2):
            for n_old, n_new in itertools.product(sizes, repeat=2):
                offset = heap.xmalloc(n_old, align=old)
                wall = heap.xmalloc(1)
                pattern = bytes((7 * i + old) & 255 for i in range(n_old))
                heap.view(offset, n_old)[:] = pattern
                moved = heap.xrealloc(offset, n_new, align=new)
                assert moved % max(old, new) == 0
                kept = min(n_old, n_new)
                assert bytes(heap.view(moved, kept)) == pattern[:kept]
                # And what was asked for at birth, or since, is kept once more.
                again = heap.xrealloc(moved, n_old)
                assert again % max(old, new) == 0
                assert bytes(heap.view(again, kept)) == pattern[:kept]
                heap.xfree(again)
                heap.xfree(wall)
        assert heap.stats().live_blocks == 0


# Pages -------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["array", "merged"])
def test_shrinking_whole_pages_from_ten_to_one_gives_nine_back(interface):
    with heap_of(interface) as heap:
        start = heap.arena.n_free_pages
        offset = heap.xmalloc_array(10 * PAGE, 1)
        heap.view(offset)[:4] = b"kept"
        assert start - heap.arena.n_free_pages == 10
        moved = heap.xrealloc_array(offset, PAGE, 1)
        assert moved == offset
        assert start - heap.arena.n_free_pages == 1
        assert heap.usable_size(moved) == PAGE
        assert bytes(heap.view(moved, 4)) == b"kept"
        heap.check()
        heap.xfree(moved)
        assert heap.arena.n_free_pages == start


@pytest.mark.parametrize("interface", ["legacy", "subpage"])
def test_shrinking_in_the_legacy_engine_gives_the_pages_back_too(interface):
    with heap_of(interface) as heap:
        start = heap.arena.n_free_pages
        offset = heap.xmalloc(10 * PAGE)
        assert start - heap.arena.n_free_pages == 16
        moved = heap.xrealloc(offset, PAGE - 200)
        assert start - heap.arena.n_free_pages == 1
        heap.xfree(moved)


def test_shrinking_a_pool_s_whole_pages():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena)
        start = arena.n_free_pages
        offset = pool.xmalloc(10 * PAGE, align=PAGE)
        assert pool.xrealloc(offset, PAGE) == offset
        assert start - arena.n_free_pages == 1


@pytest.mark.parametrize("n_regions", [1, 2, 3, 8])
@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_a_cap_of_n_regions_admits_exactly_n(engine, n_regions):
    """A pool's limit was once checked before the region was counted."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, engine=engine, grow_pages=1, max_pages=n_regions)
        blocks = [pool.xmalloc(3900) for _ in range(n_regions)]
        assert pool.stats().n_regions == n_regions
        assert pool.total_size == n_regions * PAGE
        with pytest.raises(xmem.OutOfMemory, match=f"at most {n_regions}"):
            pool.xmalloc(3900)
        assert pool.total_size == n_regions * PAGE
        pool.xfree(blocks.pop())
        pool.xmalloc(3900)
        with pytest.raises(xmem.OutOfMemory):
            pool.xmalloc(3900)


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_total_size_is_the_sum_of_the_regions_after_every_operation(
    engine, joins, seed
):
    rng = np.random.default_rng(seed)
    with Arena.anonymous(4 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, engine=engine, grow_pages=2, join_regions=joins)
        live = []
        for _ in range(500):
            if live and rng.random() < 0.5:
                pool.xfree(live.pop(int(rng.integers(len(live)))))
            elif live and rng.random() < 0.3:
                i = int(rng.integers(len(live)))
                live[i] = pool.xrealloc(live[i], int(rng.integers(9000)))
            else:
                live.append(pool.xmalloc(int(rng.integers(9000))))
            frames = arena.frames()
            mine = frames[frames["owner"] == pool.id]
            held = mine[(mine["state"] != 4)]  # all but the control block
            assert pool.total_size == int(held["n_pages"].sum()) * PAGE
            blocks = pool.walk()
            assert pool.used_size == int(blocks["size"][blocks["used"]].sum())
        for offset in live:
            pool.xfree(offset)
        assert pool.used_size == 0


@pytest.mark.parametrize("interface", INTERFACES)
def test_double_interior_foreign_and_misaligned_frees_are_refused(interface):
    with heap_of(interface) as heap:
        other = Heap(heap.arena, interface, name="other")
        routine = "xmalloc_subpage" if interface == "subpage" else "xmalloc"
        free = heap.xfree_subpage if interface == "subpage" else heap.xfree
        give = getattr(heap, routine)
        walls = [give(64), give(100), give(64)]
        freed = give(200)
        walls.append(give(64))
        free(freed)
        live = walls[1]
        foreign = getattr(other, routine)(100)
        run = heap.page_alloc_exact(3)
        wrong = {
            freed: xmem.DoubleFree,
            foreign: xmem.MismatchedFree,
            run + PAGE: xmem.InvalidFree,
            run + 16: xmem.InvalidFree,
            0: xmem.NotABlock,
            heap.arena.n_bytes: xmem.NotABlock,
            heap.arena.n_bytes - 16: xmem.InvalidFree,
        }
        for inside in range(1, 100):
            wrong[live + inside] = xmem.NotABlock
        before = image(heap.arena)
        for offset, error in wrong.items():
            with pytest.raises(error):
                free(offset)
            with pytest.raises(xmem.InvalidFree):
                heap.page_free(offset)
        assert image(heap.arena) == before
        for offset in walls:
            free(offset)


def test_growing_next_to_a_full_neighbour():
    """A new region next to one whose last block is in use joins no free block."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        for joins in (True, False):
            pool = Pool(arena, grow_pages=1, join_regions=joins)
            most = pool.maxalloc
            full = pool.xmalloc(most)
            pool.view(full)[:] = b"f" * pool.usable_size(full)
            small = [pool.xmalloc(most) for _ in range(5)]
            for i, offset in enumerate(small):
                pool.view(offset)[:] = bytes([i]) * pool.usable_size(offset)
            pool.check()
            for offset in small[1::2]:
                pool.xfree(offset)
                pool.check()
            assert set(bytes(pool.view(full))) == {ord("f")}
            for i in (0, 2, 4):
                assert set(bytes(pool.view(small[i]))) == {i}
            pool.destroy(force=True)


# Making a pool -----------------------------------------------------------------


def refused_pools(arena):
    """Ways in which making a pool or heap fails, with the error."""
    Pool(arena, name="taken")
    Pool(arena, name="h.subpage")
    return {
        "name": (lambda: Pool(arena, name="taken"), xmem.BadArgument),
        "engine": (lambda: Pool(arena, engine="buddy"), xmem.BadArgument),
        "grow": (lambda: Pool(arena, grow_pages=0), xmem.BadArgument),
        "large grow": (lambda: Pool(arena, grow_pages=1 << 30), xmem.BadArgument),
        "limit": (lambda: Pool(arena, max_pages="1"), xmem.BadArgumentType),
        "one hook": (lambda: Pool(arena, get_mem=print), xmem.BadArgument),
        "no hook": (lambda: Pool(arena, get_mem=1, put_mem=2), xmem.BadArgumentType),
        "interface": (lambda: Heap(arena, "xen"), xmem.BadArgument),
        # The second of its two pools has a name that is taken.
        "second pool": (lambda: Heap(arena, "subpage", name="h"), xmem.BadArgument),
    }


def test_a_failed_initialisation_leaves_no_side_effect():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        for what, (make, error) in refused_pools(arena).items():
            pools, frames = arena.pools(), arena.frames().tobytes()
            free = arena.n_free_pages
            with pytest.raises(error):
                make()
            assert arena.pools() == pools, what
            assert arena.frames().tobytes() == frames, what
            assert arena.n_free_pages == free, what
            arena.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_heap_without_room_for_its_control_blocks_leaves_none(interface):
    with Arena.anonymous(1 << 20, page_size=PAGE, max_pools=2) as arena:
        hold = []
        # Each control block takes a page of so small an arena.
        while arena.n_free_pages > (interface == "subpage"):
            hold.append(arena.page_alloc(0))
        for _ in range(2):
            pools, frames = arena.pools(), arena.frames().tobytes()
            with pytest.raises(xmem.OutOfMemory):
                Heap(arena, interface)
            assert (arena.pools(), arena.frames().tobytes()) == (pools, frames)
        for offset in hold:
            arena.page_free(offset)
        Heap(arena, interface).xmalloc(100)
        arena.check()


def test_a_heap_without_a_number_for_its_second_pool_leaves_none():
    with Arena.anonymous(1 << 20, page_size=PAGE, max_pools=1) as arena:
        before = arena.frames().tobytes()
        with pytest.raises(xmem.OutOfMemory, match="max_pools"):
            Heap(arena, "subpage")
        assert arena.pools() == {}
        assert arena.frames().tobytes() == before
        Heap(arena, "strict").xmalloc(1)


# Large arenas ------------------------------------------------------------------


@pytest.fixture(params=["anonymous", "file"])
def large_arena(request, tmp_path):
    """A sparse arena of 20 GiB."""
    n_bytes = 20 << 30
    if request.param == "anonymous":
        with Arena.anonymous(n_bytes, page_size=PAGE) as arena:
            yield arena
    else:
        with Arena.create(tmp_path / "large", n_bytes, page_size=PAGE) as arena:
            yield arena


@pytest.mark.parametrize("interface", INTERFACES)
def test_arenas_over_4_gib(interface, large_arena):
    """Offsets above 32 bits in headers, links, tags, bits and frames."""
    arena = large_arena
    heap = Heap(arena, interface)
    hold = []
    while arena.largest_free_order >= 0:
        hold.append(arena.page_alloc(arena.largest_free_order))
    for offset in hold:
        if offset >= 5 << 30:
            arena.page_free(offset)
    sub = interface in WITH_SUBPAGE
    live = []
    for i in range(200):
        routines = [(heap.xmalloc, heap.xfree), (heap.xzalloc, heap.xfree)]
        if sub:
            routines.append((heap.xmalloc_subpage, heap.xfree_subpage))
        give, free = routines[i % len(routines)]
        offset = give(16 * i + 1)
        heap.view(offset, 1)[0] = i
        live.append((i, offset, free))
    run = heap.page_alloc(20)
    assert min(run, *(offset for _, offset, _ in live)) >= 5 << 30
    heap.view(run)[(4 << 30) - 1] = 7
    for i, offset, free in live[::2]:
        assert heap.view(offset)[0] == i
        free(offset)
    heap.check()
    for i, offset, free in live[1::2]:
        assert heap.view(offset)[0] == i
        free(offset)
    heap.page_free(run)
    heap.check()
    for offset in hold:
        if offset < 5 << 30:
            arena.page_free(offset)
    arena.check()


def test_one_block_over_4_gib(large_arena):
    pool = Pool(large_arena)
    offset = pool.xmalloc((4 << 30) + 5)
    view = pool.view(offset)
    view[0], view[(4 << 30) + 4] = 1, 2
    view.release()
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(16 << 30)
    second = pool.xmalloc(1000)
    assert pool.xrealloc(offset, (4 << 30) + 5) == offset
    assert pool.xrealloc(offset, (4 << 30) - 4096) == offset
    assert pool.xrealloc(offset, (4 << 30) + 5) == offset
    assert pool.view(offset)[0] == 1
    pool.check()
    pool.xfree(offset)
    pool.xfree(second)
    pool.check()
    states = set(large_arena.frames()["state"].tolist())
    assert FRAME_WHOLE not in states
    assert pool.shrink() > 0
    assert FRAME_REGION not in set(large_arena.frames()["state"].tolist())
