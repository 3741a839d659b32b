# SPDX-License-Identifier: BSD-3-Clause
"""Files that are no arena, or no longer one, are refused, and the message says why.

The first bytes of a file and its length decide. A refused file is neither changed
nor kept open. An arena left behind by a process that died opens all the same.
"""

import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import support.damage as fmt
from support.apart import CHILD_ENV, apart
from support.files import (
    KEPT,
    MAX_POOLS,
    N_BYTES,
    PAGE,
    TABLES,
    fill,
    patch,
    random_superblocks,
)

from xmem import Arena, ArenaFormatError, HeapCorruption, Pool


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """The file of an arena that was closed."""
    path = tmp_path / "arena"
    with Arena.create(path, N_BYTES, page_size=PAGE, max_pools=MAX_POOLS) as arena:
        fill(arena)
    return path


@pytest.fixture
def dirty(clean: Path) -> Path:
    """The same as a process that died would have left it."""
    patch(clean, fmt.STATE, fmt.READY.to_bytes(8, "little"))
    return clean


def refused(path: Path, match: str) -> str:
    """The message of the ArenaFormatError; the file is as it was, and free."""
    before = path.read_bytes()
    n_open = len(os.listdir("/proc/self/fd"))
    for verify in (True, False):
        with pytest.raises(ArenaFormatError, match=match) as caught:
            Arena.open(path, verify=verify)
        assert type(caught.value) is ArenaFormatError
    # Fewer when the collector closed what an earlier test had dropped.
    assert len(os.listdir("/proc/self/fd")) <= n_open
    assert path.read_bytes() == before
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def opens(path: Path) -> None:
    """It opens, with its blocks."""
    with Arena.open(path) as arena:
        assert sorted(arena.pools()) == ["firstfit", "tlsf"]
        for name in arena.pools():
            Pool.open(arena, name)
        pool = Pool.open(arena, "firstfit")
        assert bytes(pool.view(arena.root, len(KEPT))) == KEPT


# What is no arena ------------------------------------------------------------


def test_the_arena_itself_opens(clean: Path) -> None:
    opens(clean)
    opens(clean)


@pytest.mark.parametrize(
    ("held", "match"),
    [
        (b"", "too few.*not an arena"),
        (b"X", "too few"),
        (b"XMEM\r\n\x1a\n", "too few"),
        (b"\0" * 100, "too few"),
        (b"\0" * 1024, "not an arena"),
        (b"\0" * N_BYTES, "not an arena"),
        (b"\xff" * N_BYTES, "not an arena"),
        (b"not an arena\n" * 1000, "not an arena"),
        (b"XMEM\n\n\x1a\n".ljust(2048), "not an arena"),
        (b"\x7fELF".ljust(2048, b"\1"), "not an arena"),
        (b"XMEM\r\n\x1a\n".ljust(2048, b"\0"), "byte order|damaged"),
    ],
)
def test_no_arena(tmp_path: Path, held: bytes, match: str) -> None:
    path = tmp_path / "arena"
    path.write_bytes(held)
    refused(path, match)


def test_converted_line_ends_are_seen(clean: Path) -> None:
    """The magic has both kinds, as PNG's."""
    for old, new in ((b"\r\n", b"\n"), (b"\n", b"\r\n")):
        held = clean.read_bytes().replace(old, new)
        path = clean.with_suffix(f".{len(new)}")
        path.write_bytes(held)
        refused(path, "not an arena")


def test_random_bytes_are_no_arena(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "arena"
    for _ in range(100):
        path.write_bytes(rng.bytes(int(rng.integers(5000))))
        refused(path, "not an arena")


# Its length ------------------------------------------------------------------


def test_truncated_at_many_lengths(clean: Path) -> None:
    lengths = {
        *range(fmt.SUPERBLOCK_BYTES + 64),
        *(page * PAGE + i for page in range(N_BYTES // PAGE) for i in (-1, 0, 1)),
        *(N_BYTES - i for i in (1, 2, 8, 16, 100, PAGE, PAGE + 1)),
    }
    for length in sorted(lengths, reverse=True):
        if not 0 <= length < N_BYTES:
            continue
        os.truncate(clean, length)
        with pytest.raises(ArenaFormatError, match=r"truncated") as caught:
            Arena.open(clean)
        assert str(length) in str(caught.value)
    assert clean.stat().st_size == 0


def test_truncated_and_made_long_again(clean: Path) -> None:
    """The length is right, the tables' end is gone."""
    os.truncate(clean, TABLES)
    os.truncate(clean, N_BYTES)
    with pytest.raises(HeapCorruption) as caught:
        Arena.open(clean)
    assert caught.value.invariant == "P1"


@pytest.mark.parametrize("more", [1, 16, PAGE, N_BYTES, 1 << 32])
def test_longer_than_it_says(clean: Path, more: int) -> None:
    os.truncate(clean, N_BYTES + more)
    if more < 1 << 20:
        message = refused(clean, "says")
        assert str(N_BYTES) in message
        assert str(N_BYTES + more) in message
    else:
        with pytest.raises(ArenaFormatError, match="says"):
            Arena.open(clean)
    os.truncate(clean, N_BYTES)
    opens(clean)


# Its superblock --------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 5, 6, 7, 8, 10, 1 << 8, 1 << 24, (1 << 32) - 1])
@pytest.mark.parametrize("seal", [False, True])
def test_another_version(clean: Path, version: int, seal: bool) -> None:
    patch(clean, fmt.VERSION, version.to_bytes(4, "little"), seal)
    message = refused(clean, "version")
    assert re.search(rf"version {version};.*version 9$", message)


def test_another_byte_order(clean: Path) -> None:
    """Each number of the superblock is turned round."""
    held = bytearray(clean.read_bytes())
    fields = [(start, 4) for start in (8, 12, 24, 28, 32, 36, 112, 116)]
    fields += [(start, 8) for start in (16, *range(40, 112, 8), 120)]
    for start, size in fields:
        held[start : start + size] = held[start : start + size][::-1]
    clean.write_bytes(held)
    refused(clean, "byte order")


def test_never_completely_created(dirty: Path) -> None:
    patch(dirty, fmt.STATE, fmt.INITIALISING.to_bytes(8, "little"))
    refused(dirty, "never completely created")


@pytest.mark.parametrize("state", [0, 1, fmt.READY ^ 1, fmt.CLEAN | 1 << 63])
def test_unknown_state(clean: Path, state: int) -> None:
    patch(clean, fmt.STATE, state.to_bytes(8, "little"))
    refused(clean, "damaged.*state")


def test_every_bit_of_superblock_and_directory_of_a_clean_arena(clean: Path) -> None:
    """One wrong bit among the first 4096 bytes, whichever it is, is refused."""
    assert TABLES == 4096
    held = clean.read_bytes()[:TABLES]
    missed = []
    with clean.open("r+b", buffering=0) as file:
        for i, byte in enumerate(held):
            for k in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << k]), i)
                try:
                    Arena.open(clean, verify=False).close()
                except ArenaFormatError:
                    continue
                missed.append((i, k))
                # Opened and closed, it is sealed again: bring it back.
                os.pwrite(file.fileno(), held, 0)
            os.pwrite(file.fileno(), bytes([byte]), i)
    assert missed == []
    opens(clean)


def test_every_byte_of_superblock_and_directory_overwritten(clean: Path) -> None:
    """As above, with whole bytes: none, all and other bits."""
    held = clean.read_bytes()[:TABLES]
    for i, byte in enumerate(held):
        for other in {0x00, 0xFF, byte ^ 0xFF, byte ^ 0x55} - {byte}:
            patch(clean, i, bytes([other]))
            with pytest.raises(ArenaFormatError):
                Arena.open(clean, verify=False)
        patch(clean, i, bytes([byte]))
    opens(clean)


def test_every_bit_of_the_fixed_part_of_a_dirty_arena(dirty: Path) -> None:
    """The fixed part has a checksum of its own, which holds in every state."""
    held = dirty.read_bytes()[: fmt.STATE]
    missed = set()
    for i, byte in enumerate(held):
        for k in range(8):
            patch(dirty, i, bytes([byte ^ 1 << k]))
            try:
                Arena.open(dirty, verify=False).close()
            except ArenaFormatError:
                continue
            finally:
                patch(dirty, i, bytes([byte]))
                patch(dirty, fmt.STATE, fmt.READY.to_bytes(8, "little"))
            missed.add(i)
    assert missed <= set(range(fmt.FIXED_CRC + 4, fmt.STATE))  # padding
    opens(dirty)


GEOMETRY: dict[str, tuple[int, int, int]] = {
    "n_bytes 0": (fmt.N_BYTES, 8, 0),
    "n_bytes 1": (fmt.N_BYTES, 8, 1),
    "n_bytes not whole pages": (fmt.N_BYTES, 8, N_BYTES - 1),
    "n_bytes one page less": (fmt.N_BYTES, 8, N_BYTES - PAGE),
    "n_bytes one page more": (fmt.N_BYTES, 8, N_BYTES + PAGE),
    "n_bytes 2**44": (fmt.N_BYTES, 8, 1 << 44),
    "n_bytes 2**63": (fmt.N_BYTES, 8, 1 << 63),
    "n_bytes 2**64 - 1": (fmt.N_BYTES, 8, (1 << 64) - 1),
    "page 0": (fmt.PAGE_BYTES, 4, 0),
    "page 1": (fmt.PAGE_BYTES, 4, 1),
    "page 2048": (fmt.PAGE_BYTES, 4, 2048),
    "page 4097": (fmt.PAGE_BYTES, 4, 4097),
    "page 8192": (fmt.PAGE_BYTES, 4, 8192),
    "page 2**31": (fmt.PAGE_BYTES, 4, 1 << 31),
    "n_pages 0": (fmt.N_PAGES, 4, 0),
    "n_pages one more": (fmt.N_PAGES, 4, N_BYTES // PAGE + 1),
    "n_pages 2**32 - 1": (fmt.N_PAGES, 4, (1 << 32) - 1),
    "first_page 0": (fmt.FIRST_PAGE, 4, 0),
    "first_page one less": (fmt.FIRST_PAGE, 4, 1),
    "first_page n_pages": (fmt.FIRST_PAGE, 4, N_BYTES // PAGE),
    "first_page 2**32 - 1": (fmt.FIRST_PAGE, 4, (1 << 32) - 1),
    "max_pools 0": (fmt.MAX_POOLS, 4, 0),
    "max_pools one more": (fmt.MAX_POOLS, 4, MAX_POOLS + 1),
    "max_pools 32767": (fmt.MAX_POOLS, 4, 32767),
    "max_pools 2**32 - 1": (fmt.MAX_POOLS, 4, (1 << 32) - 1),
    "directory 0": (fmt.DIRECTORY, 8, 0),
    "directory elsewhere": (fmt.DIRECTORY, 8, 1088),
    "directory 2**63": (fmt.DIRECTORY, 8, 1 << 63),
    "frame table 0": (fmt.FRAME_TABLE, 8, 0),
    "frame table beyond": (fmt.FRAME_TABLE, 8, N_BYTES),
    "frame table 2**64 - 16": (fmt.FRAME_TABLE, 8, (1 << 64) - 16),
    "start bitmap 0": (fmt.START_BITMAP, 8, 0),
    "start bitmap beyond": (fmt.START_BITMAP, 8, N_BYTES),
    "start bitmap 2**64 - 8": (fmt.START_BITMAP, 8, (1 << 64) - 8),
}


@pytest.mark.parametrize("label", GEOMETRY)
def test_geometry_with_a_right_checksum(dirty: Path, label: str) -> None:
    """A checksum proves nothing against malice: the numbers must fit as well."""
    offset, size, value = GEOMETRY[label]
    patch(dirty, offset, value.to_bytes(size, "little"), seal=True)
    refused(dirty, r"damaged in its superblock|truncated|says")


def test_arena_that_claims_to_be_a_larger_one(dirty: Path) -> None:
    """All geometry of another arena, but empty tables: the checker says so."""
    larger = dirty.with_suffix(".larger")
    Arena.create(larger, 1 << 24, page_size=PAGE, max_pools=MAX_POOLS).close()
    patch(dirty, 0, larger.read_bytes()[: fmt.STATE])
    os.truncate(dirty, 1 << 24)
    with pytest.raises(HeapCorruption):
        Arena.open(dirty)


def test_random_superblocks_do_not_crash(dirty: Path, seed: int) -> None:
    apart(random_superblocks, str(dirty), seed, 500)


# Its tables ------------------------------------------------------------------


def test_clean_arena_with_a_damaged_frame_table(clean: Path) -> None:
    """The checksum ends before it; the checker looks at all of it."""
    held = clean.read_bytes()
    table = int.from_bytes(held[fmt.FRAME_TABLE : fmt.FRAME_TABLE + 8], "little")
    first = int.from_bytes(held[fmt.FIRST_PAGE : fmt.FIRST_PAGE + 4], "little")
    for page in range(first, N_BYTES // PAGE):
        place = table + page * fmt.FRAME_BYTES
        patch(clean, place, b"\xee" * 8)
        before = clean.read_bytes()
        with pytest.raises(HeapCorruption) as caught:
            Arena.open(clean)
        assert caught.value.invariant == "P1"
        assert clean.read_bytes() == before
        patch(clean, place, held[place : place + 8])
    opens(clean)


def test_pool_whose_control_block_is_gone(clean: Path) -> None:
    with Arena.open(clean) as arena:
        frames = arena.frames()
        page = int(frames["page"][frames["state"] == 4][0])
    patch(clean, page * PAGE, b"\0" * PAGE)
    with Arena.open(clean) as arena:
        refused_names = []
        for name in arena.pools():
            for verify in (True, False):
                try:
                    Pool.open(arena, name, verify=verify)
                except HeapCorruption as error:
                    refused_names.append((name, error.invariant))
        assert len(refused_names) == 2
        assert {invariant for _, invariant in refused_names} == {"C4"}


# Dirty arenas ----------------------------------------------------------------

DIE = """
import os, signal, sys
from support.files import N_BYTES, PAGE, fill
from xmem import Arena
arena = Arena.create(sys.argv[1], N_BYTES, page_size=PAGE)
fill(arena)
{how}
"""
WAYS: dict[str, tuple[str, int]] = {
    "os._exit": ("os._exit(7)", 7),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "abort": ("os.abort()", -signal.SIGABRT),
    "exec": ("os.execv('/bin/true', ['true'])", 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_arena_of_a_process_that_died(tmp_path: Path, way: str) -> None:
    path = tmp_path / "arena"
    how, code = WAYS[way]
    done = subprocess.run(
        [sys.executable, "-P", "-c", DIE.format(how=how), path],
        cwd=tmp_path,
        env=CHILD_ENV,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    state = path.read_bytes()[fmt.STATE : fmt.STATE + 8]
    assert int.from_bytes(state, "little") == fmt.READY
    opens(path)
    state = path.read_bytes()[fmt.STATE : fmt.STATE + 8]
    assert int.from_bytes(state, "little") == fmt.CLEAN


def test_dirty_arena_may_differ_from_its_last_seal(dirty: Path) -> None:
    """The checksum of superblock and directory counts in a clean arena only."""
    patch(dirty, fmt.PAGE_CRC, b"\0\0\0\0")
    opens(dirty)


# What the format is ----------------------------------------------------------


def test_layout_of_version_9(tmp_path: Path) -> None:
    """The numbers of the format, as any other program would read them."""
    for n_bytes, page_size, max_pools in (
        (1 << 18, 4096, 48),
        (1 << 20, 4096, 2),
        (9 << 20, 16384, 100),
        (1 << 24, 65536, 48),
    ):
        path = tmp_path / f"{n_bytes}-{page_size}"
        with Arena.create(
            path, n_bytes, page_size=page_size, max_pools=max_pools
        ) as arena:
            fill(arena)
            root = arena.root
            n_free = arena.n_free_pages
            first_page = arena.first_page
            frames = arena.frames()
            ids = {name: pool["id"] for name, pool in arena.pools().items()}
        held = path.read_bytes()

        def number(offset: int, size: int, held: bytes = held) -> int:
            return int.from_bytes(held[offset : offset + size], "little")

        n_pages = n_bytes // page_size
        assert held[:8] == b"XMEM\r\n\x1a\n"
        assert number(fmt.VERSION, 4) == 9
        assert number(fmt.BYTE_ORDER, 4) == 0x01020304
        assert number(fmt.N_BYTES, 8) == n_bytes == len(held)
        assert number(fmt.PAGE_BYTES, 4) == page_size
        assert number(fmt.N_PAGES, 4) == n_pages
        assert number(fmt.FIRST_PAGE, 4) == first_page
        assert number(fmt.MAX_POOLS, 4) == max_pools
        assert number(fmt.DIRECTORY, 8) == 1024
        assert number(fmt.FRAME_TABLE, 8) == 1024 + 64 * max_pools
        records = 16 * -(-n_pages // 8) * 8
        assert number(fmt.START_BITMAP, 8) == 1024 + 64 * max_pools + records
        runheads = number(fmt.START_BITMAP, 8) + n_bytes // 128
        assert number(fmt.RUNHEADS, 8) == runheads
        # Levels of words, a bit for each of the level below, and of entries of 4 bytes,
        # one for 8 of the level below.
        n_words = [-(-n_pages // 64), *([1] if n_pages > 64 else [])]
        stretches = number(fmt.STRETCHES, 8)
        assert stretches == runheads + 8 * sum(n_words)
        n_entries = [-(-n_pages // 8), -(-n_pages // 64), -(-n_pages // 512)]
        while len(n_entries) > 1 and n_entries[-2] == 1:
            n_entries.pop()
        padded = sum(-(-n // 8) * 8 for n in n_entries)
        assert first_page == -(-(stretches + 4 * padded) // page_size)
        assert number(fmt.SECRET, 8) != 0
        assert number(fmt.FLAGS, 8) == 0
        assert not any(held[fmt.RESERVED : fmt.FIXED_BYTES])
        assert number(fmt.FIXED_CRC, 4) == zlib.crc32(held[: fmt.FIXED_BYTES])
        assert number(fmt.STATE, 8) == fmt.CLEAN
        assert number(fmt.ROOT, 8) == root
        assert number(fmt.N_SERIALS, 4) == 2
        assert number(fmt.N_FREE_PAGES, 8) == n_free
        sealed = (
            held[: fmt.PAGE_CRC]
            + b"\0\0\0\0"
            + held[fmt.N_SERIALS : 1024 + 64 * max_pools]
        )
        assert number(fmt.PAGE_CRC, 4) == zlib.crc32(sealed)
        for page, length, state, order, owner in frames.tolist():
            word = number(number(fmt.FRAME_TABLE, 8) + 16 * page, 8)
            assert word == fmt.frame_word(state, order, owner, length)
        for name, i in ids.items():
            entry = 1024 + 64 * (i - 1)
            assert held[entry : entry + 40].rstrip(b"\0").decode() == name
            control = number(entry + fmt.ENTRY_CONTROL, 8)
            assert held[control : control + 4] == b"POOL"
            assert number(control + fmt.POOL_NUMBER, 4) == i


@pytest.mark.parametrize("n_bytes", [1 << 18, 1 << 20, 123 * 4096])
def test_layout_of_a_shared_arena(tmp_path: Path, n_bytes: int) -> None:
    """It differs by a flag and by the area behind the tables."""
    plain, shared = tmp_path / "plain", tmp_path / "shared"
    Arena.create(plain, n_bytes, page_size=PAGE).close()
    with Arena.create(shared, n_bytes, page_size=PAGE, shared=True) as arena:
        held, tables = shared.read_bytes(), arena.first_page * PAGE
    sealed, without = shared.read_bytes(), plain.read_bytes()

    def number(offset: int, size: int, held: bytes = held) -> int:
        return int.from_bytes(held[offset : offset + size], "little")

    assert number(fmt.FLAGS, 8) == 3  # preallocated, and shared
    assert held[16:72] != without[16:72]
    assert (
        held[fmt.STRETCHES : fmt.STRETCHES + 8]
        == (without[fmt.STRETCHES : fmt.STRETCHES + 8])
    )
    area = number(96, 8)
    assert area % 64 == 0
    end_of_tree = area + 4048 + 16 * 1024
    assert tables == -(-end_of_tree // PAGE) * PAGE
    assert not any(number(area + 8 * i, 8) for i in range(8))  # nobody waits
    slot = area + 64
    assert [number(slot + 4 * i, 4) for i in range(3)] == [1, 1, os.getpid()]
    assert number(area + 4032, 8) == 16  # no entries
    assert number(144, 16) != 0
    assert (number(160, 8), number(168, 8)) == (
        shared.stat().st_dev,
        shared.stat().st_ino,
    )
    # Closed, it is nobody's; the epoch stays.
    assert [number(slot + 4 * i, 4, sealed) for i in range(3)] == [1, 0, 0]
    assert number(fmt.STATE, 8, sealed) == fmt.CLEAN


def test_unknown_flags_are_refused(clean: Path) -> None:
    patch(clean, fmt.FLAGS, (4).to_bytes(8, "little"), True)
    assert "flags 0x4" in refused(clean, "superblock")


def test_two_arenas_have_different_secrets(tmp_path: Path) -> None:
    secrets = set()
    for i in range(10):
        Arena.create(tmp_path / str(i), N_BYTES).close()
        held = (tmp_path / str(i)).read_bytes()
        secrets.add(held[fmt.SECRET : fmt.SECRET + 8])
    assert len(secrets) == 10


def test_no_address_is_stored(clean: Path) -> None:
    """No word of the file lies in the range where the arena was mapped."""
    with Arena.open(clean) as arena:
        for name in list(arena.pools()):
            pool = Pool.open(arena, name)
            pool.xmalloc(1000)
        base = arena.address(0)
    words = np.frombuffer(clean.read_bytes(), np.uint64)
    assert not np.any((words >= base) & (words < base + N_BYTES))
