# SPDX-License-Identifier: BSD-3-Clause
"""The table of the five interfaces, row by row, and their limits to the byte."""

import pytest
from support.heaps import INTERFACES, PAGE, WITH_SUBPAGE, heap_of, held_pages

from xmem import Arena, Heap, NotInInterface, OutOfMemory, SizeLimitError
from xmem.arena import FRAME_REGION, FRAME_RUN, FRAME_WHOLE

PAGE_SIZES = (4096, 8192, 16384, 65536, 1 << 20)
#: What a request that fits no page becomes, by (interface, routine): refused,
#: whole pages with the tail given back, or a power of two of pages.
LARGE = {
    ("strict", "xmalloc"): "refused",
    ("strict", "xmalloc_array"): "refused",
    ("strict", "xmalloc_subpage"): "refused",
    ("array", "xmalloc"): "refused",
    ("array", "xmalloc_array"): "exact",
    ("array", "xmalloc_subpage"): "refused",
    ("subpage", "xmalloc"): "power",
    ("subpage", "xmalloc_array"): "power",
    ("subpage", "xmalloc_subpage"): "refused",
    ("legacy", "xmalloc"): "power",
    ("legacy", "xmalloc_array"): "power",
    ("merged", "xmalloc"): "exact",
    ("merged", "xmalloc_array"): "exact",
    ("merged", "xmalloc_subpage"): "exact",
}
#: The engine behind a small request.
ENGINE = {
    (interface, routine): "firstfit"
    if interface == "legacy"
    or (interface == "subpage" and routine != "xmalloc_subpage")
    else "tlsf"
    for interface, routine in LARGE
}
ROWS = sorted(LARGE)


def call(heap, routine, n, **keywords):
    if routine == "xmalloc_array":
        return heap.xmalloc_array(n, 1, **keywords)
    return getattr(heap, routine)(n, **keywords)


def release(heap, routine, offset):
    name = "xfree_subpage" if routine == "xmalloc_subpage" else "xfree"
    getattr(heap, name)(offset)


def state_of(heap, offset):
    """State and pages of the run in which an offset lies, and its pool."""
    page = offset // heap.PAGE_SIZE
    for row in heap.arena.frames():
        if row["page"] <= page < row["page"] + row["n_pages"]:
            owner = next(p for p in heap.pools if p.id == row["owner"])
            return int(row["state"]), int(row["n_pages"]), owner
    raise AssertionError(offset)


def test_the_table_has_a_row_for_every_interface_and_routine():
    routines = {"xmalloc", "xmalloc_array", "xmalloc_subpage"}
    assert {r for _, r in ROWS} == routines
    for interface in INTERFACES:
        has = routines if interface in WITH_SUBPAGE else routines - {"xmalloc_subpage"}
        assert {r for i, r in ROWS if i == interface} == has


def test_the_legacy_interface_has_no_subpage():
    with heap_of("legacy") as heap:
        for name in ("xmalloc_subpage", "xfree_subpage"):
            with pytest.raises(NotInInterface, match="legacy"):
                getattr(heap, name)(16)


@pytest.mark.parametrize(("interface", "routine"), ROWS)
def test_who_serves_small_requests(interface, routine):
    with heap_of(interface) as heap:
        for n in (0, 1, 100, 2000):
            offset = call(heap, routine, n)
            state, _, pool = state_of(heap, offset)
            assert state == FRAME_REGION
            assert pool.engine == ENGINE[interface, routine]
            assert heap.usable_size(offset) >= n
            release(heap, routine, offset)


@pytest.mark.parametrize(("interface", "routine"), ROWS)
def test_who_serves_requests_above_a_page(interface, routine):
    how = LARGE[interface, routine]
    with heap_of(interface) as heap:
        for n in (PAGE + 1, 3 * PAGE - 200, 5 * PAGE - 100):
            if how == "refused":
                with pytest.raises(SizeLimitError, match="page_alloc"):
                    call(heap, routine, n)
                assert held_pages(heap) == 0
                continue
            offset = call(heap, routine, n)
            least = -(-n // PAGE)
            expected = least if how == "exact" else 1 << (least - 1).bit_length()
            state, n_pages, pool = state_of(heap, offset)
            assert (state, n_pages) == (FRAME_WHOLE, expected)
            assert held_pages(heap) == expected
            assert pool.engine == ("tlsf" if how == "exact" else "firstfit")
            release(heap, routine, offset)
            assert held_pages(heap) == 0


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_interface_lends_pages(interface):
    with heap_of(interface) as heap:
        for order in range(4):
            offset = heap.page_alloc(order)
            assert state_of(heap, offset)[:2] == (FRAME_RUN, 1 << order)
            heap.page_free(offset)
        for n_pages in (1, 3, 7):
            offset = heap.page_alloc_exact(n_pages)
            assert state_of(heap, offset)[:2] == (FRAME_RUN, n_pages)
            assert held_pages(heap) == n_pages
            heap.page_free(offset)


# Limits ------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("interface", INTERFACES)
def test_values_of_the_heap(interface, page_size):
    with heap_of(interface, 8 << 20, page_size) as heap:
        assert page_size == heap.PAGE_SIZE
        assert page_size - heap.DELTA == heap.XMALLOC_MAX
        # The word in front of the first block, its header and the sentinel;
        # in the legacy engine one line of header, and less than a page in all.
        assert (128 if interface == "legacy" else 24) == heap.DELTA


LIMITED = [row for row in ROWS if LARGE[row] == "refused"]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize(("interface", "routine"), LIMITED)
def test_the_limit_is_exact_both_ways(interface, routine, page_size):
    """On an empty heap with page-sized regions, at every alignment."""
    for log2 in range(0, 12):
        align = 1 << log2
        with heap_of(interface, 16 << 20, page_size) as heap:
            most = heap.xmalloc_max(align)
            if align <= 16:
                assert most == heap.XMALLOC_MAX
            offset = call(heap, routine, most, align=align)
            assert offset % align == 0
            assert held_pages(heap) == 1
            heap.view(offset)[:most] = bytes(most)
            heap.check()
            release(heap, routine, offset)
            for n in (most + 1, most + 2, 2 * most, 1 << 40, (1 << 64) - 1, 1 << 80):
                with pytest.raises(SizeLimitError) as caught:
                    call(heap, routine, n, align=align)
                for word in (
                    f"the {most} that",
                    f"{page_size} - {heap.DELTA}",
                    "page_alloc",
                ):
                    assert word in str(caught.value)
            assert held_pages(heap) <= 1
            assert call(heap, routine, most, align=align) == offset


@pytest.mark.parametrize("align", [4096, 8192, 65536])
@pytest.mark.parametrize(("interface", "routine"), LIMITED)
def test_no_small_block_is_aligned_to_a_page(interface, routine, align):
    with heap_of(interface) as heap:
        assert heap.xmalloc_max(align) == 0
        with pytest.raises(SizeLimitError, match="page_alloc"):
            call(heap, routine, 1, align=align)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_where_there_is_no_limit_every_size_around_a_page_is_served(page_size):
    for row in ROWS:
        if LARGE[row] == "refused":
            continue
        interface, routine = row
        with heap_of(interface, 32 << 20, page_size) as heap:
            for n in range(heap.XMALLOC_MAX - 2, page_size + 3):
                if heap.XMALLOC_MAX + 2 < n < page_size - 66:
                    continue
                offset = call(heap, routine, n)
                assert heap.usable_size(offset) >= n
                release(heap, routine, offset)
            assert held_pages(heap) <= 1


def test_the_limit_stays_that_of_a_page_where_regions_are_larger():
    with heap_of("strict", grow_pages=8) as heap:
        assert heap.XMALLOC_MAX == PAGE - heap.DELTA
        heap.xmalloc(heap.XMALLOC_MAX)
        with pytest.raises(SizeLimitError):
            heap.xmalloc(heap.XMALLOC_MAX + 1)


def test_a_limit_is_not_a_lack_of_room():
    with heap_of("strict", max_pages=1) as heap:
        heap.xmalloc(heap.XMALLOC_MAX)
        with pytest.raises(OutOfMemory):
            heap.xmalloc(heap.XMALLOC_MAX)
        with pytest.raises(SizeLimitError):
            heap.xmalloc(heap.XMALLOC_MAX + 1)


# The proposal's own numbers -----------------------------------------------------


def pages_of(interface, routine, *arguments):
    """Pages that one request takes of an empty heap."""
    with heap_of(interface) as heap:
        getattr(heap, routine)(*arguments)
        return held_pages(heap)


def test_one_page_takes_two_and_two_take_four():
    """The complaint: with the header, one page becomes two, and two become four."""
    assert pages_of("legacy", "xmalloc", PAGE) == 2
    assert pages_of("legacy", "xmalloc", 2 * PAGE) == 4
    assert pages_of("subpage", "xmalloc", PAGE) == 2
    assert pages_of("subpage", "xmalloc", 2 * PAGE) == 4


def test_the_proposal_takes_what_is_requested():
    with pytest.raises(SizeLimitError, match="page_alloc"):
        pages_of("strict", "xmalloc", PAGE)
    assert pages_of("strict", "page_alloc", 0) == 1
    assert pages_of("strict", "page_alloc", 1) == 2
    assert pages_of("strict", "page_alloc_exact", 3) == 3


def test_what_xen_shipped_takes_what_is_requested():
    assert pages_of("merged", "xmalloc", PAGE) == 1
    assert pages_of("merged", "xmalloc", 2 * PAGE) == 2
    assert pages_of("array", "xmalloc_array", PAGE, 1) == 1
    assert pages_of("array", "xmalloc_array", PAGE, 2) == 2


def test_near_page_sizes_share_no_page_in_either_engine():
    """What DELTA is about: a compressed page just below a page takes one."""
    for interface, most in (("legacy", PAGE - 128), ("strict", PAGE - 24)):
        assert pages_of(interface, "xmalloc", most) == 1
    assert pages_of("legacy", "xmalloc", PAGE - 63) == 2


def test_two_heaps_of_one_arena_do_not_share():
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        heaps = [Heap(arena, interface) for interface in INTERFACES]
        for i, heap in enumerate(heaps):
            heap.xmalloc(100 + i)
        assert [held_pages(heap) for heap in heaps] == [1] * 5
        assert [heap.interface for heap in heaps] == list(INTERFACES)


def test_pages_are_lent_though_a_quarantine_holds_the_pool_full() -> None:
    """Blocks that wait are freed, and the regions that this empties are given back."""
    with Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        heap = Heap(arena, "strict", hardened=True, max_pages=24)
        for block in [heap.xmalloc(3500) for _ in range(16)]:
            heap.xfree(block)
        assert heap.stats().n_pages == 16
        run = heap.page_alloc_exact(15)
        heap.check()
        heap.page_free(run)
