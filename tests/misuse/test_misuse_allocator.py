# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments and wrong moments for blocks, arrays and numpy_memory.

As in test_misuse.py: a table says what each parameter refuses. After each value
every byte of the arena is as it was, and nothing is left alive.
"""

import contextlib
import copy
import ctypes
import pickle

import numpy as np
import pytest
from support.wrong import ALIGN, NEGATIVE, NO_INTEGER, TOO_LARGE, Wrong, rows

from xmem import (
    Allocator,
    Arena,
    ArenaClosed,
    BadArgument,
    BadArgumentType,
    Block,
    Heap,
    NotABlock,
    OutOfMemory,
    Pool,
    PoolDestroyed,
    numpy_memory,
)
from xmem.allocator import BlockExport

MAKERS = {
    "tlsf": lambda arena: Pool(arena),
    "firstfit": lambda arena: Pool(arena, engine="firstfit"),
    "hardened": lambda arena: Pool(arena, hardened=True),
    "merged": lambda arena: Heap(arena, "merged"),
}


class Scene:
    """An allocator with a block, an array, and a block without owner."""

    def __init__(self, kind):
        self.arena = Arena.anonymous(256 << 10, page_size=4096)
        self.allocator = MAKERS[kind](self.arena)
        self.block = self.allocator.block(300)
        self.block.view()[:] = bytes(range(100)) * 3
        self.array = self.allocator.array(np.arange(30.0))
        self.live = self.allocator.xmalloc(200)
        self.manager = numpy_memory(self.allocator)

    def snapshot(self):
        return (
            self.allocator.stats(),
            repr(self.block),
            self.array.tobytes(),
            ctypes.string_at(self.arena.address(0), self.arena.n_bytes),
        )

    def check(self):
        self.allocator.check()

    def close(self):
        del self.array, self.manager
        self.arena.close()


SIZE = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, OutOfMemory),
    Wrong("more than the arena", 1 << 44, OutOfMemory),
]
SHAPE = [
    *[
        wrong
        for wrong in NO_INTEGER
        if wrong.label not in ("list", "tuple", "dict", "bytes", "array")
    ],
    Wrong("text in a tuple", ("5",), BadArgumentType),
    Wrong("None in a tuple", (3, None), BadArgumentType),
    Wrong("float in a list", [1.5], BadArgumentType),
    Wrong("nested", ((2, 3), 4), BadArgumentType),
    Wrong("generator", lambda s: iter([2, 3]), BadArgumentType),
    Wrong("-1", -1, BadArgument),
    Wrong("-1 in a tuple", (2, -1), BadArgument),
    Wrong("2**64", 1 << 64, BadArgument),
    Wrong("2**62", (1 << 62,), BadArgument),
    Wrong("overflow", (1 << 32, 1 << 32), BadArgument),
    Wrong("overflow but for a zero", (1 << 40, 1 << 40, 0), BadArgument),
    Wrong("65 axes", (1,) * 65, BadArgument),
    Wrong("more than the arena", 1 << 30, OutOfMemory),
]
DTYPE = [
    Wrong("no name", "nope", BadArgumentType),
    Wrong("integer", 5, BadArgumentType),
    Wrong("object", lambda s: object, BadArgument),
    Wrong("objects inside", [("a", "O")], BadArgument),
    Wrong("no size", "S", BadArgument),
    Wrong("negative size", "S-1", BadArgumentType),
    Wrong("bad list", [1, 2], BadArgumentType),
    Wrong("names twice", [("a", "i4"), ("a", "i4")], BadArgument),
    Wrong("subarray overflow", "(2147483647,2147483647)f8", (BadArgument, OutOfMemory)),
]
ORDER = [
    Wrong("K", "K", BadArgument),
    Wrong("lower case", "c", BadArgument),
    Wrong("empty", "", BadArgument),
    Wrong("None", lambda s: None, BadArgumentType),
    Wrong("bytes", b"C", BadArgumentType),
    Wrong("integer", 0, BadArgumentType),
]
COPY_ORDER = [*ORDER[1:], Wrong("X", "X", BadArgument)]
OFFSET = [
    *NO_INTEGER,
    *rows(NEGATIVE, NotABlock),
    *rows(TOO_LARGE, NotABlock),
    Wrong("inside", lambda s: s.live + 16, NotABlock),
    Wrong("misaligned", lambda s: s.live + 1, NotABlock),
    Wrong("tables", 0, NotABlock),
]
NO_ARRAY = [
    Wrong("None", lambda s: None, BadArgumentType),
    Wrong("list", [1, 2], BadArgumentType),
    Wrong("block", lambda s: s.block, BadArgumentType),
]
NO_POOL = [
    Wrong("None", lambda s: None, BadArgumentType),
    Wrong("arena", lambda s: s.arena, BadArgumentType),
    Wrong("class", lambda s: Pool, BadArgumentType),
]
NO_FLAG = [
    Wrong("None", lambda s: None, BadArgumentType),
    Wrong("text", "yes", BadArgumentType),
    Wrong("2", 2, BadArgumentType),
]


def make(name):
    return lambda s, shape, dtype, order, align: getattr(s.allocator, name)(
        shape, dtype, order, align=align
    )


MADE = ((3, 4), "f4", "C", 64), (SHAPE, DTYPE, ORDER, ALIGN)
#: Call, arguments that are right, tables of those that are wrong.
CALLS = {
    "Allocator.block": (
        lambda s, n, align: s.allocator.block(n, align),
        (50, 16),
        (SIZE, ALIGN),
    ),
    "Allocator.empty": (make("empty"), *MADE),
    "Allocator.zeros": (make("zeros"), *MADE),
    "Allocator.full": (
        lambda s, shape, dtype, order, align: s.allocator.full(
            shape, 5, dtype, order, align=align
        ),
        *MADE,
    ),
    "Allocator.array": (
        lambda s, dtype, order, align: s.allocator.array(
            [[1, 2], [3, 4]], dtype, order, align=align
        ),
        ("f4", "K", 64),
        (DTYPE[:1] + DTYPE[2:4], COPY_ORDER, ALIGN),
    ),
    "Allocator.copy_of": (
        lambda s, a, order, align: s.allocator.copy_of(a, order, align=align),
        (np.ones((3, 4)), "K", 64),
        (NO_ARRAY, COPY_ORDER, ALIGN),
    ),
    "Allocator.from_offset": (
        lambda s, offset, shape, dtype, order: s.allocator.from_offset(
            offset, shape, dtype, order
        ),
        (lambda s: s.live, (5, 5), "u1", "C"),
        (
            OFFSET,
            [w for w in SHAPE if w.error is not OutOfMemory]
            + [Wrong("more than there is", 1000, BadArgument)],
            DTYPE[:-1],
            ORDER,
        ),
    ),
    "Allocator.block_of": (
        lambda s, array: s.allocator.block_of(array),
        (lambda s: s.array,),
        (NO_ARRAY,),
    ),
    "Block.resize": (
        lambda s, n, align: s.block.resize(n, align),
        (100, 16),
        (SIZE, ALIGN),
    ),
    "Block.release": (lambda s: s.block.release(), (), ()),
    "Block.detach": (lambda s: s.block.detach(), (), ()),
    "Block.view": (lambda s: s.block.view(), (), ()),
    "Block.__enter__": (lambda s: s.block.__enter__(), (), ()),
    "Block.__exit__": (lambda s: s.block.__exit__(None, None, None), (), ()),
    "Block.__bool__": (lambda s: bool(s.block), (), ()),
    "Block.__len__": (lambda s: len(s.block), (), ()),
    "Block.__repr__": (lambda s: repr(s.block), (), ()),
    "Block.__eq__": (lambda s: s.block == b"x", (), ()),
    "Block.__ne__": (lambda s: s.block != b"x", (), ()),
    "Block.__lt__": (lambda s: s.block.__lt__(b"x"), (), ()),
    "Block.__le__": (lambda s: s.block.__le__(b"x"), (), ()),
    "Block.__gt__": (lambda s: s.block.__gt__(b"x"), (), ()),
    "Block.__ge__": (lambda s: s.block.__ge__(b"x"), (), ()),
    "numpy_memory.__init__": (
        lambda s, pool, align, fallback: numpy_memory(
            pool, align=align, fallback=fallback
        ),
        (lambda s: s.allocator, 64, False),
        (NO_POOL, ALIGN, NO_FLAG),
    ),
    "numpy_memory.__enter__": (lambda s: in_context(s.manager), (), ()),
    "numpy_memory.__repr__": (lambda s: repr(s.manager), (), ()),
}
#: They do not ask whether the memory is there.
INDIFFERENT = {
    "Block.release",
    "Block.__exit__",
    "Block.__repr__",
    "Block.__bool__",
    "Block.__len__",
    *(f"Block.__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    "numpy_memory.__repr__",
}
ELSEWHERE = {
    Allocator: {"arena", "__init__", "__reduce__"},
    Block: {
        *("allocator", "offset", "n_exports"),
        *("__init__", "__reduce__", "__hash__", "__buffer__", "__release_buffer__"),
    },
    numpy_memory: {"allocator", "fallback", "__reduce__", "__exit__"},
}


def in_context(manager):
    with manager:
        pass


def right(scene, values):
    return [value(scene) if callable(value) else value for value in values]


def parameters():
    """Name of a call, place of the wrong argument, kind of allocator."""
    for name, (_, _, tables) in CALLS.items():
        for place in range(len(tables)):
            for kind in MAKERS:
                yield pytest.param(name, place, kind, id=f"{name}-{place}-{kind}")


@pytest.mark.parametrize(("name", "place", "kind"), [*parameters()])
def test_wrong_arguments_are_refused_and_change_nothing(name, place, kind, refusals):
    call, good, tables = CALLS[name]

    def make(scene, value):
        arguments = right(scene, good)
        arguments[place] = value
        call(scene, *arguments)

    refusals.expect(lambda: Scene(kind), make, tables[place])


def test_no_refused_call_was_lost():
    """Each value was once a test of its own; this is how many there were."""
    tables = [table for _, _, tables in CALLS.values() for table in tables]
    assert len(MAKERS) * sum(map(len, tables)) >= 1020


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", CALLS)
def test_good_arguments_are_taken(name, kind):
    call, good, _ = CALLS[name]
    scene = Scene(kind)
    call(scene, *right(scene, good))
    scene.allocator.check()


def test_table_is_complete():
    unseen = {"__new__", "__doc__", "__module__", "__pyx_vtable__"}
    for kind, elsewhere in ELSEWHERE.items():
        names = set(vars(kind)) - unseen
        rows_of = {
            key.split(".")[1] for key in CALLS if key.startswith(kind.__name__ + ".")
        }
        assert names - rows_of - elsewhere == set()
        assert rows_of - names == set()
    for name, (_, good, tables) in CALLS.items():
        assert len(good) == len(tables), name


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", sorted(set(CALLS) - INDIFFERENT))
def test_closed_arena_refuses_every_call(name, kind):
    call, good, _ = CALLS[name]
    scene = Scene(kind)
    arguments = right(scene, good)
    if name == "Allocator.block_of":
        arguments = [np.zeros(3)]
    del scene.array
    scene.arena.close()
    with pytest.raises(ArenaClosed):
        call(scene, *arguments)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", sorted(set(CALLS) - INDIFFERENT))
def test_destroyed_pool_refuses_every_call(name, kind):
    call, good, _ = CALLS[name]
    scene = Scene(kind)
    arguments = right(scene, good)
    if name == "Allocator.block_of":
        arguments = [np.zeros(3)]
    del scene.array
    scene.allocator.destroy(force=True)
    with pytest.raises(PoolDestroyed):
        call(scene, *arguments)


@pytest.mark.parametrize("name", sorted(INDIFFERENT))
def test_what_needs_no_memory_goes_on_without_it(name):
    call, good, _ = CALLS[name]
    for end in (
        lambda scene: scene.arena.close(),
        lambda scene: scene.allocator.destroy(force=True),
    ):
        scene = Scene("tlsf")
        del scene.array
        end(scene)
        call(scene, *right(scene, good))


def test_attributes_are_read_only():
    scene = Scene("tlsf")
    for owner, names in (
        (scene.allocator, ["arena"]),
        (scene.block, ["allocator", "offset", "n_exports", "n_bytes"]),
        (scene.manager, ["allocator", "fallback", "capsule"]),
        (scene.array.base, ["block"]),
    ):
        for name in names:
            with pytest.raises(AttributeError):
                setattr(owner, name, 0)


def test_what_is_held_is_not_copied():
    scene = Scene("tlsf")
    for owner in (scene.block, scene.manager, scene.array.base):
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(BadArgumentType):
                duplicate(owner)


def test_a_manager_is_initialised_once_and_left_as_often_as_entered():
    scene = Scene("tlsf")
    with pytest.raises(BadArgument):
        scene.manager.__init__(scene.allocator)
    with pytest.raises(BadArgument):
        scene.manager.__exit__(None, None, None)
    empty = numpy_memory.__new__(numpy_memory)
    with pytest.raises(BadArgument):
        empty.__enter__()
    with pytest.raises(BadArgument):
        empty.__exit__(None, None, None)
    assert "None" in repr(empty)


def test_loans_are_made_by_arrays_only():
    with pytest.raises(BadArgumentType):
        BlockExport()
    with contextlib.suppress(AttributeError):
        BlockExport.__new__(BlockExport).block.release()
