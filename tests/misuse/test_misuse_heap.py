# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments and wrong moments, for every public call of Heap.

As in test_misuse.py, under each of the five interfaces: what one refuses another
may serve.
"""

import copy
import ctypes
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.damage import (
    LEGACY_USED_BYTES,
    N_FREE_PAGES,
    TLSF_USED_BYTES,
    Words,
)
from support.refusals import Refusals, refused
from support.scene import PAGE
from support.wrong import (
    ALIGN,
    ARENA,
    GROW,
    LIMIT,
    NEGATIVE,
    NEW_NAME,
    NO_INTEGER,
    NO_OFFSET,
    NOT_INTEGERS,
    NOT_NONE,
    NOT_TEXT,
    OLD_NAME,
    ORDER,
    TABLES,
    TOO_LARGE,
    Wrong,
    rows,
)

from xmem import (
    Allocator,
    Arena,
    ArenaClosed,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    Heap,
    HeapCorruption,
    MismatchedFree,
    NotABlock,
    NotInInterface,
    OutOfMemory,
    Pool,
    PoolDestroyed,
    PoolInUse,
    SizeLimitError,
)
from xmem.arena import FRAME_CONTROL, FRAME_FREE

INTERFACES = ("strict", "array", "subpage", "legacy", "merged")
SUBPAGE = ("strict", "array", "subpage", "merged")
#: Interfaces in which xmalloc, and in which xmalloc_array, has a limit.
LIMITED = ("strict", "array")
LIMITED_ARRAYS = ("strict",)
#: Interfaces in which xfree takes pages of page_alloc as well.
FREES_PAGES = ("legacy", "merged")


class HeapScene:
    """An arena with two heaps of one interface, a pool, and a run of pages."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self.arena = arena = Arena.anonymous(512 << 10, page_size=PAGE, max_pools=8)
        self.heap = heap = Heap(arena, interface, name="mine", max_pages=60)
        self.other = Heap(arena, interface, name="other")
        self.pool = Pool(arena, name="pool")
        self.left, self.freed, self.live, self.right = (
            heap.xmalloc(n) for n in (100, 200, 300, 400)
        )
        self.pages = heap.page_alloc(1)
        self.pages_freed = heap.page_alloc(0)
        self.other_live = self.other.xmalloc(100)
        self.other_pages = self.other.page_alloc(0)
        self.pool_live = self.pool.xmalloc(100)
        self.run = arena.page_alloc(1)
        if interface in SUBPAGE:
            self.sub, self.sub_freed, self.sub_right = (
                heap.xmalloc_subpage(n) for n in (100, 200, 300)
            )
            heap.xfree_subpage(self.sub_freed)
        self.block = heap.block(100)
        self.other_block = self.other.block(100)
        heap.xfree(self.freed)
        heap.page_free(self.pages_freed)

    @property
    def never(self) -> int:
        frames = self.arena.frames()
        last = frames[frames["state"] == FRAME_FREE][-1]
        return (int(last["page"]) + int(last["n_pages"]) - 1) * PAGE

    @property
    def control(self) -> int:
        frames = self.arena.frames()
        return int(frames["page"][frames["state"] == FRAME_CONTROL][-1]) * PAGE

    def snapshot(self) -> tuple[object, ...]:
        return (
            self.heap.stats(),
            self.other.stats(),
            self.pool.stats(),
            self.block.offset,
            len(self.block),
            ctypes.string_at(self.arena.address(0), self.arena.n_bytes),
        )

    def check(self) -> None:
        self.arena.check()
        self.heap.check()
        self.other.check()
        self.pool.check()

    def close(self) -> None:
        self.arena.close()


@dataclass(frozen=True)
class Call:
    """A public call: how to make it, its good arguments, what each refuses."""

    make: Callable[..., Any]
    good: tuple[Any, ...] = ()
    wrong: tuple[Callable[[str], list[Wrong]], ...] = ()
    interfaces: tuple[str, ...] = INTERFACES

    def arguments(self, scene: HeapScene) -> list[Any]:
        return [value(scene) if callable(value) else value for value in self.good]


def always(table: list[Wrong]) -> Callable[[str], list[Wrong]]:
    return lambda interface: table


def of(name: str) -> Callable[[HeapScene], Any]:
    return lambda scene: getattr(scene, name)


def next_to(name: str, distance: int) -> Callable[[HeapScene], int]:
    return lambda scene: getattr(scene, name) + distance


def foreign() -> list[Wrong]:
    """Memory of others, whatever the routine."""
    return [
        *NO_OFFSET,
        *TABLES,
        Wrong("never allocated", of("never"), DoubleFree),
        Wrong("freed pages", of("pages_freed"), DoubleFree),
        Wrong("another heap's", of("other_live"), MismatchedFree),
        Wrong("another heap's pages", of("other_pages"), MismatchedFree),
        Wrong("a pool's", of("pool_live"), MismatchedFree),
        Wrong("the arena's run", of("run"), MismatchedFree),
        Wrong("inside the arena's run", next_to("run", PAGE), MismatchedFree),
        Wrong("control block", of("control"), NotABlock),
        Wrong("inside pages", next_to("pages", 16), NotABlock),
        Wrong("second of the pages", next_to("pages", PAGE), NotABlock),
    ]


def own() -> list[Wrong]:
    """Memory of xmalloc that is not, or not there, to be freed."""
    return [
        Wrong("freed twice", of("freed"), DoubleFree),
        Wrong("inside", next_to("live", 16), NotABlock),
        Wrong("misaligned", next_to("live", 1), NotABlock),
    ]


def blocks(interface: str) -> list[Wrong]:
    """What xrealloc refuses."""
    table = [*foreign(), *own(), Wrong("pages", of("pages"), MismatchedFree)]
    if interface == "subpage":
        table += [
            Wrong("of xmalloc_subpage", of("sub"), MismatchedFree),
            Wrong("inside of xmalloc_subpage", next_to("sub", 16), MismatchedFree),
        ]
    return table


def freeable(interface: str) -> list[Wrong]:
    """What xfree refuses."""
    table = blocks(interface)
    if interface in FREES_PAGES:
        table = [wrong for wrong in table if wrong.label != "pages"]
    return table


def subpages(interface: str) -> list[Wrong]:
    """What xfree_subpage refuses."""
    if interface != "subpage":
        return freeable(interface)
    # Pages and blocks of xmalloc are the main pool's.
    moved = {"inside pages", "second of the pages"}
    return [
        *(wrong for wrong in foreign() if wrong.label not in moved),
        Wrong("inside pages", next_to("pages", 16), MismatchedFree),
        Wrong("of xmalloc", of("live"), MismatchedFree),
        Wrong("inside of xmalloc", next_to("live", 16), MismatchedFree),
        Wrong("pages", of("pages"), MismatchedFree),
        Wrong("freed twice", of("sub_freed"), DoubleFree),
        Wrong("inside", next_to("sub", 16), NotABlock),
    ]


def pages(interface: str) -> list[Wrong]:
    """What page_free refuses."""
    return [*foreign(), *own(), Wrong("of xmalloc", of("live"), MismatchedFree)]


def readable(interface: str) -> list[Wrong]:
    """What usable_size and view refuse: they take memory of any routine."""
    return [*foreign(), *own()]


def sizes(limited: tuple[str, ...]) -> Callable[[str], list[Wrong]]:
    """Sizes that are refused, by a limit or for lack of room."""

    def table(interface: str) -> list[Wrong]:
        refusal = SizeLimitError if interface in limited else OutOfMemory
        return [
            *NO_INTEGER,
            *rows(NEGATIVE, BadArgument),
            *rows(TOO_LARGE, refusal),
            Wrong("more than max_pages", 60 * PAGE, refusal),
            Wrong("the whole arena", lambda s: s.arena.n_bytes, refusal),
        ]

    return table


def counts(interface: str) -> list[Wrong]:
    """Counts of elements of 100 bytes."""
    refusal = SizeLimitError if interface in LIMITED_ARRAYS else OutOfMemory
    return [
        *NO_INTEGER,
        *rows(NEGATIVE, BadArgument),
        *rows(TOO_LARGE, OutOfMemory),
        Wrong("overflows to 16 bytes", (1 << 64) // 100 + 1, OutOfMemory),
        Wrong("too many", 60 * PAGE // 100, refusal),
    ]


def headers(interface: str) -> list[Wrong]:
    """Bytes in front of 3 elements of 100 bytes."""
    refusal = SizeLimitError if interface in LIMITED_ARRAYS else OutOfMemory
    return [
        *NO_INTEGER,
        *rows(NEGATIVE, BadArgument),
        Wrong("overflows", (1 << 64) - 300, OutOfMemory),
        Wrong("2**64", 1 << 64, OutOfMemory),
        Wrong("too much", 60 * PAGE, refusal),
    ]


def room(interface: str) -> list[Wrong]:
    return [
        *NOT_NONE,
        *rows(NEGATIVE, BadArgument),
        *rows(TOO_LARGE, BadArgument),
        Wrong("one too many", lambda s: s.heap.usable_size(s.live) + 1, BadArgument),
    ]


N_PAGES = [
    *NO_INTEGER,
    *rows(NEGATIVE, BadArgument),
    *rows(TOO_LARGE, OutOfMemory),
    Wrong("0", 0, BadArgument),
    Wrong("more than max_pages", 61, OutOfMemory),
    Wrong("2**32 + 1", (1 << 32) + 1, OutOfMemory),
]
NO_BUFFER = rows(
    {
        label: NOT_INTEGERS[label]
        for label in ("None", "str", "float", "nan", "list", "object", "Decimal")
    },
    BadArgumentType,
)
DATA = [
    *NO_BUFFER,
    *rows({"-1": -1, "10**30": 10**30}, BadArgumentType),
    Wrong("not contiguous", lambda s: memoryview(b"12345")[::2], BadArgument),
]
BLOCK = [
    *rows({**NOT_INTEGERS, "-1": -1, "2**64": 1 << 64}, BadArgumentType),
    Wrong("an offset", of("live"), BadArgumentType),
    Wrong("another heap's", of("other_block"), MismatchedFree),
]
HEAP_NAME = [
    *(wrong for wrong in NEW_NAME if not wrong.label.startswith("taken")),
    Wrong("taken", "mine", BadArgument),
    Wrong("taken by a pool", "pool", BadArgument),
]
INTERFACE = [
    *rows(NOT_TEXT, BadArgumentType),
    Wrong("empty", "", BadArgument),
    Wrong("unknown", "STRICT", BadArgument),
]
SIZE = sizes(LIMITED)

CALLS: dict[str, Call] = {
    "Heap.__init__": Call(
        lambda s, arena, interface, name, grow, most: Heap(
            arena, interface, name=name, grow_pages=grow, max_pages=most
        ),
        (of("arena"), "subpage", "new", 1, 20),
        tuple(map(always, (ARENA, INTERFACE, HEAP_NAME, GROW, LIMIT))),
    ),
    "Heap.open": Call(
        lambda s, arena, name: Heap.open(arena, name),
        (of("arena"), "mine"),
        (
            always(ARENA),
            always([*OLD_NAME, Wrong("a pool's", "pool", BadArgument)]),
        ),
    ),
    "Heap.__reduce__": Call(lambda s: s.heap.__reduce__()),
    "Heap.__repr__": Call(lambda s: repr(s.heap)),
    "Heap.xmalloc_max": Call(
        lambda s, align: s.heap.xmalloc_max(align),
        (32,),
        (
            lambda i: [
                w for w in ALIGN if w.label not in ("twice max_align", "2**62", "2**63")
            ],
        ),
    ),
    **{
        f"Heap.{verb}": Call(
            lambda s, n, align, verb=verb: getattr(s.heap, verb)(n, align=align),
            (100, 32),
            (SIZE, always(ALIGN)),
        )
        for verb in ("xmalloc", "xzalloc", "xmalloc_bytes", "block")
    },
    "Heap.xmalloc_subpage": Call(
        lambda s, n, align: s.heap.xmalloc_subpage(n, align=align),
        (100, 32),
        (sizes(("strict", "array", "subpage")), always(ALIGN)),
        interfaces=SUBPAGE,
    ),
    **{
        f"Heap.{verb}": Call(
            lambda s, count, size, align, verb=verb: getattr(s.heap, verb)(
                count, size, align=align
            ),
            (3, 100, 32),
            (counts, headers_of, always(ALIGN)),
        )
        for headers_of in (
            lambda i: [
                w
                for w in counts(i)
                if w.label not in ("too many", "overflows to 16 bytes")
            ],
        )
        for verb in ("xmalloc_array", "xzalloc_array")
    },
    "Heap.xmalloc_flex_struct": Call(
        lambda s, header, size, count, align: s.heap.xmalloc_flex_struct(
            header, size, count, align=align
        ),
        (16, 100, 3, 32),
        (
            headers,
            lambda i: [*NO_INTEGER, *rows(NEGATIVE, BadArgument)],
            counts,
            always(ALIGN),
        ),
    ),
    "Heap.xmemdup": Call(
        lambda s, data, align: s.heap.xmemdup(data, align=align),
        (b"12345", 32),
        (always(DATA), always(ALIGN)),
    ),
    "Heap.xrealloc": Call(
        lambda s, offset, n, align: s.heap.xrealloc(offset, n, align=align),
        (of("live"), 1000, 32),
        (blocks, SIZE, always(ALIGN)),
    ),
    "Heap.xrealloc_array": Call(
        lambda s, offset, count, size, align: s.heap.xrealloc_array(
            offset, count, size, align=align
        ),
        (of("live"), 3, 100, 32),
        (
            blocks,
            counts,
            lambda i: [*NO_INTEGER, *rows(NEGATIVE, BadArgument)],
            always(ALIGN),
        ),
    ),
    "Heap.xfree": Call(lambda s, o: s.heap.xfree(o), (of("live"),), (freeable,)),
    "Heap.xfree_subpage": Call(
        lambda s, o: s.heap.xfree_subpage(o),
        (of("sub"),),
        (subpages,),
        interfaces=SUBPAGE,
    ),
    "Heap.page_alloc": Call(
        lambda s, order: s.heap.page_alloc(order), (1,), (always(ORDER),)
    ),
    "Heap.page_alloc_exact": Call(
        lambda s, n: s.heap.page_alloc_exact(n), (3,), (always(N_PAGES),)
    ),
    "Heap.page_free": Call(lambda s, o: s.heap.page_free(o), (of("pages"),), (pages,)),
    "Heap.XFREE": Call(lambda s, b: s.heap.XFREE(b), (of("block"),), (always(BLOCK),)),
    "Heap.usable_size": Call(
        lambda s, o: s.heap.usable_size(o), (of("live"),), (readable,)
    ),
    "Heap.view": Call(
        lambda s, o, n: s.heap.view(o, n), (of("live"), 100), (readable, room)
    ),
    "Heap.check": Call(lambda s: s.heap.check()),
    "Heap.stats": Call(lambda s: s.heap.stats()),
    "Heap.shrink": Call(lambda s: s.heap.shrink()),
    "Heap.destroy": Call(lambda s: s.heap.destroy(force=True)),
}
REFUSES_ALWAYS = {"Heap.__reduce__"}
#: Calls that do not ask whether the arena is open.
INDIFFERENT = {
    *REFUSES_ALWAYS,
    "Heap.__repr__",
}
READ_ONLY = {
    Heap: {
        *("DELTA", "PAGE_SIZE", "XMALLOC_MAX", "closed"),
        *("interface", "name", "pools"),
    },
}


def calls(keep: Callable[[str], bool] = lambda name: True) -> list[Any]:
    return [
        pytest.param(name, interface, id=f"{name}-{interface}")
        for name, call in CALLS.items()
        for interface in call.interfaces
        if keep(name)
    ]


def parameters() -> Iterator[Any]:
    """Call, place of the wrong argument, interface."""
    for name, call in CALLS.items():
        for place in range(len(call.wrong)):
            for interface in call.interfaces:
                yield pytest.param(
                    call, place, interface, id=f"{name}-{place}-{interface}"
                )


@pytest.mark.parametrize(("call", "place", "interface"), [*parameters()])
def test_wrong_arguments_are_refused_and_change_nothing(
    call: Call, place: int, interface: str, refusals: Refusals
) -> None:
    def make(scene: HeapScene, value: Any) -> None:
        arguments = call.arguments(scene)
        arguments[place] = value
        call.make(scene, *arguments)

    refusals.expect(lambda: HeapScene(interface), make, call.wrong[place](interface))


def test_no_refused_call_was_lost() -> None:
    """Each value was once a test of its own; this is how many there were."""
    n_calls = sum(
        len(table(interface))
        for call in CALLS.values()
        for table in call.wrong
        for interface in call.interfaces
    )
    assert n_calls >= 5474


@pytest.mark.parametrize(("name", "interface"), calls())
def test_good_arguments_are_taken(name: str, interface: str) -> None:
    call = CALLS[name]
    scene = HeapScene(interface)
    if name in REFUSES_ALWAYS:
        refused(scene, BadArgumentType, lambda: call.make(scene))
    else:
        call.make(scene, *call.arguments(scene))


def test_table_is_complete() -> None:
    """Every name of both classes that is public, or called by Python, has its row."""
    unseen = {"__new__", "__doc__", "__module__", "__pyx_vtable__"}
    for kind in (Heap,):
        names = set(vars(kind)) - unseen
        rows_of = {
            key.split(".")[1] for key in CALLS if key.startswith(kind.__name__ + ".")
        }
        names |= rows_of & set(vars(Allocator))  # see test_misuse_allocator
        missing = names - rows_of - READ_ONLY[kind]
        assert not missing, f"{kind.__name__} without a row: {sorted(missing)}"
        gone = (rows_of | READ_ONLY[kind]) - names
        assert not gone, f"rows of {kind.__name__} for nothing: {sorted(gone)}"
    for name, call in CALLS.items():
        assert len(call.good) == len(call.wrong), name


@pytest.mark.parametrize("interface", INTERFACES)
def test_properties_are_read_only(interface: str) -> None:
    scene = HeapScene(interface)
    for name in sorted(READ_ONLY[Heap]):
        refused(scene, AttributeError, lambda n=name: setattr(scene.heap, n, 0))


@pytest.mark.parametrize(
    ("name", "interface"), calls(lambda name: name not in INDIFFERENT)
)
def test_closed_arena_refuses_every_call(name: str, interface: str) -> None:
    call = CALLS[name]
    scene = HeapScene(interface)
    arguments = call.arguments(scene)
    scene.arena.close()
    with pytest.raises(ArenaClosed) as caught:
        call.make(scene, *arguments)
    assert type(caught.value) is ArenaClosed


@pytest.mark.parametrize(
    ("name", "interface"),
    calls(
        lambda name: (
            name not in INDIFFERENT and name not in ("Heap.__init__", "Heap.open")
        )
    ),
)
def test_destroyed_heap_refuses_every_call(name: str, interface: str) -> None:
    call = CALLS[name]
    scene = HeapScene(interface)
    arguments = call.arguments(scene)
    scene.heap.destroy(force=True)
    assert scene.heap.closed
    Heap(scene.arena, interface, name="mine")
    with pytest.raises(PoolDestroyed):
        call.make(scene, *arguments)
    for property_name in READ_ONLY[Heap] - {"closed", "name"}:
        with pytest.raises(PoolDestroyed):
            getattr(scene.heap, property_name)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CALLS
        if name.startswith("Heap.")
        and name not in INDIFFERENT
        and name not in ("Heap.__init__", "Heap.open")
    ],
)
def test_heap_that_was_never_initialised(name: str) -> None:
    call = CALLS[name]
    scene = HeapScene("subpage")
    arguments = call.arguments(scene)
    heap, scene.heap = scene.heap, Heap.__new__(Heap)
    with pytest.raises(BadArgument, match="never initialised"):
        call.make(scene, *arguments)
    assert scene.heap.closed
    assert (scene.heap.arena, scene.heap.name) == (None, None)
    assert "closed" in repr(scene.heap)
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_viewed_memory_is_neither_freed_nor_moved(interface: str) -> None:
    scene = HeapScene(interface)
    heap = scene.heap
    views = [heap.view(scene.live), heap.view(scene.pages), scene.block.view()]
    acts: list[Callable[[], object]] = [
        lambda: heap.xfree(scene.live),
        lambda: heap.xrealloc(scene.live, 10),
        lambda: heap.xrealloc(scene.live, 1000),
        lambda: heap.xrealloc_array(scene.live, 3, 100),
        lambda: heap.page_free(scene.pages),
        lambda: heap.XFREE(scene.block),
        lambda: heap.destroy(force=True),
        scene.arena.close,
    ]
    if interface in FREES_PAGES:
        acts.append(lambda: heap.xfree(scene.pages))
    if interface in SUBPAGE:
        views.append(heap.view(scene.sub))
        acts.append(lambda: heap.xfree_subpage(scene.sub))
    for act in acts:
        refused(scene, BufferError, act)
    for view in views:
        view.release()
    heap.XFREE(scene.block)
    heap.destroy(force=True)


@pytest.mark.parametrize("interface", INTERFACES)
def test_heap_in_use_is_not_destroyed(interface: str) -> None:
    scene = HeapScene(interface)
    refused(scene, PoolInUse, scene.heap.destroy)


def test_subpage_pool_in_use_keeps_the_whole_heap() -> None:
    scene = HeapScene("subpage")
    heap = scene.heap
    for offset in (scene.left, scene.live, scene.right):
        heap.xfree(offset)
    heap.page_free(scene.pages)
    heap.XFREE(scene.block)
    refused(scene, PoolInUse, heap.destroy)
    heap.xfree_subpage(scene.sub)
    heap.xfree_subpage(scene.sub_right)
    heap.destroy()
    assert list(scene.arena.pools()) == ["other", "other.subpage", "pool"]


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("force", [False, True])
def test_a_view_of_any_memory_keeps_the_whole_heap(interface: str, force: bool) -> None:
    """Each view by itself, in whichever pool its memory is."""
    scene = HeapScene(interface)
    heap = scene.heap
    kept = {"live": scene.live, "pages": scene.pages}
    if interface in SUBPAGE:
        kept["sub"] = scene.sub
    for offset in kept.values():
        view = heap.view(offset)
        if force:
            refused(scene, BufferError, lambda: heap.destroy(force=True))
        else:
            refused(scene, PoolInUse, heap.destroy)
        view.release()
    array = heap.empty(5)
    refused(scene, BufferError, lambda: heap.destroy(force=True))
    del array
    live = heap.destroy(force=True)
    counts = {"subpage": [5, 2], "legacy": [5]}
    assert [len(rows) for rows in live] == counts.get(interface, [7])
    assert heap.closed


@pytest.mark.damages
@pytest.mark.parametrize("which", [0, 1])
def test_damage_in_one_pool_keeps_the_whole_heap(which: int) -> None:
    """Damage is an error without ``force``, and hides the live blocks with it."""
    scene = HeapScene("subpage")
    heap, arena, words = scene.heap, scene.arena, Words(scene.arena)
    counter = (LEGACY_USED_BYTES, TLSF_USED_BYTES)[which]
    words.flip(words.control(heap.pools[which]) + counter, 1)
    before = ctypes.string_at(arena.address(0), arena.n_bytes)
    for force in (False, True):
        view = heap.view((scene.sub_right, scene.right)[which]) if force else b""
        with pytest.raises(BufferError if force else HeapCorruption):
            heap.destroy(force=force)
        assert ctypes.string_at(arena.address(0), arena.n_bytes) == before
        assert not heap.closed
        del view
    live = heap.destroy(force=True)
    assert len(live[which]) == 0
    assert len(live[1 - which]) > 0
    assert heap.closed
    assert list(arena.pools()) == ["other", "other.subpage", "pool"]
    arena.check()


@pytest.mark.damages
@pytest.mark.parametrize("which", [0, 1])
def test_damage_to_the_frames_keeps_the_whole_heap(which: int) -> None:
    """Where even ``force`` cannot end one pool, the other stays."""
    scene = HeapScene("subpage")
    heap, arena, words = scene.heap, scene.arena, Words(scene.arena)
    counter = (LEGACY_USED_BYTES, TLSF_USED_BYTES)[which]
    words.flip(words.control(heap.pools[which]) + counter, 1)
    words.flip(N_FREE_PAGES, 1)
    before = ctypes.string_at(arena.address(0), arena.n_bytes)
    for force in (False, True):
        with pytest.raises(HeapCorruption):
            heap.destroy(force=force)
        assert ctypes.string_at(arena.address(0), arena.n_bytes) == before
        assert not heap.closed


def test_legacy_has_no_subpage_routines() -> None:
    scene = HeapScene("legacy")
    refused(scene, NotInInterface, lambda: scene.heap.xmalloc_subpage(10))
    refused(scene, NotInInterface, lambda: scene.heap.xfree_subpage(scene.live))


def test_subpage_heap_takes_both_names_or_none() -> None:
    """Its first pool is given back when the second cannot be had."""
    scene = HeapScene("legacy")
    taken = Pool(scene.arena, name="new.subpage")
    pools, n_free = scene.arena.pools(), scene.arena.n_free_pages
    for name in ("new", "x" * 33):
        with pytest.raises(BadArgument):
            Heap(scene.arena, "subpage", name=name)
        assert scene.arena.pools() == pools
        assert scene.arena.n_free_pages == n_free
        scene.check()
    taken.destroy()
    Heap(scene.arena, "subpage", name="new")


def test_part_of_a_heap_is_no_heap() -> None:
    scene = HeapScene("subpage")
    refused(scene, BadArgument, lambda: Heap.open(scene.arena, "mine.subpage"))


@pytest.mark.parametrize("interface", INTERFACES)
def test_copies_and_pickles_are_refused(interface: str) -> None:
    scene = HeapScene(interface)
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        refused(scene, BadArgumentType, lambda d=duplicate: d(scene.heap))
        refused(scene, BadArgumentType, lambda d=duplicate: d(scene.block))


@pytest.mark.parametrize("interface", INTERFACES)
def test_heap_is_initialised_once(interface: str) -> None:
    scene = HeapScene(interface)
    refused(scene, BadArgument, lambda: scene.heap.__init__(scene.arena))


@pytest.mark.parametrize("interface", INTERFACES)
def test_block_freed_behind_its_object(interface: str) -> None:
    """The offset goes to xfree: only the object frees it."""
    scene = HeapScene(interface)
    refused(scene, MismatchedFree, lambda: scene.heap.xfree(scene.block.offset))
    refused(scene, MismatchedFree, lambda: scene.heap.xrealloc(scene.block.offset, 9))
    scene.heap.XFREE(scene.block)
