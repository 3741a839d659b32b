# SPDX-License-Identifier: BSD-3-Clause
"""The whole family of xmalloc.h: sizes, zeros, copies, alignments, overflow."""

import array
import contextlib
import itertools

import numpy as np
import pytest
from support.heaps import INTERFACES, PAGE, WITH_SUBPAGE, heap_of, image

import xmem

pytestmark = pytest.mark.damages

#: Each routine as a function of (heap, bytes, keywords); sizes are of bytes.
FAMILY = {
    "xmalloc": lambda heap, n, **kw: heap.xmalloc(n, **kw),
    "xzalloc": lambda heap, n, **kw: heap.xzalloc(n, **kw),
    "xmalloc_bytes": lambda heap, n, **kw: heap.xmalloc_bytes(n, **kw),
    "xmalloc_array": lambda heap, n, **kw: heap.xmalloc_array(n, 1, **kw),
    "xzalloc_array": lambda heap, n, **kw: heap.xzalloc_array(1, n, **kw),
    "xmalloc_flex_struct": lambda heap, n, **kw: heap.xmalloc_flex_struct(
        n // 2, 1, n - n // 2, **kw
    ),
    "xmemdup": lambda heap, n, **kw: heap.xmemdup(b"\x5a" * n, **kw),
    "xmalloc_subpage": lambda heap, n, **kw: heap.xmalloc_subpage(n, **kw),
    "xrealloc": lambda heap, n, **kw: heap.xrealloc(heap.xmalloc(7), n, **kw),
    "xrealloc_array": lambda heap, n, **kw: heap.xrealloc_array(
        heap.xmalloc(7), n, 1, **kw
    ),
    "block": lambda heap, n, **kw: heap.block(n, **kw).detach(),
}
ZEROING = ("xzalloc", "xzalloc_array")


def members(interface):
    """The routines that an interface has."""
    return [n for n in FAMILY if n != "xmalloc_subpage" or interface in WITH_SUBPAGE]


def give_back(heap, name, offset):
    if name == "xmalloc_subpage":
        heap.xfree_subpage(offset)
    else:
        heap.xfree(offset)


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_routine_at_every_alignment(interface):
    with heap_of(interface) as heap:
        for name, log2 in itertools.product(members(interface), range(12)):
            held = []
            for n in (0, 1, 15, 16, 17, 100, 1000):
                offset = FAMILY[name](heap, n, align=1 << log2)
                assert offset % max(16, 1 << log2) == 0
                assert heap.usable_size(offset) >= n
                view = heap.view(offset, n)
                if name in ZEROING:
                    assert bytes(view) == bytes(n)
                if name == "xmemdup":
                    assert bytes(view) == b"\x5a" * n
                view[:] = b"\xff" * n
                view.release()
                held.append(offset)
            assert len(set(held)) == len(held)
            for offset in held:
                give_back(heap, name, offset)
            heap.check()
        assert heap.stats().live_blocks == 0


@pytest.mark.parametrize("interface", ["array", "subpage", "legacy", "merged"])
def test_whole_pages_at_every_alignment(interface):
    with heap_of(interface, 4 << 20) as heap:
        for log2, n in itertools.product(range(17), (PAGE, PAGE + 1, 5 * PAGE)):
            offset = heap.xzalloc_array(1, n, align=1 << log2)
            assert offset % (1 << log2) == 0
            assert bytes(heap.view(offset, n)) == bytes(n)
            heap.view(offset, n)[:] = b"\xff" * n
            heap.xfree(offset)


@pytest.mark.parametrize("interface", INTERFACES)
def test_zeroing_routines_zero_what_was_dirty(interface):
    with heap_of(interface) as heap:
        for n in (1, 8, 100, 2000, 4000):
            dirty = [heap.xmalloc(n) for _ in range(3)]
            for offset in dirty:
                heap.view(offset)[:] = b"\xff" * heap.usable_size(offset)
            for offset in dirty:
                heap.xfree(offset)
            for give in (heap.xzalloc, lambda n: heap.xzalloc_array(n, 1)):
                offset = give(n)
                assert not any(heap.view(offset, n))
                heap.view(offset)[:] = b"\xff" * heap.usable_size(offset)
                heap.xfree(offset)


# Zero size ---------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_nothing_is_a_block_that_can_be_freed(interface):
    with heap_of(interface) as heap:
        for name in members(interface):
            first, second = FAMILY[name](heap, 0), FAMILY[name](heap, 0)
            assert 0 < first != second > 0
            give_back(heap, name, first)
            give_back(heap, name, second)
            with pytest.raises(xmem.DoubleFree):
                give_back(heap, name, first)
        assert heap.stats().live_blocks == 0
        for count, size in [(0, 100), (100, 0), (0, 0), (0, 1 << 63), (1 << 64 - 1, 0)]:
            heap.xfree(heap.xmalloc_array(count, size))
        heap.xfree(heap.xmalloc_flex_struct(0, 0, 0))
        kept = heap.xrealloc(heap.xmalloc(100), 0)
        heap.xfree(kept)
        assert heap.stats().live_blocks == 0


# Overflow ----------------------------------------------------------------------

EDGES = sorted(
    {
        (1 << power) + delta
        for power in (31, 32, 44, 62, 63, 64)
        for delta in (-17, -16, -9, -8, -1, 0, 1)
    }
    | {1 << 70, 10**40}
)
REFUSED = (xmem.OutOfMemory, xmem.SizeLimitError)


def entries(heap, live, sub):
    """Every entry point with one size, as functions of that size."""
    found = {
        "xmalloc": heap.xmalloc,
        "xzalloc": heap.xzalloc,
        "xmalloc_bytes": heap.xmalloc_bytes,
        "xrealloc": lambda n: heap.xrealloc(live, n),
        "block": heap.block,
        "xmalloc_array count": lambda n: heap.xmalloc_array(n, 1),
        "xmalloc_array size": lambda n: heap.xmalloc_array(1, n),
        "xmalloc_array both": lambda n: heap.xmalloc_array(n, n),
        "xzalloc_array count": lambda n: heap.xzalloc_array(n, 3),
        "xzalloc_array size": lambda n: heap.xzalloc_array(3, n),
        "xrealloc_array count": lambda n: heap.xrealloc_array(live, n, 5),
        "xrealloc_array size": lambda n: heap.xrealloc_array(live, 5, n),
        "xmalloc_flex_struct header": lambda n: heap.xmalloc_flex_struct(n, 1, 1),
        "xmalloc_flex_struct size": lambda n: heap.xmalloc_flex_struct(16, n, 2),
        "xmalloc_flex_struct count": lambda n: heap.xmalloc_flex_struct(16, 2, n),
        "xmalloc_flex_struct all": lambda n: heap.xmalloc_flex_struct(n, n, n),
        "page_alloc_exact": heap.page_alloc_exact,
        "page_alloc": heap.page_alloc,
    }
    if sub:
        found["xmalloc_subpage"] = heap.xmalloc_subpage
    return found


@pytest.mark.parametrize("interface", INTERFACES)
def test_overflow_is_seen_at_every_entry_point(interface):
    with heap_of(interface) as heap:
        live = heap.xmalloc(100)
        heap.view(live)[:5] = b"holds"
        before = image(heap.arena)
        errors = (*REFUSED, xmem.BadArgument)
        for name, call in entries(heap, live, interface in WITH_SUBPAGE).items():
            for n in EDGES:
                with pytest.raises(errors if name == "page_alloc" else REFUSED):
                    call(n)
            assert image(heap.arena) == before, name
        assert bytes(heap.view(live, 5)) == b"holds"


@pytest.mark.parametrize("interface", INTERFACES)
def test_products_that_wrap_to_something_small(interface):
    """Products and sums whose low 64 bits are a size that would be served."""
    small = [
        ("xmalloc_array", (1 << 32, 1 << 32)),
        ("xmalloc_array", ((1 << 63) + 4, 2)),
        ("xzalloc_array", (1 << 61, 8)),
        ("xzalloc_array", (0x5555555555555556, 3)),
        ("xmalloc_flex_struct", ((1 << 64) - 8, 8, 2)),
        ("xmalloc_flex_struct", (16, 1 << 60, 16)),
        ("xmalloc_flex_struct", ((1 << 64) - 1, 1, 1)),
    ]
    with heap_of(interface) as heap:
        live = heap.xmalloc(100)
        before = image(heap.arena)
        for name, sizes in small:
            with pytest.raises(xmem.OutOfMemory, match="overflow 64 bits"):
                getattr(heap, name)(*sizes)
        for count, size in [(1 << 32, 1 << 32), ((1 << 63) + 4, 2)]:
            with pytest.raises(xmem.OutOfMemory, match="overflow 64 bits"):
                heap.xrealloc_array(live, count, size)
        assert image(heap.arena) == before


# Copies ------------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_xmemdup_copies_whatever_has_bytes(interface):
    sources = [
        b"bytes",
        bytearray(b"more"),
        memoryview(b"0123456789")[2:5],
        array.array("d", [1.5, 2.5]),
        np.arange(100, dtype="u2"),
        np.arange(64, dtype="u1").reshape(8, 8)[2:5].copy(),
        b"",
    ]
    with heap_of(interface) as heap:
        for source in sources:
            expected = memoryview(source).tobytes()
            offset = heap.xmemdup(source, align=64)
            assert offset % 64 == 0
            assert bytes(heap.view(offset, len(expected))) == expected
            heap.xfree(offset)
        mine = heap.xmemdup(b"within the arena")
        again = heap.xmemdup(heap.view(mine, 16))
        assert bytes(heap.view(again, 16)) == b"within the arena"


@pytest.mark.parametrize("interface", INTERFACES)
def test_xmemdup_refuses_what_it_cannot_copy(interface):
    with heap_of(interface) as heap:
        before = image(heap.arena)
        for source in (np.arange(20)[::2], memoryview(bytes(9))[::3], "text", 5, None):
            with pytest.raises((xmem.BadArgument, xmem.BadArgumentType)):
                heap.xmemdup(source)
        assert image(heap.arena) == before


# Resizing ----------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_resizing_keeps_what_both_sizes_have(interface):
    most = 4000 if interface in ("strict", "array") else 20_000
    sizes = [0, 1, 16, 100, 1000, 3500, 4000, *range(4090, 4100), 9000, 20_000]
    with heap_of(interface, 4 << 20) as heap:
        for old, new in itertools.product([n for n in sizes if n <= most], repeat=2):
            offset = heap.xmalloc(old)
            wall = heap.xmalloc(1)
            pattern = bytes((old + new + i) & 255 for i in range(old))
            heap.view(offset, old)[:] = pattern
            moved = heap.xrealloc(offset, new)
            kept = min(old, new)
            assert bytes(heap.view(moved, kept)) == pattern[:kept]
            heap.xfree(moved)
            heap.xfree(wall)
        assert heap.stats().live_blocks == 0


@pytest.mark.parametrize("interface", ["array", "merged"])
@pytest.mark.parametrize("n", [0, 1, 100, PAGE - 100, PAGE, PAGE + 1, 2 * PAGE])
def test_a_shrink_from_whole_pages_succeeds_in_a_full_heap(interface, n):
    with heap_of(interface) as heap:
        first = heap.xmalloc_array(1, 3 * PAGE)
        heap.view(first)[: 3 * PAGE] = bytes(range(256)) * (3 * PAGE // 256)
        for size in (16 * PAGE, PAGE, 16):
            with contextlib.suppress(xmem.OutOfMemory):
                while True:
                    heap.xmalloc_array(1, size)
        n_live = heap.stats().live_blocks
        assert heap.xrealloc_array(first, 1, n) == first
        kept = heap.view(first)
        assert len(kept) >= n
        assert bytes(kept[:n]) == (bytes(range(256)) * 48)[:n]
        kept.release()
        assert heap.stats().live_blocks == n_live
        heap.check()


# The object form ---------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_XFREE_clears_the_object(interface):
    with heap_of(interface) as heap:
        block = heap.block(100, align=64)
        assert block
        assert len(block) == 100
        assert block.allocator is heap
        assert block.offset % 64 == 0
        block.view()[:] = b"x" * 100
        assert bytes(heap.view(block.offset, 100)) == b"x" * 100
        heap.XFREE(block)
        assert not block
        assert block.offset == 0
        assert heap.stats().live_blocks == 0
        heap.XFREE(block)  # as Xen's, nothing
        with pytest.raises(xmem.XmemError):
            block.view()


@pytest.mark.parametrize("interface", INTERFACES)
def test_XFREE_of_what_is_gone_or_elsewhere(interface):
    with heap_of(interface, 2 << 20) as heap:
        block = heap.block(100)
        with pytest.raises(xmem.MismatchedFree, match="owns"):
            heap.xfree(block.offset)
        block.release()
        heap.XFREE(block)
        other = type(heap)(heap.arena, interface)
        mine = heap.block(10)
        with heap_of(interface, 2 << 20) as elsewhere:
            # The same offset is live there.
            assert elsewhere.block(10).detach() > 0
            elsewhere.xfree(elsewhere.xmalloc(100))
            while not any(
                mine.offset == b["offset"]
                for p in elsewhere.pools
                for b in p.walk()[p.walk()["used"]]
            ):
                elsewhere.xmalloc(10)
            for wrong in (other, elsewhere):
                before = image(wrong.arena)
                with pytest.raises(xmem.MismatchedFree, match="use that"):
                    wrong.XFREE(mine)
                assert image(wrong.arena) == before
        assert mine
        view = mine.view()
        with pytest.raises(BufferError):
            heap.XFREE(mine)
        assert mine
        view.release()
        heap.XFREE(mine)
        for wrong in (None, 5, mine.offset, "block"):
            with pytest.raises(xmem.BadArgumentType):
                heap.XFREE(wrong)
