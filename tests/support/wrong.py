# SPDX-License-Identifier: BSD-3-Clause
"""Wrong values for each kind of parameter, and the exception that each gets."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from support.scene import PAGE, Scene
from xmem import (
    Arena,
    ArenaClosed,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
)


@dataclass(frozen=True)
class Wrong:
    """A value, or a function that finds it in the scene, and the exception it gets."""

    label: str
    value: Any
    error: type[BaseException] | tuple[type[BaseException], ...]

    def in_scene(self, scene: Scene) -> Any:
        return self.value(scene) if callable(self.value) else self.value


class Index:
    """An integer in all but its type."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Refuses:
    """Raises an exception of its own when asked for an integer."""

    def __index__(self) -> int:
        raise KeyError("mine")


class Lies:
    """Claims to be an integer and is none."""

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

#: Integers that are no offset, whatever the arena holds.
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
#: More pages than there are is no error: `reserve` takes what there is.
RESERVE = [*NO_INTEGER, *rows(NEGATIVE, BadArgument)]
GROW = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, BadArgument),
    Wrong("0", 0, BadArgument),
    Wrong("all pages and one", lambda s: s.arena.n_pages + 1, BadArgument),
]
#: None leaves the choice to the pool.
GROW_OR_NOT = [wrong for wrong in GROW if wrong.label != "None"]
QUICK = [
    Wrong("1", 1, BadArgumentType),
    Wrong("None", None, BadArgumentType),
    Wrong("text", "True", BadArgumentType),
]
#: None is no limit, and a limit above the arena's size is none either.
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
TIMEOUT = [
    *rows({"None": None, "a list": [], "text": "soon"}, BadArgumentType),
    *rows({"-1": -1, "nan": float("nan"), "2**64": 1 << 64}, BadArgument),
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
