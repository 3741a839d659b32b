# SPDX-License-Identifier: BSD-3-Clause
"""Transcendent memory, by the published tables: each verb in each kind of pool."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import xmem
from xmem import Arena, Heap, OutOfMemory, Pool
from xmem.stores.images import file_pages
from xmem.stores.memory import Memory
from xmem.stores.tmem import DESCRIPTOR, Put, TmemStore

PAGE = 4096
HEAPS: dict[str, Callable[[Arena], Heap | Pool]] = {
    "tlsf": Pool,
    "firstfit": lambda arena: Pool(arena, engine="firstfit"),
    **{
        name: lambda arena, name=name: Heap(arena, name)
        for name in ("strict", "array", "subpage", "legacy", "merged")
    },
}


def page(number: int) -> bytes:
    """A page that shrinks to about a half."""
    rng = np.random.default_rng(number)
    return rng.integers(1, 256, PAGE // 2, dtype=np.uint8).tobytes() + bytes([7]) * (
        PAGE // 2
    )


def noise(number: int) -> bytes:
    """A page that does not shrink."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, PAGE, dtype=np.uint8).tobytes()


@pytest.fixture(params=list(HEAPS))
def store(request: pytest.FixtureRequest) -> Iterator[TmemStore]:
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield TmemStore(HEAPS[request.param](arena))


@pytest.fixture
def small() -> Iterator[TmemStore]:
    """One that is full with some fifty pages."""
    with Arena.anonymous(40 * PAGE, page_size=PAGE, max_pools=2) as arena:
        yield TmemStore(Pool(arena))


KINDS = {
    "ephemeral private": ("ephemeral", None),
    "ephemeral shared": ("ephemeral", "cluster"),
    "persistent": ("persistent", None),
}


@pytest.mark.parametrize("kind", HEAPS)
def test_a_page_whose_descriptor_finds_no_room_leaves_nothing(kind: str) -> None:
    """The data fits, the descriptor does not: the data is freed again."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        memory = Memory(HEAPS[kind](arena))
        store = TmemStore(memory)
        pool = store.new_pool("persistent")
        assert store.put_page(pool, 1, 0, page(1)) is Put.STORED
        before = memory.heap.stats()
        put = memory.put
        sizes: list[int] = []

        def full(data: bytes) -> int:
            sizes.append(len(data))
            if len(sizes) == 2:
                raise OutOfMemory("no room for the descriptor")
            return put(data)

        for data in (page(2), noise(2)):
            sizes.clear()
            memory.put = full  # type: ignore[method-assign]
            assert not store.put_page(pool, 1, 1, data)
            memory.put = put  # type: ignore[method-assign]
            assert sizes[1] == DESCRIPTOR.size
            after = memory.heap.stats()
            assert after.live_blocks == before.live_blocks
            assert after.used_bytes == before.used_bytes
            assert store.get_page(pool, 1, 1) is None
            assert store.get_page(pool, 1, 0) == page(1)
            store.check()


# The table ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [page(1), noise(1), bytes(PAGE)])
def test_what_was_put_is_got(store: TmemStore, kind: str, data: bytes) -> None:
    name, shared = KINDS[kind]
    pool = store.new_pool(name, shared=shared)
    assert store.put_page(pool, 1, 2, data) is Put.STORED
    assert store.put_page(pool, (1 << 64) - 1, (1 << 32) - 1, data)
    assert store.get_page(pool, 1, 2) == data
    assert store.get_page(pool, 2, 2) is None
    assert store.get_page(pool, 1, 1) is None
    store.check()


@pytest.mark.parametrize(
    ("kind", "stays"),
    [("ephemeral private", False), ("ephemeral shared", True), ("persistent", True)],
)
def test_whether_a_get_removes(store: TmemStore, kind: str, stays: bool) -> None:
    name, shared = KINDS[kind]
    pool = store.new_pool(name, shared=shared)
    store.put_page(pool, 1, 2, page(1))
    assert store.get_page(pool, 1, 2) == page(1)
    assert store.get_page(pool, 1, 2) == (page(1) if stays else None)
    store.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_put_on_a_held_key_replaces(store: TmemStore, kind: str) -> None:
    name, shared = KINDS[kind]
    pool = store.new_pool(name, shared=shared)
    assert store.put_page(pool, 1, 2, page(1)) is Put.STORED
    assert store.put_page(pool, 1, 2, noise(2)) is Put.REPLACED
    assert store.put_page(pool, 1, 2, page(3)) is Put.REPLACED
    assert store.get_page(pool, 1, 2) == page(3)
    store.check()


@pytest.mark.parametrize("kind", KINDS)
def test_flushes_remove_and_forgive(store: TmemStore, kind: str) -> None:
    name, shared = KINDS[kind]
    pool = store.new_pool(name, shared=shared)
    for index in range(5):
        store.put_page(pool, 1, index, page(index))
    store.put_page(pool, 2, 0, page(9))
    assert store.flush_page(pool, 1, 3)
    assert not store.flush_page(pool, 1, 3)
    assert store.stats().flushed == 1
    assert store.get_page(pool, 1, 3) is None
    assert store.flush_object(pool, 1) == 4
    assert store.stats().flushed == 5
    assert store.flush_object(pool, 1) == 0
    assert store.keys(pool) == [(2, 0)]
    assert store.destroy_pool(pool) == 1
    assert store.stats().data_bytes == 0
    with pytest.raises(xmem.BadArgument, match="no pool"):
        store.put_page(pool, 1, 1, page(1))
    store.check()


def test_a_shared_pool_lives_until_the_last_leaves(store: TmemStore) -> None:
    pool = store.new_pool("ephemeral", shared="uuid")
    assert store.new_pool("ephemeral", shared="uuid", client=2) == pool
    assert store.new_pool("ephemeral", shared="other") != pool
    store.put_page(pool, 1, 1, page(1))
    assert store.destroy_pool(pool) == 0
    assert store.get_page(pool, 1, 1) == page(1)
    assert store.destroy_pool(pool) == 1
    assert store.new_pool("ephemeral", shared="uuid") != pool


def test_pools_do_not_see_each_other(store: TmemStore) -> None:
    first, second = (store.new_pool("persistent") for _ in range(2))
    store.put_page(first, 1, 1, page(1))
    assert store.get_page(second, 1, 1) is None
    store.put_page(second, 1, 1, page(2))
    store.destroy_pool(second)
    assert store.get_page(first, 1, 1) == page(1)


# Without room ------------------------------------------------------------------


def fill(store: TmemStore, pool: int) -> int:
    """Put pages until one is refused; return how many were put."""
    for index in range(10_000):
        put = store.put_page(pool, 1, index, noise(index))
        if not put:
            assert put is Put.REFUSED
            return index
    raise AssertionError("there is no end")


def test_persistent_pages_never_vanish(small: TmemStore) -> None:
    pool = small.new_pool("persistent")
    n_pages = fill(small, pool)
    assert n_pages > 10
    for index in range(n_pages):
        assert small.get_page(pool, 1, index) == noise(index)
    assert small.stats().refused == 1
    small.check()


def test_ephemeral_pages_make_room_the_least_recent_first(small: TmemStore) -> None:
    pool = small.new_pool("ephemeral", shared="all")
    for index in range(20):
        assert small.put_page(pool, 1, index, noise(index))
    assert small.get_page(pool, 1, 0) == noise(0)  # the most recent now
    evicted = 0
    for index in range(20, 200):
        assert small.put_page(pool, 1, index, noise(index))
        if small.stats().evicted > evicted:
            evicted = small.stats().evicted
            break
    assert small.get_page(pool, 1, 0) == noise(0)
    assert small.get_page(pool, 1, 1) is None
    small.check()


def test_persistent_puts_evict_ephemeral_pages(small: TmemStore) -> None:
    persistent = small.new_pool("persistent")
    n_pages = fill(small, persistent)
    small.flush_object(persistent, 1)
    ephemeral = small.new_pool("ephemeral")
    for index in range(2 * n_pages):
        small.put_page(ephemeral, 1, index, noise(index))
    assert fill(small, persistent) >= n_pages - 2
    assert small.stats().ephemeral_pages <= 2
    small.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_second_put_drops_the_first(small: TmemStore, kind: str) -> None:
    """Put-put-get: no get returns a page that a later put replaced."""
    persistent = small.new_pool("persistent")
    name, shared = KINDS[kind]
    pool = small.new_pool(name, shared=shared)
    assert small.put_page(pool, 7, 7, bytes(PAGE))  # takes no room but a descriptor
    last = fill(small, persistent)
    while small.put_page(persistent, 2, small.stats().puts, bytes(PAGE)):
        pass  # nor is there room for a descriptor
    if name == "ephemeral":
        # To make room for them it has been evicted: nothing is dropped.
        assert small.put_page(pool, 7, 7, noise(1)) is Put.REFUSED
    else:
        assert small.put_page(pool, 7, 7, noise(1)) is Put.DROPPED
        assert small.stats().dropped == 1
    assert small.get_page(pool, 7, 7) is None
    assert small.get_page(pool, 7, 7) is None
    assert small.get_page(persistent, 1, last - 1) == noise(last - 1)
    small.check()


def test_a_limit_refuses_a_client(store: TmemStore) -> None:
    store.set_client(1, limit=3)
    mine = store.new_pool("persistent", client=1)
    other = store.new_pool("persistent", client=2)
    puts = [store.put_page(mine, 1, index, page(index)) for index in range(5)]
    assert [bool(put) for put in puts] == [True] * 3 + [False] * 2
    assert store.put_page(mine, 1, 0, page(8)) is Put.REPLACED
    assert store.put_page(other, 1, 0, page(8)) is Put.STORED
    store.flush_page(mine, 1, 1)
    assert store.put_page(mine, 1, 4, page(4)) is Put.STORED
    assert store.put_page(store.new_pool("ephemeral", client=1), 1, 1, page(1))


def test_weights_share_the_ephemeral_memory(small: TmemStore) -> None:
    small.set_client(1, weight=3)
    small.set_client(2, weight=1)
    pools = [small.new_pool("ephemeral", client=client) for client in (1, 2)]
    for index in range(200):
        for pool in pools:
            assert small.put_page(pool, 1, index, noise(index))
    first, second = (len(small.keys(pool)) for pool in pools)
    assert 2 <= first / second <= 4


def test_a_frozen_store_refuses_puts_alone(store: TmemStore) -> None:
    pool = store.new_pool("persistent")
    store.put_page(pool, 1, 1, page(1))
    store.put_page(pool, 1, 2, page(2))
    store.freeze()
    assert store.put_page(pool, 1, 3, page(3)) is Put.REFUSED
    assert store.put_page(pool, 1, 2, page(4)) is Put.DROPPED
    assert store.get_page(pool, 1, 2) is None
    assert store.get_page(pool, 1, 1) == page(1)
    assert store.flush_page(pool, 1, 1)
    store.freeze(False)
    assert store.put_page(pool, 1, 3, page(3)) is Put.STORED


# How pages lie -----------------------------------------------------------------


def test_pages_that_do_not_shrink_lie_as_they_are(store: TmemStore) -> None:
    pool = store.new_pool("persistent")
    store.put_page(pool, 1, 1, noise(1))
    store.put_page(pool, 1, 2, page(1))
    store.put_page(pool, 1, 3, bytes(PAGE))
    stats = store.stats()
    assert (stats.raw_pages, stats.zero_pages, stats.persistent_pages) == (1, 1, 3)
    assert PAGE + PAGE // 2 <= stats.data_bytes < 2 * PAGE


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_real_pages_come_back(compression: str | None) -> None:
    pages = file_pages(most=400)
    with Arena.anonymous(8 << 20, page_size=PAGE) as arena:
        store = TmemStore(Heap(arena, "strict"), compression)
        pool = store.new_pool("persistent")
        for index, data in enumerate(pages):
            assert store.put_page(pool, 0, index, data)
        for index, data in enumerate(pages):
            assert store.get_page(pool, 0, index) == data.tobytes()
        assert (store.stats().data_bytes < 0.8 * pages.nbytes) == (
            compression is not None
        )
        store.check()
        assert store.compression == compression
        assert store.destroy_pool(pool) == len(pages)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s, p: s.new_pool("volatile"), xmem.BadArgument),
        (lambda s, p: s.new_pool("persistent", shared="x"), xmem.BadArgument),
        (lambda s, p: s.new_pool("ephemeral", shared=3), xmem.BadArgumentType),
        (lambda s, p: s.put_page(p, 1, 1, b"short"), xmem.BadArgument),
        (lambda s, p: s.put_page(p, 1, 1, 7), xmem.BadArgumentType),
        (lambda s, p: s.put_page(p, -1, 1, page(1)), xmem.BadArgument),
        (lambda s, p: s.put_page(p, 1, 1 << 32, page(1)), xmem.BadArgument),
        (lambda s, p: s.put_page(p, 1.5, 1, page(1)), xmem.BadArgumentType),
        (lambda s, p: s.get_page(p + 1, 1, 1), xmem.BadArgument),
        (lambda s, p: s.set_client(1, weight=0), xmem.BadArgument),
        (lambda s, p: TmemStore(3), xmem.BadArgumentType),
        (lambda s, p: TmemStore(s._memory.heap, "zip"), xmem.BadArgument),
    ],
)
def test_what_cannot_be_meant(
    store: TmemStore,
    call: Callable[[TmemStore, int], object],
    error: type[Exception],
) -> None:
    pool = store.new_pool("persistent")
    before = store.stats()
    with pytest.raises(error):
        call(store, pool)
    assert store.stats() == before
    store.check()


@pytest.mark.parametrize("value", ["x", -1])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("client", lambda s, p, v: s.new_pool("ephemeral", client=v)),
        ("client", lambda s, p, v: s.set_client(v)),
        ("weight", lambda s, p, v: s.set_client(1, weight=v)),
        ("limit", lambda s, p, v: s.set_client(1, limit=v)),
        ("pool", lambda s, p, v: s.destroy_pool(v)),
        ("pool", lambda s, p, v: s.keys(v)),
        ("pool", lambda s, p, v: s.put_page(v, 1, 1, page(1))),
        ("object", lambda s, p, v: s.put_page(p, v, 1, page(1))),
        ("index", lambda s, p, v: s.put_page(p, 1, v, page(1))),
        ("pool", lambda s, p, v: s.get_page(v, 1, 1)),
        ("object", lambda s, p, v: s.get_page(p, v, 1)),
        ("index", lambda s, p, v: s.get_page(p, 1, v)),
        ("pool", lambda s, p, v: s.flush_page(v, 1, 1)),
        ("object", lambda s, p, v: s.flush_page(p, v, 1)),
        ("index", lambda s, p, v: s.flush_page(p, 1, v)),
        ("pool", lambda s, p, v: s.flush_object(v, 1)),
        ("object", lambda s, p, v: s.flush_object(p, v)),
    ],
)
def test_each_argument_is_refused_by_name(
    store: TmemStore,
    name: str,
    call: Callable[[TmemStore, int, object], object],
    value: object,
) -> None:
    pool = store.new_pool("persistent")
    before = store.stats()
    error = xmem.BadArgument if value == -1 else xmem.BadArgumentType
    with pytest.raises(error, match=f"^{name} must be "):
        call(store, pool, value)
    assert store.stats() == before


def test_threads(store: TmemStore) -> None:
    pool = store.new_pool("ephemeral", shared="all")
    wrong = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for step in range(300):
            index = int(rng.integers(30))
            if rng.integers(2):
                store.put_page(pool, number, index, page(step % 7))
            else:
                got = store.get_page(pool, number, index)
                if got is not None and got not in {page(i) for i in range(7)}:
                    wrong.append(got)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    store.check()


def test_under_pressure_no_persistent_page_is_lost(seed: int) -> None:
    """An arena of a tenth of the load; each refused put says so."""
    rng = np.random.default_rng(seed)
    pages = file_pages(most=1000)
    with Arena.anonymous(100 * PAGE + (64 << 10), page_size=PAGE) as arena:
        store = TmemStore(Heap(arena, "strict"))
        pools = [store.new_pool("persistent"), store.new_pool("ephemeral")]
        kept: dict[int, int] = {}
        for _ in range(4000):
            which = int(rng.random() < 0.7)
            index = int(rng.integers(1000))
            content = int(rng.integers(len(pages)))
            result = store.put_page(pools[which], 0, index, pages[content])
            if which == 0:
                was_held = kept.pop(index, None) is not None
                assert (result in (Put.REPLACED, Put.DROPPED)) == was_held
                if result:
                    kept[index] = content
        assert store.stats().refused
        assert store.stats().evicted
        for index, content in kept.items():
            assert store.get_page(pools[0], 0, index) == pages[content].tobytes()
        store.check()
