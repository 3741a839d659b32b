# SPDX-License-Identifier: BSD-3-Clause
"""Real pages to fill stores with: from files and processes, and variants of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument

__all__ = ["Mix", "file_pages", "memory_images", "mutated", "process_pages"]

PAGE_BYTES = 4096
#: Where the system has its shared libraries.
LIBRARIES = ("/usr/lib", "/lib")

Pages = npt.NDArray[np.uint8]


def file_pages(
    where: Path | str | None = None,
    *,
    most: int = 20_000,
    page_bytes: int = PAGE_BYTES,
) -> Pages:
    """Cut files into pages.

    Parameters
    ----------
    where : path-like, optional
        A file, or a folder whose shared libraries are read, or all its files if
        it has none; by default the shared libraries of the system.
    most : int
        Greatest number of pages.
    page_bytes : int
        Size of a page.

    Returns
    -------
    numpy.ndarray of uint8, shape (pages, page_bytes)
        Whole pages, in the order of the files' names.

    Raises
    ------
    BadArgument
        There is no whole page.
    """
    found: list[Pages] = []
    left = most
    for file in _files(where):
        try:
            with file.open("rb") as opened:
                data = opened.read(left * page_bytes)
        except OSError:
            continue
        n_pages = min(len(data) // page_bytes, left)
        if n_pages:
            found.append(
                np.frombuffer(data, np.uint8, n_pages * page_bytes).reshape(n_pages, -1)
            )
        left -= n_pages
        if left == 0:
            break
    if not found:
        raise BadArgument(f"{where or 'the system'} has no file of a page or more")
    return np.concatenate(found)


def _files(where: Path | str | None) -> Iterator[Path]:
    """Find the files to read pages from, each once."""
    folders = [Path(where)] if where is not None else list(map(Path, LIBRARIES))
    if folders[0].is_file():
        yield folders[0]
        return
    for folder in folders:
        files = [f for f in sorted(folder.rglob("*.so*")) if f.is_file()]
        if not files:
            files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
        seen: set[Path] = set()
        for file in files:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file


def process_pages(
    pid: int | None = None, *, most: int = 20_000, page_bytes: int = PAGE_BYTES
) -> Pages:
    """Read pages of the memory of a running process.

    Parameters
    ----------
    pid : int, optional
        A process of the same user; this one by default.
    most : int
        Greatest number of pages.
    page_bytes : int
        Size of a page.

    Returns
    -------
    numpy.ndarray of uint8, shape (pages, page_bytes)

    Raises
    ------
    BadArgument
        There is no such process, or it cannot be read.
    """
    folder = Path("/proc/self" if pid is None else f"/proc/{int(pid)}")
    found = []
    left = most * page_bytes
    try:
        maps = (folder / "maps").read_text()
        with (folder / "mem").open("rb", buffering=0) as memory:
            for line in maps.splitlines():
                at = re.match(r"([0-9a-f]+)-([0-9a-f]+) r[w-]..", line)
                if at is None or "[v" in line:
                    continue
                start, end = int(at[1], 16), int(at[2], 16)
                try:
                    memory.seek(start)
                    data = memory.read(min(end - start, left))
                except (OSError, OverflowError):
                    continue
                n_pages = len(data) // page_bytes
                found.append(
                    np.frombuffer(data, np.uint8, n_pages * page_bytes).reshape(
                        n_pages, -1
                    )
                )
                left -= n_pages * page_bytes
                if left <= 0:
                    break
    except OSError as error:
        raise BadArgument(f"process {pid or 'self'} cannot be read: {error}") from error
    if not found:
        raise BadArgument(f"process {pid or 'self'} has no readable page")
    return np.concatenate(found)


def mutated(page: Pages, rng: np.random.Generator, n_spots: int = 4) -> Pages:
    """Return a page that differs from another in some short stretches of bytes.

    Parameters
    ----------
    page : numpy.ndarray of uint8
        The page.
    rng : numpy.random.Generator
        Chooses the places and the new bytes.
    n_spots : int
        Number of stretches of 1 to 32 bytes that change.
    """
    changed = page.copy()
    for _ in range(n_spots):
        n_bytes = int(rng.integers(1, 33))
        at = int(rng.integers(0, len(page) - n_bytes))
        changed[at : at + n_bytes] = rng.integers(0, 256, n_bytes, dtype=np.uint8)
    return changed


@dataclass(frozen=True)
class Mix:
    """Shares of an image's pages that it has in common with the first image.

    Attributes
    ----------
    identical, similar : float
        Pages equal to, and pages similar to, the page of the same number in the
        first image; the rest are its own.
    """

    identical: float
    similar: float

    def __post_init__(self) -> None:
        if not (
            self.identical >= 0
            and self.similar >= 0
            and self.identical + self.similar <= 1
        ):
            raise BadArgument("shares must be from 0 to 1, and at most 1 in total")


def memory_images(
    source: Pages, mixes: Sequence[Mix], n_pages: int, rng: np.random.Generator
) -> list[Pages]:
    """Make memory images of real pages, with given shares in common.

    Parameters
    ----------
    source : numpy.ndarray of uint8, shape (pages, page_bytes)
        Real pages. Each is used once as it is, and after that in variants.
    mixes : sequence of Mix
        One for each image after the first.
    n_pages : int
        Pages of each image.
    rng : numpy.random.Generator
        Chooses the pages.

    Returns
    -------
    list of numpy.ndarray
        The first image, and one for each mix.
    """
    order = rng.permutation(len(source))
    n_used = 0

    def fresh() -> Pages:
        nonlocal n_used
        page: Pages = source[order[n_used % len(source)]]
        if n_used >= len(source):
            page = mutated(page, rng, n_spots=64)
        n_used += 1
        return page

    first = np.stack([fresh() for _ in range(n_pages)])
    images = [first]
    for mix in mixes:
        kinds = rng.permutation(n_pages)
        n_identical = round(mix.identical * n_pages)
        n_similar = round(mix.similar * n_pages)
        image = first.copy()
        for i in kinds[n_identical : n_identical + n_similar]:
            image[i] = mutated(first[i], rng)
        for i in kinds[n_identical + n_similar :]:
            image[i] = fresh()
        images.append(image)
    return images
