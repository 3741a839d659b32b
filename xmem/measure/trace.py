# SPDX-License-Identifier: BSD-3-Clause
"""Traces of heap calls, and the results of replaying one.

A trace is a structured array in call order: ``op`` (0 malloc, 1 free, 2
realloc, 3 calloc, 4 memalign), ``align_log2`` (memalign only), ``thread``,
``id`` (of the object, never reused), ``size`` (bytes requested; 0 for free).
Files are ``.npz`` with the single array ``ops``.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from xmem.arena import ARENA_MAX_LOG2
from xmem.base.errors import BadArgument, BadArgumentType, TraceFormatError
from xmem.measure.codes import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
    TRACE_VERBS,
    VERB_OF_OP,
)
from xmem.stats import HeapStats, PoolStats

__all__ = [
    "OP_CALLOC",
    "OP_FREE",
    "OP_MALLOC",
    "OP_MEMALIGN",
    "OP_REALLOC",
    "TRACE_DTYPE",
    "ReplayResult",
    "ample_arena_bytes",
    "check_trace",
    "load",
    "peak_live",
]

#: Kinds of operations by the verb that serves them.
_KINDS = {
    name: [op for op, served_by in enumerate(VERB_OF_OP) if served_by == verb]
    for verb, name in enumerate(TRACE_VERBS)
}


def load(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read a trace from an ``.npz`` file.

    Returns
    -------
    numpy.ndarray
        Of `TRACE_DTYPE`, checked by `check_trace`.

    Raises
    ------
    TraceFormatError
        The file is not a trace; the message says why.
    OSError
        The file cannot be read.
    """
    name = os.fsdecode(path)
    with open(name, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise TraceFormatError(f"{name}: not an .npz file, and so not a trace")
        file.seek(0)
        try:
            _refuse_bomb(file, name)
            file.seek(0)
            found = np.load(file, allow_pickle=False)
            ops = found["ops"] if "ops" in found.files else None
        except TraceFormatError:
            raise
        except MemoryError:
            raise TraceFormatError(
                f"{name}: claims more operations than this machine has memory for"
            ) from None
        except Exception as error:
            # A damaged archive can raise anything, from any layer of the reader.
            raise TraceFormatError(f"{name}: not a trace ({error})") from None
    if ops is None:
        raise TraceFormatError(
            f"{name}: a trace is an .npz file with the array 'ops', and this one "
            f"has {', '.join(map(repr, found.files)) or 'nothing'}"
        )
    try:
        return check_trace(ops)
    except (BadArgument, BadArgumentType) as error:
        raise TraceFormatError(f"{name}: {error}") from None


def machine_bytes() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _refuse_bomb(file: IO[bytes], name: str) -> None:
    """Refuse an archive that unpacks to more than an eighth of the memory.

    A trace is copied when it is checked, and what is measured takes room, too: some
    four times its bytes.
    """
    with zipfile.ZipFile(file) as archive:
        n_bytes = max((info.file_size for info in archive.infolist()), default=0)
    if n_bytes > machine_bytes() // 8:
        raise TraceFormatError(
            f"{name}: unpacks to {n_bytes:,} bytes, more than an eighth of this "
            "machine's memory"
        )


def _is_trace_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether the fields are those of a trace and lose nothing when converted."""
    return dtype.names == TRACE_DTYPE.names and all(
        np.can_cast(dtype[name], TRACE_DTYPE[name], "safe")
        for name in TRACE_DTYPE.names or ()
    )


def check_trace(ops: object) -> npt.NDArray[Any]:
    """Return a copy of ``ops`` as a contiguous trace that obeys the format.

    The copy is what is checked, so later changes to ``ops`` do no harm.

    Raises
    ------
    BadArgumentType
        Not an array of `TRACE_DTYPE`.
    BadArgument
        An operation that the format forbids; the message gives its index.
    """
    if not isinstance(ops, np.ndarray) or not _is_trace_dtype(ops.dtype):
        raise BadArgumentType(
            "a trace is a structured array with the unsigned fields "
            + ", ".join(TRACE_DTYPE.names or ())
        )
    if ops.ndim != 1:
        raise BadArgument(f"a trace has one dimension, not {ops.ndim}")
    ops = np.array(ops, dtype=TRACE_DTYPE, order="C", copy=True)
    unknown = np.flatnonzero(ops["op"] > OP_MEMALIGN)
    if len(unknown):
        raise BadArgument(
            f"operation {unknown[0]} is of unknown kind {ops['op'][unknown[0]]}"
        )
    # No arena could serve more.
    wide = np.flatnonzero(
        (ops["op"] == OP_MEMALIGN) & (ops["align_log2"] > ARENA_MAX_LOG2)
    )
    if len(wide):
        raise BadArgument(
            f"operation {wide[0]} requests an alignment of more than "
            f"2**{ARENA_MAX_LOG2}"
        )
    huge = np.flatnonzero(ops["size"] > 1 << ARENA_MAX_LOG2)
    if len(huge):
        raise BadArgument(
            f"operation {huge[0]} requests more than 2**{ARENA_MAX_LOG2} bytes"
        )
    sized = np.flatnonzero((ops["op"] == OP_FREE) & (ops["size"] != 0))
    if len(sized):
        raise BadArgument(f"operation {sized[0]} is a free and has a size")
    _check_lives(ops)
    return ops


def _check_lives(ops: npt.NDArray[Any]) -> None:
    """Refuse a trace that uses an object before its allocation or after its free."""
    if not len(ops):
        return
    if int(ops["id"].max()) >= 16 * len(ops) + 1024:
        raise BadArgument(
            "ids must be indices: the greatest is out of proportion to the operations"
        )
    order = np.argsort(ops["id"], kind="stable")
    ids = ops["id"][order]
    kinds = ops["op"][order]
    first = np.ones(len(ops), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    is_birth = np.isin(kinds, _KINDS["xmalloc"])
    bad = first != is_birth
    after_free = np.zeros(len(ops), dtype=bool)
    after_free[1:] = ~first[1:] & (kinds[:-1] == OP_FREE)
    wrong = np.flatnonzero(bad | after_free)
    if len(wrong):
        index = int(order[wrong].min())
        raise BadArgument(
            f"operation {index} uses object {ops['id'][index]} outside its life"
        )


def peak_live(ops: npt.NDArray[Any]) -> int:
    """Return the greatest sum of live requested bytes over a trace."""
    return _peak_of(ops, ops["size"])


def _peak_of(ops: npt.NDArray[Any], bytes_held: npt.NDArray[Any]) -> int:
    """Return the greatest sum of ``bytes_held`` over the objects that are live."""
    return int(live_after(ops, bytes_held).max(initial=0))


def live_after(
    ops: npt.NDArray[Any], bytes_held: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return the sum of ``bytes_held`` over the live objects after each operation.

    ``bytes_held`` has the bytes that an object holds after each operation on it.
    Sums are in float64, because objects as large as an arena soon exceed 64 bits; they
    are exact up to 2**53.
    """
    if not len(ops):
        return np.zeros(0)
    order = np.argsort(ops["id"], kind="stable")
    held = bytes_held[order].astype(np.float64)
    change = held.copy()
    same = ops["id"][order][1:] == ops["id"][order][:-1]
    change[1:] -= np.where(same, held[:-1], 0.0)
    delta = np.empty(len(ops), dtype=np.float64)
    delta[order] = change
    return np.cumsum(delta)


def ample_arena_bytes(ops: npt.NDArray[Any], page_bytes: int, grow_pages: int) -> int:
    """Return the size of an arena in which no request of a trace need fail.

    It is enough for every engine and interface: each object counts with the most
    it can take (a block of the legacy engine with its alignment; from half a page
    on, a run of a power of two of pages), and the peak counts four times, for the
    copy while an object moves and for fragmentation. The arena is sparse, so
    ample costs nothing. The result is no more than the largest arena.
    """
    order = np.argsort(ops["id"], kind="stable")
    first = np.ones(len(ops), dtype=bool)
    first[1:] = ops["id"][order][1:] != ops["id"][order][:-1]
    birth = order[np.maximum.accumulate(np.where(first, np.arange(len(ops)), 0))]
    aligned = np.zeros(len(ops), dtype=np.float64)
    aligned[order] = np.where(
        ops["op"][birth] == OP_MEMALIGN, 2.0 ** ops["align_log2"][birth], 0.0
    )
    weight = ops["size"] + 192.0 + 2.0 * aligned
    runs = page_bytes * np.exp2(np.ceil(np.log2(np.maximum(weight / page_bytes, 1.0))))
    is_run = (weight > page_bytes / 2) | (aligned > 2048)
    weight = np.where(is_run, runs, weight)
    weight[ops["op"] == OP_FREE] = 0.0
    ample = 4 * (_peak_of(ops, weight) + grow_pages * page_bytes) + (64 << 20)
    return min(ample, 1 << ARENA_MAX_LOG2, 0xFFFFFFFF * page_bytes)


def reserved_pages(n_free_pages: int, max_pages: int | None) -> int:
    """Return the pages that a pool reserves in an ample arena, or its limit of pages.

    A quarter of the arena remains for runs of whole pages.
    """
    share = n_free_pages // 4 * 3
    return min(share, max_pages) if max_pages else share


def _percentile(ordered: npt.NDArray[np.uint64], thousandths: int) -> int:
    """Return the least value that ``thousandths`` of the ordered values do not exceed.

    Computed in integers: 99.9 % of 1000 values are exactly 999.
    """
    return int(ordered[-(-len(ordered) * thousandths // 1000) - 1])


@dataclass(frozen=True, kw_only=True)
class PeerResult:
    """The result of playing a trace on any allocator.

    Attributes
    ----------
    engine : str
        Name of the allocator; for xmem the engine, which with an interface is the
        one behind xmalloc.
    n_ops : int
        Operations in the trace.
    failed : int
        Requests that could not be served, including those on objects that do not
        exist because an earlier request failed.
    skipped : int
        Operations that were left out because their object does not exist.
    was_run : numpy.ndarray of bool
        Per operation, whether it was carried out.
    ns_per_op : float
        Nanoseconds per operation carried out, in the fastest pass without clock.
    kinds : numpy.ndarray
        The trace's ``op``, one byte each.
    cycles : numpy.ndarray
        Clock cycles per operation, the least over the repeats, less the cost of
        reading the clock; 0 for skipped operations.
    raw_cycles : numpy.ndarray
        Greatest over the repeats.
    peak_live_bytes : int
        Greatest sum of live requested bytes.
    tsc_hz : float
        Cycles per second of the clock.
    repeats : int
        Passes with the clock per operation.
    """

    engine: str
    n_ops: int
    failed: int
    skipped: int
    was_run: npt.NDArray[np.bool_]
    ns_per_op: float
    kinds: npt.NDArray[np.uint8]
    cycles: npt.NDArray[np.uint64]
    raw_cycles: npt.NDArray[np.uint64]
    peak_live_bytes: int
    tsc_hz: float
    repeats: int

    @property
    def contender(self) -> str:
        """Name of the allocator that the trace was played on."""
        return self.engine

    @property
    def pages_per_live_byte(self) -> float | None:
        """Peak of bytes in pages over peak of live bytes; None if unknown."""
        return None

    def of_kind(self, kind: str) -> npt.NDArray[np.bool_]:
        """Return the mask of the operations of a verb, such as ``"xfree"``."""
        if kind not in _KINDS:
            raise BadArgument(f"kind must be one of {', '.join(_KINDS)}, not {kind!r}")
        return np.isin(self.kinds, _KINDS[kind])

    def summary(self, kind: str) -> dict[str, int]:
        """Return percentiles and worst case of one verb, in cycles.

        Returns
        -------
        dict
            ``p50``, ``p99``, ``p999`` and ``worst`` over the operations, taking
            for each the least over the repeats; ``raw_worst``, the greatest
            single reading. All 0 if no such operation was carried out.
        """
        mask = self.of_kind(kind) & self.was_run
        cycles = self.cycles[mask]
        if not len(cycles):
            return dict.fromkeys(("p50", "p99", "p999", "worst", "raw_worst"), 0)
        cycles.sort()
        return {
            "p50": _percentile(cycles, 500),
            "p99": _percentile(cycles, 990),
            "p999": _percentile(cycles, 999),
            "worst": int(cycles[-1]),
            "raw_worst": int(self.raw_cycles[mask].max()),
        }

    def record(self, trace: str) -> dict[str, Any]:
        """Return the result as a record of ``xmem replay --json``."""
        return {
            "trace": trace,
            "engine": self.engine,
            "ops": self.n_ops,
            "failed": self.failed,
            "ns_per_op": self.ns_per_op,
            "xmalloc_cycles": self.summary("xmalloc"),
            "xfree_cycles": self.summary("xfree"),
            "peak_live_bytes": self.peak_live_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class ReplayResult(PeerResult):
    """The result of a replay on an engine or an interface of xmem.

    Attributes
    ----------
    peak_live_blocks : int
        Greatest number of live objects.
    peak_page_bytes : int
        Greatest number of bytes in pages that the pool, or both pools of a
        heap together, held.
    arena_bytes : int
        Size of the arena.
    content_errors : int
        Blocks that did not hold their pattern, in a verified replay.
    stats : PoolStats or HeapStats
        At the end of the trace.
    interface : str or None
        Of the heap that the trace was played on; None for a pool.
    paths : numpy.ndarray of uint8 or None
        Per operation the bits of its path, for `xmem.measure.counts.path_name`;
        None if they were not requested.
    """

    peak_live_blocks: int
    peak_page_bytes: int
    arena_bytes: int
    content_errors: int
    stats: PoolStats | HeapStats
    interface: str | None = None
    paths: npt.NDArray[np.uint8] | None = None

    @property
    def contender(self) -> str:
        """Name of the interface, or of the engine, that the trace was played on."""
        return self.interface or self.engine

    @property
    def pages_per_live_byte(self) -> float | None:
        """Peak of bytes in pages over peak of live bytes; None if none was live."""
        live = self.peak_live_bytes
        return self.peak_page_bytes / live if live else None

    def record(self, trace: str) -> dict[str, Any]:
        """Return the result as a record of ``xmem replay --json``."""
        interface = {} if self.interface is None else {"interface": self.interface}
        return {
            **super().record(trace),
            **interface,
            "peak_page_bytes": self.peak_page_bytes,
            "arena_bytes": self.arena_bytes,
        }
