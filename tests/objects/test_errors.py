# SPDX-License-Identifier: BSD-3-Clause
"""The exceptions: their hierarchy, what their messages say, and that they travel."""

import builtins
import contextlib
import copy
import ctypes
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import xmem
from xmem import (
    Arena,
    ArenaBusy,
    ArenaClosed,
    ArenaFormatError,
    ArenaInUse,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    HeapCorruption,
    InvalidFree,
    MismatchedFree,
    NotABlock,
    NotInInterface,
    OutOfMemory,
    PeerError,
    Pool,
    PoolDestroyed,
    PoolInUse,
    SizeLimitError,
    TooManyProcesses,
    TraceFormatError,
    XmemError,
)
from xmem.base import errors

PAGE = 4096
#: What a caller who knows nothing of xmem would catch.
BUILTIN = {
    ArenaBusy: TimeoutError,
    ArenaClosed: ValueError,
    ArenaFormatError: ValueError,
    ArenaInUse: OSError,
    BadArgument: ValueError,
    BadArgumentType: TypeError,
    DoubleFree: ValueError,
    HeapCorruption: RuntimeError,
    InvalidFree: ValueError,
    MismatchedFree: ValueError,
    NotABlock: ValueError,
    NotInInterface: AttributeError,
    OutOfMemory: MemoryError,
    PeerError: OSError,
    PoolDestroyed: ValueError,
    PoolInUse: RuntimeError,
    SizeLimitError: ValueError,
    TooManyProcesses: OSError,
    TraceFormatError: ValueError,
}
INVALID_FREES = (DoubleFree, MismatchedFree, NotABlock)


def classes() -> list[type]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]


# The hierarchy ---------------------------------------------------------------


def test_every_class_is_in_the_table() -> None:
    assert set(classes()) == {XmemError, *BUILTIN}


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.__name__)
def test_each_is_of_xmem_and_of_a_built_in_kind(kind: type) -> None:
    assert issubclass(kind, XmemError)
    assert issubclass(kind, BUILTIN[kind])
    # Of one built-in kind only: what catches another must not catch it.
    kinds = {
        base
        for base in kind.__mro__
        if base.__module__ == "builtins" and base.__name__ in dir(builtins)
    }
    assert kinds == {
        *BUILTIN[kind].__mro__,
    }


def test_base_is_a_plain_exception() -> None:
    assert XmemError.__bases__ == (Exception,)


def test_invalid_frees() -> None:
    for kind in INVALID_FREES:
        assert kind.__bases__ == (InvalidFree,)
    others = set(BUILTIN) - {InvalidFree, *INVALID_FREES}
    assert not any(issubclass(kind, InvalidFree) for kind in others)


def test_names_are_public_and_documented() -> None:
    for kind in classes():
        assert kind.__module__ == "xmem.base.errors"
        assert kind.__name__ in errors.__all__
        assert kind.__name__ in xmem.__all__
        assert getattr(xmem, kind.__name__) is kind
        assert inspect.getdoc(kind).endswith(".")
    assert sorted(errors.__all__) == list(errors.__all__)


# Messages --------------------------------------------------------------------


def held_up(folder: Path) -> None:
    """Wait for the lock of a shared arena whose word says that another has it."""
    with (
        Arena.create(folder / "busy", 1 << 20, shared=True) as arena,
        Arena.open(folder / "busy"),
    ):
        arena.lock_timeout = 0
        at = int.from_bytes(ctypes.string_at(arena.address(96), 8), "little")
        word = ctypes.c_uint32.from_address(arena.address(at))
        word.value = 2 | 1 << 8  # slot 1, in its first epoch
        try:
            arena.slots()
        finally:
            word.value = 0


def crowded(folder: Path) -> None:
    """Open a shared arena once more than it has slots."""
    with contextlib.ExitStack() as stack:
        path = folder / "crowd"
        stack.enter_context(Arena.create(path, 1 << 20, shared=True))
        for _ in range(62):
            stack.enter_context(Arena.open(path))


class Scene:
    """Something of everything that a message may speak of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arena = Arena.anonymous(1 << 19, page_size=PAGE, max_pools=2)
        self.pool = Pool(self.arena, name="mine", max_pages=40)
        self.other = Pool(self.arena, name="other's", engine="firstfit")
        self.live = self.pool.xmalloc(100)
        self.freed = self.pool.xmalloc(100)
        self.right = self.pool.xmalloc(100)
        self.other_live = self.other.xmalloc(100)
        self.pool.xfree(self.freed)
        self.run = self.arena.page_alloc(1)
        self.run_freed = self.arena.page_alloc(0)
        self.arena.page_free(self.run_freed)
        (folder / "text").write_text("no arena" * 1000)
        self.held = Arena.create(folder / "held", 1 << 19)


Act = Callable[[Scene], object]

#: An act, its exception, and what its message must say: what was asked, what is
#: the matter, and where there is something to do, what.
MESSAGES: dict[str, tuple[Act, type[Exception], str]] = {
    "freed twice": (
        lambda s: s.pool.xfree(s.freed),
        DoubleFree,
        r"xfree\(0x[0-9a-f]+\).*no live block.*freed already, or never allocated",
    ),
    "free page": (
        lambda s: s.pool.usable_size(s.run_freed),
        DoubleFree,
        r"usable_size\(0x[0-9a-f]+\).*page \d+ is free",
    ),
    "inside": (
        lambda s: s.pool.xfree(s.live + 16),
        NotABlock,
        r"xfree\(0x[0-9a-f]+\).*inside the live block at 0x[0-9a-f]+",
    ),
    "misaligned": (
        lambda s: s.pool.view(s.live + 1),
        NotABlock,
        r"view\(0x[0-9a-f]+\).*not a multiple of 16",
    ),
    "outside": (
        lambda s: s.pool.xrealloc(s.arena.n_bytes, 1),
        NotABlock,
        r"xrealloc\(0x80000\).*outside the arena",
    ),
    "no offset at all": (
        lambda s: s.pool.xfree(1 << 64),
        NotABlock,
        r"18446744073709551616 is not an offset in any arena",
    ),
    "negative offset": (
        lambda s: s.pool.xfree(-16),
        NotABlock,
        r"-16 is not an offset in any arena",
    ),
    "another pool's": (
        lambda s: s.pool.xfree(s.other_live),
        MismatchedFree,
        r"memory of pool \"other's\": use that pool",
    ),
    "pages": (
        lambda s: s.pool.xfree(s.run),
        MismatchedFree,
        r"from Arena\.page_alloc: free it with Arena\.page_free",
    ),
    "block as pages": (
        lambda s: s.arena.page_free(s.live),
        MismatchedFree,
        r"page_free\(0x[0-9a-f]+\).*belongs to pool 'mine'.*that pool's xfree",
    ),
    "second page": (
        lambda s: s.arena.page_free(s.run + PAGE),
        NotABlock,
        r"inside the run of 2 pages at 0x[0-9a-f]+; pass the run's own offset",
    ),
    "control block": (
        lambda s: s.pool.xfree(
            PAGE * int(s.arena.frames()["page"][s.arena.frames()["state"] == 4][0])
        ),
        NotABlock,
        r"inside a pool's control block",
    ),
    "address": (
        lambda s: s.arena.address(s.arena.n_bytes),
        NotABlock,
        r"524288 is outside the arena",
    ),
    "view too long": (
        lambda s: s.pool.view(s.live, 1000),
        BadArgument,
        r"the memory at 0x[0-9a-f]+ holds 104 bytes; 1000 were requested",
    ),
    "negative size": (
        lambda s: s.pool.xmalloc(-5),
        BadArgument,
        r"a size must be at least 0, not -5",
    ),
    "no size": (
        lambda s: s.pool.xmalloc("5"),
        BadArgumentType,
        r"a size must be an integer, not str",
    ),
    "no offset": (
        lambda s: s.pool.xfree(None),
        BadArgumentType,
        r"an offset must be an integer, not NoneType",
    ),
    "alignment": (
        lambda s: s.pool.xmalloc(5, align=24),
        BadArgument,
        r"align must be a power of two in bytes, not 24",
    ),
    "large alignment": (
        lambda s: s.pool.xmalloc(5, align=1 << 40),
        BadArgument,
        r"align must be at most \d+ bytes in this arena, not 1099511627776",
    ),
    "no room in the pool": (
        lambda s: s.pool.xmalloc(41 * PAGE),
        OutOfMemory,
        r"xmalloc\(167936\): no room: the pool holds 16 pages of at most 40; "
        r"the arena has \d+ free pages, at most \d+ side by side \(order \d+\)",
    ),
    "no run": (
        lambda s: s.arena.page_alloc(10),
        OutOfMemory,
        r"page_alloc\(10\): no room: the arena has \d+ free pages, "
        r"at most \d+ side by side \(order \d+\)",
    ),
    "too many pools": (
        lambda s: Pool(s.arena),
        OutOfMemory,
        r"is full: it has 2 pools; set max_pools=",
    ),
    "pool's name": (
        lambda s: Pool(s.arena, name="x" * 41),
        BadArgument,
        r"1 to 40 bytes in UTF-8 and no NUL, not 'x+'",
    ),
    "engine": (
        lambda s: Pool(s.arena, engine="slab"),
        BadArgument,
        r"engine must be 'tlsf' or 'firstfit', not 'slab'",
    ),
    "growth": (
        lambda s: Pool(s.arena, grow_pages=10**6),
        BadArgument,
        r"grow_pages is 1000000; the arena has 128 pages",
    ),
    "no arena": (
        lambda s: Pool("arena"),
        BadArgumentType,
        r"arena must be an Arena, not str",
    ),
    "half a pair": (
        lambda s: Pool(s.arena, get_mem=len),
        BadArgument,
        r"give both get_mem and put_mem, or neither",
    ),
    "absent pool": (
        lambda s: Pool.open(s.arena, "none"),
        BadArgument,
        r"no pool named 'none'; the arena has: 'mine', \"other's\"",
    ),
    "pool in use": (
        lambda s: s.pool.destroy(),
        PoolInUse,
        r"pool 'mine' has 2 live blocks of \d+ bytes: free them, or .* force=True",
    ),
    "destroyed pool": (
        lambda s: (s.pool.destroy(force=True), s.pool.xmalloc(1)),
        PoolDestroyed,
        r"pool 'mine' has been destroyed",
    ),
    "hollow pool": (
        lambda s: Pool.__new__(Pool).xmalloc(1),
        BadArgument,
        r"never initialised",
    ),
    "closed": (
        lambda s: (s.arena.close(), s.pool.xmalloc(1)),
        ArenaClosed,
        r"the arena has been closed",
    ),
    "viewed block": (
        lambda s: [s.pool.view(s.live), s.pool.view(s.live), s.pool.xfree(s.live)],
        BufferError,
        r"views of the memory at 0x[0-9a-f]+ are alive \(2\): release them first",
    ),
    "viewed arena": (
        lambda s: [s.pool.view(s.live), s.arena.close()],
        BufferError,
        r"views of the arena are alive \(1\): release them before closing",
    ),
    "making an arena": (
        lambda s: Arena(),
        BadArgumentType,
        r"make an arena by Arena\.anonymous, Arena\.create or Arena\.open",
    ),
    "small arena": (
        lambda s: Arena.anonymous(PAGE, page_size=PAGE),
        BadArgument,
        r"4096 bytes are too few: the tables .* take \d+ pages of 4096 bytes",
    ),
    "page size": (
        lambda s: Arena.anonymous(1 << 20, page_size=1000),
        BadArgument,
        r"page_size must be a power of two from 4096 to 2097152 bytes, not 1000",
    ),
    "path": (
        lambda s: Arena.open(5),
        BadArgumentType,
        r"a path must be str or os\.PathLike, not int",
    ),
    "no file of ours": (
        lambda s: Arena.open(s.folder / "text"),
        ArenaFormatError,
        r"/text: not an arena",
    ),
    "open already": (
        lambda s: Arena.open(s.folder / "held"),
        ArenaInUse,
        r"/held: already open, in this process or another",
    ),
    "busy": (
        lambda s: held_up(s.folder),
        ArenaBusy,
        r"/busy: process \d+ \(slot 1\) has held its lock for longer than "
        r"lock_timeout; it may be stopped",
    ),
    "crowded": (
        lambda s: crowded(s.folder),
        TooManyProcesses,
        r"/crowd: 62 processes have this arena open, which is the most",
    ),
    "pickle": (
        lambda s: pickle.dumps(s.arena),
        BadArgumentType,
        r"an arena cannot be pickled; open its file in the other process",
    ),
    "pickled pool": (
        lambda s: pickle.dumps(s.pool),
        BadArgumentType,
        r"a pool cannot be pickled; .*Pool\.open",
    ),
}


@pytest.mark.parametrize("act", MESSAGES)
def test_message_says_what_and_what_to_do(act: str, tmp_path: Path) -> None:
    call, kind, says = MESSAGES[act]
    with pytest.raises(kind) as caught:
        call(Scene(tmp_path))
    message = str(caught.value)
    assert type(caught.value) is kind
    assert re.search(says, message), message
    assert "\n" not in message
    assert len(message) < 300
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_every_class_that_arena_and_pool_raise_has_a_message() -> None:
    of_the_heap = {NotInInterface, SizeLimitError}
    abstract = {XmemError, InvalidFree}
    tested_elsewhere = {HeapCorruption, PeerError, TraceFormatError}
    kinds = {kind for _, kind, _ in MESSAGES.values()}
    assert set(classes()) - kinds == of_the_heap | abstract | tested_elsewhere


# HeapCorruption and PoolInUse ------------------------------------------------


def test_heap_corruption_says_which_and_where() -> None:
    error = HeapCorruption("B5", 0x1234, "found 0x1, expected 0x0")
    assert error.invariant == "B5"
    assert error.offset == 0x1234
    assert error.detail == "found 0x1, expected 0x0"
    assert str(error) == "B5 at offset 0x1234: found 0x1, expected 0x0"


def test_corruption_takes_a_code_apart() -> None:
    error = errors.corruption(100 * ord("F") + 3, 4096, 0xFF, 2**64 - 1)
    assert (error.invariant, error.offset) == ("F3", 4096)
    assert error.detail == "found 0xff, expected 0xffffffffffffffff"


def in_use() -> PoolInUse:
    arena = Arena.anonymous(1 << 20)
    pool = Pool(arena)
    for n in (100, 5000):
        pool.xmalloc(n)
    with pytest.raises(PoolInUse) as caught:
        pool.destroy()
    return caught.value


def test_pool_in_use_lists_the_live_blocks() -> None:
    live = in_use().live
    assert len(live) == 2
    assert np.all(live["used"])
    assert live["capacity"].tolist()[0] >= 100


ROUNDS: dict[str, Callable[[BaseException], BaseException]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("travel", ROUNDS)
def test_errors_travel(travel: str) -> None:
    """From a worker process to its parent, say."""
    for kind in {*BUILTIN, XmemError} - {HeapCorruption, PoolInUse}:
        error = kind("what is the matter")
        again = ROUNDS[travel](error)
        assert type(again) is kind
        assert again.args == error.args
        assert str(again) == "what is the matter"

    damage = ROUNDS[travel](HeapCorruption("C4", 1 << 40, "found 0x1"))
    assert type(damage) is HeapCorruption
    assert (damage.invariant, damage.offset) == ("C4", 1 << 40)
    assert damage.detail == "found 0x1"
    assert str(damage) == "C4 at offset 0x10000000000: found 0x1"

    used = in_use()
    again = ROUNDS[travel](used)
    assert type(again) is PoolInUse
    assert str(again) == str(used)
    assert again.live.tobytes() == used.live.tobytes()
