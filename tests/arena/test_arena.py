# SPDX-License-Identifier: BSD-3-Clause
"""The life of an arena: made, used, closed, opened again, dropped."""

import gc
import itertools
import mmap
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xmem import Arena, ArenaClosed, ArenaInUse, BadArgument, OutOfMemory, Pool
from xmem.arena import FRAME_FREE

SYSTEM_PAGE = mmap.PAGESIZE
PAGE_SIZES = [4096 << i for i in range(10)]
ENGINES = ("tlsf", "firstfit")
#: Where in the superblock the state word lies, and two of its values.
STATE = slice(120, 128)
READY = 0x22D3
CLEAN = 0x443C


def state_of(path: Path) -> int:
    """State word of an arena's file."""
    return int.from_bytes(path.read_bytes()[STATE], "little")


# What a new arena is ---------------------------------------------------------


def test_new_arena_is_all_free(make: Callable[..., Arena]) -> None:
    arena = make(1 << 20, page_size=4096)
    assert not arena.closed
    assert arena.n_bytes == 1 << 20
    assert arena.page_size == 4096
    assert arena.n_pages == 256
    assert arena.n_free_pages == arena.n_pages - arena.first_page
    assert arena.max_order == 8
    assert arena.largest_free_order == 7
    assert arena.root == 0
    assert arena.pools() == {}
    frames = arena.frames()
    assert set(frames["state"]) == {FRAME_FREE}
    assert frames["n_pages"].sum() == arena.n_free_pages
    arena.check()
    arena.close()


def test_size_is_rounded_up_to_whole_pages(make: Callable[..., Arena]) -> None:
    for n_bytes in (1 << 20, (1 << 20) - 1, (1 << 20) - 4095, (1 << 20) + 1):
        with make(n_bytes, page_size=4096) as arena:
            assert arena.n_bytes == -(-n_bytes // 4096) * 4096
            arena.check()


def test_least_arena_has_one_page_frame(make: Callable[..., Arena]) -> None:
    for page_size in (4096, 1 << 16):
        n_bytes = 2 * page_size
        while True:
            try:
                arena = make(n_bytes, page_size=page_size, max_pools=1)
                break
            except BadArgument:
                n_bytes += page_size
        assert arena.n_free_pages == 1
        offset = arena.page_alloc(0)
        arena.view(offset)[-1] = 7
        with pytest.raises(OutOfMemory):
            arena.page_alloc(0)
        arena.page_free(offset)
        arena.check()
        arena.close()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_page_sizes(make: Callable[..., Arena], page_size: int) -> None:
    with make(32 * page_size + (1 << 20), page_size=page_size) as arena:
        assert arena.page_size == page_size
        for engine in ENGINES:
            pool = Pool(arena, engine=engine)
            blocks = [pool.xmalloc(n) for n in (0, 100, page_size, 3 * page_size)]
            for block in blocks:
                pool.view(block)[:] = b"\xab" * pool.usable_size(block)
            pool.check()
            for block in blocks:
                pool.xfree(block)
            pool.check()
        run = arena.page_alloc(1)
        assert run % (2 * page_size) == 0
        assert arena.view(run).nbytes == 2 * page_size


def test_page_size_is_the_system_s_by_default(make: Callable[..., Arena]) -> None:
    with make(1 << 22) as arena:
        assert arena.page_size == SYSTEM_PAGE


def test_addresses_keep_max_align(make: Callable[..., Arena]) -> None:
    for n_bytes in (1 << 18, (1 << 18) + 1, 5 << 20, 1 << 26):
        with make(n_bytes, page_size=4096) as arena:
            most = arena.max_align
            assert most & (most - 1) == 0
            assert most >= max(arena.n_bytes, SYSTEM_PAGE)
            assert arena.address(0) % most == 0
            assert arena.address(4096) == arena.address(0) + 4096
            for order in range(arena.largest_free_order + 1):
                offset = arena.page_alloc(order)
                assert arena.address(offset) % (4096 << order) == 0
                arena.page_free(offset)
            pool = Pool(arena)
            align = 16
            while align < arena.n_bytes // 4:
                block = pool.xmalloc(10, align=align)
                assert arena.address(block) % align == 0
                pool.xfree(block)
                align *= 2


def test_address_is_that_of_the_view(make: Callable[..., Arena]) -> None:
    with make(1 << 20) as arena:
        run = arena.page_alloc(0)
        pool = Pool(arena)
        block = pool.xmalloc(1000)
        for offset, view in ((run, arena.view(run)), (block, pool.view(block))):
            array = np.frombuffer(view, np.uint8)
            assert array.ctypes.data == arena.address(offset)
            del array
            view.release()


def test_root_is_kept(make: Callable[..., Arena]) -> None:
    with make(1 << 20) as arena:
        for offset in (16, 0, arena.n_bytes - 1, 4096):
            arena.root = offset
            assert arena.root == offset


# Closing ---------------------------------------------------------------------


def test_context_manager_closes(make: Callable[..., Arena]) -> None:
    with make(1 << 20) as arena:
        assert isinstance(arena, Arena)
        assert not arena.closed
    assert arena.closed
    with make(1 << 20) as arena:
        arena.close()
    assert arena.closed


def test_context_manager_closes_and_lets_the_exception_pass(
    make: Callable[..., Arena],
) -> None:
    arena = make(1 << 20)
    with pytest.raises(LookupError), arena:
        raise LookupError
    assert arena.closed


def test_closing_twice_does_nothing(make: Callable[..., Arena]) -> None:
    arena = make(1 << 20)
    arena.close()
    arena.close()
    with pytest.raises(ArenaClosed), arena:
        pass
    assert arena.closed


def test_closed_arena_gives_its_address_space_back(make: Callable[..., Arena]) -> None:
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0])

    make(1 << 26).close()
    before = mapped()
    for _ in range(8):
        arena = make(1 << 26)
        arena.page_alloc(0)
        arena.close()
    assert mapped() - before < (1 << 26) // SYSTEM_PAGE


def test_many_arenas_at_once(make: Callable[..., Arena]) -> None:
    arenas = [make(1 << 18, page_size=4096) for _ in range(50)]
    bases = sorted(arena.address(0) for arena in arenas)
    assert all(b - a >= 1 << 18 for a, b in itertools.pairwise(bases))
    for arena in arenas:
        arena.close()


def is_mapped(address: int) -> bool:
    """Whether this process has a mapping with ``address`` in it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return True
    return False


def test_dropped_arena_is_unmapped(make: Callable[..., Arena]) -> None:
    arena = make(1 << 20)
    address = arena.address(0)
    assert is_mapped(address)
    del arena
    gc.collect()
    assert not is_mapped(address)


def test_pool_and_view_keep_the_arena(make: Callable[..., Arena]) -> None:
    pool = Pool(make(1 << 20))
    view = pool.view(pool.xzalloc(100))
    array = np.frombuffer(view, np.uint8)
    gc.collect()
    assert not pool.closed
    view[0] = 1
    del pool, view
    gc.collect()
    assert array[0] == 1


# Files -----------------------------------------------------------------------


def test_path_is_kept_as_text(tmp_path: Path) -> None:
    for path in (
        tmp_path / "a",
        str(tmp_path / "b"),
        os.fsencode(tmp_path / "c"),
        os.fsencode(tmp_path) + b"/\xff\xfe",
        str(tmp_path / "\u20ac \u00fc"),
    ):
        with Arena.create(path, 1 << 20) as arena:
            assert arena.path == os.fsdecode(path)
        with Arena.open(path) as arena:
            assert arena.path == os.fsdecode(path)
            assert arena.path in repr(arena) or "\\" in repr(arena)
    assert Arena.anonymous(1 << 20).path is None


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Arena.create("here", 1 << 20).close()
    Arena.open(Path("here")).close()


def test_create_refuses_what_exists(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    path.write_bytes(b"mine")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path, link):
        with pytest.raises(FileExistsError):
            Arena.create(taken, 1 << 20)
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("n_bytes", "keywords"),
    [
        (0, {}),
        (4096, {"page_size": 4096}),
        (1 << 20, {"page_size": 5000}),
        (1 << 20, {"max_pools": 0}),
        (1 << 20, {"page_size": 4096, "max_pools": 32767}),
        ((1 << 44) + 1, {}),
        ("big", {}),
    ],
)
def test_create_that_is_refused_leaves_no_file(
    tmp_path: Path, n_bytes: int, keywords: dict[str, int]
) -> None:
    with pytest.raises((BadArgument, TypeError)):
        Arena.create(tmp_path / "arena", n_bytes, **keywords)
    assert list(tmp_path.iterdir()) == []


def test_create_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Arena.create(tmp_path / "none" / "arena", 1 << 20)
    assert list(tmp_path.iterdir()) == []


OUT_OF_ADDRESSES = """
import os, resource, sys
from xmem import Arena
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for make in (Arena.anonymous, lambda n_bytes: Arena.create(sys.argv[1], n_bytes)):
    try:
        make(8 << 30)
    except OSError as error:
        print(error.errno)
print(os.listdir(os.path.dirname(sys.argv[1])))
Arena.create(sys.argv[1], 1 << 20).close()
"""


@pytest.mark.no_asan
def test_no_file_is_left_when_the_mapping_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", OUT_OF_ADDRESSES, tmp_path / "arena"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["12", "12", "[]"]


def test_no_file_is_left_when_it_cannot_be_so_long(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(OSError, match="large"):
            Arena.create(tmp_path / "arena", 1 << 24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_failed_calls_leave_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no arena")
    (tmp_path / "long").write_text("no arena" * 1000)
    Arena.create(tmp_path / "held", 1 << 20)
    held = Arena.create(tmp_path / "arena", 1 << 20)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # what earlier tests dropped must not count
    before = descriptors()
    for _ in range(20):
        for call in (
            lambda: Arena.open(tmp_path / "text"),
            lambda: Arena.open(tmp_path / "long"),
            lambda: Arena.open(tmp_path / "arena"),
            lambda: Arena.open(tmp_path / "none"),
            lambda: Arena.create(tmp_path / "arena", 1 << 20),
        ):
            with pytest.raises((OSError, ValueError)):
                call()
    assert descriptors() == before
    held.close()
    assert descriptors() == before - 1


def test_one_opening_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20):
        with pytest.raises(ArenaInUse, match=str(path)):
            Arena.open(path)
        link = tmp_path / "link"
        link.hardlink_to(path)
        with pytest.raises(ArenaInUse):
            Arena.open(link)
    first = Arena.open(path)
    with pytest.raises(ArenaInUse):
        Arena.open(path)
    first.check()
    first.close()
    Arena.open(path).close()


OPEN = "import sys; from xmem import Arena; Arena.open(sys.argv[1])"


def test_one_opening_at_a_time_among_processes(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20):
        done = subprocess.run(
            [sys.executable, "-P", "-c", OPEN, path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "ArenaInUse" in done.stderr
    done = subprocess.run(
        [sys.executable, "-P", "-c", OPEN, path], capture_output=True, check=True
    )
    assert done.stderr == b""


def test_descriptor_is_not_inherited(tmp_path: Path) -> None:
    """A child that outlives us does not keep the file locked."""
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    try:
        Arena.open(path).close()
    finally:
        child.communicate(b"\n")


def test_closed_file_is_clean_and_an_open_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    arena = Arena.create(path, 1 << 20)
    assert state_of(path) == READY
    arena.close()
    assert state_of(path) == CLEAN
    with Arena.open(path):
        assert state_of(path) == READY
    assert state_of(path) == CLEAN


def test_dropped_arena_is_clean(tmp_path: Path) -> None:
    for i, cyclic in enumerate((False, True)):
        path = tmp_path / f"arena-{i}"
        arena = Arena.create(path, 1 << 20)
        pool = Pool(arena, name="kept")
        pool.view(pool.xmalloc(5))[:5] = b"hello"
        arena.root = int(pool.walk()["offset"][0])
        if cyclic:
            knot = [arena, pool]
            knot.append(knot)
            del knot
        del arena, pool
        gc.collect()
        assert state_of(path) == CLEAN
        with Arena.open(path) as arena:
            pool = Pool.open(arena, "kept")
            assert bytes(pool.view(arena.root, 5)) == b"hello"


def test_subclass_makes_plain_arenas(tmp_path: Path) -> None:
    class Named(Arena):
        """As a user may write."""

    path = tmp_path / "arena"
    for arena in (Named.create(path, 1 << 20), Named.anonymous(1 << 20)):
        assert type(arena) is Arena
        arena.close()
    Named.open(path).close()
    hollow = Named.__new__(Named)
    assert hollow.closed
    with pytest.raises(ArenaClosed):
        hollow.check()
    hollow.close()


def test_arena_dropped_by_its_last_view_is_unmapped(tmp_path: Path) -> None:
    """The view outlives every name of the arena."""
    path = tmp_path / "arena"
    pool = Pool(Arena.create(path, 1 << 20), name="kept")
    view = pool.view(pool.xzalloc(100))
    del pool
    gc.collect()
    assert state_of(path) == READY
    view.release()
    del view
    gc.collect()
    assert state_of(path) == CLEAN
    Arena.open(path).close()


def test_arena_in_a_cycle_with_its_view_is_clean(tmp_path: Path) -> None:
    """The collector finalises the arena while the view is still alive."""

    class Knot:
        """Holds all three, and itself."""

    for i in range(5):
        path = tmp_path / f"arena-{i}"
        knot = Knot()
        knot.arena = Arena.create(path, 1 << 20)
        knot.pool = Pool(knot.arena, name="kept")
        knot.view = knot.pool.view(knot.pool.xmalloc(5))
        knot.view[:5] = b"hello"
        knot.array = np.frombuffer(knot.view, np.uint8)
        knot.me = knot
        gc.collect()  # what earlier tests dropped must not count
        n_open = len(os.listdir("/proc/self/fd"))
        del knot
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == n_open - 1
        assert state_of(path) == CLEAN
        Arena.open(path).close()


EXIT = """
import sys
from xmem import Arena, Pool
arena = Arena.create(sys.argv[1], 1 << 20)
pool = Pool(arena, name="kept")
{how}
"""


@pytest.mark.parametrize(
    "how",
    ["pass", "raise SystemExit(0)", "view = pool.view(pool.xmalloc(100))"],
)
def test_end_of_the_process_leaves_a_file_that_opens(tmp_path: Path, how: str) -> None:
    path = tmp_path / "arena"
    done = subprocess.run(
        [sys.executable, "-P", "-c", EXIT.format(how=how), path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Arena.open(path) as arena:
        Pool.open(arena, "kept")


def test_sync_writes_back_and_goes_on(make: Callable[..., Arena]) -> None:
    with make(1 << 20) as arena:
        run = arena.page_alloc(0)
        arena.view(run)[:5] = b"hello"
        arena.sync()
        if arena.path is not None:
            assert Path(arena.path).read_bytes()[run : run + 5] == b"hello"
        assert bytes(arena.view(run, 5)) == b"hello"
        arena.check()


# Threads ---------------------------------------------------------------------


def test_threads_of_one_arena(make: Callable[..., Arena]) -> None:
    """Each its own blocks, in one pool, while another thread checks."""
    arena = make(8 << 20)
    pool = Pool(arena)
    errors: list[BaseException] = []

    def work(mark: int) -> None:
        try:
            held = []
            for i in range(300):
                block = pool.xmalloc(16 + i % 700)
                pool.view(block)[:16] = bytes([mark]) * 16
                held.append(block)
                if i % 3 == 2:
                    block = held.pop(i % len(held))
                    assert bytes(pool.view(block, 16)) == bytes([mark]) * 16
                    pool.xfree(block)
            for block in held:
                assert bytes(pool.view(block, 16)) == bytes([mark]) * 16
                pool.xfree(block)
        except BaseException as error:
            errors.append(error)

    crew = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in crew:
        thread.start()
    while any(thread.is_alive() for thread in crew):
        pool.check()
    for thread in crew:
        thread.join()
    assert not errors
    assert pool.stats().live_blocks == 0
    pool.check()
    arena.close()
