# SPDX-License-Identifier: BSD-3-Clause
"""The C-level API, used as a downstream package uses it."""

import re
from pathlib import Path

import pytest

import xmem

EXAMPLE = Path(__file__).parent / "cimport_example" / "caller.pyx"


@pytest.fixture(scope="module")
def caller(builds):
    """The example, built against the installed package."""
    return builds.module(EXAMPLE)


@pytest.fixture
def arena():
    with xmem.Arena.anonymous(4 << 20) as arena:
        yield arena


@pytest.mark.parametrize(
    "interface", ["strict", "array", "subpage", "legacy", "merged"]
)
def test_a_stack_in_a_heap(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    assert caller.round_trip(heap, 5000) == sum(range(5000))
    assert heap.stats().live_blocks == 0
    heap.check()


def test_limits_are_those_of_the_python_face(caller, arena):
    heap = xmem.Heap(arena, "strict")
    most, fits, above, overflow, zero, pages = caller.limits(heap)
    assert most == heap.XMALLOC_MAX
    assert (fits, above, overflow, zero, pages) == (True, False, 0, True, True)
    assert heap.stats().live_blocks == 0
    assert caller.limits(xmem.Heap(arena, "merged"))[2] is True


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_a_pool_proves_its_blocks(caller, arena, engine):
    pool = xmem.Pool(arena, engine=engine)
    assert caller.pool_pair(pool, 100) == (True, False)
    pool.check()


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_only_blocks_of_the_pool_are_freed(caller, arena, engine):
    pool, other = xmem.Pool(arena, engine=engine), xmem.Pool(arena, engine=engine)
    block, run = pool.xmalloc(100), pool.xmalloc(100, align=4096)
    foreign, page = other.xmalloc(100), arena.page_alloc(0)
    before = pool.walk().tolist(), other.walk().tolist(), arena.frames().tolist()
    for wrong in (0, 16, block + 16, block + 8, foreign, page, 2**40, 2**64 - 1):
        assert not caller.free_if_owned(pool, wrong)
    assert before == (
        pool.walk().tolist(),
        other.walk().tolist(),
        arena.frames().tolist(),
    )
    for mine in (block, run):
        assert caller.free_if_owned(pool, mine)
        assert not caller.free_if_owned(pool, mine)
    assert pool.stats().live_blocks == 0
    pool.check()


def test_headers_do_not_divide():
    """Inline code must mean the same whatever directives the caller builds with.

    Without ``cdivision`` a division by a variable needs the GIL to raise, and
    one in an enum is no constant: headers shift and mask.
    """
    headers = sorted(Path(xmem.__file__).parent.rglob("*.pxd"))
    assert len(headers) > 15
    for header in headers:
        code = re.sub(r'""".*?"""|#[^\n]*', "", header.read_text(), flags=re.S)
        if header.name == "clock.pxd":
            assert code.count("@cython.cdivision(True)") == code.count(" / ")
        else:
            assert not re.search(r"\s(/|//|%)\s", code), header
