# SPDX-License-Identifier: BSD-3-Clause
"""Hardened pools detect a stray write, at once or when the memory is next used.

Stray writes are made through the arena's address, as a C program would.
"""

import ctypes
import functools
import itertools

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words, damaged

import xmem
from xmem import Arena, Heap, HeapCorruption, Pool
from xmem.pool import HARDENING

pytestmark = pytest.mark.damages

PAGE = 4096
POISONED_BYTES = 256
CANARY_BYTES = 256
RING = 16
SIZES = (*range(66), 100, 247, 248, 249, 255, 256, 257, 1000, 3500, 4040, 9000)


@pytest.fixture
def arena():
    with Arena.anonymous(2 << 20, page_size=PAGE) as made:
        yield made


class Memory:
    """The bytes of an arena, open to stray writes."""

    def __init__(self, arena):
        self.bytes = (ctypes.c_ubyte * arena.n_bytes).from_address(arena.address(0))

    def flip(self, offset, bits=1):
        self.bytes[offset] ^= bits


@pytest.fixture
def memory(arena):
    return Memory(arena)


def fill(pool, offset):
    view = pool.view(offset)
    view[:] = b"\x00" * len(view)
    view.release()


def corrupt(call, *invariants):
    with pytest.raises(HeapCorruption) as caught:
        call()
    assert caught.value.invariant in invariants, caught.value
    return caught.value


# What is switched on ------------------------------------------------------------


def test_a_pool_is_not_hardened_by_default(arena):
    assert Pool(arena).hardening == ()
    assert Pool(arena, hardened=False).hardening == ()
    assert set(Pool(arena, hardened=True).hardening) == set(HARDENING)
    assert Pool(arena, hardened=["poison"]).hardening == ("poison",)
    assert Pool(arena, hardened={"canaries": 1}).hardening == ("canaries",)
    assert Pool(arena, hardened=()).hardening == ()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("canaries", xmem.BadArgumentType),
        (1, xmem.BadArgumentType),
        (None, xmem.BadArgumentType),
        (["canary"], xmem.BadArgument),
        ([1], xmem.BadArgument),
        ([[]], xmem.BadArgument),
    ],
)
def test_what_cannot_be_hardened(arena, value, error):
    before = arena.pools()
    with pytest.raises(error, match="hardened"):
        Pool(arena, hardened=value)
    with pytest.raises(xmem.BadArgument, match="only the tlsf engine"):
        Pool(arena, engine="firstfit", hardened=True)
    assert arena.pools() == before


def test_hardening_is_remembered(arena_path):
    with Arena.create(arena_path, 1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, name="p", hardened=True)
        offset = pool.xmalloc(100)
        pool.xfree(pool.xmalloc(10))
    with Arena.open(arena_path) as arena:
        pool = Pool.open(arena, "p")
        assert set(pool.hardening) == set(HARDENING)
        assert pool.stats().waiting_blocks == 1
        Memory(arena).flip(offset + 100)
        corrupt(lambda: pool.xfree(offset), "H1")


@pytest.mark.parametrize("flag", HARDENING)
def test_usable_size_is_what_was_requested_where_there_is_a_trailer(arena, flag):
    pool = Pool(arena, hardened=[flag])
    for n in SIZES:
        offset = pool.xmalloc(n)
        if flag in ("canaries", "checksums"):
            assert pool.usable_size(offset) == n
            assert len(pool.view(offset)) == n
        else:
            assert pool.usable_size(offset) >= n
    assert pool.maxalloc == 16 * PAGE - (
        32 if flag in ("canaries", "checksums") else 24
    )


@pytest.mark.parametrize("hardened", [True, *([flag] for flag in HARDENING)], ids=str)
def test_a_pool_s_maxalloc_is_exact(arena, hardened):
    pool = Pool(arena, grow_pages=2, max_pages=2, hardened=hardened)
    offset = pool.xmalloc(pool.maxalloc)
    pool.check()
    pool.xfree(offset)
    with pytest.raises(xmem.OutOfMemory):
        pool.xmalloc(pool.maxalloc + 1)
    assert pool.xmalloc(pool.maxalloc) == offset


# A sound program ----------------------------------------------------------------


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("hardened", [True, *([flag] for flag in HARDENING)], ids=str)
def test_a_sound_program_is_never_accused(arena, hardened, joins, seed):
    rng = np.random.default_rng(seed)
    pool = Pool(arena, grow_pages=3, join_regions=joins, hardened=hardened)
    live = {}
    for i in range(4000):
        draw = rng.random()
        if live and draw < 0.42:
            offset = list(live)[int(rng.integers(len(live)))]
            n, byte = live.pop(offset)
            assert bytes(pool.view(offset, n)) == bytes([byte]) * n
            pool.xfree(offset)
        elif live and draw < 0.6:
            offset = list(live)[int(rng.integers(len(live)))]
            n, byte = live.pop(offset)
            new = int(rng.choice([0, 5, 60, 300, 3000, 9000]))
            align = int(rng.choice([16, 16, 64, 2048, PAGE]))
            moved = pool.xrealloc(offset, new, align=align)
            assert moved % align == 0
            kept = min(n, new)
            assert bytes(pool.view(moved, kept)) == bytes([byte]) * kept
            pool.view(moved, new)[:] = bytes([byte]) * new
            live[moved] = (new, byte)
        elif len(live) < 120:
            n = int(rng.choice(SIZES))
            align = int(rng.choice([16, 16, 16, 32, 512, 2048, PAGE]))
            try:
                offset = pool.xmalloc(n, align=align)
            except xmem.OutOfMemory:
                continue
            assert offset % align == 0
            pool.view(offset, n)[:] = bytes([i & 255]) * n
            live[offset] = (n, i & 255)
        if i % 100 == 0:
            pool.check()
            assert pool.stats().live_blocks == len(live)
            walked = pool.walk()
            assert set(walked["offset"][walked["used"]].tolist()) == set(live)
    for offset in live:
        pool.xfree(offset)
    pool.check()
    pool.shrink()
    stats = pool.stats()
    assert (stats.live_blocks, stats.waiting_blocks, stats.n_pages) == (0, 0, 0)


@pytest.mark.parametrize("hardened", [True, *([flag] for flag in HARDENING)], ids=str)
def test_freeing_and_asking_again_succeeds_in_a_full_pool(arena, hardened):
    """The quarantine ends where a request would fail."""
    for n in (0, 1, 16, 100, 255, 256, 700, 2000, 4000, 8000):
        pool = Pool(arena, grow_pages=4, max_pages=4, hardened=hardened)
        live = []
        try:
            while True:
                live.append(pool.xmalloc(n))
        except xmem.OutOfMemory:
            pass
        for offset in live:
            pool.xfree(offset)
            again = pool.xmalloc(n)
            pool.xfree(again)
            pool.xmalloc(n)
        pool.check()
        pool.destroy(force=True)


@pytest.mark.parametrize("hardened", [True, *([flag] for flag in HARDENING)], ids=str)
def test_a_resize_without_room_changes_nothing(arena, hardened):
    pool = Pool(arena, grow_pages=4, max_pages=8, hardened=hardened)
    block, run = pool.xmalloc(100), pool.xmalloc(PAGE, align=PAGE)
    for offset in (block, run):
        pool.view(offset)[:100] = bytes(range(100))
    head = ctypes.string_at(arena.address(0), PAGE)
    for offset in (block, run):
        with pytest.raises(xmem.OutOfMemory):
            pool.xrealloc(offset, 7 * PAGE)
        assert bytes(pool.view(offset)[:100]) == bytes(range(100))
    assert ctypes.string_at(arena.address(0), PAGE) == head
    assert pool.stats().live_blocks == 2
    pool.check()


def test_the_quarantine_holds_back_sixteen_blocks(arena):
    pool = Pool(arena, hardened=["quarantine"])
    blocks = [pool.xmalloc(64) for _ in range(40)]
    for i, offset in enumerate(blocks):
        pool.xfree(offset)
        assert pool.stats().waiting_blocks == min(i + 1, RING)
        assert pool.stats().live_blocks == len(blocks) - i - 1
        with pytest.raises(xmem.DoubleFree):
            pool.xfree(offset)
    taken = {pool.xmalloc(64) for _ in range(20)}
    assert not taken & set(blocks[-RING:])
    walked = pool.walk()
    waiting = walked[walked["kind"] == 3]
    assert sorted(waiting["offset"].tolist()) == sorted(blocks[-RING:])
    assert not waiting["used"].any()
    pool.shrink()
    assert pool.stats().waiting_blocks == 0
    large = pool.xmalloc(2 * PAGE)
    pool.xfree(large)
    assert pool.stats().waiting_blocks == 0  # more than a page does not wait


@pytest.mark.parametrize("joins", [True, False])
def test_a_shrink_says_all_pages_that_the_quarantine_kept(arena, joins):
    """Those of regions that become empty when the quarantine ends are among them."""
    pool = Pool(arena, grow_pages=1, join_regions=joins, hardened=["quarantine"])
    blocks = [pool.xmalloc(3000) for _ in range(RING)]
    for offset in blocks:
        pool.xfree(offset)
    assert pool.stats().waiting_blocks == RING
    n_free = arena.n_free_pages
    n_pages = pool.stats().n_pages
    assert n_pages >= RING * 3000 // PAGE
    assert pool.shrink() == n_pages
    assert pool.stats().n_pages == 0
    assert arena.n_free_pages == n_free + n_pages


def test_damage_of_a_free_block_leaves_the_quarantine_as_it_is(arena, memory):
    pool = Pool(arena, grow_pages=4, max_pages=4, hardened=["poison", "quarantine"])
    blocks = [pool.xmalloc(100) for _ in range(4)]
    for offset in blocks[:3]:
        pool.xfree(offset)
    before, walked = pool.stats(), pool.walk().tobytes()
    # In the free block that is the rest of the region.
    for align in (16, 64):
        memory.flip(blocks[3] + 200)
        corrupt(lambda align=align: pool.xmalloc(1000, align=align), "H2")
        memory.flip(blocks[3] + 200)
        assert pool.stats() == before
        assert pool.walk().tobytes() == walked
    assert pool.xmalloc(1000)
    pool.check()


@pytest.mark.parametrize("flag", [*HARDENING, None])
def test_a_size_to_which_the_trailer_does_not_fit_is_refused(arena, flag):
    pool = Pool(arena, hardened=[flag] if flag else True)
    offset = pool.xmalloc(100)
    pool.view(offset)[:100] = bytes(range(100))
    run = pool.xmalloc(100, align=2 * PAGE)
    room = pool.usable_size(offset)
    for n in (2**64 - 1, 2**64 - 7, 2**64 - 8, 2**64 - 9, 2**63, arena.n_bytes):
        for call in (
            lambda n=n: pool.xmalloc(n),
            lambda n=n: pool.xrealloc(offset, n),
            lambda n=n: pool.xrealloc(run, n),
        ):
            with pytest.raises((xmem.OutOfMemory, xmem.SizeLimitError)):
                call()
            pool.check()
    assert pool.usable_size(offset) == room
    assert bytes(pool.view(offset)[:100]) == bytes(range(100))


# Overflow -----------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["canaries", "checksums"])
@pytest.mark.parametrize("verb", ["xfree", "xrealloc", "view", "usable_size"])
def test_overflow_behind_a_block_is_seen_by_the_next_call(arena, memory, flag, verb):
    """By one byte and by one bit; with checksums alone, when the trailer is hit."""
    pool = Pool(arena, hardened=[flag])
    for n in SIZES:
        offset = pool.xmalloc(n)
        wall = pool.xmalloc(16)
        first = offset + n
        if flag == "checksums":
            row = next(r for r in pool.walk() if r["offset"] == offset)
            first = offset - 8 + int(row["size"]) - 8
        for place, bits in itertools.product((first, first + 1), (0xFF, 1, 0x80)):
            memory.flip(place, bits)
            calls = {
                "xfree": (pool.xfree, offset),
                "xrealloc": (pool.xrealloc, offset, n + 50),
                "view": (pool.view, offset),
                "usable_size": (pool.usable_size, offset),
            }
            error = corrupt(functools.partial(*calls[verb]), "H1", "B5")
            assert error.offset in (offset - 8, wall - 8)
            corrupt(pool.check, "H1", "B5", "B7", "V1")
            memory.flip(place, bits)
            pool.check()
        pool.xfree(offset)
        pool.xfree(wall)


def test_a_text_written_with_its_nul_one_byte_too_far(arena):
    """The commonest overflow of all: strlen without the one."""
    pool = Pool(arena, hardened=True)
    for n in range(200):
        offset = pool.xmalloc(n)
        ctypes.memset(arena.address(offset) + n, 0, 1)
        corrupt(lambda offset=offset: pool.xfree(offset), "H1")


def test_a_nul_behind_a_block_that_is_full_is_seen_by_its_trailer(arena):
    """No byte of the pattern is there: the trailer's own first byte is never 0."""
    pool = Pool(arena, hardened=["canaries"])
    for offset in [pool.xmalloc(16) for _ in range(4000)]:
        assert pool.usable_size(offset) == 16
        ctypes.memset(arena.address(offset) + 16, 0, 1)
        corrupt(lambda offset=offset: pool.xfree(offset), "H1")


def test_a_trailer_is_worth_nothing_in_another_arena():
    """A forged block, copied whole from an arena whose secret is another."""
    with Arena.anonymous(1 << 20) as mine, Arena.anonymous(1 << 20) as theirs:
        offsets = []
        for arena in (mine, theirs):
            pool = Pool(arena, hardened=["checksums"])
            offsets.append(pool.xmalloc(100))
        assert offsets[0] == offsets[1]
        (row,) = (row for row in pool.walk() if row["used"])
        ctypes.memmove(
            theirs.address(offsets[0]) - 8,
            mine.address(offsets[0]) - 8,
            int(row["size"]),
        )
        corrupt(lambda: pool.xfree(offsets[0]), "H1")


def test_a_byte_in_front_of_a_block_is_seen(arena, memory):
    """The highest byte of its own header."""
    pool = Pool(arena, hardened=True)
    for n in (0, 10, 100, 1000):
        offset = pool.xmalloc(n)
        for place, k in itertools.product(range(offset - 8, offset), range(8)):
            if place == offset - 8 and k == 1:
                continue  # PREV_FREE: no part of the checksum
            memory.flip(place, 1 << k)
            with pytest.raises((HeapCorruption, xmem.InvalidFree)):
                pool.xfree(offset)
            memory.flip(place, 1 << k)
        pool.check()
        pool.xfree(offset)


# Use after free -------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 24, 100, 264, 1000, 3000])
def test_a_write_after_free_is_seen_when_the_quarantine_ends(arena, memory, n):
    pool = Pool(arena, hardened=["poison", "quarantine"])
    for place in {0, 1, min(n, POISONED_BYTES) // 2, min(n, POISONED_BYTES) - 1}:
        offset = pool.xmalloc(n)
        walls = [pool.xmalloc(16) for _ in range(RING + 1)]
        pool.xfree(offset)
        memory.flip(offset + place)
        corrupt(pool.check, "H3")
        for wall in walls[:-2]:
            pool.xfree(wall)
        error = corrupt(functools.partial(pool.xfree, walls[-2]), "H3")
        assert error.offset == offset - 8
        # The call itself was carried out; the damaged block is never used again.
        with pytest.raises(xmem.DoubleFree):
            pool.xfree(walls[-2])
        memory.flip(offset + place)
        pool.destroy(force=True)
        pool = Pool(arena, hardened=["poison", "quarantine"])


@pytest.mark.parametrize("others", [(), ("canaries",), ("checksums", "safe_links")])
@pytest.mark.parametrize("n", [16, 100, 1000])
def test_nothing_is_poisoned_that_is_not_asked_for(arena, n, others):
    """A block in quarantine keeps its bytes, and may be written to."""
    pool = Pool(arena, hardened=["quarantine", *others])
    offset = pool.xmalloc(n)
    pool.view(offset, n)[:] = bytes(range(n % 251, n % 251 + 1)) * n
    size = pool.usable_size(offset) + 8 * bool(others)
    before = ctypes.string_at(arena.address(offset - 8), size + 8)
    pool.xfree(offset)
    assert pool.stats().waiting_blocks == 1
    assert ctypes.string_at(arena.address(offset - 8), size + 8) == before
    pool.check()


def test_a_write_after_free_is_seen_when_the_memory_is_used_again(arena, memory):
    pool = Pool(arena, hardened=["poison"])
    for n in (100, 264, 1000):
        for place in (16, 17, min(n, POISONED_BYTES + 16) - 9):
            offset = pool.xmalloc(n)
            wall = pool.xmalloc(16)
            pool.xfree(offset)
            memory.flip(offset + place)
            corrupt(lambda n=n: pool.xmalloc(n), "H2")
            corrupt(pool.check, "H2")
            memory.flip(offset + place)
            assert pool.xmalloc(n) == offset
            pool.xfree(wall)
            pool.xfree(offset)
            pool.check()


def test_a_write_into_what_a_split_left_is_seen(arena, memory):
    """On both sides of an aligned block, and behind one that shrank."""
    pool = Pool(arena, hardened=["poison"])

    def spoil(is_there):
        rows = pool.walk()
        free = rows[~rows["used"] & (rows["size"] >= 64)]["offset"].tolist()
        assert any(map(is_there, free))
        for offset in free:
            memory.flip(offset + 16)
            corrupt(pool.check, "H2")
            memory.flip(offset + 16)
        pool.check()

    pool.xfree(pool.xmalloc(5000))
    aligned = pool.xmalloc(100, align=1024)
    spoil(lambda offset: offset < aligned)
    shrunk = pool.xmalloc(2000)
    wall = pool.xmalloc(1500)
    pool.xrealloc(shrunk, 1000)
    spoil(lambda offset: shrunk < offset < wall)


def test_a_lost_start_bit_of_a_neighbour_is_seen(arena):
    """A block in use without one waits in quarantine, or it is damage."""
    pool = Pool(arena, hardened=["safe_links", "quarantine"])
    left, right, wall = (pool.xmalloc(100) for _ in range(3))
    words = Words(arena)
    words.flip_start(right)
    corrupt(lambda: pool.xrealloc(left, 50), "V1")
    words.flip_start(right)
    pool.xfree(right)
    assert pool.xrealloc(left, 50) == left
    pool.check()
    pool.xfree(wall)


def test_a_damaged_free_neighbour_is_seen_by_a_free(arena, memory):
    for side in ("left", "right"):
        pool = Pool(arena, hardened=["poison", "safe_links"])
        left, middle, right, _ = (pool.xmalloc(200) for _ in range(4))
        freed = left if side == "left" else right
        pool.xfree(freed)
        memory.flip(freed + 50)
        corrupt(functools.partial(pool.xfree, middle), "H2")
        corrupt(functools.partial(pool.xrealloc, middle, 1000), "H2")
        memory.flip(freed + 50)
        pool.xfree(middle)
        pool.check()


# Links ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5, 8, 14])
def test_corrupted_links_are_seen_before_they_are_followed(arena, memory, place):
    pool = Pool(arena, hardened=["safe_links"])
    blocks = [pool.xmalloc(200) for _ in range(8)]
    for offset in blocks[1::2]:
        pool.xfree(offset)
    memory.flip(blocks[1] + place, 0x40)
    before = bytes(memory.bytes)
    corrupt(lambda: pool.xfree(blocks[0]), "F4")
    corrupt(lambda: pool.xfree(blocks[2]), "F4")
    corrupt(lambda: pool.xrealloc(blocks[0], 300), "F4")
    control = Words(arena).control(pool)
    end = control + fmt.CONTROL_BYTES
    after = bytes(memory.bytes)
    assert before[:control] + before[end:] == after[:control] + after[end:]
    memory.flip(blocks[1] + place, 0x40)
    pool.xfree(blocks[0])
    pool.xfree(blocks[2])
    pool.check()


@pytest.mark.parametrize("odd", [1, 2, 3, 4, 8])
def test_a_forged_link_to_where_no_block_can_be_is_seen(arena, odd):
    """Though what it leads to links back."""
    pool = Pool(arena, hardened=["safe_links"])
    blocks = [pool.xmalloc(200) for _ in range(8)]
    for offset in blocks[1::2]:
        pool.xfree(offset)
    first = blocks[5] - 8
    forged = blocks[2] - 8 + 64 + odd
    with damaged(arena) as words:
        assert words.word(first + fmt.LINK_NEXT) == blocks[3] - 8
        words.set(forged + fmt.LINK_BACK, first + fmt.LINK_NEXT)
        words.set(first + fmt.LINK_NEXT, forged)
        held = words.bytes(forged, 64)
        corrupt(lambda: pool.xfree(blocks[4]), "F4")
        corrupt(lambda: pool.xfree(blocks[6]), "F4")
        assert words.bytes(forged, 64) == held
    pool.xfree(blocks[4])
    pool.xfree(blocks[6])
    pool.check()


def test_a_forged_boundary_tag_is_seen(arena, memory):
    """An overflow from a free block's end leads the next free to nowhere."""
    pool = Pool(arena, hardened=["safe_links"])
    left, middle, _ = (pool.xmalloc(200) for _ in range(3))
    pool.xfree(left)
    memory.flip(middle - 16, 0x20)
    corrupt(lambda: pool.xfree(middle), "B6")
    memory.flip(middle - 16, 0x20)
    pool.xfree(middle)


def test_the_head_of_the_list_that_serves_a_request_is_verified(arena, memory):
    pool = Pool(arena, hardened=["safe_links"])
    offset, _ = pool.xmalloc(200), pool.xmalloc(200)
    pool.xfree(offset)
    memory.flip(offset + 8, 0x40)
    corrupt(lambda: pool.xmalloc(200), "F4")
    memory.flip(offset + 8, 0x40)
    assert pool.xmalloc(200) == offset


# Invariants -----------------------------------------------------------------------


def test_H1_patterns_and_trailers(arena, memory):
    pool = Pool(arena, hardened=["canaries", "checksums"])
    offset = pool.xmalloc(50)
    pool.xmalloc(1)
    row = next(r for r in pool.walk() if r["offset"] == offset)
    end = offset - 8 + int(row["size"])
    for place in range(offset + 50, end):
        for k in range(8):
            memory.flip(place, 1 << k)
            assert corrupt(pool.check, "H1").offset == offset - 8
            memory.flip(place, 1 << k)
    pool.check()


def test_H2_poison_of_free_blocks(arena, memory):
    pool = Pool(arena, hardened=["poison"])
    offset, _ = pool.xmalloc(600), pool.xmalloc(1)
    pool.xfree(offset)
    for place in range(offset + 16, offset + 16 + POISONED_BYTES):
        memory.flip(place)
        assert corrupt(pool.check, "H2").offset == offset - 8
        memory.flip(place)
    memory.flip(offset + 16 + POISONED_BYTES)  # beyond the limit: nobody looks
    pool.check()


def test_H3_what_waits_in_the_quarantine(arena, memory):
    pool = Pool(arena, hardened=True)
    offset = pool.xmalloc(600)
    pool.xfree(offset)
    for place in (offset, offset + POISONED_BYTES - 1):
        memory.flip(place)
        assert corrupt(pool.check, "H3").offset == offset - 8
        memory.flip(place)
    # A block that is neither live nor waiting.
    words = Words(arena)
    slot = words.control(pool) + fmt.RING
    held = words.word(slot)
    assert held == offset - 8
    words.set(slot, 0)
    words.add(words.control(pool) + fmt.N_WAITING, -1)
    corrupt(pool.check, "V1")
    words.repair()
    pool.check()


# Heaps ------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["strict", "array", "subpage", "merged"])
def test_heaps_can_be_hardened(arena, memory, interface):
    heap = Heap(arena, interface, hardened=True)
    assert heap.DELTA == 32
    assert heap.XMALLOC_MAX == PAGE - 32
    sub = interface == "subpage"
    give = heap.xmalloc_subpage if sub else heap.xmalloc
    free = heap.xfree_subpage if sub else heap.xfree
    most = give(heap.XMALLOC_MAX)
    assert heap.usable_size(most) == heap.XMALLOC_MAX
    free(most)
    offset = give(100)
    memory.flip(offset + 100)
    corrupt(lambda: free(offset), "H1")
    corrupt(lambda: heap.view(offset), "H1")
    if not sub:
        corrupt(lambda: heap.xrealloc(offset, 200), "H1")
    memory.flip(offset + 100)
    free(offset)
    heap.check()


def test_the_legacy_interface_cannot_be_hardened(arena):
    with pytest.raises(xmem.BadArgument, match="tlsf"):
        Heap(arena, "legacy", hardened=True)
    assert arena.pools() == {}


def test_an_empty_block_of_a_hardened_heap_has_no_room(arena):
    """Found by proofs.integers: 0 was taken for an error without exception."""
    heap = Heap(arena, hardened=True)
    offset = heap.xmalloc(0)
    assert heap.usable_size(offset) == 0
    assert len(heap.view(offset)) == 0


# Whole pages ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE - 300])
def test_whole_pages_have_a_canary_behind_what_was_requested(arena, memory, n):
    pool = Pool(arena, hardened=True)
    offset = pool.xmalloc(n, align=PAGE)
    end = -(-max(n, 1) // PAGE) * PAGE
    assert pool.usable_size(offset) == len(pool.view(offset)) == n
    (row,) = [row for row in pool.walk() if row["offset"] == offset]
    assert row["capacity"] == n
    assert row["size"] == end
    fill(pool, offset)
    pool.check()
    for place in {n, min(n + CANARY_BYTES, end) - 1} & set(range(n, end)):
        memory.flip(offset + place)
        for call in (
            pool.check,
            lambda: pool.xfree(offset),
            lambda: pool.xrealloc(offset, 10),
            lambda: pool.xrealloc(offset, 9 * PAGE),
            lambda: pool.view(offset),
            lambda: pool.usable_size(offset),
        ):
            assert corrupt(call, "H1").offset == offset
        memory.flip(offset + place)
    pool.xfree(offset)
    pool.check()
    assert pool.stats().n_pages == 0


def test_a_canary_of_whole_pages_has_256_bytes(arena, memory):
    pool = Pool(arena, hardened=True)
    offset = pool.xmalloc(100, align=PAGE)
    memory.flip(offset + 100 + CANARY_BYTES)  # beyond the limit: nobody looks
    pool.check()
    pool.xfree(offset)


@pytest.mark.parametrize("flag", HARDENING)
def test_whole_pages_under_each_flag(arena, memory, flag):
    pool = Pool(arena, hardened=[flag])
    offset = pool.xmalloc(100, align=PAGE)
    known = flag in ("canaries", "checksums")
    assert pool.usable_size(offset) == (100 if known else PAGE)
    memory.flip(offset + 100)
    if flag == "canaries":
        corrupt(lambda: pool.xfree(offset), "H1")
    else:
        pool.xfree(offset)


def test_resized_whole_pages_keep_bytes_and_canary(arena, memory, seed):
    rng = np.random.default_rng(seed)
    pool = Pool(arena, hardened=True)
    offset = pool.xmalloc(5, align=PAGE)
    data = b"hello"
    pool.view(offset)[:] = data
    for _ in range(300):
        n = int(rng.integers(0, 4 * PAGE))
        offset = pool.xrealloc(offset, n)
        assert offset % PAGE == 0
        assert pool.usable_size(offset) == n
        view = pool.view(offset)
        kept = min(n, len(data))
        assert bytes(view[:kept]) == data[:kept]
        data = rng.bytes(n)
        view[:] = data
        view.release()
        pool.check()
        if n % PAGE:
            memory.flip(offset + n)
            corrupt(lambda: pool.xrealloc(offset, 1), "H1")  # noqa: B023
            memory.flip(offset + n)


def test_whole_pages_survive_a_new_process(arena_path):
    with Arena.create(arena_path, 1 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, name="p", hardened=True)
        offset = pool.xmalloc(100, align=2 * PAGE)
    with Arena.open(arena_path) as arena:
        pool = Pool.open(arena, "p")
        assert pool.usable_size(offset) == 100
        assert offset % (2 * PAGE) == 0
        assert pool.xrealloc(offset, 300) == offset
        Memory(arena).flip(offset + 300)
        corrupt(lambda: pool.xfree(offset), "H1")
    with pytest.raises(HeapCorruption, match="H1"), Arena.open(arena_path) as arena:
        Pool.open(arena, "p")


@pytest.mark.parametrize("interface", ["array", "merged"])
def test_whole_pages_of_a_heap_have_a_canary(arena, memory, interface):
    heap = Heap(arena, interface, hardened=True)
    offset = heap.xmalloc_array(50, 100)
    assert heap.usable_size(offset) == 5000
    pages = heap.stats().run_pages
    assert heap.xrealloc_array(offset, 51, 100) == offset
    assert heap.usable_size(offset) == 5100
    assert heap.stats().run_pages == pages == 2
    memory.flip(offset + 5100)
    for call in (
        heap.check,
        lambda: heap.xfree(offset),
        lambda: heap.view(offset),
        lambda: heap.xrealloc_array(offset, 52, 100),
        lambda: heap.xrealloc_array(offset, 1, 100),
        lambda: heap.xrealloc_array(offset, 300, 100),
    ):
        corrupt(call, "H1")
    memory.flip(offset + 5100)
    run = heap.page_alloc(0)
    heap.view(run)[:] = bytes(PAGE)  # pages are not blocks: all of them may be used
    heap.check()
    heap.page_free(run)
    heap.xfree(offset)
    heap.check()


# Figures ----------------------------------------------------------------------------


@pytest.mark.parametrize("hardened", [False, True, ["canaries"], ["poison"]], ids=str)
def test_a_request_of_the_largest_free_bytes_is_served(arena, hardened):
    pool = Pool(arena, max_pages=32, hardened=hardened)
    pool.reserve(32)
    blocks = [pool.xmalloc(777) for _ in range(60)]
    for block in blocks[::2]:
        pool.xfree(block)
    largest = pool.stats().largest_free_bytes
    free = pool.walk()
    assert largest == free["capacity"][~free["used"] & (free["kind"] == 0)].max()
    assert pool.xmalloc(largest)
    assert pool.stats().n_pages == 32
    pool.check()
