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


# The rest of the family -------------------------------------------------------

INTERFACES = list(xmem.heap.INTERFACES)
#: A product, and with a header a sum, that exceeds 64 bits.
TOO_MANY = (1 << 63, 2)


def filled(heap, n_bytes, align=16):
    """A block full of ones."""
    block = heap.xmalloc(n_bytes, align)
    heap.view(block)[:] = b"\xff" * heap.usable_size(block)
    return block


@pytest.mark.parametrize("interface", INTERFACES)
def test_arrays_of_zeros(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    dirty = filled(heap, 600, 64)
    heap.xfree(dirty)
    block = caller.xzalloc_array(heap, 30, 20, 64)
    assert block == dirty
    assert bytes(heap.view(block, 600)) == bytes(600)
    assert caller.xzalloc_array(heap, *TOO_MANY, 16) == 0
    assert caller.xzalloc_array(heap, 1 << 20, 1 << 20, 16) == 0
    heap.xfree(block)
    assert heap.stats().live_blocks == 0
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_structures_with_a_flexible_array(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    like = heap.xmalloc(40 + 30 * 20, 32)
    block = caller.xmalloc_flex_struct(heap, 40, 30, 20, 32)
    assert block % 32 == 0
    assert heap.usable_size(block) == heap.usable_size(like) >= 640
    assert caller.xmalloc_flex_struct(heap, 0, *TOO_MANY, 16) == 0
    assert caller.xmalloc_flex_struct(heap, 32, 1 << 60, 15, 16) == 0
    assert caller.xmalloc_flex_struct(heap, 16, (1 << 64) - 16, 1, 16) == 0
    whole = caller.xmalloc_flex_struct(heap, 8, heap.XMALLOC_MAX, 1, 16)
    assert bool(whole) == (interface != "strict")
    for live in filter(None, (like, block, whole)):
        heap.xfree(live)
    assert heap.stats().live_blocks == 0
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_copies(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    source = bytes(range(256)) * 3
    block = caller.xmemdup(heap, source, 128)
    assert block % 128 == 0
    assert bytes(heap.view(block, len(source))) == source
    empty = caller.xmemdup(heap, b"", 16)
    assert empty
    large = caller.xmemdup(heap, bytes(heap.XMALLOC_MAX + 1), 16)
    assert bool(large) == (interface not in ("strict", "array"))
    for live in filter(None, (block, empty, large)):
        heap.xfree(live)
    assert heap.stats().live_blocks == 0
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_resized_blocks(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    block = caller.xmemdup(heap, b"kept" * 25, 16)
    barrier = heap.xmalloc(16)
    grown = caller.xrealloc(heap, block, 1500, 64)
    assert grown not in (0, block)
    assert grown % 64 == 0
    assert bytes(heap.view(grown, 100)) == b"kept" * 25
    assert heap.usable_size(grown) >= 1500
    assert caller.xrealloc(heap, grown, 1 << 40, 16) == 0
    above = caller.xrealloc(heap, grown, heap.XMALLOC_MAX + 1, 16)
    assert bool(above) == (interface not in ("strict", "array"))
    small = caller.xrealloc(heap, above or grown, 100, 16)
    assert small
    assert bytes(heap.view(small, 100)) == b"kept" * 25
    heap.xfree(small)
    heap.xfree(barrier)
    assert heap.stats().live_blocks == 0
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_resized_arrays(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    block = caller.xmemdup(heap, b"kept" * 25, 16)
    grown = caller.xrealloc_array(heap, block, 30, 50, 64)
    assert grown % 64 == 0
    assert bytes(heap.view(grown, 100)) == b"kept" * 25
    assert heap.usable_size(grown) >= 1500
    assert caller.xrealloc_array(heap, grown, *TOO_MANY, 16) == 0
    assert caller.xrealloc_array(heap, grown, 1 << 20, 1 << 20, 16) == 0
    above = caller.xrealloc_array(heap, grown, heap.XMALLOC_MAX, 2, 16)
    assert bool(above) == (interface != "strict")
    live = above or grown
    assert bytes(heap.view(live, 100)) == b"kept" * 25
    heap.xfree(live)
    assert heap.stats().live_blocks == 0
    heap.check()


@pytest.mark.parametrize("interface", INTERFACES)
def test_small_blocks(caller, arena, interface):
    heap = xmem.Heap(arena, interface)
    block = caller.xmalloc_subpage(heap, 100, 32)
    if interface == "legacy":
        assert block == 0
        assert not caller.xfree_subpage(heap, 16)
        return
    assert block % 32 == 0
    assert heap.stats().live_blocks == 1
    # A pool of their own in one interface, that of xmalloc in the others.
    if interface == "subpage":
        with pytest.raises(xmem.MismatchedFree):
            heap.xfree(block)
    above = caller.xmalloc_subpage(heap, heap.XMALLOC_MAX + 1, 16)
    assert bool(above) == (interface == "merged")
    if above:
        assert caller.xfree_subpage(heap, above)
    assert caller.xfree_subpage(heap, block)
    assert not caller.xfree_subpage(heap, block)
    assert heap.stats().live_blocks == 0
    heap.check()


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


# A pool without a Pool --------------------------------------------------------

DONE, BAD_SETTINGS, BAD_NAME, NAME_TAKEN, NO_ENTRY, NO_PAGES = range(6)


def state(arena):
    """Pools and page runs of an arena."""
    return arena.pools(), arena.frames().tolist()


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_a_pool_made_in_c_is_a_pool(caller, arena, engine):
    done, number = caller.create(arena, b"made", engine=caller.ENGINES[engine])
    assert (done, number) == (DONE, 1)
    assert caller.number_of(arena, b"made") == 1
    pool = xmem.Pool.open(arena, "made")
    assert (pool.engine, pool.id, pool.max_pages) == (engine, 1, 0)
    assert pool.grow_pages == (16 if engine == "tlsf" else 1)
    offset = pool.xmalloc(100)
    pool.check()
    pool.xfree(offset)
    pool.destroy()
    assert caller.number_of(arena, b"made") == 0


def test_settings_of_c_are_those_of_python(caller, arena):
    def properties(pool):
        names = ("engine", "grow_pages", "max_pages", "join_regions", "hardening")
        return [getattr(pool, name) for name in (*names, "quick")]

    hardened = xmem.Pool(arena, grow_pages=3, max_pages=50, hardened=True)
    quick = xmem.Pool(arena, join_regions=False, quick=True)
    flags = caller.SETTINGS["flags"] | caller.HARDENED
    caller.create(arena, b"a", grow_pages=3, max_pages=50, flags=flags)
    caller.create(arena, b"b", flags=0, has_quicklists=True)
    assert properties(xmem.Pool.open(arena, "a")) == properties(hardened)
    assert properties(xmem.Pool.open(arena, "b")) == properties(quick)


@pytest.mark.parametrize(
    ("reason", "name", "changes"),
    [
        (BAD_SETTINGS, b"x", {"engine": 0}),
        (BAD_SETTINGS, b"x", {"engine": 3}),
        (BAD_SETTINGS, b"x", {"grow_pages": 1 << 20}),
        (BAD_SETTINGS, b"x", {"has_quicklists": True, "engine": 2}),
        (BAD_SETTINGS, b"x", {"has_quicklists": True, "flags": 16}),
        (BAD_SETTINGS, b"x", {"flags": 16, "engine": 2}),
        (BAD_SETTINGS, b"x", {"flags": 2}),
        (BAD_SETTINGS, b"x", {"flags": 1 << 9}),
        (BAD_NAME, b"n" * 41, {}),
        (NAME_TAKEN, b"first", {}),
    ],
)
def test_what_cannot_be_made_changes_nothing(caller, arena, reason, name, changes):
    assert caller.create(arena, b"first") == (DONE, 1)
    before = state(arena)
    assert caller.create(arena, name, **changes) == (reason, 0)
    assert state(arena) == before
    arena.check()


def test_a_full_directory_and_full_frames_are_distinguished(caller):
    with xmem.Arena.anonymous(1 << 20, page_size=4096, max_pools=2) as arena:
        assert caller.create(arena, b"") == (DONE, 1)
        while arena.n_free_pages:
            arena.page_alloc(0)
        assert caller.create(arena, b"") == (NO_PAGES, 0)
        assert set(arena.pools()) == {"pool-1"}
    with xmem.Arena.anonymous(1 << 20, page_size=4096, max_pools=2) as arena:
        for number in (1, 2):
            assert caller.create(arena, b"") == (DONE, number)
        assert caller.create(arena, b"") == (NO_ENTRY, 0)
        assert set(arena.pools()) == {"pool-1", "pool-2"}


@pytest.mark.parametrize("settings", [{}, {"flags": 0}, {"max_pages": 20}])
def test_reserve_fill_and_shrink(caller, arena, settings):
    other = xmem.Pool(arena, name="other")
    kept = other.xmalloc(100)
    free = arena.n_free_pages
    done, number = caller.create(arena, b"made", **settings)
    control = free - arena.n_free_pages
    limit = settings.get("max_pages") or arena.n_free_pages
    reserved, held, given, left = caller.life(arena, number, 30)
    assert (done, reserved, held) == (DONE, min(30, limit), limit)
    # A free gives regions back too, but for those in hand.
    assert (0 < given <= held, left) == (True, 0)
    assert arena.n_free_pages == free - control
    xmem.Pool.open(arena, "made").check()
    caller.destroy(arena, number)
    assert arena.n_free_pages == free
    arena.check()
    other.xfree(kept)
    other.check()


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_destroying_in_c_leaves_nothing(caller, arena, engine):
    before = state(arena)
    _, number = caller.create(arena, b"made", engine=caller.ENGINES[engine])
    pool = xmem.Pool.open(arena, "made")
    blocks = [pool.xmalloc(n) for n in (0, 100, 5000, 100_000)]
    blocks.append(pool.xmalloc(10, align=8192))
    caller.destroy(arena, number)
    assert state(arena) == before
    assert pool.closed
    again = xmem.Pool(arena, engine=engine)
    for offset in blocks:
        with pytest.raises(xmem.InvalidFree):
            again.xfree(offset)
    arena.check()
    again.check()


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
