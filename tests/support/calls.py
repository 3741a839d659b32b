# SPDX-License-Identifier: BSD-3-Clause
"""Every public call of Arena and Pool: good arguments, and what each refuses."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.scene import ENGINES, PAGE, Scene
from support.wrong import (
    ALIGN,
    ARENA,
    ARENA_SIZE,
    BLOCK,
    ENGINE,
    GROW_OR_NOT,
    HOOK,
    LIMIT,
    MAX_POOLS,
    N_BLOCKS,
    N_PAGES,
    NAME,
    NEW_NAME,
    NO_OFFSET,
    OLD_NAME,
    ORDER,
    PAGE_SIZE,
    PATH,
    POOL_ROOM,
    QUICK,
    RESERVE,
    ROOT,
    RUN,
    RUN_ROOM,
    SIZE,
    TIMEOUT,
    Wrong,
)
from xmem import Arena, BadArgument, Pool


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
    """A get_mem or put_mem that does nothing."""


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


def create_shared(_: Scene, path: Any, n: Any, page_size: Any, pools: Any) -> Arena:
    """Open or create a shared arena; none is left."""
    try:
        return Arena.open_or_create(path, n, page_size=page_size, max_pools=pools)
    finally:
        Path("fresh").unlink(missing_ok=True)


def in_memory(_: Scene, n: Any, page_size: Any, max_pools: Any) -> Arena:
    return Arena.memfd(n, page_size=page_size, max_pools=max_pools)


def set_timeout(scene: Scene, seconds: Any) -> None:
    scene.arena.lock_timeout = seconds


def unshared(call: Callable[[], object]) -> None:
    """Call what wants a shared arena."""
    with contextlib.suppress(BadArgument):
        call()


def without_file(call: Callable[[], object]) -> None:
    """Call what wants an arena in a file."""
    with contextlib.suppress(OSError):
        call()


def snapshot(scene: Scene, path: Any) -> None:
    if path == "fresh":
        without_file(lambda: scene.arena.snapshot(path))
        Path("fresh").unlink(missing_ok=True)
    else:
        scene.arena.snapshot(path)


def make_pool(
    _: Scene, arena: Any, name: Any, engine: Any, grow: Any, most: Any
) -> Pool:
    return Pool(arena, name=name, engine=engine, grow_pages=grow, max_pages=most)


def make_quick(_: Scene, arena: Any, quick: Any) -> Pool:
    return Pool(arena, quick=quick)


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
    "Arena.open_or_create": Call(
        create_shared,
        ("fresh", *PAGES_MADE),
        (PATH, ARENA_SIZE, PAGE_SIZE, MAX_POOLS),
    ),
    "Arena.memfd": Call(in_memory, PAGES_MADE, (ARENA_SIZE, PAGE_SIZE, MAX_POOLS)),
    "Arena.lock_timeout": Call(set_timeout, (5.0,), (TIMEOUT,)),
    "Arena.fileno": Call(lambda s: without_file(s.arena.fileno)),
    "Arena.slots": Call(lambda s: unshared(s.arena.slots)),
    "Arena.reap": Call(lambda s: unshared(s.arena.reap)),
    "Arena.stats": Call(lambda s: s.arena.stats()),
    "Arena.snapshot": Call(
        snapshot, ("fresh",), ([w for w in PATH if w.error is not FileNotFoundError],)
    ),
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
    "Pool.__init__ (quick)": Call(make_quick, (arena_of, True), (ARENA, QUICK)),
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
    "Pool.open_or_create": Call(
        lambda s, a, n: Pool.open_or_create(a, n), (arena_of, "mine"), (ARENA, NAME)
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
    "Pool.drain": Call(lambda s, n: s.pool.drain(n), (3,), (RESERVE,)),
    "Pool.shrink": Call(lambda s: s.pool.shrink()),
    "Pool.destroy": Call(lambda s: s.pool.destroy(force=True)),
    "Pool.check": Call(lambda s: s.pool.check()),
    "Pool.check_step": Call(lambda s, n: s.pool.check_step(n), (7,), (N_BLOCKS,)),
    "Pool.stats": Call(lambda s: s.pool.stats()),
    "Pool.walk": Call(lambda s: s.pool.walk()),
}

#: Calls that do not ask whether the arena is open.
INDIFFERENT = {
    "Arena.__init__",
    "Arena.anonymous",
    "Arena.create",
    "Arena.open",
    "Arena.open_or_create",
    "Arena.memfd",
    "Arena.lock_timeout",
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
        "longest_free_run",
        "max_align",
        "max_order",
        "n_bytes",
        "n_free_pages",
        "n_pages",
        "page_size",
        "path",
        "repairs",
        "shared",
    },
    Pool: {
        "closed",
        "engine",
        "quick",
        "grow_pages",
        "hardening",
        "id",
        "join_regions",
        "kept_pages",
        "max_pages",
        "maxalloc",
        "name",
        "total_size",
        "used_size",
    },
}
#: Properties that a closed arena and its pools have as well.
ALWAYS_KNOWN = {"closed", "path", "arena", "name", "id", "repairs"}
