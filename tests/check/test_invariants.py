# SPDX-License-Identifier: BSD-3-Clause
"""Each numbered invariant, broken on purpose: the checkers name it and the place.

One test per number; each of its cases spoils words of a sound arena through
their addresses, expects exactly that number from ``check``, from a second
opening of the file and from whatever else verifies, then repairs the words and
expects all to be well.
"""

import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words, frame_word
from support.models import order_within

import xmem
from xmem import Arena, HeapCorruption, Pool
from xmem.arena import (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
)

pytestmark = pytest.mark.damages

PAGE = 4096
#: Returned by a case that says nothing about the place.
ANYWHERE = None


class Heap(Words):
    """A sound arena in a file, with one pool to spoil and another one."""

    def __init__(self, path: Path, engine: str, join_regions: bool = True) -> None:
        arena = Arena.create(path, 1 << 20, page_size=PAGE, max_pools=4)
        super().__init__(arena)
        self.path = path
        hole = arena.page_alloc_exact(12)
        self.run = arena.page_alloc(1)
        self.run3 = arena.page_alloc_exact(3)
        self.other = Pool(arena, name="other", engine=engine)
        self.other_block = self.other.xmalloc(100)
        self.pool = pool = Pool(
            arena,
            name="pool",
            engine=engine,
            grow_pages=4,
            max_pages=100,
            join_regions=join_regions,
        )
        self.at = {
            name: pool.xmalloc(n, align=align)
            for name, n, align in (
                ("a", 100, 16),
                ("b", 200, 16),
                ("c", 300, 16),
                ("d", 200, 16),
                ("e", 40, 16),
                ("f", 200, 16),
                ("g", 5000 if engine == "tlsf" else 400, 16),
                ("h", 50, 16),
                ("aligned", 100, 512),
                ("whole", 2 * PAGE, 2 * PAGE),
                ("full", PAGE - 146, 16),
            )
        }
        for name in "bdf":
            pool.xfree(self.at[name])
        arena.page_free(hole)
        self.entry_at = self.entry(pool.id)
        self.control_at = self.control(pool)
        self.control_page = self.control_at // PAGE

    def block(self, name: str) -> int:
        """Offset of a block's header."""
        if self.pool.engine == "tlsf":
            return self.at[name] - 8
        return self.at[name] - fmt.LINE

    def size(self, block: int) -> int:
        return self.word(block) >> 20

    def pages(self, state: int, owner: int = 0, least: int = 1) -> list[int]:
        """First pages of the runs in ``state`` of ``owner``."""
        frames = self.arena.frames()
        return [
            int(row["page"])
            for row in frames
            if row["state"] == state
            and row["owner"] == owner
            and row["n_pages"] >= least
        ]

    @property
    def region(self) -> int:
        """Offset of the pool's first region."""
        return self.pages(FRAME_REGION, self.pool.id)[0] * PAGE

    @property
    def sentinel(self) -> int:
        """Offset of the sentinel that ends the pool's first stretch."""
        block = self.region + 8
        while self.size(block):
            block += self.size(block)
        return block


Spoil = Callable[[Heap], int | None]


def copied(heap: Heap) -> Path:
    """The file as it is now, as a process that dies would leave it."""
    path = heap.path.with_suffix(".copy")
    shutil.copy(heap.path, path)
    return path


def found(invariant: str, place: int | None, call: Callable[[], object]) -> None:
    """``call`` raises HeapCorruption with this number, at this place."""
    with pytest.raises(HeapCorruption) as caught:
        call()
    assert caught.value.invariant == invariant, caught.value
    if place is not ANYWHERE:
        assert caught.value.offset == place, caught.value
    assert str(caught.value).startswith(f"{invariant} at offset ")


def seal(path: Path) -> None:
    """Mark a file as one that was closed."""
    held = bytearray(path.read_bytes())
    held[fmt.STATE : fmt.STATE + 8] = fmt.CLEAN.to_bytes(8, "little")
    held[fmt.PAGE_CRC : fmt.PAGE_CRC + 4] = bytes(4)
    end = int.from_bytes(held[fmt.FRAME_TABLE : fmt.FRAME_TABLE + 8], "little")
    crc = zlib.crc32(held[:end])
    held[fmt.PAGE_CRC : fmt.PAGE_CRC + 4] = crc.to_bytes(4, "little")
    path.write_bytes(held)


def expect_whole_or_refused(path: Path, invariant: str, place: int | None) -> None:
    """A file that a dead process left: what follows from records is made whole."""
    before = path.read_bytes()
    try:
        arena = Arena.open(path)
    except HeapCorruption:
        assert invariant in ("P1", "P2", "P3")
        assert path.read_bytes() == before
        with pytest.raises(HeapCorruption, match=r"^P[123] "):
            Arena.open(path, repair=True)
        assert path.read_bytes() == before
        return
    with arena:
        (repair,) = arena.repairs
        assert repair.found.startswith(f"{invariant} at offset ")
        assert repair.is_sound
        arena.check()
        for name in ("pool", "other"):
            Pool.open(arena, name).check()
    with Arena.open(path) as arena:
        assert arena.repairs == ()


def expect(heap: Heap, invariant: str, spoil: Spoil) -> None:
    """The damage is found, by number and place, by all that verifies."""
    arena, pool = heap.arena, heap.pool
    pool.check()
    heap.other.check()
    place = spoil(heap)
    try:
        for call in (pool.check, pool.stats, pool.walk):
            found(invariant, place, call)
        path = copied(heap)
        if invariant.startswith("P"):
            found(invariant, place, arena.check)
            found(invariant, place, heap.other.check)
            Arena.open(path, verify=False).close()
            expect_whole_or_refused(path, invariant, place)
            seal(path := copied(heap))
            found(invariant, place, lambda: Arena.open(path))
            Arena.open(path, verify=False).close()
        else:
            arena.check()
            with Arena.open(path) as opened:
                found(invariant, place, lambda: Pool.open(opened, "pool"))
    finally:
        heap.repair()
    pool.check()
    heap.other.check()
    with Arena.open(copied(heap)) as opened:
        Pool.open(opened, "pool")
        Pool.open(opened, "other")


@pytest.fixture
def tlsf(tmp_path: Path) -> Iterator[Heap]:
    heap = Heap(tmp_path / "arena", "tlsf")
    yield heap
    heap.repair()
    heap.arena.close()


@pytest.fixture
def legacy(tmp_path: Path) -> Iterator[Heap]:
    heap = Heap(tmp_path / "arena", "firstfit")
    yield heap
    heap.repair()
    heap.arena.close()


def invariant_cases(cases: dict[str, Spoil]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spoil", cases.values(), ids=cases.keys())


# P: page frames --------------------------------------------------------------


def record(page_of: Callable[[Heap], int], word: Callable[[Heap, int], int]) -> Spoil:
    """Overwrite the record of a page; found at the page itself."""

    def spoil(heap: Heap) -> int:
        page = page_of(heap)
        heap.set(heap.frame(page), word(heap, page))
        return page * PAGE

    return spoil


def run_page(heap: Heap) -> int:
    return heap.run // PAGE


def free_page(heap: Heap) -> int:
    """A free run of four pages or more."""
    return heap.pages(FRAME_FREE, least=4)[0]


def last_run(heap: Heap) -> int:
    return int(heap.arena.frames()["page"][-1])


P1: dict[str, Spoil] = {
    "record inside a run": record(
        lambda h: run_page(h) + 1, lambda h, p: frame_word(FRAME_RUN, 0, 0, 1)
    ),
    "record inside a free run": record(
        lambda h: free_page(h) + 1, lambda h, p: frame_word(FRAME_FREE, 0, 0, 1)
    ),
    "stray bit inside a run": record(lambda h: run_page(h) + 1, lambda h, p: 1 << 63),
    "lost record": record(run_page, lambda h, p: 0),
    "no pages": record(run_page, lambda h, p: frame_word(FRAME_RUN, 0, 0, 0)),
    "region of nobody": record(
        run_page, lambda h, p: frame_word(FRAME_REGION, 0, 0, 2)
    ),
    "owner beyond max_pools": record(
        run_page, lambda h, p: frame_word(FRAME_REGION, 0, 5, 2)
    ),
    "unknown state": record(run_page, lambda h, p: frame_word(8, 1, 0, 2)),
    "state 255": record(run_page, lambda h, p: frame_word(255, 1, 0, 2)),
    "beyond the arena": record(
        last_run,
        lambda h, p: frame_word(FRAME_RUN, 0, 0, h.arena.n_pages - p + 1),
    ),
    "2**32 - 1 pages": record(
        run_page, lambda h, p: frame_word(FRAME_RUN, 0, 0, (1 << 32) - 1)
    ),
}


def too_long(heap: Heap) -> int:
    """A run that reaches over the next one's record."""
    page = heap.run3 // PAGE
    heap.set(heap.frame(page), frame_word(FRAME_RUN, 2, 0, 4))
    return (page + 3) * PAGE


P1["a page too long"] = too_long


@invariant_cases(P1)
def test_P1_runs_tile_the_page_frames(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "P1", spoil)


@pytest.mark.parametrize("case", ["no pages", "beyond the arena", "2**32 - 1 pages"])
def test_P1_the_table_of_runs_ends_where_the_arena_does(tlsf: Heap, case: str) -> None:
    """`frames` follows the lengths that it reads, and so has to end by itself."""
    P1[case](tlsf)
    with pytest.raises(HeapCorruption) as caught:
        tlsf.arena.frames()
    assert caught.value.invariant == "P1"
    tlsf.repair()
    runs = tlsf.arena.frames()
    assert runs["page"][0] + runs["n_pages"].sum() == tlsf.arena.n_pages


def split(heap: Heap) -> int:
    """Make two runs of a free one."""
    page = free_page(heap)
    n_pages = heap.word(heap.frame(page)) >> 32
    heap.set(heap.frame(page), free_record(page, 1))
    heap.set(heap.frame(page + 1), free_record(page + 1, n_pages - 1))
    return page * PAGE


def free_record(page: int, n_pages: int) -> int:
    return frame_word(FRAME_FREE, order_within(page, n_pages), 0, n_pages)


P2: dict[str, Spoil] = {
    "of another order": record(free_page, lambda h, p: h.word(h.frame(p)) + (1 << 8)),
    "with an owner": record(free_page, lambda h, p: h.word(h.frame(p)) | 1 << 16),
    "two side by side": split,
}


@invariant_cases(P2)
def test_P2_free_runs_are_as_long_as_can_be(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "P2", spoil)


def head_bit(page_of: Callable[[Heap], int], level: int = 0) -> Spoil:
    """Change the bit of a page, or of the words above it."""

    def spoil(heap: Heap) -> int:
        page = page_of(heap) >> 6 * level
        offset, _ = heap.runheads()[level]
        heap.flip(offset + (page >> 6) * 8, 1 << (page & 63))
        return page >> 6 << 6 * (level + 1)

    return spoil


P3: dict[str, Spoil] = {
    "lost": head_bit(run_page),
    "of a free run lost": head_bit(free_page),
    "inside a run": head_bit(lambda h: run_page(h) + 1),
    "inside a free run": head_bit(lambda h: free_page(h) + 3),
    "in the tables": head_bit(lambda h: 0),
    "of a word lost": head_bit(run_page, 1),
    "of no word": head_bit(lambda h: 63 << 6, 1),
}


@invariant_cases(P3)
def test_P3_there_is_a_bit_for_each_run(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "P3", spoil)


def entry_at(level: int, amount: int) -> Spoil:
    """Change the entry above a free run."""

    def spoil(heap: Heap) -> int:
        entry = free_page(heap) >> 3 * (level + 1)
        longest, n = heap.stretches()[level]
        assert entry < n
        at = longest + 4 * entry
        heap.set_half(at, heap.half(at) + amount)
        return entry << 3 * (level + 1)

    return spoil


def filling(heap: Heap) -> None:
    """Change an entry that only fills a level."""
    longest, n = heap.stretches()[-1]
    assert n == 1
    heap.set_half(longest + 4, 1)


P4: dict[str, Spoil] = {
    "a page more": entry_at(0, 1),
    "a page less": entry_at(0, -1),
    "a page more above": entry_at(1, 1),
    "a page less at the top": entry_at(2, -1),
    "behind the last entry": filling,
}


@invariant_cases(P4)
def test_P4_entries_say_how_long_stretches_are(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "P4", spoil)


def listed(heap: Heap) -> list[int]:
    """Pages of the first list with two stretches or more."""
    for order in range(33):
        pages = []
        page = heap.half(heap.head(order))
        while page:
            pages.append(page)
            page = heap.half(heap.frame(page) + fmt.NEXT)
        if len(pages) > 1:
            return pages
    raise LookupError


def link(field: int, value: Callable[[Heap, int], int]) -> Spoil:
    """Overwrite a link of the first stretch of a list."""

    def spoil(heap: Heap) -> None:
        page = listed(heap)[0]
        heap.set_half(heap.frame(page) + field, value(heap, page))

    return spoil


def skip_first(heap: Heap) -> None:
    """Take the first stretch off its list, but not in its record."""
    pages = listed(heap)
    order = heap.word(heap.frame(pages[0])) >> 8 & 0xFF
    heap.set_half(heap.head(order), pages[1])
    heap.set_half(heap.frame(pages[1]) + fmt.PREV, 0)


def listed_top(heap: Heap) -> None:
    """Put the stretch at the arena's end on the list of its order."""
    page = heap.word(fmt.TOP)
    order = heap.word(heap.frame(page)) >> 8 & 0xFF
    heap.set(heap.frame(page) + fmt.NEXT, heap.half(heap.head(order)))
    heap.set_half(heap.head(order), page)
    heap.set(fmt.ORDER_BITMAP, heap.word(fmt.ORDER_BITMAP) | 1 << order)


def flip_order(order: Callable[[Heap], int]) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.flip(fmt.ORDER_BITMAP, 1 << order(heap))

    return spoil


P5: dict[str, Spoil] = {
    "not listed": skip_first,
    "the last one listed": listed_top,
    "next in use": link(fmt.NEXT, lambda h, p: run_page(h)),
    "next beyond the arena": link(fmt.NEXT, lambda h, p: h.arena.n_pages),
    "next in the tables": link(fmt.NEXT, lambda h, p: h.arena.first_page - 1),
    "next is 2**32 - 1": link(fmt.NEXT, lambda h, p: (1 << 32) - 1),
    "next of another list": link(fmt.NEXT, lambda h, p: free_page(h)),
    "cycle": link(fmt.NEXT, lambda h, p: p),
    "list cut short": link(fmt.NEXT, lambda h, p: 0),
    "prev": link(fmt.PREV, lambda h, p: run_page(h)),
    "head beyond the arena": lambda h: h.set_half(
        h.head(order_of(h, free_page(h))), h.arena.n_pages
    ),
    "lost bit": flip_order(lambda h: order_of(h, free_page(h))),
    "bit without a list": flip_order(lambda h: 32),
    "bit beyond the lists": flip_order(lambda h: 33),
    "last bit": flip_order(lambda h: 63),
    "list without a bit": lambda h: h.set_half(h.head(32), run_page(h)),
}


def order_of(heap: Heap, page: int) -> int:
    return heap.word(heap.frame(page)) >> 8 & 0xFF


@pytest.fixture
def checkered(tlsf: Heap) -> Heap:
    """With several stretches of the same order."""
    runs = [tlsf.arena.page_alloc_exact(1) for _ in range(36)]
    for run in runs[20::2]:
        tlsf.arena.page_free(run)
    tlsf.arena.page_free(runs[1])
    for run in runs[3:9]:
        tlsf.arena.page_free(run)
    return tlsf


@invariant_cases(P5)
def test_P5_lists_hold_each_stretch_by_its_order(checkered: Heap, spoil: Spoil) -> None:
    expect(checkered, "P5", spoil)


@invariant_cases(
    {
        "one more": lambda h: h.add(fmt.N_FREE_PAGES, 1),
        "one less": lambda h: h.add(fmt.N_FREE_PAGES, -1),
        "none": lambda h: h.set(fmt.N_FREE_PAGES, 0),
        "2**63": lambda h: h.flip(fmt.N_FREE_PAGES, 1 << 63),
        "a later top": lambda h: h.add(fmt.TOP, 1),
        "no top": lambda h: h.set(fmt.TOP, 0),
        "a top beyond the arena": lambda h: h.flip(fmt.TOP, 1 << 63),
    }
)
def test_P6_free_pages_are_counted(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "P6", spoil)


# B: blocks -------------------------------------------------------------------


def resized(name: str, size: Callable[[Heap, int], int]) -> Spoil:
    """Give a block another size, all its flags kept; found at the block."""

    def spoil(heap: Heap) -> int:
        block = heap.block(name)
        flags = heap.word(block) & (fmt.SIZE - 1)
        heap.set(block, size(heap, block) << 20 | flags)
        return block

    return spoil


def free_sentinel(heap: Heap) -> int:
    heap.flip(heap.sentinel, fmt.FREE)
    return heap.sentinel


@invariant_cases(
    {
        "8 bytes": resized("c", lambda h, b: 8),
        "16 bytes": resized("c", lambda h, b: 16),
        "no multiple of 16": resized("c", lambda h, b: h.size(b) + 8),
        "odd": resized("c", lambda h, b: h.size(b) + 1),
        "beyond its region": resized("h", lambda h, b: 16 * PAGE),
        "up to the arena's end": resized("c", lambda h, b: h.arena.n_bytes - b - 8),
        "beyond the arena": resized("c", lambda h, b: h.arena.n_bytes + 8),
        "2**44 - 16": resized("c", lambda h, b: (1 << 44) - 16),
        "0, a sentinel too early": resized("c", lambda h, b: 0),
        "over the sentinel": resized("full", lambda h, b: h.sentinel - b + 16),
        "free sentinel": free_sentinel,
    }
)
def test_B1_sizes(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B1", spoil)


def test_B2_block_offsets(tlsf: Heap) -> None:
    """It follows from B1 and where a region starts: B1 is what is found first."""
    blocks = tlsf.pool.walk()
    assert not np.any(blocks["offset"] % 16)
    expect(tlsf, "B1", resized("a", lambda heap, block: 40))


def sized_sentinel(heap: Heap) -> int:
    sentinel = heap.sentinel
    heap.flip(sentinel, 32 * fmt.SIZE)
    return sentinel


def to_the_page(heap: Heap) -> int:
    """End a block where the next one's payload is at the page's start."""
    block = heap.block("g")
    end = block + heap.size(block)
    page_end = (block // PAGE + 1) * PAGE - 8
    assert block + 32 <= page_end <= end - 32
    flags = heap.word(block) & (fmt.SIZE - 1)
    heap.set(page_end, (end - page_end) << 20 | flags & ~fmt.PREV_FREE)
    heap.set(block, (page_end - block) << 20 | flags)
    return page_end


@invariant_cases(
    {"block at a page's end": to_the_page, "sentinel with a size": sized_sentinel}
)
def test_B3_no_payload_is_page_aligned(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B3", spoil)
    blocks = tlsf.pool.walk()
    assert np.all(blocks["offset"][blocks["kind"] == 0] % PAGE)


def free_bit(name: str) -> Spoil:
    def spoil(heap: Heap) -> int:
        heap.flip(heap.block(name), fmt.FREE)
        return heap.block(name)

    return spoil


@invariant_cases({"right of a free block": free_bit("c"), "of two": free_bit("e")})
def test_B4_no_two_neighbours_are_free(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B4", spoil)


def prev_free_bit(place: Callable[[Heap], int]) -> Spoil:
    def spoil(heap: Heap) -> int:
        heap.flip(place(heap), fmt.PREV_FREE)
        return place(heap)

    return spoil


@invariant_cases(
    {
        "set": prev_free_bit(lambda h: h.block("h")),
        "lost": prev_free_bit(lambda h: h.block("c")),
        "in a free block": prev_free_bit(lambda h: h.block("b")),
        "in the first": prev_free_bit(lambda h: h.region + 8),
        "in the sentinel": prev_free_bit(lambda h: h.sentinel),
    }
)
def test_B5_prev_free_is_the_left_neighbour_s(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B5", spoil)


def boundary(value: Callable[[Heap, int], int]) -> Spoil:
    def spoil(heap: Heap) -> int:
        block = heap.block("b")
        heap.set(block + heap.size(block) - 8, value(heap, block))
        return block

    return spoil


@invariant_cases(
    {
        "0": boundary(lambda h, b: 0),
        "16 off": boundary(lambda h, b: b + 16),
        "another free block": boundary(lambda h, b: h.block("d")),
        "2**64 - 1": boundary(lambda h, b: (1 << 64) - 1),
    }
)
def test_B6_boundary_tag(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B6", spoil)


def header_bits(place: Callable[[Heap], int], bits: int) -> Spoil:
    def spoil(heap: Heap) -> int:
        heap.flip(place(heap), bits)
        return place(heap)

    return spoil


def whole_header(heap: Heap) -> int:
    """Offset of the header of a run that the legacy engine allocated."""
    return heap.pages(FRAME_WHOLE, heap.pool.id)[0] * PAGE


B7: dict[str, Spoil] = {
    "tag of a live block": header_bits(lambda h: h.block("c"), fmt.TAG),
    "another pool's tag": header_bits(lambda h: h.block("c"), 3 * fmt.TAG),
    "last bit of the tag": header_bits(lambda h: h.block("c"), fmt.TAG << 14),
    "tag of a free block": header_bits(lambda h: h.block("b"), fmt.TAG),
}


@invariant_cases(
    {
        **B7,
        "tag of the sentinel": header_bits(lambda h: h.sentinel, fmt.TAG),
        "alignment of a free block": header_bits(lambda h: h.block("b"), fmt.ALIGN),
    }
)
def test_B7_tag_and_alignment(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "B7", spoil)


@invariant_cases(
    {
        **B7,
        "tag of a whole run": header_bits(whole_header, fmt.TAG),
        "mark of a second header": header_bits(lambda h: h.block("c"), fmt.PREV_FREE),
        "alignment": header_bits(lambda h: h.block("c"), fmt.ALIGN),
        "alignment of a free block": header_bits(lambda h: h.block("b"), fmt.ALIGN),
    }
)
def test_B7_in_the_legacy_engine(legacy: Heap, spoil: Spoil) -> None:
    expect(legacy, "B7", spoil)


# F: free lists ---------------------------------------------------------------


def last_listed(heap: Heap) -> int:
    """The last block on the list of three blocks of one size."""
    block = heap.block("f")
    while following := heap.word(block + fmt.LINK_NEXT):
        block = following
    return block


def last_next(value: Callable[[Heap], int]) -> Spoil:
    """Let the list of three blocks go on."""

    def spoil(heap: Heap) -> None:
        heap.set(last_listed(heap) + fmt.LINK_NEXT, value(heap))

    return spoil


def unlisted(heap: Heap) -> None:
    """Cut off the last block; its link names a word that holds its offset."""
    block = last_listed(heap)
    heap.set(heap.word(block + fmt.LINK_BACK), 0)
    heap.set(block + fmt.LINK_BACK, block + heap.size(block) - 8)


def live_head(heap: Heap) -> None:
    """An empty bin, marked as not empty, with a live block."""
    control = heap.control_at
    heap.flip(control + fmt.LOWER, 1 << 3)
    heap.set(control + fmt.CONTROL_BYTES + 3 * 8, heap.block("c"))


@invariant_cases(
    {
        "live block listed": last_next(lambda h: h.block("c")),
        "sentinel listed": last_next(lambda h: h.sentinel),
        "live block at the head": live_head,
        "of another pool": last_next(lambda h: h.other_block - 8),
        "in the tables": last_next(lambda h: 1032),
        "beyond the arena": last_next(lambda h: h.arena.n_bytes + 8),
        "at the arena's end": last_next(lambda h: h.arena.n_bytes - 8),
        "2**64 - 8": last_next(lambda h: (1 << 64) - 8),
        "misaligned": last_next(lambda h: h.block("b") + 4),
        "payload": last_next(lambda h: h.at["b"]),
        "free block not listed": unlisted,
    }
)
def test_F1_listed_if_and_only_if_free(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "F1", spoil)


def other_bin(shift: int) -> Spoil:
    """Move a whole list to another bin, with all bits and links right."""

    def spoil(heap: Heap) -> int:
        block = heap.block("f")
        control = heap.control_at
        head, index = heap.bin_of(heap.pool, block)
        assert heap.word(head) == block
        moved = head + 8 * shift
        assert heap.word(moved) == 0
        heap.set(head, 0)
        heap.set(moved, block)
        heap.set(block + fmt.LINK_BACK, moved)
        for i in (index, index + shift):
            heap.flip(control + fmt.LOWER + i // 64 * 8, 1 << i % 64)
        for row in {index // 64, (index + shift) // 64}:
            full = heap.word(control + fmt.LOWER + row * 8) != 0
            if full != bool(heap.word(control + fmt.UPPER) >> row & 1):
                heap.flip(control + fmt.UPPER, 1 << row)
        return block

    return spoil


@invariant_cases(
    {"one up": other_bin(1), "one down": other_bin(-1), "far up": other_bin(200)}
)
def test_F2_on_the_list_of_its_size(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "F2", spoil)


def flip_control(offset: int, bits: int) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.flip(heap.control_at + offset, bits)

    return spoil


def lost_bin_bit(heap: Heap) -> int:
    head, index = heap.bin_of(heap.pool, heap.block("f"))
    heap.flip(heap.control_at + fmt.LOWER + index // 64 * 8, 1 << index % 64)
    return head


def bits_beyond_the_bins(heap: Heap) -> None:
    """The two levels agree with each other, but there is no such bin."""
    index = 18 * 64 + 63
    assert index >= heap.word(heap.control_at + fmt.N_BINS)
    heap.flip(heap.control_at + fmt.LOWER + index // 64 * 8, 1 << index % 64)
    heap.flip(heap.control_at + fmt.UPPER, 1 << index // 64)


def lost_row(heap: Heap) -> None:
    _, index = heap.bin_of(heap.pool, heap.block("f"))
    heap.flip(heap.control_at + fmt.UPPER, 1 << index // 64)


@invariant_cases(
    {
        "bit of an empty bin": flip_control(fmt.LOWER, 1 << 3),
        "bit of bin 0": flip_control(fmt.LOWER, 1),
        "bit beyond the bins": flip_control(fmt.LOWER + 18 * 8, 1 << 63),
        "both bits beyond the bins": bits_beyond_the_bins,
        "lost bit": lost_bin_bit,
        "lost upper bit": lost_row,
        "upper bit of an empty word": flip_control(fmt.UPPER, 1 << 17),
        "upper bit beyond the words": flip_control(fmt.UPPER, 1 << 19),
        "last upper bit": flip_control(fmt.UPPER, 1 << 63),
        "head without a bit": flip_control(fmt.CONTROL_BYTES + 3 * 8, 0xFF8),
    }
)
def test_F3_bitmaps_say_which_bins_are_empty(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "F3", spoil)


def back_link(value: Callable[[Heap, int], int]) -> Spoil:
    def spoil(heap: Heap) -> int:
        block = heap.block("d")
        heap.set(block + fmt.LINK_BACK, value(heap, block))
        return block

    return spoil


def back_to_a_twin(heap: Heap) -> int:
    """A word in a payload that holds the block's offset, but is not the link."""
    block = heap.block("d")
    twin = heap.at["c"] + 16
    heap.set(twin, block)
    heap.set(block + fmt.LINK_BACK, twin)
    return block


@invariant_cases(
    {
        "0": back_link(lambda h, b: 0),
        "misaligned": back_link(lambda h, b: h.word(b + fmt.LINK_BACK) + 4),
        "of another": back_link(lambda h, b: h.word(h.block("f") + fmt.LINK_BACK)),
        "beyond the arena": back_link(lambda h, b: h.arena.n_bytes),
        "at the arena's end": back_link(lambda h, b: h.arena.n_bytes - 8),
        "2**64 - 8": back_link(lambda h, b: (1 << 64) - 8),
        "a word that looks right": back_to_a_twin,
        "cycle": last_next(lambda h: h.block("f")),
        "head that skips": lambda h: h.set(
            h.bin_of(h.pool, h.block("f"))[0], h.block("d")
        ),
    }
)
def test_F4_link_names_the_word_that_holds_the_block(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "F4", spoil)


@pytest.fixture
def cut(tlsf: Heap) -> Heap:
    """A pool of which "f", or a part of it, is the remainder."""
    tlsf.pool.xmalloc(60)
    assert tlsf.block("f") < heap_aside(tlsf) < tlsf.block("g")
    return tlsf


def heap_aside(heap: Heap) -> int:
    return heap.word(heap.control_at + fmt.ASIDE)


def test_F4_tells_the_link_that_leads_elsewhere(tlsf: Heap) -> None:
    """The last block of a list leads to its first, whose link names the bin."""
    first = tlsf.block("f")
    head, _ = tlsf.bin_of(tlsf.pool, first)
    last_next(lambda _heap: first)(tlsf)
    with pytest.raises(HeapCorruption) as caught:
        tlsf.pool.check()
    assert caught.value.invariant == "F4"
    assert f"found {head:#x}" in str(caught.value)


def remainder(offset: int, value: Callable[[Heap], int]) -> Spoil:
    """Set a word of the remainder, or with -1 the word that names it."""

    def spoil(heap: Heap) -> None:
        place = heap.control_at + fmt.ASIDE
        if offset >= 0:
            place = heap.word(place) + offset
        heap.set(place, value(heap))

    return spoil


@invariant_cases(
    {
        "one more": remainder(fmt.LINK_NEXT, lambda h: h.block("d")),
        "itself": remainder(fmt.LINK_NEXT, heap_aside),
    }
)
def test_F5_nothing_follows_the_remainder(cut: Heap, spoil: Spoil) -> None:
    expect(cut, "F5", spoil)


@invariant_cases(
    {
        "misaligned": remainder(-1, lambda h: h.block("d") + 4),
        "in the tables": remainder(-1, lambda h: 8),
        "beyond the arena": remainder(-1, lambda h: h.arena.n_bytes + 8),
        "at the arena's end": remainder(-1, lambda h: h.arena.n_bytes - 8),
    }
)
def test_F5_the_remainder_is_a_block(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "F5", spoil)


@invariant_cases(
    {
        "live": remainder(-1, lambda h: h.block("c")),
        "a sentinel": remainder(-1, lambda h: h.sentinel),
        "nothing": remainder(-1, lambda h: h.block("c") + 32),
    }
)
def test_F1_the_remainder_is_free(tlsf: Heap, spoil: Spoil) -> None:
    tlsf.set(tlsf.block("c") + 32, 0)
    expect(tlsf, "F1", spoil)


@invariant_cases(
    {
        "none": remainder(-1, lambda h: 0),
        "another": remainder(-1, lambda h: h.block("d")),
        "its link": remainder(fmt.LINK_BACK, lambda h: h.control_at + fmt.UPPER),
    }
)
def test_F4_the_remainder_names_its_word(cut: Heap, spoil: Spoil) -> None:
    expect(cut, "F4", spoil)


def test_F1_the_remainder_is_not_listed_too(tlsf: Heap) -> None:
    expect(tlsf, "F1", remainder(-1, lambda h: h.block("d")))


# V: start bits ---------------------------------------------------------------


def start_bit(payload: Callable[[Heap], int]) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.flip_start(payload(heap))

    return spoil


V1: dict[str, Spoil] = {
    "lost": start_bit(lambda h: h.at["c"]),
    "lost of an aligned block": start_bit(lambda h: h.at["aligned"]),
    "inside a live block": start_bit(lambda h: h.at["c"] + 64),
    "of a free block": start_bit(lambda h: h.at["b"]),
    "inside a free block": start_bit(lambda h: h.at["b"] + 16),
    "in a page run": start_bit(lambda h: h.run),
    "inside a page run": start_bit(lambda h: h.run + PAGE + 64),
    "in a free page": start_bit(lambda h: free_page(h) * PAGE + 16),
    "in the last free page": start_bit(lambda h: h.arena.n_bytes - 16),
    "in the control block": start_bit(lambda h: h.control_at + 16),
    "in the other's control block": start_bit(lambda h: h.control(h.other) + 16),
    "in the superblock": start_bit(lambda h: 0),
    "in the frame table": start_bit(lambda h: h.word(fmt.FRAME_TABLE) & -16),
}


@invariant_cases(
    {
        **V1,
        "inside whole pages": start_bit(lambda h: h.at["whole"] + 16),
        "of whole pages": start_bit(lambda h: h.at["whole"]),
        "of the sentinel": start_bit(lambda h: h.sentinel + 8),
        "in the region's head": start_bit(lambda h: h.region),
    }
)
def test_V1_start_bits_are_the_live_blocks(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "V1", spoil)


@invariant_cases(
    {
        **V1,
        "lost of whole pages": start_bit(lambda h: h.at["whole"]),
        "of an aligned block's first header": start_bit(lambda h: h.at["aligned"] - 64),
    }
)
def test_V1_in_the_legacy_engine(legacy: Heap, spoil: Spoil) -> None:
    expect(legacy, "V1", spoil)


# C: control blocks -----------------------------------------------------------


def add_control(offset: int, amount: int) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.add(heap.control_at + offset, amount)

    return spoil


def set_control(offset: int, value: Callable[[Heap], int]) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.set(heap.control_at + offset, value(heap))

    return spoil


@pytest.fixture(params=["tlsf", "firstfit"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Heap]:
    heap = Heap(tmp_path / "arena", request.param)
    yield heap
    heap.repair()
    heap.arena.close()


@invariant_cases(
    {
        "one page more": add_control(fmt.POOL_PAGES, 1),
        "one page less": add_control(fmt.POOL_PAGES, -1),
        "no pages": set_control(fmt.POOL_PAGES, lambda h: 0),
        "over the limit": set_control(fmt.POOL_MAX_PAGES, lambda h: 1),
        "over the peak": set_control(fmt.PEAK_PAGES, lambda h: 1),
        "no peak": set_control(fmt.PEAK_PAGES, lambda h: 0),
    }
)
def test_C1_pages_held(either: Heap, spoil: Spoil) -> None:
    expect(either, "C1", spoil)


def joined_to_nothing(heap: Heap) -> int:
    page = heap.pages(FRAME_REGION, heap.pool.id)[0]
    heap.flip(heap.frame(page), FRAME_REGION ^ FRAME_JOINED)
    return page * PAGE


def lost_region(heap: Heap) -> None:
    """A region that became a run of the caller's."""
    page = heap.pages(FRAME_WHOLE, heap.pool.id)[0]
    word = heap.word(heap.frame(page))
    heap.set(heap.frame(page), FRAME_RUN | word & ~0xFFFF00FF)
    for payload in range(page * PAGE, (page + 4) * PAGE, 16):
        if heap.start(payload):
            heap.flip_start(payload)


@invariant_cases(
    {
        "one region more": add_control(fmt.N_REGIONS, 1),
        "one region less": add_control(fmt.N_REGIONS, -1),
        "region pages": add_control(fmt.REGION_PAGES, 4),
        "run pages": add_control(fmt.RUN_PAGES, -1),
        "one run more": add_control(fmt.N_RUNS, 1),
        "no run": set_control(fmt.N_RUNS, lambda h: 0),
        "joined to nothing": joined_to_nothing,
        "run of nobody": lost_region,
    }
)
def test_C2_regions_and_runs(either: Heap, spoil: Spoil) -> None:
    expect(either, "C2", spoil)


def engine_word(name: str) -> Callable[[Heap], int]:
    def word(heap: Heap) -> int:
        engine = "TLSF" if heap.pool.engine == "tlsf" else "LEGACY"
        return heap.control_at + int(getattr(fmt, f"{engine}_{name}"))

    return word


@invariant_cases(
    {
        "a byte more": lambda h: h.add(engine_word("USED_BYTES")(h), 1),
        "16 bytes less": lambda h: h.add(engine_word("USED_BYTES")(h), -16),
        "a block more": lambda h: h.add(engine_word("N_USED")(h), 1),
        "a block less": lambda h: h.add(engine_word("N_USED")(h), -1),
        "no block": lambda h: h.set(engine_word("N_USED")(h), 0),
    }
)
def test_C3_blocks_in_use_are_counted(either: Heap, spoil: Spoil) -> None:
    expect(either, "C3", spoil)


def set_entry(offset: int, value: Callable[[Heap], int]) -> Spoil:
    """Overwrite a word of the pool's directory entry."""

    def spoil(heap: Heap) -> None:
        heap.set(heap.entry_at + offset, value(heap))

    return spoil


def set_entry_half(offset: int, value: Callable[[Heap], int]) -> Spoil:
    def spoil(heap: Heap) -> None:
        heap.set_half(heap.entry_at + offset, value(heap))

    return spoil


def lent_control(heap: Heap) -> None:
    heap.flip(heap.frame(heap.control_page), FRAME_CONTROL ^ FRAME_WHOLE)


def given_control(heap: Heap) -> None:
    heap.flip(heap.frame(heap.control_page), 3 << 16)


@invariant_cases(
    {
        "no control block": set_entry(fmt.ENTRY_CONTROL, lambda h: 0),
        "in the page": set_entry(fmt.ENTRY_CONTROL, lambda h: h.control_at + 64),
        "a page run": set_entry(fmt.ENTRY_CONTROL, lambda h: h.run),
        "a free page": set_entry(fmt.ENTRY_CONTROL, lambda h: free_page(h) * PAGE),
        "in the tables": set_entry(fmt.ENTRY_CONTROL, lambda h: PAGE),
        "beyond the arena": set_entry(fmt.ENTRY_CONTROL, lambda h: h.arena.n_bytes),
        "2**64 - 4096": set_entry(fmt.ENTRY_CONTROL, lambda h: -PAGE),
        "another pool's": set_entry(fmt.ENTRY_CONTROL, lambda h: h.control(h.other)),
        "pages": set_entry_half(fmt.ENTRY_PAGES, lambda h: 9),
        "no engine": set_entry_half(fmt.ENTRY_ENGINE, lambda h: 0),
        "unknown engine": set_entry_half(fmt.ENTRY_ENGINE, lambda h: 3),
        "the other engine": set_entry_half(
            fmt.ENTRY_ENGINE, lambda h: 3 - h.half(h.entry_at + fmt.ENTRY_ENGINE)
        ),
        "frame of another state": lent_control,
        "frame of another pool": given_control,
        "magic": flip_control(fmt.POOL_MAGIC, 1),
        "number": flip_control(fmt.POOL_MAGIC, 1 << 32),
        "engine in the control block": flip_control(fmt.POOL_ENGINE, 3),
        "greatest request": add_control(fmt.MAX_REQUEST, 16),
        "no growth": set_control(fmt.GROW_PAGES, lambda h: 0),
        "growth beyond the arena": set_control(
            fmt.GROW_PAGES, lambda h: h.arena.n_pages + 1
        ),
        "growth by 2**64 - 1": set_control(fmt.GROW_PAGES, lambda h: -1),
        "tag": flip_control(fmt.TLSF_TAG, fmt.TAG),
        "tag of the legacy engine": flip_control(fmt.LEGACY_TAG, fmt.TAG),
        "page of the legacy engine": add_control(fmt.LEGACY_PAGE, PAGE),
    }
)
def test_C4_entry_frame_and_control_block_agree(either: Heap, spoil: Spoil) -> None:
    expect(either, "C4", spoil)


@invariant_cases(
    {
        "bins elsewhere": add_control(fmt.BINS, 8),
        "bins beyond the arena": set_control(fmt.BINS, lambda h: h.arena.n_bytes),
        "more bins": add_control(fmt.N_BINS, 1),
        "2**60 bins": set_control(fmt.N_BINS, lambda h: 1 << 60),
        "no bins": set_control(fmt.N_BINS, lambda h: 0),
    }
)
def test_C4_bins(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "C4", spoil)


@pytest.fixture
def unjoined(tmp_path: Path) -> Iterator[Heap]:
    """A pool that does not join, with an empty region in hand."""
    heap = Heap(tmp_path / "arena", "tlsf", join_regions=False)
    for name in ("g", "h"):
        heap.pool.xfree(heap.at[name])
    large = [heap.pool.xmalloc(3 * PAGE) for _ in range(3)]
    for block in large:
        heap.pool.xfree(block)
    assert heap.word(heap.control_at + fmt.SPARE) != 0
    yield heap
    heap.repair()
    heap.arena.close()


@invariant_cases(
    {
        "inside a region": set_control(fmt.SPARE, lambda h: h.region + 8 + 32),
        "second page": set_control(fmt.SPARE, lambda h: h.region + PAGE + 8),
        "a page run": set_control(fmt.SPARE, lambda h: h.run + 8),
        "a free page": set_control(fmt.SPARE, lambda h: free_page(h) * PAGE + 8),
        "another pool's": set_control(
            fmt.SPARE, lambda h: h.pages(FRAME_REGION, h.other.id)[0] * PAGE + 8
        ),
        "in the tables": set_control(fmt.SPARE, lambda h: 8),
        "beyond the arena": set_control(fmt.SPARE, lambda h: h.arena.n_bytes + 8),
        "2**64 - 8": set_control(fmt.SPARE, lambda h: -8),
        "returned: a region": set_control(fmt.RETURNED, lambda h: h.region // PAGE),
        "returned: a free page": set_control(fmt.RETURNED, free_page),
        "returned: beyond the arena": set_control(
            fmt.RETURNED, lambda h: h.arena.n_pages
        ),
        "returned: 2**64 - 1": set_control(fmt.RETURNED, lambda h: -1),
    }
)
def test_C5_region_in_hand(unjoined: Heap, spoil: Spoil) -> None:
    expect(unjoined, "C5", spoil)


def test_C5_no_roomy_region_without_joins(unjoined: Heap) -> None:
    expect(unjoined, "C5", set_control(fmt.ROOMY, lambda h: h.region // PAGE))


@invariant_cases(
    {
        "its second page": set_control(fmt.ROOMY, lambda h: h.region // PAGE + 1),
        "a page run": set_control(fmt.ROOMY, lambda h: h.run // PAGE),
        "a free page": set_control(fmt.ROOMY, free_page),
        "another pool's": set_control(
            fmt.ROOMY, lambda h: h.pages(FRAME_REGION, h.other.id)[0]
        ),
        "beyond the arena": set_control(fmt.ROOMY, lambda h: h.arena.n_pages),
        "2**64 - 1": set_control(fmt.ROOMY, lambda h: -1),
    }
)
def test_C5_the_roomy_region_is_of_the_pool(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "C5", spoil)


@invariant_cases(
    {
        "beyond the arena": set_control(fmt.LAST_REGION, lambda h: h.arena.n_pages),
        "2**64 - 1": set_control(fmt.LAST_REGION, lambda h: -1),
    }
)
def test_C5_the_region_extended_last_is_a_page(tlsf: Heap, spoil: Spoil) -> None:
    expect(tlsf, "C5", spoil)


def counted_waiting(heap: Heap) -> None:
    """The ring and its count agree, but the pool has no quarantine."""
    heap.set(heap.control_at + fmt.RING, heap.region + 8)
    heap.set(heap.control_at + fmt.N_WAITING, 1)


@invariant_cases(
    {
        "a block waits, and is counted": counted_waiting,
        "a block waits that is not counted": set_control(fmt.RING, lambda h: h.region),
        "more are counted than wait": set_control(fmt.N_WAITING, lambda h: 1),
        "the last slot": set_control(fmt.RING + 120, lambda h: 8),
        "blocks were freed into it": set_control(fmt.N_FREED, lambda h: 1),
        "blocks were lost": set_control(fmt.N_LOST, lambda h: 1),
        "damage was found": set_control(fmt.DAMAGE, lambda h: 7201),
    }
)
def test_C6_hardening_of_a_pool_that_is_not_hardened(
    either: Heap, spoil: Spoil
) -> None:
    expect(either, "C6", spoil)


# L: the legacy engine --------------------------------------------------------


def legacy_alignment(name: str, value: int) -> Spoil:
    def spoil(heap: Heap) -> int:
        block = heap.block(name)
        heap.set(block + fmt.LEGACY_ALIGNMENT, value)
        return block

    return spoil


def second_header(bits: int) -> Spoil:
    def spoil(heap: Heap) -> int:
        heap.flip(heap.at["aligned"] - fmt.LINE, bits)
        return heap.at["aligned"] - fmt.LINE

    return spoil


def whole_bits(bits: int) -> Spoil:
    def spoil(heap: Heap) -> int:
        heap.flip(whole_header(heap), bits)
        return whole_header(heap)

    return spoil


@invariant_cases(
    {
        "0": resized("c", lambda h, b: 0),
        "16": resized("c", lambda h, b: 16),
        "no multiple of 64": resized("c", lambda h, b: h.size(b) + 32),
        "beyond its page": resized("h", lambda h, b: PAGE),
        "2**44 - 64": resized("c", lambda h, b: (1 << 44) - 64),
        "free, beyond its page": resized("b", lambda h, b: 2 * PAGE),
        "no alignment": legacy_alignment("c", 0),
        "alignment of no power of two": legacy_alignment("c", 48),
        "second header, size": second_header(64 * fmt.SIZE),
        "second header, mark": second_header(fmt.PREV_FREE),
        "second header, tag": second_header(fmt.TAG),
        "whole run, size": whole_bits(PAGE * fmt.SIZE),
        "whole run, free": whole_bits(fmt.FREE),
    }
)
def test_L1_blocks_tile_each_page(legacy: Heap, spoil: Spoil) -> None:
    expect(legacy, "L1", spoil)


def legacy_link(field: int, value: Callable[[Heap], int]) -> Spoil:
    """Overwrite a link of the block that was freed last but one."""

    def spoil(heap: Heap) -> None:
        heap.set(heap.block("d") + field, value(heap))

    return spoil


def in_use(heap: Heap) -> None:
    """A listed block that is in use by its header and its start bit."""
    heap.flip(heap.block("d"), fmt.FREE)
    heap.flip_start(heap.at["d"])


@invariant_cases(
    {
        "next in use": legacy_link(fmt.LEGACY_NEXT, lambda h: h.block("c")),
        "next misaligned": legacy_link(fmt.LEGACY_NEXT, lambda h: h.block("b") + 8),
        "next in the tables": legacy_link(fmt.LEGACY_NEXT, lambda h: 1024),
        "next beyond the arena": legacy_link(
            fmt.LEGACY_NEXT, lambda h: h.arena.n_bytes
        ),
        "next 2**64 - 64": legacy_link(fmt.LEGACY_NEXT, lambda h: -64),
        "cycle": legacy_link(fmt.LEGACY_NEXT, lambda h: h.block("d")),
        "longer cycle": legacy_link(fmt.LEGACY_NEXT, lambda h: h.block("f")),
        "cut short": legacy_link(fmt.LEGACY_NEXT, lambda h: 0),
        "prev": legacy_link(fmt.LEGACY_PREV, lambda h: 0),
        "prev 2**63": legacy_link(fmt.LEGACY_PREV, lambda h: 1 << 63),
        "no head": set_control(fmt.HEAD, lambda h: 0),
        "head in use": set_control(fmt.HEAD, lambda h: h.block("c")),
        "head beyond the arena": set_control(fmt.HEAD, lambda h: h.arena.n_bytes),
        "head that skips": set_control(fmt.HEAD, lambda h: h.block("d")),
        "one more": add_control(fmt.N_FREE, 1),
        "none": set_control(fmt.N_FREE, lambda h: 0),
        "listed block in use": in_use,
    }
)
def test_L2_listed_if_and_only_if_free(legacy: Heap, spoil: Spoil) -> None:
    expect(legacy, "L2", spoil)


@invariant_cases(
    {
        "right of a free block": free_bit("c"),
        "between two": free_bit("e"),
        "a whole page": free_bit("full"),
    }
)
def test_L3_no_two_neighbours_are_free(legacy: Heap, spoil: Spoil) -> None:
    expect(legacy, "L3", spoil)


# The list --------------------------------------------------------------------


def test_every_number_has_its_test() -> None:
    """Those of the headers, and of the page on the format, if it is here."""
    package = Path(xmem.__file__).parent
    numbers = set()
    for header in package.rglob("*.pxd"):
        numbers |= set(re.findall(r"^([A-Z]\d)  ", header.read_text(), re.MULTILINE))
    tested = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        tested |= set(re.findall(r"^def test_([A-Z]\d)_", path.read_text(), re.M))
    assert numbers - tested == {"S1", "S2", "S3"}  # of files: in test_format
    assert tested <= numbers
    page = Path(__file__).parents[2] / "docs" / "format.md"
    if page.exists():
        assert numbers == set(re.findall(r"\*\*([A-Z]\d)\*\*", page.read_text()))
