# SPDX-License-Identifier: BSD-3-Clause
"""Arguments that are not what they seem, for a process of its own.

Subclasses of tuple and str whose methods lie, lists and data types that change while
they are read, objects whose conversion initialises the callee once more, functions of
the caller that use a block while it is moved.
"""

import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xmem
from xmem import Arena, BadArgument, BadArgumentType, Block, Heap, Pool

PAGE = 4096


def new_arena() -> Arena:
    return Arena.anonymous(1 << 20, page_size=PAGE)


class Short(tuple[int, ...]):
    """A tuple that says it has one item."""

    def __len__(self) -> int:
        return 1


class Long(tuple[int, ...]):
    """A tuple that says it has a million items, and shows other ones than it has."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, place: Any) -> Any:
        return 10**6


class Eager(tuple[int, ...]):
    """A tuple whose iterator yields more items than it has."""

    def __iter__(self) -> Any:
        return iter([1] * 500)


class Unending(list[int]):
    """A list that says it is empty."""

    def __len__(self) -> int:
        return 0


def lying_shapes() -> None:
    """Shapes whose ``__len__`` and ``__iter__`` disagree with their items."""
    pool = Pool(new_arena())
    kept = pool.xmalloc(1000)
    calls: list[Callable[[Any], Any]] = [
        pool.empty,
        pool.zeros,
        lambda shape: pool.full(shape, 1.0),
        lambda shape: pool.from_offset(kept, shape, "u1"),
    ]
    for call in calls:
        for shape in (
            Short([1] * 80),
            Short([1] * 2000),
            Eager([1]),
            Unending([1] * 99),
        ):
            print(call, type(shape), len(tuple(shape)), flush=True)
            with pytest.raises(BadArgument, match="axes"):
                call(shape)
        for shape in (Short([2, 3]), Long([2, 3]), Unending([2, 3])):
            assert call(shape).shape == (2, 3)
    gc.collect()
    assert pool.stats().live_blocks == 1
    pool.check()


def emptied_lists() -> None:
    """Lists of sizes and offsets that are emptied while they are read."""
    mine: list[Any] = []

    class Emptier:
        def __init__(self, value: int) -> None:
            self.value = value

        def __index__(self) -> int:
            for found in gc.get_referrers(self):
                if type(found) is list and found is not mine:
                    found.clear()
            return self.value

    for engine in ("tlsf", "firstfit"):
        pool = Pool(new_arena(), engine=engine)
        for make in (list, tuple, iter):
            print(engine, make, flush=True)
            first = Emptier(100)
            mine[:] = [first, first, *[10] * 1000]
            offsets = pool.xmalloc_many(make(mine)).tolist()
            assert len(set(offsets)) == 1002
            first = Emptier(offsets.pop())
            mine[:] = [first, *offsets]
            pool.xfree_many(make(mine))
            assert pool.stats().live_blocks == 0
        pool.check()


class LyingArray(np.ndarray[Any, Any]):
    """An array that says it has one axis and holds unsigned integers."""

    @property
    def ndim(self) -> int:
        return 1

    @property
    def dtype(self) -> Any:
        return np.dtype("u8")

    def __len__(self) -> int:
        return 10**6

    @property
    def base(self) -> Any:
        return Block.__new__(Block)


def lying_arrays() -> None:
    """Subclasses of numpy.ndarray whose properties lie."""
    pool = Pool(new_arena())
    for wrong in (np.zeros((3, 3), "u8"), np.array(5, "u8")):
        for call in (pool.xmalloc_many, pool.xfree_many):
            with pytest.raises(BadArgument, match="dimension"):
                call(wrong.view(LyingArray))
    for call in (pool.xmalloc_many, pool.xfree_many):
        with pytest.raises(BadArgumentType):
            call(np.array([16.0]).view(LyingArray))
    offsets = pool.xmalloc_many(np.array([5, 6], "i4").view(LyingArray))
    pool.xfree_many(offsets.view(LyingArray))
    array = pool.zeros(5)
    block = pool.block_of(array)
    print("block_of", flush=True)
    assert pool.block_of(array.view(LyingArray)) is block
    with pytest.raises(BadArgument, match="no Block"):
        pool.block_of(np.zeros(5).view(LyingArray))
    with pytest.raises(BadArgument, match="no Block"):
        pool.block_of(np.frombuffer(Exporter(), "u1"))
    assert pool.copy_of(array.view(LyingArray)).shape == (5,)


class Exporter(bytearray):
    """A buffer of no Block."""

    def __new__(cls) -> "Exporter":
        return super().__new__(cls, b"12345678")


class Liar(str):
    """Text that is equal to anything and differs from nothing."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return hash("tlsf")

    def __str__(self) -> str:
        return "another"

    def __format__(self, how: str) -> str:
        return "another"

    def __contains__(self, text: object) -> bool:
        return False

    def encode(self, *how: object) -> bytes:
        return b"another"


def lying_texts(where: str) -> None:
    """Names, engines, interfaces, orders and paths whose comparisons lie."""
    arena = new_arena()
    runs = [arena.page_alloc_exact(8) for _ in range(4)]
    hooks = {"get_mem": lambda n: runs.pop(), "put_mem": lambda at, n: None}
    print("engine", flush=True)
    with pytest.raises(BadArgument, match="only the tlsf"):
        Pool(arena, engine=Liar("firstfit"), **hooks)
    for wrong in ({"hardened": True}, {"quick": True}):
        with pytest.raises(BadArgument, match="only the tlsf"):
            Pool(arena, engine=Liar("firstfit"), **wrong)
    with pytest.raises(BadArgument, match="engine must be"):
        Pool(arena, engine=Liar("best"))
    pool = Pool(arena, name=Liar("mine"), engine=Liar("firstfit"))
    assert (pool.name, pool.engine) == ("mine", "firstfit")
    assert Pool.open(arena, Liar("mine")).id == pool.id
    with pytest.raises(BadArgument, match="hardened may name"):
        Pool(arena, hardened=[Liar("steel")])
    assert Pool(arena, hardened=[Liar("poison")]).hardening == ("poison",)

    print("interface", flush=True)
    for interface in ("strict", "array", "subpage", "legacy", "merged"):
        heap = Heap(arena, Liar(interface), name=Liar(interface))
        assert heap.interface == interface
        assert Heap.open(arena, Liar(interface)).pools[-1].id == heap.pools[-1].id
        heap.check()
        heap.destroy()
    with pytest.raises(BadArgument, match="interface must be"):
        Heap(arena, Liar("lax"))

    print("order", flush=True)
    with pytest.raises(BadArgument, match="order must be"):
        pool.empty((2, 3), order=Liar("X"))
    with pytest.raises(BadArgument, match="order must be"):
        pool.copy_of(np.zeros((2, 3)), order=Liar("X"))
    assert pool.empty((2, 3), order=Liar("F")).flags.f_contiguous
    assert pool.copy_of(np.zeros((2, 3)), order=Liar("F")).flags.f_contiguous

    print("path", flush=True)
    Arena.create(Liar(f"{where}/lie"), 1 << 20).close()
    with Arena.open(Liar(f"{where}/lie")) as opened:
        assert type(opened.path) is str
        assert repr(f"{where}/lie") in repr(opened)
    assert [path.name for path in Path(where).glob("lie*")] == ["lie"]
    with pytest.raises(BadArgument, match="NUL"):
        Arena.create(Liar(f"{where}/l\0ie"), 1 << 20)


def changing_dtypes() -> None:
    """Structured data types that grow, or get objects, while a call reads the rest."""
    small = np.dtype([("a", "u1")])
    for changed in (np.dtype([("a", "u1", 100_000)]), np.dtype([("a", "O")])):
        state = changed.__reduce__()[2]

        class Changer:
            def __init__(self, value: int) -> None:
                self.value = value
                self.dtype = np.dtype([("a", "u1")])
                assert self.dtype == small

            def __index__(self) -> int:
                self.dtype.__setstate__(state)  # noqa: B023
                return self.value

        pool = Pool(new_arena(), max_pages=20)
        kept = pool.xmalloc(1000)
        calls: list[Callable[[Changer], Any]] = [
            lambda sly, pool=pool: pool.zeros(5, sly.dtype, align=sly),
            lambda sly, pool=pool: pool.zeros(sly, sly.dtype),
            lambda sly, pool=pool: pool.full((2, sly), 0, sly.dtype, align=sly),
            lambda sly, pool=pool, kept=kept: pool.from_offset(kept, sly, sly.dtype),
        ]
        for place, call in enumerate(calls):
            print(changed, place, flush=True)
            with contextlib.suppress(BadArgument, xmem.OutOfMemory):
                made = call(Changer(64))
                assert not made.dtype.hasobject
                assert made.nbytes <= 20 * PAGE
                del made
            pool.check()
        gc.collect()
        assert pool.stats().live_blocks == 1

    def get_mem(n_pages: int) -> int:
        sly.__index__()
        return arena.page_alloc_exact(n_pages)

    sly = Changer(0)
    arena = new_arena()
    hooked = Pool(arena, get_mem=get_mem, put_mem=lambda at, n: arena.page_free(at))
    print("get_mem", flush=True)
    with pytest.raises(BadArgument, match="dtype"):
        hooked.empty(5, sly.dtype)
    gc.collect()
    assert hooked.stats().live_blocks == 0


def initialised_twice() -> None:
    """Arguments whose conversion initialises the same object."""

    class Twice:
        def __init__(self, init: Callable[[], object]) -> None:
            self.init = init

        def __index__(self) -> int:
            self.init()
            return 20

        def __iter__(self) -> Any:
            self.init()
            return iter(["poison"])

    one, two = new_arena(), new_arena()
    makers: list[tuple[type[Any], dict[str, Any]]] = [
        (Pool, {"grow_pages": 20, "max_pages": 20}),
        (Pool, {"hardened": ["poison"]}),
        (Heap, {"grow_pages": 20, "max_pages": 20}),
        (Heap, {"interface": "subpage", "max_pages": 20, "hardened": ["poison"]}),
    ]
    for kind, arguments in makers:
        for name, value in arguments.items():
            if isinstance(value, str):
                continue
            made = kind.__new__(kind)
            print(kind, name, flush=True)
            before = two.pools()
            sly = Twice(lambda kind=kind, made=made: kind.__init__(made, one))
            with pytest.raises(BadArgument, match="initialised twice"):
                kind.__init__(made, two, **(arguments | {name: sly}))
            assert made.arena is one
            assert two.pools() == before
            block = made.block(100)
            del block
            made.check()
            made.destroy()
    pool = Pool(one)
    other = Pool(two)
    manager = xmem.numpy_memory.__new__(xmem.numpy_memory)
    align = Twice(lambda: xmem.numpy_memory.__init__(manager, pool, align=16))
    align.__class__.__index__ = lambda self: (self.init(), 16)[1]
    with pytest.raises(BadArgument, match="initialised twice"):
        xmem.numpy_memory.__init__(manager, other, align=align)
    assert manager.allocator is pool


def lying_properties() -> None:
    """Subclasses whose properties close the arena that a method reads after them."""

    def frees(pool: Pool) -> None:
        pool.xfree_many([live])

    for name in ("closed", "engine", "arena", "xfree", "walk"):
        for act in (repr, frees, Pool.shrink):
            arena = new_arena()
            runs: list[int] = []

            def closes(pool: Pool) -> Any:
                arena.close()  # noqa: B023
                return False

            kind = type("Sly", (Pool,), {name: property(closes)})
            pool = kind(
                arena,
                get_mem=arena.page_alloc_exact,
                put_mem=lambda at, n: runs.append(at),  # noqa: B023
            )
            live = pool.xmalloc(100)
            print(name, act, flush=True)
            with contextlib.suppress(xmem.XmemError, TypeError):
                act(pool)


def blocks_used_while_moved() -> None:
    """put_mem uses the block whose move returned the region."""
    deeds: dict[str, Callable[[], object]] = {}
    armed = [""]
    returned: list[int] = []

    def put_mem(offset: int, n_pages: int) -> None:
        returned.append(offset)
        if armed[0]:
            deed, armed[0] = armed[0], ""
            with contextlib.suppress(BufferError, xmem.XmemError):
                deeds[deed]()

    def get_mem(n_pages: int) -> int:
        if returned and arena.run_pages(returned[-1]) >= n_pages:
            return returned.pop()
        run = arena.page_alloc_exact(n_pages)
        arena.page_alloc_exact(1)  # no two regions are side by side
        return run

    def frees_all() -> None:
        for row in pool.walk():
            if row["used"]:
                with contextlib.suppress(BufferError, xmem.XmemError):
                    pool.xfree(int(row["offset"]))

    arena = new_arena()
    pool = Pool(arena)
    block = pool.block(1)
    kept: list[Any] = []
    deeds["frees"] = frees_all
    deeds["views"] = lambda: kept.append(memoryview(block))
    deeds["detaches"] = lambda: kept.append(block.detach())
    deeds["allocates"] = lambda: kept.extend(pool.block(3000) for _ in range(9))
    deeds["releases"] = lambda: block.release()
    for deed in deeds:
        arena = new_arena()
        pool = Pool(arena, grow_pages=1, get_mem=get_mem, put_mem=put_mem)
        returned.clear()
        stay = [pool.block(3000), pool.block(100)]
        block = pool.block(3000)
        print(deed, flush=True)
        n = 0
        while not returned and n < 20:
            memoryview(block)[:3000] = b"x" * 3000
            armed[0] = deed
            if block:
                block.resize(3000 + 4096 * (n % 3))
            n += 1
        assert returned or kept, deed
        live = {int(row["offset"]) for row in pool.walk() if row["used"]}
        if deed == "detaches" and kept:
            assert kept[-1] in live
        elif block:
            assert block.offset in live
            assert bytes(memoryview(block)[:3000]) == b"x" * 3000
        one = None
        for one in kept:
            if isinstance(one, Block):
                with pytest.raises(xmem.MismatchedFree):
                    pool.xfree(one.offset)
        one = None
        stay.clear()
        if deed == "detaches":
            pool.xfree(kept.pop())
        kept.clear()
        block = Pool(arena).block(1)
        gc.collect()
        pool.check()
        arena.check()
        assert pool.stats().live_blocks == 0, deed


def lists_emptied_by_put_mem() -> None:
    """put_mem empties every list that the collector knows, in the middle of destroy."""
    arena = new_arena()
    pool = Pool(
        arena,
        grow_pages=1,
        get_mem=arena.page_alloc_exact,
        put_mem=lambda at, n: (given.__setitem__(at, n), empty()),
    )
    given: dict[int, int] = {}

    def empty() -> None:
        for found in gc.get_objects():
            if type(found) is list and found and type(found[0]) is int:
                found.clear()

    sys.unraisablehook = lambda unraisable: given.clear()
    for _ in range(8):
        pool.xmalloc(3000)
    n_pages = pool.stats().region_pages
    pool.destroy(force=True)
    assert sum(given.values()) == n_pages
