# SPDX-License-Identifier: BSD-3-Clause
"""Waste: how many pages a request takes, by size, under each interface.

Nothing is computed from the block format: every size is requested from an empty heap
with the interface, by the routine that a program on that interface would use::

    interface  routine                         serves
    strict     xmalloc, then page_alloc_exact  all sizes, the second above XMALLOC_MAX
    array      xmalloc_array                   all sizes
    subpage    xmalloc                         all sizes, from the legacy engine
    subpage    xmalloc_subpage                 up to XMALLOC_MAX
    legacy     xmalloc                         all sizes
    merged     xmalloc                         all sizes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from xmem.arena import Arena
from xmem.base.errors import BadArgument, SizeLimitError
from xmem.heap import INTERFACES, Heap

__all__ = ["WASTE_DTYPE", "WasteCurve", "measure_waste", "routines_of"]

#: One size of request: the ``pages`` that it takes on an empty heap, 0 if it is
#: refused, and ``per_page``, the number of such requests that share one page, 1 if
#: each has its own pages.
WASTE_DTYPE = np.dtype([("size", "<u8"), ("pages", "<u4"), ("per_page", "<u4")])

#: Pages of the arena for each page of the largest request.
_ROOM = 64
_REPORT_EVERY = 1024


@dataclass(frozen=True)
class WasteCurve:
    """Pages taken by requests of every size to one routine of one interface.

    Attributes
    ----------
    interface : str
    routine : str
        The routine that serves the requests; two names joined by ``", "`` if the
        second serves those above `xmalloc_max`.
    page_size : int
        In bytes.
    xmalloc_max : int
        ``XMALLOC_MAX`` of the heap.
    points : numpy.ndarray
        Of `WASTE_DTYPE`, one per size from 1 byte upwards.
    """

    interface: str
    routine: str
    page_size: int
    xmalloc_max: int
    points: npt.NDArray[Any]

    @property
    def name(self) -> str:
        """The interface, with the routine if the interface has two curves."""
        if len(routines_of(self.interface)) == 1:
            return self.interface
        return f"{self.interface}: {self.routine}"

    def at(self, size: int) -> tuple[int, int]:
        """Return ``pages`` and ``per_page`` of a size in bytes."""
        if not 1 <= size <= len(self.points):
            raise BadArgument(
                f"sizes from 1 to {len(self.points)} were measured, not {size}"
            )
        point = self.points[size - 1]
        return int(point["pages"]), int(point["per_page"])

    def served(self) -> npt.NDArray[np.bool_]:
        """Return the mask of the sizes that the routine serves."""
        return cast(npt.NDArray[np.bool_], self.points["pages"] != 0)

    def pages_each(self) -> npt.NDArray[np.float64]:
        """Return the pages that each of many requests takes; NaN if refused."""
        shares: npt.NDArray[np.float64] = np.full(len(self.points), np.nan)
        np.divide(
            self.points["pages"],
            self.points["per_page"],
            out=shares,
            where=self.served(),
        )
        return shares

    def waste(self) -> npt.NDArray[np.float64]:
        """Return the bytes that each of many requests takes beyond those requested."""
        sizes = self.points["size"].astype(np.float64)
        return self.pages_each() * self.page_size - sizes

    def mean_waste(self, first: int, last: int) -> float:
        """Return the mean of `waste` over the served sizes of a range.

        It is NaN if no size from ``first`` to ``last`` is served.
        """
        part = self.waste()[first - 1 : last]
        part = part[~np.isnan(part)]
        return float(part.mean()) if len(part) else float("nan")

    def same_pages(self, other: WasteCurve) -> bool:
        """Whether another curve has the same pages at every size."""
        return np.array_equal(self.points, other.points)

    def steps(self) -> list[dict[str, int]]:
        """Return the curve as ranges of sizes that take the same pages.

        Returns
        -------
        list of dict
            ``first`` and ``last`` size in bytes, ``pages``, ``per_page``.
        """
        kinds = self.points[["pages", "per_page"]]
        starts = np.flatnonzero(np.r_[True, kinds[1:] != kinds[:-1]])
        ends = np.r_[starts[1:], len(kinds)]
        return [
            {
                "first": int(start) + 1,
                "last": int(end),
                "pages": int(kinds[start]["pages"]),
                "per_page": int(kinds[start]["per_page"]),
            }
            for start, end in zip(starts, ends, strict=True)
        ]

    def record(self) -> dict[str, Any]:
        """Return the curve as a record of ``xmem waste --json``."""
        return {
            "interface": self.interface,
            "routine": self.routine,
            "page_size": self.page_size,
            "xmalloc_max": self.xmalloc_max,
            "steps": self.steps(),
        }


def routines_of(interface: str) -> tuple[str, ...]:
    """Return the routines measured under an interface, one for each curve.

    Raises
    ------
    BadArgument
        No such interface.
    """
    if interface not in INTERFACES:
        raise BadArgument(
            f"interface must be one of {', '.join(map(repr, INTERFACES))}, "
            f"not {interface!r}"
        )
    return {
        "strict": ("xmalloc, page_alloc_exact",),
        "array": ("xmalloc_array",),
        "subpage": ("xmalloc", "xmalloc_subpage"),
    }.get(interface, ("xmalloc",))


def measure_waste(
    interface: str,
    *,
    page_size: int | None = None,
    n_pages: int = 4,
    progress: Callable[[int, int], object] | None = None,
) -> list[WasteCurve]:
    """Measure the pages that requests of every size take under an interface.

    Parameters
    ----------
    interface : {"strict", "array", "subpage", "legacy", "merged"}
    page_size : int, optional
        As in `Arena.anonymous`.
    n_pages : int, optional
        Sizes from 1 byte to this many pages are requested.
    progress : callable, optional
        Called now and then with (sizes done, sizes in all).

    Returns
    -------
    list of WasteCurve
        One for each of `routines_of`, in that order.

    Raises
    ------
    BadArgument, BadArgumentType
        No such interface or page size; ``n_pages`` is less than 1.
    """
    routines = routines_of(interface)
    if n_pages < 1:
        raise BadArgument(f"n_pages must be at least 1, not {n_pages}")
    curves = []
    # Only an arena knows the default page size.
    with Arena.anonymous(1 << 24, page_size=page_size) as arena:
        page_size = arena.page_size
    with Arena.anonymous(_ROOM * n_pages * page_size, page_size=page_size) as arena:
        heap = Heap(arena, cast(Any, interface))
        total = len(routines) * n_pages * page_size
        for i, routine in enumerate(routines):
            points = np.zeros(n_pages * page_size, dtype=WASTE_DTYPE)
            points["size"] = np.arange(1, len(points) + 1)
            for start in range(0, len(points), _REPORT_EVERY):
                part = points[start : start + _REPORT_EVERY]
                _measure(heap, routine, part)
                if progress is not None:
                    progress(i * len(points) + start + len(part), total)
            curves.append(
                WasteCurve(interface, routine, page_size, heap.XMALLOC_MAX, points)
            )
    return curves


Verbs = tuple[Callable[[int], int], Callable[[int], None]]


def _verbs(heap: Heap, routine: str) -> tuple[Verbs, Verbs]:
    """Return the verbs for requests up to ``XMALLOC_MAX``, and for larger ones."""
    if routine == "xmalloc_subpage":
        subpage = (heap.xmalloc_subpage, heap.xfree_subpage)
        return subpage, subpage
    if routine == "xmalloc_array":
        array = (lambda n: heap.xmalloc_array(n, 1), heap.xfree)
        return array, array
    small = (heap.xmalloc, heap.xfree)
    if routine == "xmalloc":
        return small, small
    page_size = heap.PAGE_SIZE
    return small, (
        lambda n: heap.page_alloc_exact(-(-n // page_size)),
        heap.page_free,
    )


def _measure(heap: Heap, routine: str, points: npt.NDArray[Any]) -> None:
    """Request the size of each point from the empty heap and fill in its pages."""
    page_size, limit, pools = heap.PAGE_SIZE, heap.XMALLOC_MAX, heap.pools
    small, large = _verbs(heap, routine)

    def held() -> int:
        return sum(pool.total_size for pool in pools)

    for i, size in enumerate(points["size"].tolist()):
        allocate, free = small if size <= limit else large
        try:
            offsets = [allocate(size)]
        except SizeLimitError:
            continue
        n_bytes = held()
        if n_bytes == page_size:
            # As many as fit in the page; the last one takes another page.
            while held() == n_bytes:
                offsets.append(allocate(size))
        points[i] = (size, n_bytes // page_size, max(1, len(offsets) - 1))
        _empty(heap, offsets, free)


def _empty(heap: Heap, offsets: Sequence[int], free: Callable[[int], None]) -> None:
    """Free blocks, and the empty region that the heap keeps."""
    for offset in offsets:
        free(offset)
    heap.shrink()
