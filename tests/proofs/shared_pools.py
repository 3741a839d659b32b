# SPDX-License-Identifier: BSD-3-Clause
"""A pool in a small shared arena, for the proofs of undo and of kills."""

import ctypes
from pathlib import Path
from typing import Any

from xmem import Arena, Heap, Pool

SOURCE = Path(__file__).parents[1] / "support" / "_shared.pyx"
PAGE = 4096


class SharedPool:
    """A shared arena and a pool in it, made by this process or opened.

    Parameters
    ----------
    path : Path
        The arena's file.
    shared : module
        ``support/_shared.pyx``.
    kind : dict, optional
        Parameters of the pool, if it is made; with ``heap``, an interface, those of a
        heap, whose pool it is then.
    n_pages : int
        Pages of the arena, if it is made.
    """

    def __init__(
        self,
        path: Path,
        shared: Any,
        kind: dict[str, Any] | None = None,
        n_pages: int = 0,
    ) -> None:
        self.at = shared
        self.path = path
        if kind is None:
            self.arena = Arena.open(path, verify=False)
            self.pool = Pool.open(self.arena, "it", verify=False)
        else:
            self.arena = Arena.create(
                path, n_pages * PAGE, page_size=PAGE, max_pools=3, shared=True
            )
            settings = dict(kind)
            interface = settings.pop("heap", None)
            if interface is None:
                self.pool = Pool(self.arena, name="it", **settings)
            else:
                (self.pool,) = Heap(self.arena, interface, name="it", **settings).pools
        self.base = self.arena.address(0)
        self.shared = shared.Shared(self.arena, self.pool)
        self.area = self.shared.area_offset

    def contents(self, offset: int, n_bytes: int) -> bytes:
        """Return the bytes at an offset."""
        return ctypes.string_at(self.base + offset, n_bytes)

    def close(self) -> None:
        """Leave the arena."""
        self.arena.close()
