# SPDX-License-Identifier: BSD-3-Clause
"""The page frames alone: orders, exact runs, wrong frees, the checker."""

import ctypes
import random

import pytest
from support.models import FrameModel, make_arena

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
            place = model.place(1 << order, order)
            if place is None:
                with pytest.raises(xmem.OutOfMemory):
                    arena.page_alloc(order)
                continue
            offset = arena.page_alloc(order)
            assert offset == place * page_size
            assert offset % (page_size << order) == 0
            assert arena.address(offset) % (page_size << order) == 0
            model.allocated(offset // page_size, 1 << order)
            model.compare(arena)
            assert arena.run_pages(offset) == 1 << order
            arena.page_free(offset)
            model.freed(offset // page_size)
            model.compare(arena)


def test_an_exact_run_is_as_long_as_any_stretch(arena):
    for n_pages in range(1, arena.n_pages + 2):
        model = FrameModel(arena.first_page, arena.n_pages)
        if model.place(n_pages) is None:
            assert n_pages > arena.n_pages - arena.first_page
            with pytest.raises(xmem.OutOfMemory):
                arena.page_alloc_exact(n_pages)
            model.compare(arena)
            continue
        offset = arena.page_alloc_exact(n_pages)
        page = offset // 4096
        assert page == arena.first_page
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


def test_the_lowest_stretch_that_is_long_enough_is_taken():
    """To the page, whatever shorter ones come first and longer ones follow."""
    for n_pages in range(1, 12):
        with make_arena(700) as arena:
            model = FrameModel(arena.first_page, arena.n_pages)
            runs = []
            for length in range(1, 30):
                runs.append(arena.page_alloc_exact(length))
                arena.page_alloc(0)
            for run in runs[:: -1 if n_pages % 2 else 1]:
                arena.page_free(run)
            offset = arena.page_alloc_exact(n_pages)
            assert offset == runs[n_pages - 1]
            for frame in arena.frames():
                if frame["state"] != FRAME_FREE:
                    model.live[int(frame["page"])] = int(frame["n_pages"])
            model.compare(arena)


def test_a_run_between_holes_of_all_lengths_and_places(seed):
    """Aligned ones too: the model says when there is room, and where exact ones go."""
    source = random.Random(seed)
    with make_arena(3000) as arena:
        model = FrameModel(arena.first_page, arena.n_pages)
        for _ in range(3000):
            if model.live and source.random() < 0.5:
                page = source.choice(sorted(model.live))
                arena.page_free(page * 4096)
                model.freed(page)
                continue
            order = source.choice([None, 0, 1, 2, 3, 5])
            n_pages = source.randrange(1, 40) if order is None else 1 << order
            place = model.place(n_pages, order or 0)
            if place is None:
                with pytest.raises(xmem.OutOfMemory):
                    arena.page_alloc_exact(n_pages)
                continue
            if order is None:
                offset = arena.page_alloc_exact(n_pages)
                assert offset == place * 4096
            else:
                offset = arena.page_alloc(order)
                assert offset % (4096 << order) == 0
            model.allocated(offset // 4096, n_pages)
        model.compare(arena)


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
        (lambda word: word ^ (1 << 8), "P2"),
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


def test_the_checker_sees_a_lost_page_and_stretches_side_by_side(small_arena):
    run = small_arena.page_alloc(1) // 4096
    word = frame_word(small_arena, run)
    sound = word.value
    # One page of the run forgotten: no run covers it.
    word.value = (sound & 0xFFFFFFFF) | (1 << 32)
    with pytest.raises(xmem.HeapCorruption, match="P1"):
        small_arena.check()
    # A run that claims to be free, next to one that is.
    word.value = (2 << 32) | (1 << 8) | FRAME_FREE
    with pytest.raises(xmem.HeapCorruption, match="P2"):
        small_arena.check()
    word.value = sound
    small_arena.check()
