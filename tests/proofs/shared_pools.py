# SPDX-License-Identifier: BSD-3-Clause
"""A shared pool in a small arena in a file, for the proofs of undo and of kills."""

import ctypes
from pathlib import Path
from typing import Any

from xmem import Arena, Pool

SOURCE = Path(__file__).parents[1] / "support" / "_shared.pyx"
PAGE = 4096
#: Pages of the run that holds the shared area.
AREA_PAGES = 6
TIMEOUT_NS = 10 * 10**9


class SharedPool:
    """An arena, its shared area and a pool, in which this process has joined.

    Parameters
    ----------
    folder : Path
        Where the files are made.
    shared : module
        ``support/_shared.pyx``.
    kind : dict
        Parameters of the pool.
    n_pages, slot : int
        Pages of the arena, and the slot of this process.
    """

    def __init__(
        self,
        folder: Path,
        shared: Any,
        kind: dict[str, Any],
        n_pages: int,
        slot: int,
    ) -> None:
        self.at = shared
        self.arena = Arena.create(
            folder / "arena", n_pages * PAGE, page_size=PAGE, max_pools=3
        )
        self.base = self.arena.address(0)
        self.area = self.arena.page_alloc_exact(AREA_PAGES)
        self.pool = Pool(self.arena, name="it", **kind)
        # The arena's own file is locked as a whole.
        self.file = (folder / "slots").open("w+b")
        self.file.truncate(PAGE)
        self.shared = shared.Shared(
            self.arena, self.pool, self.area, self.file.fileno(), TIMEOUT_NS
        )
        assert self.shared.join(slot)

    def contents(self, offset: int, n_bytes: int) -> bytes:
        """Return the bytes at an offset."""
        return ctypes.string_at(self.base + offset, n_bytes)

    def close(self) -> None:
        """Close the file of the slots."""
        self.file.close()
