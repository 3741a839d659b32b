# SPDX-License-Identifier: BSD-3-Clause
"""The file of an arena: its blocks on the disk, paths that are no file, switches."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from xmem import Arena, ArenaFormatError, BadArgumentType, Heap, Pool


def test_a_file_is_sparse_or_has_all_its_blocks(tmp_path):
    for name, preallocate in [("sparse", False), ("full", True)]:
        with Arena.create(tmp_path / name, 8 << 20, preallocate=preallocate):
            pass
        Arena.open(tmp_path / name).close()
    held = {p.name: 512 * p.stat().st_blocks for p in tmp_path.iterdir()}
    assert held["sparse"] < 1 << 20
    assert held["full"] >= 8 << 20


def test_no_file_is_left_when_the_disk_has_no_room(tmp_path, monkeypatch):
    opened = []

    def refuse(fd, start, n_bytes):
        assert (start, n_bytes) == (0, 1 << 20)
        opened.append(fd)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left"):
        Arena.create(tmp_path / "arena", 1 << 20, preallocate=True)
    assert list(tmp_path.iterdir()) == []
    (fd,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    Arena.create(tmp_path / "arena", 1 << 20).close()


@pytest.mark.parametrize("value", [1, 0, None, "yes", []])
def test_a_switch_is_a_truth_value(tmp_path, value):
    path = tmp_path / "arena"
    for name in ("preallocate", "shared"):
        if name == "preallocate" and value is None:
            continue  # the default
        with pytest.raises(BadArgumentType, match=f"{name} must be True or"):
            Arena.create(path, 1 << 20, **{name: value})
        assert not path.exists()
    Arena.create(path, 1 << 20).close()
    with pytest.raises(BadArgumentType, match="verify must be True or False"):
        Arena.open(path, verify=value)
    with Arena.open(path, verify=np.True_) as arena:
        with pytest.raises(BadArgumentType, match="join_regions must be"):
            Pool(arena, join_regions=value)
        pool = Pool(arena, name="p")
        with pytest.raises(BadArgumentType, match="verify must be True or"):
            Pool.open(arena, "p", verify=value)
        with pytest.raises(BadArgumentType, match="force must be True or"):
            pool.destroy(force=value)
        heap = Heap(arena, "subpage", name="h")
        with pytest.raises(BadArgumentType, match="verify must be True or"):
            Heap.open(arena, "h", verify=value)
        with pytest.raises(BadArgumentType, match="force must be True or"):
            heap.destroy(force=value)
        assert set(arena.pools()) == {"p", "h", "h.subpage"}


def test_what_is_no_regular_file_is_no_arena(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ArenaFormatError, match="not a regular file"):
            Arena.open(path)
    with pytest.raises(IsADirectoryError):
        Arena.open(tmp_path)


@pytest.mark.parametrize("reopened", [False, True])
def test_trim_keeps_the_blocks_of_a_preallocated_file(tmp_path, reopened):
    path = tmp_path / "arena"
    arena = Arena.create(path, 8 << 20, preallocate=True)
    if reopened:
        arena.close()
        arena = Arena.open(path)
    pool = Pool(arena)
    pool.xfree(pool.xzalloc(1 << 20))
    pool.shrink()
    assert arena.trim() == 0
    arena.sync()
    assert 512 * path.stat().st_blocks >= 8 << 20
    arena.close()
