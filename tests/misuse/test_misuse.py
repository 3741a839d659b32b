# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments and wrong moments, for every public call of Arena and Pool.

The tables of tests/support/calls.py say what each parameter of each call refuses,
and with which class. The values of a table run against a scene of three pools, live
and freed blocks and page runs; after each of them every byte of the arena is as it
was and every checker passes.
"""

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import ALWAYS_KNOWN, CALLS, INDIFFERENT, READ_ONLY, Call, hook
from support.refusals import Refusals, refused
from support.scene import ARENA_BYTES, ENGINES, PAGE, Scene
from support.wrong import (
    BLOCK,
    NEGATIVE,
    NO_INTEGER,
    TABLES,
    TOO_LARGE,
    Wrong,
    rows,
    without,
)

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


def parameters() -> Iterator[Any]:
    """Call, place of the wrong argument, engine."""
    for name, call in CALLS.items():
        for place in range(len(call.wrong)):
            for engine in call.engines:
                yield pytest.param(call, place, engine, id=f"{name}-{place}-{engine}")


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


@pytest.mark.parametrize(("call", "place", "engine"), [*parameters()])
def test_wrong_arguments_are_refused_and_change_nothing(
    call: Call, place: int, engine: str, folder: Path, refusals: Refusals
) -> None:
    def make(scene: Scene, value: Any) -> None:
        arguments = call.arguments(scene)
        arguments[place] = value
        try:
            call.make(scene, *arguments)
        finally:
            assert list(folder.iterdir()) == []

    refusals.expect(lambda: Scene(engine), make, call.wrong[place])


def test_no_refused_call_was_lost() -> None:
    """Each value was once a test of its own; this is how many there were."""
    tables = [
        table for call in CALLS.values() for table in call.wrong * len(call.engines)
    ]
    assert sum(map(len, tables)) >= 3888


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


#: Properties that are set.
SET = ("Arena.root", "Arena.lock_timeout")


@pytest.mark.parametrize(
    ("name", "engine"), calls(lambda name: "(" not in name and name not in SET)
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


# What get_mem may return -----------------------------------------------------


HOOK_RESULTS = [
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


@pytest.mark.parametrize("wrong", HOOK_RESULTS, ids=lambda wrong: wrong.label)
def test_get_mem_that_returns_what_it_must_not(wrong: Wrong) -> None:
    scene = Scene("tlsf")
    offset = wrong.in_scene(scene)
    hooked = Pool(
        scene.arena, grow_pages=4, get_mem=lambda n_pages: offset, put_mem=hook
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
