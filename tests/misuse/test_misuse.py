# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments and wrong moments, for every public call of Arena and Pool.

One table says what each parameter of each call refuses and with which class.
Each row runs against a scene of three pools, live and freed blocks and page
runs; after it every byte of the arena is as it was and every checker passes.
"""

import copy
import gc
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scene import ARENA_BYTES, ENGINES, PAGE, Scene

from xmem import (
    Arena,
    ArenaClosed,
    ArenaFormatError,
    ArenaInUse,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
    Pool,
    PoolDestroyed,
    PoolInUse,
    XmemError,
)

# What is wrong ---------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A value, or a function that finds it in the scene, and its exception."""

    label: str
    value: Any
    error: type[BaseException]

    def in_scene(self, scene: Scene) -> Any:
        return self.value(scene) if callable(self.value) else self.value


class Index:
    """An integer in all but type."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Refuses:
    """Raises its own exception when it is asked for an integer."""

    def __index__(self) -> int:
        raise KeyError("mine")


class Lies:
    """Says that it is an integer and is none."""

    def __index__(self) -> Any:
        return "5"


NOT_INTEGERS = {
    "None": None,
    "str": "x",
    "digits": "16",
    "float": 1.5,
    "whole float": 16.0,
    "nan": math.nan,
    "inf": math.inf,
    "bytes": b"",
    "list": [],
    "tuple": (16,),
    "dict": {},
    "object": object(),
    "complex": 16 + 0j,
    "Decimal": Decimal(16),
    "numpy float": np.float64(16),
    "array": np.array([16, 32]),
    "type": int,
    "lying __index__": Lies(),
}
TOO_LARGE = {
    "2**63": 1 << 63,
    "2**64-1": (1 << 64) - 1,
    "2**64": 1 << 64,
    "2**64+16": (1 << 64) + 16,
    "2**65+4096": (1 << 65) + 4096,
    "10**30": 10**30,
    "__index__ 2**64+16": Index((1 << 64) + 16),
}
NEGATIVE = {
    "-1": -1,
    "-16": -16,
    "-4096": -4096,
    "-2**63": -1 << 63,
    "-2**64": -1 << 64,
    "-10**30": -(10**30),
    "__index__ -16": Index(-16),
    "numpy -16": np.int64(-16),
}


def rows(values: dict[str, Any], error: type[BaseException]) -> list[Wrong]:
    return [
        Wrong(label, (lambda scene, value=value: value), error)
        for label, value in values.items()
    ]


def without(table: list[Wrong], label: str) -> list[Wrong]:
    return [wrong for wrong in table if wrong.label != label]


NO_INTEGER = [
    *rows(NOT_INTEGERS, BadArgumentType),
    Wrong("raising __index__", lambda s: Refuses(), KeyError),
]
NOT_NONE = without(NO_INTEGER, "None")

#: Integers that are no offset whatever the arena holds.
NO_OFFSET = [
    *NO_INTEGER,
    *rows(TOO_LARGE, NotABlock),
    *rows(NEGATIVE, NotABlock),
    Wrong("live + 2**64", lambda s: s.live + (1 << 64), NotABlock),
    Wrong("live - 2**64", lambda s: s.live - (1 << 64), NotABlock),
    Wrong("run + 2**64", lambda s: s.run + (1 << 64), NotABlock),
    Wrong("-live", lambda s: -s.live, NotABlock),
    Wrong("end of the arena", lambda s: s.arena.n_bytes, NotABlock),
    Wrong("behind the arena", lambda s: s.arena.n_bytes + s.live, NotABlock),
    Wrong("address of live", lambda s: s.arena.address(s.live), NotABlock),
]
TABLES = [
    Wrong("superblock", 0, NotABlock),
    Wrong("in the superblock", 16, NotABlock),
    Wrong("directory", 1024, NotABlock),
    Wrong("frame table", 1024 + 6 * 64, NotABlock),
    Wrong("last table byte", lambda s: s.arena.first_page * PAGE - 1, NotABlock),
]
BLOCK = [
    *NO_OFFSET,
    *TABLES,
    Wrong("freed twice", lambda s: s.freed, DoubleFree),
    Wrong("freed, as numpy integer", lambda s: np.uint64(s.freed), DoubleFree),
    Wrong("freed, by __index__", lambda s: Index(s.freed), DoubleFree),
    Wrong("never allocated", lambda s: s.never, DoubleFree),
    Wrong("in a page never allocated", lambda s: s.never + 160, DoubleFree),
    Wrong("freed page run", lambda s: s.run_freed, DoubleFree),
    Wrong("interior", lambda s: s.live + 16, NotABlock),
    Wrong("interior of the last bytes", lambda s: s.right + 384, NotABlock),
    Wrong("misaligned by 1", lambda s: s.live + 1, NotABlock),
    Wrong("misaligned by 8", lambda s: s.live + 8, NotABlock),
    Wrong("header", lambda s: s.live - 8, NotABlock),
    Wrong("interior of aligned", lambda s: s.aligned + 32, NotABlock),
    Wrong("interior of whole pages", lambda s: s.whole + 16, NotABlock),
    Wrong("second of whole pages", lambda s: s.whole + PAGE, NotABlock),
    Wrong("misaligned whole pages", lambda s: s.whole + 1, NotABlock),
    Wrong("another pool's", lambda s: s.other_live, MismatchedFree),
    Wrong("another pool's interior", lambda s: s.other_live + 16, MismatchedFree),
    Wrong("another pool's freed", lambda s: s.other_freed, MismatchedFree),
    Wrong("another engine's", lambda s: s.alien_live, MismatchedFree),
    Wrong("another engine's pages", lambda s: s.alien_whole, MismatchedFree),
    Wrong("page run", lambda s: s.run, MismatchedFree),
    Wrong("exact page run", lambda s: s.run_exact, MismatchedFree),
    Wrong("interior of a page run", lambda s: s.run + PAGE + 16, MismatchedFree),
    Wrong("misaligned in a page run", lambda s: s.run + 1, MismatchedFree),
    Wrong("control block", lambda s: s.control, NotABlock),
    Wrong("in the control block", lambda s: s.control + 64, NotABlock),
    Wrong("another's control block", lambda s: s.other_control, NotABlock),
]
RUN = [
    *NO_OFFSET,
    *TABLES,
    Wrong("freed twice", lambda s: s.run_freed, DoubleFree),
    Wrong("in a freed run", lambda s: s.run_freed + 16, DoubleFree),
    Wrong("never allocated", lambda s: s.never, DoubleFree),
    Wrong("second page", lambda s: s.run + PAGE, NotABlock),
    Wrong("third page", lambda s: s.run_exact + 2 * PAGE, NotABlock),
    Wrong("misaligned by 1", lambda s: s.run + 1, NotABlock),
    Wrong("misaligned by 16", lambda s: s.run + 16, NotABlock),
    Wrong("a pool's block", lambda s: s.live, MismatchedFree),
    Wrong("a pool's freed block", lambda s: s.freed, MismatchedFree),
    Wrong("a pool's region", lambda s: s.region, MismatchedFree),
    Wrong("a pool's whole pages", lambda s: s.whole, MismatchedFree),
    Wrong("another engine's", lambda s: s.alien_live, MismatchedFree),
    Wrong("control block", lambda s: s.control, MismatchedFree),
    Wrong("in the control block", lambda s: s.control + 64, MismatchedFree),
]
SIZE = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, OutOfMemory),
    Wrong("the whole arena", lambda s: s.arena.n_bytes, OutOfMemory),
    Wrong("2**44", 1 << 44, OutOfMemory),
    Wrong("more than max_pages", 60 * PAGE, OutOfMemory),
]
ALIGN = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("3", 3, BadArgument),
    Wrong("24", 24, BadArgument),
    Wrong("4097", 4097, BadArgument),
    Wrong("twice max_align", lambda s: 2 * s.arena.max_align, BadArgument),
    Wrong("2**62", 1 << 62, BadArgument),
]
#: Bytes of a view; None means all of them.
ROOM = [
    *NOT_NONE,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("the whole arena", lambda s: s.arena.n_bytes, BadArgument),
]
POOL_ROOM = [
    *ROOM,
    Wrong("one too many", lambda s: s.pool.usable_size(s.live) + 1, BadArgument),
]
RUN_ROOM = [*ROOM, Wrong("one too many", 2 * PAGE + 1, BadArgument)]
ORDER = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, OutOfMemory),
    Wrong("max_order", lambda s: s.arena.max_order, OutOfMemory),
    Wrong("32", 32, OutOfMemory),
    Wrong("33", 33, OutOfMemory),
    Wrong("64", 64, OutOfMemory),
    Wrong("free order + 1", lambda s: s.arena.largest_free_order + 1, OutOfMemory),
]
N_PAGES = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, OutOfMemory),
    Wrong("0", 0, BadArgument),
    Wrong("all pages", lambda s: s.arena.n_pages, OutOfMemory),
    Wrong("2**32", 1 << 32, OutOfMemory),
    Wrong("2**32 + 1", (1 << 32) + 1, OutOfMemory),
]
N_BLOCKS = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    Wrong("0", 0, BadArgument),
]
ROOT = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("end of the arena", lambda s: s.arena.n_bytes, BadArgument),
]
#: More pages than there are is no error: `reserve` takes what it gets.
RESERVE = [*NO_INTEGER, *rows(NEGATIVE, BadArgument)]
GROW = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("all pages and one", lambda s: s.arena.n_pages + 1, BadArgument),
]
#: None is a pool's own way.
GROW_OR_NOT = [wrong for wrong in GROW if wrong.label != "None"]
QUICK = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("256", 256, BadArgument),
]
QUICK_BYTES = [*NO_INTEGER, *rows(NEGATIVE, BadArgument)]
#: None is no limit, and one above the arena's is none either.
LIMIT = [*NOT_NONE, *rows(NEGATIVE, BadArgument), Wrong("0", 0, BadArgument)]
ARENA_SIZE = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("1", 1, BadArgument),
    Wrong("no more than the tables", PAGE, BadArgument),
    Wrong("2**44 + 1", (1 << 44) + 1, BadArgument),
]
PAGE_SIZE = [
    *NOT_NONE,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("2048", 2048, BadArgument),
    Wrong("4097", 4097, BadArgument),
    Wrong("12288", 12288, BadArgument),
    Wrong("2**22", 1 << 22, BadArgument),
    Wrong("2**32 + 4096", (1 << 32) + 4096, BadArgument),
    Wrong("larger than the arena", 1 << 20, BadArgument),
]
MAX_POOLS = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("32768", 32768, BadArgument),
    Wrong("2**32 + 1", (1 << 32) + 1, BadArgument),
    Wrong("larger than the arena", 32767, BadArgument),
]
NOT_TEXT = {
    label: NOT_INTEGERS[label] for label in ("None", "float", "nan", "list", "object")
}
PATH = [
    *rows(NOT_TEXT, BadArgumentType),
    *rows({"-1": -1, "0": 0, "2**64": 1 << 64, "10**30": 10**30}, BadArgumentType),
    Wrong("NUL", "a\0b", BadArgument),
    Wrong("NUL in bytes", b"a\0b", BadArgument),
    Wrong("half a character", "\ud900", BadArgument),
    Wrong("empty", "", FileNotFoundError),
    Wrong("no such folder", "no/such/folder", FileNotFoundError),
]
NAME = [
    *rows(NOT_TEXT, BadArgumentType),
    *rows({"bytes": b"mine", "-1": -1, "10**30": 10**30}, BadArgumentType),
    Wrong("empty", "", BadArgument),
    Wrong("NUL", "a\0b", BadArgument),
    Wrong("41 bytes", "x" * 41, BadArgument),
    Wrong("41 bytes of UTF-8", "x" + "\u20ac" * 13 + "xx", BadArgument),
    Wrong("very long", "x" * 10**6, BadArgument),
    Wrong("half a character", "\ud900", BadArgument),
]
NEW_NAME = [
    *without(NAME, "None"),
    Wrong("taken", "mine", BadArgument),
    Wrong("taken by another engine", "alien", BadArgument),
]
OLD_NAME = [
    *NAME,
    Wrong("absent", "nobody's", BadArgument),
    Wrong("of another case", "Mine", BadArgument),
    Wrong("prefix", "min", BadArgument),
]
ENGINE = [
    *rows(NOT_TEXT, BadArgumentType),
    *rows({"bytes": b"tlsf", "1": 1, "-1": -1}, BadArgumentType),
    Wrong("empty", "", BadArgument),
    Wrong("unknown", "TLSF", BadArgument),
    Wrong("NUL", "tlsf\0", BadArgument),
]
ARENA = [
    *rows(NOT_INTEGERS, BadArgumentType),
    Wrong("-1", -1, BadArgumentType),
    Wrong("a pool", lambda s: s.pool, BadArgumentType),
    Wrong("the class", lambda s: Arena, BadArgumentType),
    Wrong("never initialised", lambda s: Arena.__new__(Arena), ArenaClosed),
]
HOOK = [
    *rows(
        {
            label: NOT_INTEGERS[label]
            for label in ("str", "float", "nan", "bytes", "list", "object", "array")
        },
        BadArgumentType,
    ),
    Wrong("-1", -1, BadArgumentType),
    Wrong("only one", None, BadArgument),
]


# The calls -------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A public call: how to make it, its good arguments, what each refuses."""

    make: Callable[..., Any]
    good: tuple[Any, ...] = ()
    wrong: tuple[list[Wrong], ...] = ()
    engines: tuple[str, ...] = ENGINES

    def arguments(self, scene: Scene) -> list[Any]:
        return [value(scene) if callable(value) else value for value in self.good]


def live(scene: Scene) -> int:
    return scene.live


def run(scene: Scene) -> int:
    return scene.run


def arena_of(scene: Scene) -> Arena:
    return scene.arena


def hook(*_: int) -> None:
    """A function for get_mem and put_mem that does nothing."""


def set_root(scene: Scene, offset: Any) -> None:
    scene.arena.root = offset


def anonymous(_: Scene, n: Any, page_size: Any, max_pools: Any) -> Arena:
    return Arena.anonymous(n, page_size=page_size, max_pools=max_pools)


def create(_: Scene, path: Any, n: Any, page_size: Any, max_pools: Any) -> Arena:
    """Create an arena's file; whatever happens, none is left."""
    fresh = Path("fresh")
    try:
        return Arena.create(path, n, page_size=page_size, max_pools=max_pools)
    except BaseException:
        assert not fresh.exists()
        raise
    finally:
        fresh.unlink(missing_ok=True)


def make_pool(
    _: Scene, arena: Any, name: Any, engine: Any, grow: Any, most: Any
) -> Pool:
    return Pool(arena, name=name, engine=engine, grow_pages=grow, max_pages=most)


def make_quick(_: Scene, arena: Any, quick: Any, quick_bytes: Any) -> Pool:
    return Pool(arena, quick=quick, quick_bytes=quick_bytes)


def make_hooked(_: Scene, arena: Any, get_mem: Any, put_mem: Any) -> Pool:
    return Pool(arena, get_mem=get_mem, put_mem=put_mem)


def open_pool(_: Scene, arena: Any, name: Any, get_mem: Any, put_mem: Any) -> Pool:
    return Pool.open(arena, name, get_mem=get_mem, put_mem=put_mem)


PAGES_MADE = (60 * PAGE, None, 6)

#: Every public call, by the class and the name it is found under. A name with
#: a remark in brackets is a second way to call the same.
CALLS: dict[str, Call] = {
    "Arena.__init__": Call(lambda s: Arena.__init__(s.arena)),
    "Arena.anonymous": Call(anonymous, PAGES_MADE, (ARENA_SIZE, PAGE_SIZE, MAX_POOLS)),
    "Arena.create": Call(
        create, ("fresh", *PAGES_MADE), (PATH, ARENA_SIZE, PAGE_SIZE, MAX_POOLS)
    ),
    "Arena.open": Call(lambda s, path: Arena.open(path), ("old",), (PATH,)),
    "Arena.close": Call(lambda s: s.arena.close()),
    "Arena.__enter__": Call(lambda s: s.arena.__enter__()),
    "Arena.__exit__": Call(lambda s: s.arena.__exit__(None, None, None)),
    "Arena.__reduce__": Call(lambda s: s.arena.__reduce__()),
    "Arena.__repr__": Call(lambda s: repr(s.arena)),
    "Arena.__del__": Call(lambda s: s.arena.__del__()),
    "Arena.root": Call(set_root, (live,), (ROOT,)),
    "Arena.page_alloc": Call(lambda s, k: s.arena.page_alloc(k), (1,), (ORDER,)),
    "Arena.page_alloc_exact": Call(
        lambda s, n: s.arena.page_alloc_exact(n), (3,), (N_PAGES,)
    ),
    "Arena.page_free": Call(lambda s, o: s.arena.page_free(o), (run,), (RUN,)),
    "Arena.run_pages": Call(lambda s, o: s.arena.run_pages(o), (run,), (RUN,)),
    "Arena.view": Call(lambda s, o, n: s.arena.view(o, n), (run, 100), (RUN, RUN_ROOM)),
    "Arena.address": Call(lambda s, o: s.arena.address(o), (live,), (NO_OFFSET,)),
    "Arena.pools": Call(lambda s: s.arena.pools()),
    "Arena.frames": Call(lambda s: s.arena.frames()),
    "Arena.check": Call(lambda s: s.arena.check()),
    "Arena.sync": Call(lambda s: s.arena.sync()),
    "Arena.trim": Call(lambda s: s.arena.trim()),
    "Pool.__init__": Call(
        make_pool,
        (arena_of, "new", "tlsf", 2, 20),
        (ARENA, NEW_NAME, ENGINE, GROW_OR_NOT, LIMIT),
    ),
    "Pool.__init__ (quick)": Call(
        make_quick, (arena_of, 2, 2000), (ARENA, QUICK, QUICK_BYTES)
    ),
    "Pool.__init__ (legacy)": Call(
        make_pool,
        (arena_of, "new", "firstfit", 2, 20),
        (ARENA, NEW_NAME, ENGINE, GROW_OR_NOT, LIMIT),
    ),
    "Pool.__init__ (hooked)": Call(
        make_hooked, (arena_of, lambda s: hook, lambda s: hook), (ARENA, HOOK, HOOK)
    ),
    "Pool.open": Call(
        lambda s, a, n: Pool.open(a, n), (arena_of, "mine"), (ARENA, OLD_NAME)
    ),
    "Pool.open (hooked)": Call(
        open_pool,
        (arena_of, "mine", lambda s: hook, lambda s: hook),
        (ARENA, OLD_NAME, HOOK, HOOK),
        engines=("tlsf",),
    ),
    "Pool.__reduce__": Call(lambda s: s.pool.__reduce__()),
    "Pool.__repr__": Call(lambda s: repr(s.pool)),
    "Pool.xmalloc": Call(
        lambda s, n, align: s.pool.xmalloc(n, align=align), (100, 32), (SIZE, ALIGN)
    ),
    "Pool.xmalloc (positional)": Call(
        lambda s, n, align: s.pool.xmalloc(n, align), (100, 32), (SIZE, ALIGN)
    ),
    "Pool.xzalloc": Call(
        lambda s, n, align: s.pool.xzalloc(n, align=align), (100, 32), (SIZE, ALIGN)
    ),
    "Pool.xrealloc": Call(
        lambda s, o, n, align: s.pool.xrealloc(o, n, align=align),
        (live, 5000, 32),
        (BLOCK, SIZE, ALIGN),
    ),
    "Pool.xrealloc (shrinking)": Call(
        lambda s, o, n: s.pool.xrealloc(o, n), (live, 10), (BLOCK, SIZE)
    ),
    "Pool.xfree": Call(lambda s, o: s.pool.xfree(o), (live,), (BLOCK,)),
    "Pool.xmalloc_many": Call(
        lambda s, n, align: s.pool.xmalloc_many([n, 24], align=align),
        (100, 32),
        (SIZE, ALIGN),
    ),
    "Pool.xfree_many": Call(lambda s, o: s.pool.xfree_many([o]), (live,), (BLOCK,)),
    "Pool.usable_size": Call(lambda s, o: s.pool.usable_size(o), (live,), (BLOCK,)),
    "Pool.view": Call(
        lambda s, o, n: s.pool.view(o, n), (live, 100), (BLOCK, POOL_ROOM)
    ),
    "Pool.reserve": Call(
        lambda s, n: s.pool.reserve(n), (3,), (RESERVE,), engines=("tlsf",)
    ),
    "Pool.shrink": Call(lambda s: s.pool.shrink()),
    "Pool.destroy": Call(lambda s: s.pool.destroy(force=True)),
    "Pool.check": Call(lambda s: s.pool.check()),
    "Pool.check_step": Call(lambda s, n: s.pool.check_step(n), (7,), (N_BLOCKS,)),
    "Pool.stats": Call(lambda s: s.pool.stats()),
    "Pool.walk": Call(lambda s: s.pool.walk()),
}

#: Calls on an object that say nothing about whether its arena is open.
INDIFFERENT = {
    "Arena.__init__",
    "Arena.anonymous",
    "Arena.create",
    "Arena.open",
    "Arena.close",
    "Arena.__exit__",
    "Arena.__reduce__",
    "Arena.__repr__",
    "Arena.__del__",
    "Pool.__reduce__",
    "Pool.__repr__",
}
READ_ONLY = {
    Arena: {
        "closed",
        "first_page",
        "largest_free_order",
        "max_align",
        "max_order",
        "n_bytes",
        "n_free_pages",
        "n_pages",
        "page_size",
        "path",
    },
    Pool: {
        "closed",
        "engine",
        "quick",
        "quick_bytes",
        "grow_pages",
        "hardening",
        "id",
        "join_regions",
        "max_pages",
        "maxalloc",
        "name",
        "total_size",
        "used_size",
    },
}
#: Answered by a closed arena and its pools as well.
ALWAYS_KNOWN = {"closed", "path", "arena", "name", "id"}


def cases() -> Iterator[Any]:
    """Call, place of the wrong argument, wrong argument, engine."""
    for name, call in CALLS.items():
        for place, table in enumerate(call.wrong):
            for wrong in table:
                for engine in call.engines:
                    yield pytest.param(
                        call,
                        place,
                        wrong,
                        engine,
                        id=f"{name}-{place}-{wrong.label}-{engine}",
                    )


def calls(keep: Callable[[str], bool] = lambda name: True) -> list[Any]:
    """Name of a call and an engine, for the calls to ``keep``."""
    return [
        pytest.param(name, engine, id=f"{name}-{engine}")
        for name, call in CALLS.items()
        for engine in call.engines
        if keep(name)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(
    scene: Scene, error: type[BaseException], call: Callable[[], object]
) -> BaseException:
    """The exception of exactly class ``error``; nothing has changed."""
    before = scene.snapshot()
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error, caught.value
    assert scene.snapshot() == before
    scene.check()
    return caught.value


@pytest.mark.parametrize(("call", "place", "wrong", "engine"), [*cases()])
def test_wrong_argument_is_refused_and_changes_nothing(
    call: Call, place: int, wrong: Wrong, engine: str, folder: Path
) -> None:
    scene = Scene(engine)
    arguments = call.arguments(scene)
    arguments[place] = wrong.in_scene(scene)
    error = refused(scene, wrong.error, lambda: call.make(scene, *arguments))
    assert str(error)
    assert list(folder.iterdir()) == []
    scene.arena.close()  # no view was left behind


@pytest.mark.parametrize(("name", "engine"), calls())
def test_good_arguments_are_taken(name: str, engine: str, folder: Path) -> None:
    """The rows above are refused for their one wrong argument, nothing else."""
    call = CALLS[name]
    Arena.create("old", ARENA_BYTES).close()
    scene = Scene(engine)
    if name in ("Arena.__init__", "Arena.__reduce__", "Pool.__reduce__"):
        refused(
            scene,
            BadArgumentType,
            lambda: call.make(scene, *call.arguments(scene)),
        )
    else:
        call.make(scene, *call.arguments(scene))


def test_table_is_complete() -> None:
    """Every name of both classes that is public, or called by Python, has its row."""
    unseen = {"__new__", "__doc__", "__module__", "__pyx_vtable__", "_pool_name"}
    for kind in (Arena, Pool):
        names = set(vars(kind)) - unseen
        rows_of = {
            key.split(".")[1].split(" ")[0]
            for key in CALLS
            if key.startswith(kind.__name__ + ".")
        }
        missing = names - rows_of - READ_ONLY[kind]
        assert not missing, f"{kind.__name__} without a row: {sorted(missing)}"
        gone = (rows_of | READ_ONLY[kind]) - names
        assert not gone, f"rows of {kind.__name__} for nothing: {sorted(gone)}"
        assert not rows_of & READ_ONLY[kind]


def test_every_parameter_has_its_table() -> None:
    for name, call in CALLS.items():
        assert len(call.good) == len(call.wrong), name


@pytest.mark.parametrize(
    ("name", "engine"), calls(lambda name: "(" not in name and name != "Arena.root")
)
def test_wrong_number_of_arguments(name: str, engine: str) -> None:
    kind = {"Arena": Arena, "Pool": Pool}[name.split(".")[0]]
    attribute = name.split(".")[1]
    scene = Scene(engine)
    owner = scene.arena if kind is Arena else scene.pool
    method = getattr(owner, attribute)
    if attribute != "__exit__":
        refused(scene, TypeError, lambda: method(*[16] * 9))
    if attribute not in ("__repr__", "__del__"):
        refused(scene, TypeError, lambda: method(no_such_keyword=16))
    n_required = len(CALLS[name].good)
    if n_required and attribute != "__init__":
        refused(scene, TypeError, lambda: method())


@pytest.mark.parametrize("kind", [Arena, Pool])
def test_properties_are_read_only(kind: type) -> None:
    scene = Scene("tlsf")
    owner = scene.arena if kind is Arena else scene.pool
    for name in sorted(READ_ONLY[kind]):
        value = getattr(owner, name)
        for wrong in (0, -1, 1 << 64, None, value):
            refused(
                scene,
                AttributeError,
                lambda n=name, w=wrong: setattr(owner, n, w),
            )
        assert getattr(owner, name) == value
    with pytest.raises(AttributeError):
        owner.no_such_attribute = 1


# Wrong moments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "engine"), calls(lambda name: name not in INDIFFERENT)
)
def test_closed_arena_refuses_every_call(name: str, engine: str) -> None:
    call = CALLS[name]
    scene = Scene(engine)
    arguments = call.arguments(scene)
    scene.arena.close()
    with pytest.raises(ArenaClosed) as caught:
        call.make(scene, *arguments)
    assert type(caught.value) is ArenaClosed


@pytest.mark.parametrize("engine", ENGINES)
def test_closed_arena_refuses_every_property(engine: str) -> None:
    scene = Scene(engine)
    scene.arena.close()
    for owner in (scene.arena, scene.pool):
        for name in {*READ_ONLY[type(owner)], "root"} - ALWAYS_KNOWN:
            if hasattr(type(owner), name):
                with pytest.raises(ArenaClosed):
                    getattr(owner, name)
        assert owner.closed
        assert "closed" in repr(owner)


@pytest.mark.parametrize("wrong", [w for w in BLOCK if w.error is BadArgumentType])
def test_closed_arena_and_wrong_type_is_still_a_typed_error(wrong: Wrong) -> None:
    scene = Scene("tlsf")
    value = wrong.in_scene(scene)
    scene.arena.close()
    with pytest.raises(XmemError):
        scene.pool.xfree(value)


@pytest.mark.parametrize("name", [n for n in CALLS if n not in INDIFFERENT])
def test_object_that_was_never_initialised(name: str) -> None:
    call = CALLS[name]
    scene = Scene("tlsf")
    arguments = call.arguments(scene)
    bare = copy.copy(vars(scene))
    hollow = Scene.__new__(Scene)
    vars(hollow).update(bare)
    hollow.arena = Arena.__new__(Arena)
    hollow.pool = Pool.__new__(Pool)
    if name.startswith("Arena."):
        refused(scene, ArenaClosed, lambda: call.make(hollow, *arguments))
    elif name.startswith(("Pool.__init__", "Pool.open")):
        arguments[0] = hollow.arena
        refused(scene, ArenaClosed, lambda: call.make(hollow, *arguments))
    else:
        refused(scene, BadArgument, lambda: call.make(hollow, *arguments))


def test_properties_of_objects_never_initialised() -> None:
    arena = Arena.__new__(Arena)
    pool = Pool.__new__(Pool)
    assert arena.closed
    assert arena.path is None
    assert pool.closed
    assert pool.arena is None
    assert pool.name is None
    assert "closed" in repr(arena)
    assert "closed" in repr(pool)
    for name in READ_ONLY[Arena] - ALWAYS_KNOWN:
        with pytest.raises(ArenaClosed):
            getattr(arena, name)
    for name in READ_ONLY[Pool] - ALWAYS_KNOWN:
        with pytest.raises(BadArgument):
            getattr(pool, name)
    arena.close()
    del arena, pool
    gc.collect()


@pytest.mark.parametrize(
    ("name", "engine"),
    calls(
        lambda name: (
            name.startswith("Pool.")
            and not name.startswith(("Pool.__init__", "Pool.open"))
            and name not in INDIFFERENT
        )
    ),
)
def test_destroyed_pool_refuses_every_call(name: str, engine: str) -> None:
    call = CALLS[name]
    scene = Scene(engine)
    arguments = call.arguments(scene)
    gone = scene.pool
    gone.destroy(force=True)
    assert gone.closed
    # A pool that takes its number and its name is not the one that is gone.
    scene.pool = Pool(scene.arena, name="mine", engine=engine)
    assert scene.pool.id == gone.id
    for _ in range(2):
        scene.pool.xmalloc(300)
    hollow = Scene.__new__(Scene)
    vars(hollow).update(vars(scene))
    hollow.pool = gone
    refused(scene, PoolDestroyed, lambda: call.make(hollow, *arguments))
    for attribute in READ_ONLY[Pool] - ALWAYS_KNOWN:
        with pytest.raises(PoolDestroyed):
            getattr(gone, attribute)


@pytest.mark.parametrize("engine", ENGINES)
def test_viewed_memory_is_neither_freed_nor_moved(engine: str) -> None:
    scene = Scene(engine)
    view = scene.pool.view(scene.live)
    run_view = scene.arena.view(scene.run)
    pool, arena = scene.pool, scene.arena
    for call in (
        lambda: pool.xfree(scene.live),
        lambda: pool.xrealloc(scene.live, 5000),
        lambda: pool.xrealloc(scene.live, 10),
        lambda: pool.xrealloc(scene.live, 300),
        lambda: pool.destroy(force=True),
        lambda: arena.page_free(scene.run),
        lambda: arena.close(),
        lambda: arena.__exit__(None, None, None),
    ):
        refused(scene, BufferError, call)
    view.release()
    run_view.release()
    pool.xfree(scene.live)
    arena.page_free(scene.run)
    arena.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_pool_in_use_is_not_destroyed(engine: str) -> None:
    scene = Scene(engine)
    error = refused(scene, PoolInUse, scene.pool.destroy)
    assert isinstance(error, PoolInUse)
    assert scene.live in error.live["offset"]


@pytest.mark.parametrize("engine", ENGINES)
def test_pool_is_initialised_once(engine: str) -> None:
    scene = Scene(engine)
    refused(scene, BadArgument, lambda: scene.pool.__init__(scene.arena))
    refused(scene, BadArgument, lambda: scene.pool.__init__(None))


def test_firstfit_reserves_nothing() -> None:
    scene = Scene("firstfit")
    for n_pages in (0, 1, 1 << 64):
        refused(scene, BadArgument, lambda n=n_pages: scene.pool.reserve(n))
    refused(
        scene,
        BadArgument,
        lambda: Pool(scene.arena, engine="firstfit", get_mem=hook, put_mem=hook),
    )
    refused(
        scene,
        BadArgument,
        lambda: Pool.open(scene.arena, "mine", get_mem=hook, put_mem=hook),
    )


def test_too_many_pools() -> None:
    scene = Scene("tlsf")
    extra = [Pool(scene.arena) for _ in range(3)]
    error = refused(scene, OutOfMemory, lambda: Pool(scene.arena))
    assert "max_pools" in str(error)
    extra[1].destroy()
    assert Pool(scene.arena).id == extra[1].id


def test_pool_without_room_for_its_control_block() -> None:
    scene = Scene("tlsf")
    taken = []
    while scene.arena.n_free_pages:
        taken.append(scene.arena.page_alloc(0))
    refused(scene, OutOfMemory, lambda: Pool(scene.arena))
    scene.arena.page_free(taken.pop())
    Pool(scene.arena)


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_and_pickles_are_refused(engine: str) -> None:
    scene = Scene(engine)
    for thing in (scene.arena, scene.pool):
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            refused(scene, BadArgumentType, lambda d=duplicate, t=thing: d(t))


def test_exporter_made_by_hand_exports_nothing() -> None:
    scene = Scene("tlsf")
    exporter = type(scene.pool.view(scene.live).obj)()
    refused(scene, BufferError, lambda: memoryview(exporter))


def test_exporter_is_not_copied() -> None:
    """The copy would not be counted, and the memory could go under a view."""
    scene = Scene("tlsf")
    for view in (scene.pool.view(scene.live), scene.arena.view(scene.run)):
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            refused(scene, BadArgumentType, lambda d=duplicate, v=view: d(v.obj))
        refused(scene, BufferError, scene.arena.close)


def test_files_that_are_no_arena(folder: Path) -> None:
    scene = Scene("tlsf")
    Path("empty").touch()
    Path("text").write_text("not an arena\n" * 1000)
    refused(scene, ArenaFormatError, lambda: Arena.open("empty"))
    refused(scene, ArenaFormatError, lambda: Arena.open("text"))
    refused(scene, ArenaFormatError, lambda: Arena.open("/dev/null"))
    refused(scene, IsADirectoryError, lambda: Arena.open(folder))
    refused(scene, FileExistsError, lambda: Arena.create("text", ARENA_BYTES))
    refused(scene, FileExistsError, lambda: Arena.create(folder, ARENA_BYTES))
    with Arena.create("held", ARENA_BYTES):
        refused(scene, ArenaInUse, lambda: Arena.open("held"))


# What get_mem may answer -----------------------------------------------------


HOOK_ANSWERS = [
    *without(NO_INTEGER, "None"),
    *rows(TOO_LARGE, NotABlock),
    *rows(NEGATIVE, NotABlock),
    *TABLES,
    Wrong("never allocated", lambda s: s.never, DoubleFree),
    Wrong("misaligned", lambda s: s.run + 16, NotABlock),
    Wrong("second page", lambda s: s.run + PAGE, NotABlock),
    Wrong("a pool's block", lambda s: s.live, MismatchedFree),
    Wrong("a pool's region", lambda s: s.region, MismatchedFree),
    Wrong("control block", lambda s: s.control, MismatchedFree),
    Wrong("too few pages", lambda s: s.run, BadArgument),
    Wrong("None", lambda s: None, OutOfMemory),
]


@pytest.mark.parametrize("wrong", HOOK_ANSWERS, ids=lambda wrong: wrong.label)
def test_get_mem_that_answers_wrongly(wrong: Wrong) -> None:
    scene = Scene("tlsf")
    answer = wrong.in_scene(scene)
    hooked = Pool(
        scene.arena, grow_pages=4, get_mem=lambda n_pages: answer, put_mem=hook
    )
    for ask in (
        lambda: hooked.xmalloc(100),
        lambda: hooked.xzalloc(100, align=256),
    ):
        refused(scene, wrong.error, ask)
    assert hooked.stats().n_pages == 0
    hooked.check()


def test_get_mem_that_raises_or_gives_more_than_the_limit() -> None:
    scene = Scene("tlsf")

    def fail(n_pages: int) -> int:
        raise LookupError("mine")

    hooked = Pool(scene.arena, get_mem=fail, put_mem=hook)
    refused(scene, LookupError, lambda: hooked.xmalloc(100))
    limited = Pool(
        scene.arena, max_pages=1, get_mem=lambda n_pages: scene.run, put_mem=hook
    )
    refused(scene, BadArgument, lambda: limited.xmalloc(100))
    view = scene.arena.view(scene.run)
    viewed = Pool(
        scene.arena,
        grow_pages=2,
        get_mem=lambda n_pages: scene.run,
        put_mem=hook,
    )
    refused(scene, BufferError, lambda: viewed.xmalloc(100))
    view.release()
    assert viewed.xmalloc(100) - scene.run in range(2 * PAGE)
