# SPDX-License-Identifier: BSD-3-Clause
"""Allocating times freeing routine times interface: matching pairs free, others do not.

Memory of xmalloc goes to xfree, of page_alloc to page_free, of xmalloc_subpage
to xfree_subpage. In ``merged`` and ``legacy`` xfree takes pages as well. A
mismatch names the routine to use and changes no byte of the arena.
"""

import itertools

import numpy as np
import pytest
from support.heaps import INTERFACES, PAGE, WITH_SUBPAGE, heap_of, held_pages, image

from xmem import InvalidFree, MismatchedFree, NotInInterface, Pool

#: Every routine that gives memory, by the one that frees it.
GIVERS = {
    "xfree": {
        "xmalloc": lambda heap: heap.xmalloc(100),
        "xmalloc aligned": lambda heap: heap.xmalloc(100, align=512),
        "xmalloc of nothing": lambda heap: heap.xmalloc(0),
        "xzalloc": lambda heap: heap.xzalloc(100),
        "xmalloc_bytes": lambda heap: heap.xmalloc_bytes(100),
        "xmalloc_array": lambda heap: heap.xmalloc_array(10, 10),
        "xzalloc_array": lambda heap: heap.xzalloc_array(10, 10),
        "xmalloc_flex_struct": lambda heap: heap.xmalloc_flex_struct(16, 8, 10),
        "xmemdup": lambda heap: heap.xmemdup(b"x" * 100),
        "xrealloc": lambda heap: heap.xrealloc(heap.xmalloc(10), 1000),
        "xrealloc_array": lambda heap: heap.xrealloc_array(heap.xmalloc(9), 10, 50),
    },
    "xfree_subpage": {
        "xmalloc_subpage": lambda heap: heap.xmalloc_subpage(100),
        "xmalloc_subpage aligned": lambda heap: heap.xmalloc_subpage(100, align=256),
    },
    "page_free": {
        "page_alloc": lambda heap: heap.page_alloc(0),
        "page_alloc of four": lambda heap: heap.page_alloc(2),
        "page_alloc_exact": lambda heap: heap.page_alloc_exact(3),
    },
}
WHOLE = {
    "large xmalloc": lambda heap: heap.xmalloc(3 * PAGE),
    "large xmalloc_array": lambda heap: heap.xmalloc_array(3, PAGE),
}
FREERS = ("xfree", "xfree_subpage", "page_free")
ALL = {name: (freer, give) for freer, g in GIVERS.items() for name, give in g.items()}


def serves(interface, name):
    """Whether an interface has the routine, and serves the size."""
    if "subpage" in name:
        return interface in WITH_SUBPAGE
    if name == "large xmalloc":
        return interface in ("subpage", "legacy", "merged")
    if name == "large xmalloc_array":
        return interface != "strict"
    return True


def takes(interface, freer, matched):
    """Whether ``freer`` takes what is to be freed by ``matched``."""
    if freer == "xfree_subpage" and interface == "legacy":
        return False
    if interface != "subpage" and {freer, matched} == {"xfree", "xfree_subpage"}:
        return True  # xmalloc_subpage is xmalloc there
    if interface in ("merged", "legacy") and matched == "page_free":
        return freer in ("page_free", "xfree")
    return freer == matched


def cases():
    givers = ALL | {name: ("xfree", give) for name, give in WHOLE.items()}
    for interface, (name, (matched, give)), freer in itertools.product(
        INTERFACES, givers.items(), FREERS
    ):
        if serves(interface, name):
            yield pytest.param(
                interface, matched, give, freer, id=f"{interface}-{name}-{freer}"
            )


@pytest.mark.parametrize(("interface", "matched", "give", "freer"), list(cases()))
def test_every_giver_with_every_freer(interface, matched, give, freer):
    with heap_of(interface) as heap:
        neighbours = [heap.xmalloc(100), heap.page_alloc(0)]
        offset = give(heap)
        neighbours.append(heap.xmalloc(100))
        heap.view(offset)[:] = b"\xa5" * len(heap.view(offset))
        if takes(interface, freer, matched):
            getattr(heap, freer)(offset)
        else:
            before = image(heap.arena)
            stats = heap.stats()
            absent = freer == "xfree_subpage" and interface == "legacy"
            error = NotInInterface if absent else MismatchedFree
            with pytest.raises(error) as caught:
                getattr(heap, freer)(offset)
            if not absent:
                # Where xmalloc_subpage is xmalloc, its memory goes to xfree as well.
                same = matched == "xfree_subpage" and interface != "subpage"
                routine = "xfree" if same else matched
                assert str(caught.value).endswith(f" with {routine}")
                assert freer in str(caught.value).split(":")[0]
            assert image(heap.arena) == before
            assert heap.stats() == stats
            assert bytes(heap.view(offset)) == b"\xa5" * len(heap.view(offset))
            getattr(heap, matched)(offset)
        with pytest.raises(InvalidFree):
            getattr(heap, matched)(offset)
        heap.xfree(neighbours[0])
        heap.page_free(neighbours[1])
        heap.xfree(neighbours[2])
        heap.check()
        assert heap.stats().live_blocks == 0


RESIZERS = {
    "xrealloc": lambda heap, offset: heap.xrealloc(offset, 50),
    "xrealloc_array": lambda heap, offset: heap.xrealloc_array(offset, 5, 10),
}


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("interface", INTERFACES)
def test_only_xmalloc_has_an_xrealloc(interface, resizer):
    with heap_of(interface) as heap:
        refused = [("page_alloc", heap.page_alloc(1))]
        if interface == "subpage":
            refused.append(("xmalloc_subpage", heap.xmalloc_subpage(100)))
        for name, offset in refused:
            before = image(heap.arena)
            with pytest.raises(MismatchedFree, match=name.split("_")[1]):
                RESIZERS[resizer](heap, offset)
            assert image(heap.arena) == before


@pytest.mark.parametrize("interface", INTERFACES)
def test_memory_of_elsewhere_is_refused_by_every_freer(interface):
    """Of another heap, of a pool, of the arena."""
    with heap_of(interface, 2 << 20) as heap:
        arena = heap.arena
        other = type(heap)(arena, interface, name="other")
        pool = Pool(arena, name="pool")
        foreign = {
            "heap": other.xmalloc(100),
            "heap's pages": other.page_alloc(0),
            "pool": pool.xmalloc(100),
            "pool's pages": pool.xmalloc(10, align=PAGE),
            "arena": arena.page_alloc(0),
        }
        before = image(arena)
        for what, offset in foreign.items():
            for freer in FREERS:
                if freer == "xfree_subpage" and interface == "legacy":
                    continue
                with pytest.raises(MismatchedFree):
                    getattr(heap, freer)(offset)
                assert image(arena) == before, (what, freer)
        for freed_by, what in [
            (other.xfree, "heap"),
            (other.page_free, "heap's pages"),
            (pool.xfree, "pool"),
            (pool.xfree, "pool's pages"),
            (arena.page_free, "arena"),
        ]:
            freed_by(foreign[what])


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_random_program_frees_all_by_its_match(interface, seed):
    rng = np.random.default_rng([seed, INTERFACES.index(interface)])
    givers = [
        (matched, give)
        for name, (matched, give) in ALL.items()
        if serves(interface, name)
    ]
    with heap_of(interface, 4 << 20) as heap:
        start = heap.arena.n_free_pages
        live = []
        for _ in range(600):
            if live and rng.random() < 0.48:
                matched, offset = live.pop(int(rng.integers(len(live))))
                wrong = FREERS[int(rng.integers(3))]
                if not takes(interface, wrong, matched):
                    with pytest.raises((MismatchedFree, NotInInterface)):
                        getattr(heap, wrong)(offset)
                getattr(heap, matched)(offset)
            else:
                matched, give = givers[int(rng.integers(len(givers)))]
                live.append((matched, give(heap)))
        for matched, offset in live:
            getattr(heap, matched)(offset)
        heap.check()
        heap.shrink()
        assert held_pages(heap) == 0
        assert heap.arena.n_free_pages == start
