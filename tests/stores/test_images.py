# SPDX-License-Identifier: BSD-3-Clause
"""Pages of files and processes, and images with given shares in common."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import xmem
from xmem.stores.images import (
    Mix,
    file_pages,
    memory_images,
    mutated,
    process_pages,
)

PAGE = 4096


def random_pages(n_pages, seed):
    """Pages that have nothing in common."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n_pages, PAGE), dtype=np.uint8)


def test_pages_of_a_process() -> None:
    pages = process_pages(most=50)
    assert pages.shape[1] == PAGE
    assert 0 < len(pages) <= 50
    with pytest.raises(xmem.BadArgument):
        process_pages(1 << 22)


def test_each_page_of_a_process_is_read_once() -> None:
    """Of the mappings that the system lists, none is read beyond its end."""
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cat:
        cat.stdin.write(b"x")
        cat.stdin.flush()
        cat.stdout.read(1)  # it has started and waits
        maps = Path(f"/proc/{cat.pid}/maps").read_text()
        pages = process_pages(cat.pid)
        cat.stdin.close()
    readable = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", maps, re.MULTILINE)
    n_bytes = sum(int(end, 16) - int(start, 16) for start, end in readable)
    assert 0 < len(pages) <= n_bytes // PAGE


def test_pages_of_nothing(tmp_path) -> None:
    with pytest.raises(xmem.BadArgument):
        file_pages(tmp_path)
    (tmp_path / "small").write_bytes(b"x" * 100)
    with pytest.raises(xmem.BadArgument):
        file_pages(tmp_path / "small")
    with pytest.raises(xmem.BadArgument):
        Mix(0.8, 0.3)


def test_a_file_is_cut_into_whole_pages(tmp_path):
    data = random_pages(5, 1)
    (tmp_path / "some").write_bytes(data.tobytes() + b"x" * 100)
    assert np.array_equal(file_pages(tmp_path / "some"), data)
    assert np.array_equal(file_pages(tmp_path / "some", most=3), data[:3])


def test_of_a_folder_the_libraries_are_read_each_once(tmp_path):
    data = random_pages(3, 2)
    (tmp_path / "liba.so.1").write_bytes(data[:2].tobytes())
    (tmp_path / "liba.so").symlink_to("liba.so.1")
    (tmp_path / "libb.so").write_bytes(data[2:].tobytes())
    (tmp_path / "other").write_bytes(bytes(PAGE))
    assert np.array_equal(file_pages(tmp_path), data)


def test_a_mutated_page_differs_in_short_stretches(seed):
    rng = np.random.default_rng(seed)
    page = random_pages(1, seed)[0]
    before = page.copy()
    changed = mutated(page, rng, 3)
    assert np.array_equal(page, before)
    assert 0 < np.count_nonzero(changed != page) <= 3 * 32


def test_images_have_the_shares_of_their_mixes(seed):
    mixes = [Mix(1, 0), Mix(0.5, 0.25), Mix(0, 0)]
    first, *others = memory_images(
        random_pages(400, seed), mixes, 100, np.random.default_rng(seed)
    )
    for mix, image in zip(mixes, others, strict=True):
        n_different = np.count_nonzero(first != image, axis=1)
        assert np.count_nonzero(n_different == 0) == 100 * mix.identical
        n_similar = np.count_nonzero((n_different > 0) & (n_different <= 4 * 32))
        assert n_similar == 100 * mix.similar
