# SPDX-License-Identifier: BSD-3-Clause
"""What a call costs in all: arguments, proof and verb, counted by single-stepping.

The benchmark's tool counts the instructions that lie in xmem's compiled modules. The
first call after a fork does extra work, in the arena and in the pool, so others are
made before the one counted.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from xmem import Arena, Heap, Pool

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"
BYTES = 600

pytestmark = [
    pytest.mark.release,
    pytest.mark.no_asan,
    pytest.mark.skipif(
        not SUITE.is_dir(), reason="the benchmarks are in a checkout only"
    ),
]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Count the instructions of a method's call, after other calls."""
    monkeypatch.syspath_prepend(str(SUITE))
    stepping = importlib.import_module("benchmarks.stepping")

    def counted(arena: Arena, call: Callable[..., object], *arguments: object) -> int:
        owner = call.__self__  # type: ignore[attr-defined]

        def neutral() -> None:
            arena.n_pages  # noqa: B018
            owner.maxalloc if isinstance(owner, Pool) else owner.interface

        def both() -> None:
            neutral()
            call(*arguments)

        return stepping.count(both) - stepping.count(neutral)

    try:
        stepping.count(len, ())
    except stepping.CannotCount as error:
        pytest.skip(str(error))
    return counted


def five(heap: Heap | Pool) -> list[int]:
    """Five blocks side by side."""
    return [heap.xmalloc(BYTES) for _ in range(5)]


@pytest.mark.parametrize("interface", ["strict", "array", "merged"])
def test_a_heap_proves_once(count: Callable[..., int], interface: str) -> None:
    with Arena.anonymous(1 << 20, page_size=4096) as arena:
        pool, heap = Pool(arena), Heap(arena, interface)
        of_pool, of_heap = five(pool)[2], five(heap)[2]
        free = count(arena, heap.xfree, of_heap)
        assert count(arena, pool.xfree, of_pool) <= 140
        assert free <= 240
        assert count(arena, heap.xmalloc, BYTES) <= 330
        assert count(arena, heap.usable_size, of_heap) <= 220
        heap.xfree(of_heap)  # after all this it is still live, and the heap sound
        heap.check()


def test_two_pools_are_entered_once(count: Callable[..., int]) -> None:
    with Arena.anonymous(1 << 20, page_size=4096) as arena:
        heap, pool = Heap(arena, "subpage"), Pool(arena, engine="firstfit")
        small = [heap.xmalloc_subpage(BYTES) for _ in range(5)][2]
        assert count(arena, heap.xfree_subpage, small) <= 240
        # The legacy engine behind xfree walks its list, in a pool as in a heap. A heap
        # asks for more than an ordinary pool does.
        of_pool = count(arena, pool.xfree, five(pool)[2])
        assert count(arena, heap.xfree, five(heap)[2]) <= of_pool + 90


def test_a_pool_costs_what_it_did(count: Callable[..., int]) -> None:
    with Arena.anonymous(1 << 20, page_size=4096) as arena:
        pool = Pool(arena)
        block = five(pool)[2]
        assert count(arena, pool.xmalloc, BYTES) <= 160
        assert count(arena, pool.usable_size, block) <= 90
        assert count(arena, pool.xrealloc, block, BYTES - 20) <= 320
        assert count(arena, pool.xfree, block) <= 140
