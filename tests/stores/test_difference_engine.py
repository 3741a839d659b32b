# SPDX-License-Identifier: BSD-3-Clause
"""Difference Engine: shared, patched and compressed pages read back exactly."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import xmem
from xmem import Arena, Heap, Pool
from xmem.stores.difference_engine import DifferenceEngine
from xmem.stores.images import (
    Mix,
    file_pages,
    memory_images,
    mutated,
)

PAGE = 4096


def noise(number: int) -> np.ndarray:
    """A page that neither shrinks nor resembles another."""
    return np.random.default_rng(number).integers(0, 256, PAGE, dtype=np.uint8)


def text(number: int) -> bytes:
    """A page that shrinks well."""
    return (b"page %d " % number * PAGE)[:PAGE]


@pytest.fixture(params=["pool", "strict", "legacy", "subpage"])
def store(request: pytest.FixtureRequest) -> Iterator[DifferenceEngine]:
    with Arena.anonymous(4 << 20, page_size=PAGE) as arena:
        heap = Pool(arena) if request.param == "pool" else Heap(arena, request.param)
        yield DifferenceEngine(heap)


def write(store: DifferenceEngine, number: int) -> bool:
    """Write noise; False if there is no room."""
    try:
        store.write_page(0, number, noise(number))
    except xmem.OutOfMemory:
        return False
    return True


def settle(store: DifferenceEngine) -> None:
    """Let the hand come by until nothing changes any more."""
    for _ in range(5):
        store.scan()
        store.check()


def test_equal_pages_are_kept_once(store: DifferenceEngine) -> None:
    for machine in range(4):
        store.write_page(machine, 0, noise(1))
        store.write_page(machine, 1, noise(2))
    settle(store)
    stats = store.stats()
    assert (stats.pages, stats.whole, stats.shared) == (8, 2, 6)
    assert stats.saved_by_sharing == 6 * PAGE
    for machine in range(4):
        assert store.read_page(machine, 1) == noise(2).tobytes()


def test_equal_hashes_are_not_enough(
    store: DifferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "xmem.stores.difference_engine.xxhash.xxh3_64_intdigest", lambda *a, **k: 7
    )
    for number in range(5):
        store.write_page(0, number, noise(number))
    settle(store)
    assert store.stats().shared == 0
    for number in range(5):
        assert store.read_page(0, number) == noise(number).tobytes()


def test_a_write_makes_a_copy(store: DifferenceEngine) -> None:
    for machine in range(3):
        store.write_page(machine, 0, noise(1))
    settle(store)
    store.write_page(1, 0, noise(5))
    assert [store.read_page(m, 0) for m in range(3)] == [
        noise(n).tobytes() for n in (1, 5, 1)
    ]
    settle(store)
    store.write_page(0, 0, noise(5))
    store.write_page(2, 0, noise(6))
    settle(store)
    assert store.stats().shared == 1
    assert store.read_page(0, 0) == noise(5).tobytes()
    assert store.read_page(2, 0) == noise(6).tobytes()


def test_similar_pages_are_patched(store: DifferenceEngine) -> None:
    rng = np.random.default_rng(1)
    pages = [noise(1), *(mutated(noise(1), rng, 2) for _ in range(6))]
    for machine, page in enumerate(pages):
        store.write_page(machine, 0, page)
    settle(store)
    stats = store.stats()
    assert stats.whole == 1
    assert stats.patched == 6
    assert stats.patch_bytes < 300
    # Without its own page the reference stays, for the patches.
    store.free_page(0, 0)
    settle(store)
    for machine in range(1, 7):
        assert store.read_page(machine, 0) == pages[machine].tobytes()
        store.check()
    store.free_machine(3)
    store.check()


def test_a_check_counts_the_patches_of_a_base(store: DifferenceEngine) -> None:
    rng = np.random.default_rng(1)
    for machine in range(3):
        store.write_page(machine, 0, mutated(noise(1), rng, machine))
    settle(store)
    (base,) = [content for content in store._contents() if content.n_patches]
    for wrong in (1, 3):
        base.n_patches = wrong
        with pytest.raises(xmem.XmemError, match="wrong number of patches"):
            store.check()
    base.n_patches = 2
    store.check()


def test_a_reference_that_is_written_is_kept_for_its_patches(
    store: DifferenceEngine,
) -> None:
    rng = np.random.default_rng(1)
    other = mutated(noise(1), rng, 2)
    store.write_page(0, 0, noise(1))
    store.write_page(1, 0, other)
    settle(store)
    assert store.stats().patched == 1
    store.write_page(0, 0, noise(9))
    store.check()
    assert store.read_page(1, 0) == other.tobytes()
    assert store.read_page(0, 0) == noise(9).tobytes()
    settle(store)


def test_a_long_patch_is_not_worth_keeping() -> None:
    rng = np.random.default_rng(1)
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        store = DifferenceEngine(Pool(arena), patch_max=20)
        store.write_page(0, 0, noise(1))
        store.write_page(1, 0, mutated(noise(1), rng, 3))
        settle(store)
        assert store.stats().patched == 0


def test_what_is_left_is_compressed(store: DifferenceEngine) -> None:
    for number in range(8):
        store.write_page(0, number, text(number))
    store.write_page(0, 8, noise(1))
    settle(store)
    stats = store.stats()
    assert (stats.compressed + stats.patched, stats.whole) >= (7, 1)
    assert stats.held_bytes < 4 * PAGE
    for number in range(8):
        assert store.read_page(0, number) == text(number)
    assert store.read_page(0, 8) == noise(1).tobytes()


def test_the_clock_leaves_alone_what_is_used(store: DifferenceEngine) -> None:
    store.write_page(0, 0, text(1))
    store.scan()  # it was written
    assert store.stats().whole == 1
    for _ in range(4):
        store.scan()
        store.read_page(0, 0)
    assert store.stats().whole == 1
    store.scan()
    store.scan()
    assert store.stats().compressed == 1
    store.read_page(0, 0)
    assert store.stats().whole == 1
    settle(store)
    store.write_page(0, 0, text(2))
    assert store.stats().whole == 1


def test_pages_that_are_forgotten_leave_nothing(store: DifferenceEngine) -> None:
    rng = np.random.default_rng(2)
    for machine in range(3):
        for number in range(20):
            store.write_page(machine, number, mutated(noise(number % 5), rng, machine))
    settle(store)
    for machine in (1, 0, 2):
        assert store.free_machine(machine) == 20
        store.check()
    stats = store.stats()
    assert (stats.pages, stats.held_bytes, stats.whole) == (0, 0, 0)


def test_without_room_nothing_is_lost() -> None:
    with Arena.anonymous(30 * PAGE, page_size=PAGE, max_pools=2) as arena:
        store = DifferenceEngine(Pool(arena))
        held = 0
        while write(store, held):
            held += 1
        settle(store)
        for number in range(held):
            assert store.read_page(0, number) == noise(number).tobytes()
        store.check()


def test_without_room_for_a_patch_all_stays_as_it_is() -> None:
    rng = np.random.default_rng(4)
    with Arena.anonymous(60 * PAGE, page_size=PAGE, max_pools=2) as arena:
        pool = Pool(arena)
        store = DifferenceEngine(pool)
        pages = [mutated(noise(number // 8), rng, 3) for number in range(24)]
        for number, page in enumerate(pages):
            store.write_page(0, number, page)
        others = []
        for n in (1000, 100, 10):
            with contextlib.suppress(xmem.OutOfMemory):
                while True:
                    others.append(pool.xmalloc(n))
        settle(store)
        for offset in others[::2]:
            pool.xfree(offset)
        settle(store)
        assert store.stats().patched
        for number, page in enumerate(pages):
            assert store.read_page(0, number) == page.tobytes()
            store.check()


def test_what_is_read_may_stay_compressed_without_room() -> None:
    with Arena.anonymous(30 * PAGE, page_size=PAGE, max_pools=2) as arena:
        store = DifferenceEngine(Pool(arena))
        for number in range(8):
            store.write_page(0, number, text(number))
        settle(store)
        assert not all(write(store, number) for number in range(8, 100))
        for number in range(8):
            assert store.read_page(0, number) == text(number)
        store.check()


@pytest.mark.parametrize(
    ("mix", "least", "most"),
    [(Mix(0.7, 0.2), 0.6, 0.95), (Mix(0.2, 0.2), 0.25, 0.8)],
)
def test_four_images(mix: Mix, least: float, most: float) -> None:
    """The savings are those of the stated shares; every page reads back exactly."""
    source = file_pages(most=3000)
    images = memory_images(source, [mix] * 3, 300, np.random.default_rng(3))
    with Arena.anonymous(16 << 20, page_size=PAGE) as arena:
        store = DifferenceEngine(Heap(arena, "array", grow_pages=16, join_regions=True))
        for machine, image in enumerate(images):
            for number, page in enumerate(image):
                store.write_page(machine, number, page)
        settle(store)
        stats = store.stats()
        assert stats.pages == 1200
        assert stats.shared >= 3 * 300 * mix.identical
        assert stats.patched > 0.5 * 3 * 300 * mix.similar
        assert least < stats.saved < most
        for machine, image in enumerate(images):
            for number, page in enumerate(image):
                assert store.read_page(machine, number) == page.tobytes()
        store.check()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.write_page(0, 0, b"short"), xmem.BadArgument),
        (lambda s: s.write_page(0, 0, 3), xmem.BadArgumentType),
        (lambda s: s.write_page(-1, 0, bytes(PAGE)), xmem.BadArgument),
        (lambda s: s.write_page("a", 0, bytes(PAGE)), xmem.BadArgumentType),
        (lambda s: s.read_page(0, 1), xmem.BadArgument),
        (lambda s: s.free_page(0, 1), xmem.BadArgument),
        (lambda s: s.scan(-1), xmem.BadArgument),
        (lambda s: DifferenceEngine(s._memory.heap, k=0), xmem.BadArgument),
        (lambda s: DifferenceEngine(s._memory.heap, compression="x"), xmem.BadArgument),
        (lambda s: DifferenceEngine(7), xmem.BadArgumentType),
    ],
)
def test_what_cannot_be_meant(
    store: DifferenceEngine,
    call: Callable[[DifferenceEngine], object],
    error: type[Exception],
) -> None:
    store.write_page(0, 0, text(1))
    before = store.stats()
    with pytest.raises(error):
        call(store)
    assert store.stats() == before


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("k", 1),
        ("s", 1),
        ("c", 1),
        ("patch_max", 0),
        ("compressed_max", 0),
        ("seed", 0),
    ],
)
def test_each_parameter_is_refused_by_name(name: str, least: int) -> None:
    with Arena.anonymous(1 << 20) as arena:
        pool = Pool(arena)
        DifferenceEngine(pool, **{name: least})
        with pytest.raises(
            xmem.BadArgumentType, match=f"^{name} must be an integer, not str$"
        ):
            DifferenceEngine(pool, **{name: "x"})
        with pytest.raises(
            xmem.BadArgument, match=f"^{name} must be at least {least}, not -1$"
        ):
            DifferenceEngine(pool, **{name: -1})


@pytest.mark.parametrize("value", ["x", -1])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("machine", lambda s, v: s.write_page(v, 0, bytes(PAGE))),
        ("number", lambda s, v: s.write_page(0, v, bytes(PAGE))),
        ("machine", lambda s, v: s.read_page(v, 0)),
        ("number", lambda s, v: s.read_page(0, v)),
        ("machine", lambda s, v: s.free_page(v, 0)),
        ("number", lambda s, v: s.free_page(0, v)),
        ("machine", lambda s, v: s.free_machine(v)),
        ("n_contents", lambda s, v: s.scan(v)),
    ],
)
def test_each_argument_is_refused_by_name(
    store: DifferenceEngine,
    name: str,
    call: Callable[[DifferenceEngine, object], object],
    value: object,
) -> None:
    store.write_page(0, 0, text(1))
    error = xmem.BadArgument if value == -1 else xmem.BadArgumentType
    with pytest.raises(error, match=f"^{name} must be "):
        call(store, value)
    assert store.read_page(0, 0) == text(1)
