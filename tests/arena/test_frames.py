# SPDX-License-Identifier: BSD-3-Clause
"""The page frames alone: orders, exact runs, merging, wrong frees, the checker."""

import ctypes
import random

import pytest
from support.models import FrameModel, ceil_log2, make_arena

import xmem
from xmem.arena import FRAME_CONTROL, FRAME_FREE, FRAME_RUN

PAGE_SIZES = [4096 << i for i in range(5)] + [2 << 20]
FRAME_BYTES = 16
DIRECTORY = 1024
ENTRY_BYTES = 64


@pytest.fixture(params=[24, 63, 64, 65, 100, 127, 128, 129])
def arena(request):
    """Arenas of many lengths, most of them no power of two."""
    with make_arena(request.param) as arena:
        yield arena


def frame_word(arena, page, max_pools=48):
    """Record of a page in the frame table, to be read and damaged."""
    table = DIRECTORY + ENTRY_BYTES * max_pools
    return ctypes.c_uint64.from_address(arena.address(table + FRAME_BYTES * page))


def test_a_fresh_arena_is_all_free(arena):
    model = FrameModel(arena.first_page, arena.n_pages)
    model.compare(arena)
    assert arena.n_free_pages == arena.n_pages - arena.first_page


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_order_is_aligned_to_its_size(page_size):
    with make_arena(70, page_size) as arena:
        model = FrameModel(arena.first_page, arena.n_pages)
        for order in range(arena.max_order + 1):
            if not model.can_serve(1 << order):
                with pytest.raises(xmem.OutOfMemory):
                    arena.page_alloc(order)
                continue
            offset = arena.page_alloc(order)
            assert offset % (page_size << order) == 0
            assert arena.address(offset) % (page_size << order) == 0
            model.allocated(offset // page_size, 1 << order)
            model.compare(arena)
            assert arena.run_pages(offset) == 1 << order
            arena.page_free(offset)
            model.freed(offset // page_size)
            model.compare(arena)


def test_an_exact_run_gives_its_tail_back(arena):
    for n_pages in range(1, arena.n_pages + 2):
        model = FrameModel(arena.first_page, arena.n_pages)
        if not model.can_serve(n_pages):
            with pytest.raises(xmem.OutOfMemory):
                arena.page_alloc_exact(n_pages)
            model.compare(arena)
            continue
        offset = arena.page_alloc_exact(n_pages)
        page = offset // 4096
        assert page % (1 << ceil_log2(n_pages)) == 0
        model.allocated(page, n_pages)
        model.compare(arena)
        arena.page_free(offset)
        model.freed(page)
        model.compare(arena)


@pytest.mark.parametrize("how", ["up", "down", "random"])
def test_single_pages_exhaust_the_arena_and_merge_again(arena, how, seed):
    model = FrameModel(arena.first_page, arena.n_pages)
    pages = []
    while model.n_free_pages():
        pages.append(arena.page_alloc(0) // 4096)
        model.allocated(pages[-1], 1)
    model.compare(arena)
    assert sorted(pages) == list(range(arena.first_page, arena.n_pages))
    for refused in (0, 1, arena.max_order):
        with pytest.raises(xmem.OutOfMemory):
            arena.page_alloc(refused)
    if how == "random":
        random.Random(seed).shuffle(pages)
    else:
        pages.sort(reverse=how == "down")
    for page in pages:
        arena.page_free(page * 4096)
        model.freed(page)
        model.compare(arena)
    assert arena.n_free_pages == arena.n_pages - arena.first_page


def test_runs_do_not_share_bytes(arena):
    runs = {}
    for n_pages in (1, 3, 2, 5, 1, 4):
        try:
            offset = arena.page_alloc_exact(n_pages)
        except xmem.OutOfMemory:
            continue
        runs[offset] = bytes([len(runs) + 1]) * (n_pages * 4096)
        arena.view(offset)[:] = runs[offset]
    assert len(runs) >= 3
    for offset, data in runs.items():
        assert bytes(arena.view(offset)) == data


def test_a_page_is_found_by_one_scan_not_by_a_search():
    """The run taken is of the least order that serves, however many there are."""
    with make_arena(128) as arena:
        held = [arena.page_alloc(0) for _ in range(8)]
        arena.page_free(held[3])
        before = arena.frames()
        lone = before[(before["state"] == FRAME_FREE) & (before["n_pages"] == 1)]
        assert len(lone) == 1 or held[3] // 4096 in lone["page"]
        assert arena.page_alloc(0) // 4096 in lone["page"]


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (-1, xmem.BadArgument),
        (-(1 << 70), xmem.BadArgument),
        (64, xmem.OutOfMemory),
        (1 << 70, xmem.OutOfMemory),
        (1.0, xmem.BadArgumentType),
        (None, xmem.BadArgumentType),
    ],
)
def test_orders_that_cannot_be(small_arena, order, error):
    before = small_arena.frames().tobytes()
    with pytest.raises(error):
        small_arena.page_alloc(order)
    assert small_arena.frames().tobytes() == before


def test_wrong_frees_are_distinguished(small_arena):
    arena = small_arena
    pool = xmem.Pool(arena)
    block = pool.xmalloc(100)
    run = arena.page_alloc_exact(3)
    gone = arena.page_alloc(0)
    arena.page_free(gone)
    control = next(
        int(frame["page"]) * 4096
        for frame in arena.frames()
        if frame["state"] == FRAME_CONTROL
    )
    before = arena.frames().tobytes()
    for offset, error in [
        (gone, xmem.DoubleFree),
        (gone + 8, xmem.DoubleFree),
        (run + 4096, xmem.NotABlock),
        (run + 1, xmem.NotABlock),
        (0, xmem.NotABlock),
        (arena.n_bytes, xmem.NotABlock),
        (1 << 80, xmem.NotABlock),
        (-4096, xmem.NotABlock),
        (block, xmem.MismatchedFree),
        (block // 4096 * 4096, xmem.MismatchedFree),
        (control, xmem.MismatchedFree),
    ]:
        for verb in (arena.page_free, arena.run_pages, arena.view):
            with pytest.raises(error):
                verb(offset)
    assert arena.frames().tobytes() == before
    arena.page_free(run)
    with pytest.raises(xmem.DoubleFree):
        arena.page_free(run)
    pool.check()


def test_a_view_keeps_its_run(small_arena):
    run = small_arena.page_alloc(1)
    with small_arena.view(run) as view:
        with pytest.raises(BufferError):
            small_arena.page_free(run)
        with pytest.raises(BufferError):
            small_arena.close()
        view[:4] = b"here"
    assert bytes(small_arena.view(run, 4)) == b"here"
    small_arena.page_free(run)


def test_trim_keeps_live_runs_and_empties_free_ones(small_arena):
    kept, freed = small_arena.page_alloc(2), small_arena.page_alloc(2)
    for run in (kept, freed):
        small_arena.view(run)[:] = b"\xa5" * (4 * 4096)
    small_arena.page_free(freed)
    assert small_arena.trim() == small_arena.n_free_pages * 4096
    assert bytes(small_arena.view(kept)) == b"\xa5" * (4 * 4096)
    small_arena.check()
    again = small_arena.page_alloc(2)
    assert again == freed
    assert not any(small_arena.view(again))


def test_states_are_those_of_the_table(small_arena):
    run = small_arena.page_alloc_exact(5)
    frames = {int(frame["page"]): frame for frame in small_arena.frames()}
    frame = frames[run // 4096]
    assert (frame["state"], frame["n_pages"], frame["owner"]) == (FRAME_RUN, 5, 0)
    assert frame["order"] == 3


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        (lambda word: 0, "P1"),
        (lambda word: word + (1 << 32), "P1"),
        (lambda word: word | 0xFF, "P1"),
        (lambda word: (1 << 63) | word, "P1"),
        (lambda word: word ^ (3 << 8), "P2"),
    ],
)
def test_the_checker_sees_a_damaged_record(small_arena, damage, invariant):
    small_arena.page_alloc(0)
    free = small_arena.frames()
    page = int(free["page"][free["state"] == FRAME_FREE][0])
    word = frame_word(small_arena, page)
    sound = word.value
    word.value = damage(sound)
    with pytest.raises(xmem.HeapCorruption) as caught:
        small_arena.check()
    assert caught.value.invariant == invariant
    word.value = sound
    small_arena.check()


def test_the_checker_sees_a_lost_page_and_unmerged_buddies(small_arena):
    run = small_arena.page_alloc(1) // 4096
    word = frame_word(small_arena, run)
    sound = word.value
    # One page of the run forgotten: no run covers it.
    word.value = (sound & 0xFFFFFFFF) | (1 << 32)
    with pytest.raises(xmem.HeapCorruption, match="P1"):
        small_arena.check()
    # A run that claims to be free, on no list.
    word.value = (2 << 32) | (1 << 8) | FRAME_FREE
    with pytest.raises(xmem.HeapCorruption, match=r"P[24]"):
        small_arena.check()
    word.value = sound
    small_arena.check()
