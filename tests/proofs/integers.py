# SPDX-License-Identifier: BSD-3-Clause
"""Every integer of a small arena, and around its ends, as an offset.

Each is passed to every function of Pool, Heap and Arena that takes an offset. The
function accepts exactly the live memory of its own kind; every other integer gets a
typed error, and no refusal changes a byte of the arena.
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import click

from xmem import Arena, BadArgument, Heap, InvalidFree, Pool, SizeLimitError, XmemError
from xmem.heap import INTERFACES

from . import Refuted

PAGE = 4096
POOLS: list[dict[str, Any]] = [
    {"engine": "tlsf", "grow_pages": None},
    {"engine": "tlsf", "grow_pages": 1},
    {"engine": "tlsf", "grow_pages": 4, "join_regions": False},
    {"engine": "tlsf", "grow_pages": 4, "hardened": True},
    {"engine": "firstfit"},
]
SIZES = ((0, 16), (1, 16), (24, 16), (100, 256), (1000, 16), (40, 1024), (3000, 16))


def integers_around(arena: Arena) -> Iterator[int]:
    """Every integer of the arena and many beyond each of its ends."""
    yield from range(-2 * PAGE, arena.n_bytes + 2 * PAGE)
    for power in (31, 32, 44, 48, 62, 63, 64, 65, 128):
        for i in (-4096, -16, -8, -1, 0, 1, 8, 16, 4096):
            yield (1 << power) + i
            yield -(1 << power) + i
    for i in range(-64, 65):
        yield arena.address(0) + i
        yield arena.address(0) + arena.n_bytes + i


def compare(
    arena: Arena, name: str, call: Callable[[int], object], live: set[int]
) -> int:
    """Pass every integer to a function; return how many there were.

    ``call`` changes nothing where it is let in, or raises BadArgument.
    """
    n_cases = 0
    base = arena.address(0)
    before = ctypes.string_at(base, arena.n_bytes)
    for i in integers_around(arena):
        n_cases += 1
        try:
            call(i)
            accepted = True
        except (SizeLimitError, MemoryError):
            accepted = True  # the offset was good, the size was not
        except InvalidFree:
            accepted = False
        except BadArgument:
            # An integer that no offset can be.
            accepted = False
            if 0 <= i < arena.n_bytes:
                raise Refuted(f"{name}({i:#x}): BadArgument") from None
        if accepted != (i in live):
            raise Refuted(f"{name}({i:#x}): accepted {accepted}")
    if ctypes.string_at(base, arena.n_bytes) != before:
        raise Refuted(f"{name}: the arena has changed")
    return n_cases


def free_all(
    arena: Arena, name: str, call: Callable[[int], object], live: set[int]
) -> int:
    """Pass every integer to a function that frees; it may accept live offsets only."""
    n_cases = 0
    gone = set()
    for i in integers_around(arena):
        n_cases += 1
        try:
            call(i)
        except XmemError:
            continue
        gone.add(i)
        arena.check()
    if gone != live:
        raise Refuted(f"{name}: freed {sorted(gone)}, live were {sorted(live)}")
    return n_cases


def new_arena() -> Arena:
    return Arena.anonymous(192 << 10, page_size=PAGE, max_pools=4)


def thinned(free: Callable[[int], object], offsets: list[int]) -> set[int]:
    """Free some of what was allocated, so that free blocks lie between."""
    for offset in offsets[1::3]:
        free(offset)
    return set(offsets) - set(offsets[1::3])


def prove_pool(kind: dict[str, Any]) -> int:
    """Every function of a pool and of the arena, next to a second pool."""
    arena = new_arena()
    runs = {arena.page_alloc(0), arena.page_alloc_exact(3)}
    pool = Pool(arena, **{"grow_pages": 4, **kind})
    other = Pool(arena, engine="firstfit" if kind["engine"] == "tlsf" else "tlsf")
    offsets = []
    for n, align in (*SIZES, (5000, 16), (64, PAGE)):
        offsets.append(pool.xmalloc(n, align))
        other.xmalloc(n % 700)
    live = thinned(pool.xfree, offsets)
    n_cases = 0
    for name, call in {
        "usable_size": pool.usable_size,
        "view": lambda i: pool.view(i).release(),
        "xrealloc": lambda i: pool.xrealloc(i, 1 << 62),
    }.items():
        n_cases += compare(arena, name, call, live)
    for name, call in {
        "run_pages": arena.run_pages,
        "Arena.view": lambda i: arena.view(i).release(),
    }.items():
        n_cases += compare(arena, name, call, runs)
    n_cases += free_all(arena, "xfree", pool.xfree, live)
    n_cases += free_all(arena, "page_free", arena.page_free, runs)
    other.check()
    pool.check()
    return n_cases


def prove_heap(interface: str, hardened: bool) -> int:
    """Every function of a heap."""
    arena = new_arena()
    heap = Heap(arena, interface, hardened=hardened)
    small = []
    for n, align in SIZES:
        if n <= heap.xmalloc_max(align):
            small.append(heap.xmalloc(n, align))
    live = thinned(heap.xfree, small)
    subpage: set[int] = set()
    if interface == "subpage":
        subpage = thinned(
            heap.xfree_subpage, [heap.xmalloc_subpage(n) for n in (1, 50, 700, 2000)]
        )
    if interface == "array":
        live.add(heap.xmalloc_array(2, PAGE))
    runs = {heap.page_alloc(0), heap.page_alloc_exact(3)}
    lent = {offset for offset in runs if accepts(heap.usable_size, offset)}
    n_cases = 0
    for name, call in {
        "Heap.usable_size": heap.usable_size,
        "Heap.view": lambda i: heap.view(i).release(),
    }.items():
        n_cases += compare(arena, name, call, live | lent | subpage)
    n_cases += compare(
        arena, "Heap.xrealloc", lambda i: heap.xrealloc(i, 1 << 62), live
    )
    frees = heap.xfree
    n_cases += free_all(arena, "Heap.page_free", heap.page_free, runs)
    if subpage:
        n_cases += free_all(arena, "xfree_subpage", heap.xfree_subpage, subpage)
    n_cases += free_all(arena, "Heap.xfree", frees, live)
    heap.check()
    return n_cases


def accepts(call: Callable[[int], object], offset: int) -> bool:
    """Whether a function takes an offset."""
    try:
        call(offset)
    except InvalidFree:
        return False
    return True


def prove() -> int:
    """Try every function; return how many calls were made."""
    n_cases = sum(prove_pool(kind) for kind in POOLS)
    n_cases += sum(prove_heap(interface, False) for interface in INTERFACES)
    n_cases += sum(prove_heap(name, True) for name in ("strict", "array", "merged"))
    return n_cases


@click.command()
def main() -> None:
    """Pass every integer to every function that takes an offset."""
    click.echo(
        f"integers: {prove():,} calls; exactly the live ones were accepted, and no "
        "refusal changed a byte"
    )


if __name__ == "__main__":
    main()
