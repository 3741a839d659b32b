# SPDX-License-Identifier: BSD-3-Clause
"""Allocators compared: rounds of replays, each in a process of its own.

A *round* plays every trace on every contender, with one process per contender: an
allocator that replaces malloc is preloaded there, and no contender inherits the heap
of another. Ratios are taken within a round, so a machine that is slow for a while is
slow for all; medians and spreads are over the rounds.

``python -m xmem.measure.versus`` is such a process: it reads its task from standard
input and writes records to standard output, both as JSON.
"""

import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument, PeerError
from xmem.measure.formats import least_format_bytes
from xmem.measure.libraries import definer, installed
from xmem.measure.peers import Peer, measure, play_touched, serves
from xmem.measure.ranks import VERBS, mean_cycles, with_ranks
from xmem.measure.trace import OP_FREE, OP_MALLOC, TRACE_DTYPE, load, peak_live

#: The smallest arena is determined to this fraction of its size.
PRECISION = 1 / 512
#: Size of the smallest arena tried.
LEAST_BYTES = 1 << 14
#: A peer that serves twice this much from an arena of this size does not use it.
PROBE_BYTES = 1 << 20
#: For libraries that are loaded into a process that runs: room for their variables.
LATE_TLS = "glibc.rtld.optional_static_tls=65536"
NULL = "null"
#: Where a contender's memory comes from, see `memory_from`.
GROWN, RESERVED, SYSTEM = "grown", "reserved", "system"
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Contender:
    """An allocator, and how a process gets it.

    Attributes
    ----------
    name : str
        Its name in tables.
    kind : {"engine", "system", "peer", "null"}
        An engine of xmem, the malloc of the process, a shared object that exports
        ``PEER``, or the rig alone.
    preload : str
        The library that the process preloads; empty for none.
    file : str
        The shared object of a peer.
    settings : dict
        Parameters of an engine, as for `xmem.measure.peers.Peer.engine`.
    """

    name: str
    kind: str
    preload: str = ""
    file: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def peer(self) -> Peer:
        """Make the peer, in the process that plays the traces."""
        if self.kind == "engine":
            return Peer.engine(name=self.name, **self.settings)
        if self.kind == "system":
            return Peer.system(self.name)
        if self.kind == "peer":
            return Peer.load(self.file)
        return Peer.null()

    def lone_peer(self) -> Peer | None:
        """Make the peer for a measurement of memory: nothing else is in its heap.

        A library is loaded next to the process's malloc and not in its place; None if
        it refuses that. Pools grow as they have to.
        """
        if self.preload:
            try:
                return Peer.library(self.preload, self.name)
            except PeerError:
                return None
        settings = {k: v for k, v in self.settings.items() if k != "reserved"}
        return replace(self, settings=settings).peer()


def engines(reserved: bool = False) -> list[Contender]:
    """Return the entries of xmem: TLSF, with quick lists, and proving pointers.

    With ``reserved`` their pools have their pages before the clock starts, and their
    names say so.
    """
    names: dict[str, dict[str, Any]] = {
        "xmem": {},
        "xmem, quick": {"quick": True},
        "xmem, checked": {"checked": True},
    }
    if not reserved:
        return [Contender(name, "engine", settings=its) for name, its in names.items()]
    return [
        Contender(f"{name}, reserved", "engine", settings={**its, "reserved": True})
        for name, its in names.items()
    ]


def system_name() -> str:
    """Return the name of the C library whose malloc this process has."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "system"
    except (ValueError, OSError):
        return "system"


def libraries() -> list[Contender]:
    """Return the allocators that the linker finds on this system."""
    return [
        Contender(name, "system", preload=soname)
        for name, soname in installed().items()
    ]


# In the process of a contender ------------------------------------------------------


def work(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Play some traces on one contender.

    Parameters
    ----------
    task : dict
        ``contender``, ``traces`` (files of plain arrays), ``repeats``, ``memory``
        (whether to measure memory rather than time).

    Yields
    ------
    dict
        A record of each trace.
    """
    contender = Contender(**task["contender"])
    if task["memory"]:
        lone = contender.lone_peer()
        for file in map(Path, task["traces"]):
            n_bytes = None if lone is None else memory_of(lone, file)
            yield {"trace": file.stem, "memory": n_bytes}
        return
    if contender.preload:
        require_preloaded(contender.preload)
    peer = contender.peer()
    source = memory_from(contender, peer)
    for file in task["traces"]:
        found = measure(peer, np.load(file), repeats=task["repeats"])
        yield {**found.record(Path(file).stem), "memory_from": source}


def memory_from(contender: Contender, peer: Peer) -> str:
    """Return where a contender's memory comes from.

    Returns
    -------
    str
        `GROWN`: its pool obtains pages of its arena in the calls that are clocked.
        `RESERVED`: it has its memory before the clock starts. `SYSTEM`: it asks the
        system, and keeps from pass to pass what it does not give back.
    """
    if contender.kind == "engine":
        return RESERVED if contender.settings.get("reserved") else GROWN
    return RESERVED if uses_arena(peer) else SYSTEM


def require_preloaded(soname: str) -> None:
    """Refuse to measure the C library under the name of another allocator."""
    stem = re.split(r"\.so", Path(soname).name)[0]
    file = definer(ctypes.CDLL(None), "malloc") or ""
    if not re.match(rf"{re.escape(stem)}[-.\d]*\.so", Path(file).name):
        raise PeerError(f"{soname} was not preloaded, or has no malloc")


def memory_of(peer: Peer, file: Path) -> int | None:
    """Return the bytes that a peer needs for a trace, None if that cannot be told.

    For a peer in an arena, they are those of the smallest arena that serves the
    trace, everything included. For a peer that gets its memory from the system, they
    are the growth of the process while every block is touched. A process that grew
    by less than what was live had memory at hand, and nobody can tell how much.
    """
    # Mapped, because reading the file would leave memory in the measured heap.
    ops = np.load(file, mmap_mode="r")
    if uses_arena(peer):
        return least_arena(peer, ops)
    n_bytes = growth(peer, ops)
    return n_bytes if n_bytes >= peak_live(ops) else None


def uses_arena(peer: Peer) -> bool:
    """Whether a peer's blocks lie in the memory that its heap is created with."""
    if not peer.needs_arena:
        return False
    ops = np.zeros(2, TRACE_DTYPE)
    ops["op"] = OP_MALLOC, OP_FREE
    ops["size"] = 2 * PROBE_BYTES, 0
    # In a fork, so that the peer has done nothing yet when it is measured.
    return forked(peer, lambda: int(serves(peer, ops, PROBE_BYTES))) == 0


def least_arena(peer: Peer, ops: npt.NDArray[np.void]) -> int:
    """Return the size of the smallest arena that serves a trace, to `PRECISION`."""
    too_small = max(peak_live(ops), LEAST_BYTES)
    enough = 2 * too_small + (1 << 22)
    while not serves(peer, ops, enough):
        too_small, enough = enough, 2 * enough
        if enough > 1 << 40:
            raise PeerError(f"{peer.name} fails in an arena of any size")
    while enough - too_small > PRECISION * enough:
        middle = (too_small + enough) // 2
        if serves(peer, ops, middle):
            enough = middle
        else:
            too_small = middle
    return enough


def growth(peer: Peer, ops: npt.NDArray[np.void]) -> int:
    """Return the growth of the resident memory of a fork that plays a trace."""

    def play() -> int:
        before: list[int] = []

        def started() -> None:
            Path("/proc/self/clear_refs").write_text("5")
            before.append(resident("VmRSS"))

        # A heap of its own: glibc gives each thread one, which is empty.
        playing = threading.Thread(target=play_touched, args=(peer, ops, started))
        playing.start()
        playing.join()
        return max(resident("VmHWM") - before[0], 0)

    return forked(peer, play)


def forked(peer: Peer, work: Callable[[], int]) -> int:
    """Return what a function returns in a fork, which a peer's state does not outlive.

    Raises
    ------
    PeerError
        It ended without a result.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    if not found:
        raise PeerError(f"the memory of {peer.name} could not be measured")
    return int(found)


def resident(what: str) -> int:
    """Return a number of bytes from /proc/self/status."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise PeerError(f"/proc/self/status has no line {what}")
    return int(found[1]) * 1024


# From outside ----------------------------------------------------------------------


def run_child(
    contender: Contender,
    traces: Sequence[Path],
    *,
    repeats: int = 1,
    memory: bool = False,
) -> list[dict[str, Any]]:
    """Play some traces on one contender, in a process of its own.

    Parameters
    ----------
    contender : Contender
        The contender.
    traces : sequence of Path
        Files of plain arrays (``.npy``).
    repeats : int
        As in `xmem.measure.peers.measure`.
    memory : bool
        Measure the memory that it needs rather than time.

    Returns
    -------
    list of dict
        A record for each trace.

    Raises
    ------
    PeerError
        The process failed; the message has its last line of output.
    """
    task = {
        "contender": asdict(contender),
        "traces": [str(trace) for trace in traces],
        "repeats": repeats,
        "memory": memory,
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "xmem.measure.versus"],
        input=json.dumps(task),
        env=environment_of(contender, memory),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerError(
            f"{contender.name} ended with status {done.returncode}: {lines[-1]}"
        )
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def environment_of(contender: Contender, memory: bool) -> dict[str, str]:
    """Return the environment of a contender's process."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    if not contender.preload:
        return environment
    if not memory:
        return {**environment, "LD_PRELOAD": contender.preload}
    tunables = environment.get("GLIBC_TUNABLES")
    both = f"{tunables}:{LATE_TLS}" if tunables else LATE_TLS
    return {**environment, "GLIBC_TUNABLES": both}


def compare(
    contenders: Sequence[Contender],
    traces: Sequence[Path],
    *,
    rounds: int = 5,
    repeats: int = 15,
    max_ops: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> list[dict[str, Any]]:
    """Compare contenders.

    Parameters
    ----------
    contenders : sequence of Contender
        Ratios are relative to the first. Each round also measures the rig alone,
        whose time is subtracted from the nanoseconds.
    traces : sequence of Path
        Files in the trace format.
    rounds, repeats : int
        Number of rounds; passes with a clock per call in each round.
    max_ops : int, optional
        Greatest number of operations of each trace.
    progress : callable, optional
        Called before each process with (name, processes done, processes in all).

    Returns
    -------
    list of dict
        One for each contender and trace: ``name``, ``trace``, ``failed``, ``ns``
        and ``ratio`` (lists over the rounds), ``xmalloc_cycles`` and
        ``xfree_cycles`` (for each quantile the median over the rounds),
        ``memory_from`` (see `memory_from`), ``memory``, ``format`` (what blocks of
        xmem's format need on this trace, over the live bytes), and what
        `xmem.measure.ranks.with_ranks` adds.

    Raises
    ------
    BadArgument
        There is no contender, or two contenders or traces have the same name.
    PeerError
        A process failed.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) != len(names) or NULL in names:
        raise BadArgument(f"contenders must have different names, not {names}")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    all_of_them = [Contender(NULL, NULL), *contenders]
    with tempfile.TemporaryDirectory() as folder:
        files, live, least = write_plain(traces, max_ops, Path(folder))
        for i in range(rounds):
            # Contenders change places from round to round.
            turn = i % len(all_of_them)
            for j, contender in enumerate(all_of_them[turn:] + all_of_them[:turn]):
                if progress is not None:
                    done = i * len(all_of_them) + j
                    progress(contender.name, done, rounds * len(all_of_them))
                for record in run_child(contender, files, repeats=repeats):
                    where = contender.name, record["trace"]
                    found.setdefault(where, []).append(record)
        memory = {
            (contender.name, record["trace"]): per_live(record["memory"], n_live)
            for contender in contenders
            for record in run_child(contender, files, memory=True)
            for n_live in [live[record["trace"]]]
        }
    shown = list(dict.fromkeys(trace for _, trace in found))
    return with_ranks(
        [
            {
                **summary(name, trace, found, names[0]),
                "memory": memory[name, trace],
                "format": per_live(least[trace], live[trace]),
            }
            for name in names
            for trace in shown
        ]
    )


def per_live(n_bytes: int | None, n_live: int) -> float | None:
    """Return bytes over live bytes; None if either is not known or nothing lives."""
    return None if n_bytes is None or not n_live else n_bytes / n_live


def write_plain(
    traces: Sequence[Path], max_ops: int | None, folder: Path
) -> tuple[list[Path], dict[str, int], dict[str, int]]:
    """Check traces and write them as plain arrays, which can be mapped.

    Returns
    -------
    files : list of Path
        Named after the traces.
    live : dict
        Peak of live bytes by name.
    least : dict
        Bytes that the format needs for these, by name.
    """
    files, live, least = [], {}, {}
    for trace in traces:
        ops = load(trace)[:max_ops]
        file = folder / f"{Path(trace).stem}.npy"
        if file.exists():
            raise BadArgument(f"two traces are called {file.stem}")
        np.save(file, ops)
        files.append(file)
        live[file.stem] = peak_live(ops)
        least[file.stem] = least_format_bytes(ops)
    return files, live, least


def summary(
    name: str,
    trace: str,
    found: dict[tuple[str, str], list[dict[str, Any]]],
    reference: str,
) -> dict[str, Any]:
    """Summarise the rounds of a contender on a trace."""
    records = found[name, trace]
    ns = net_ns(records, found[NULL, trace])
    base = net_ns(found[reference, trace], found[NULL, trace])
    return {
        "name": name,
        "trace": trace,
        "ops": records[0]["ops"],
        "failed": max(record["failed"] for record in records),
        "memory_from": records[0]["memory_from"],
        "ns": ns,
        "ratio": [mine / its for mine, its in zip(ns, base, strict=True)],
        **{
            verb: {
                key: statistics.median(record[verb][key] for record in records)
                for key in records[0][verb]
            }
            for verb in VERBS.values()
        },
    }


def net_ns(
    records: Sequence[dict[str, Any]], null: Sequence[dict[str, Any]]
) -> list[float]:
    """Return the nanoseconds per operation of each round, less the rig's share."""
    return [
        max(record["ns_per_op"] - rig["ns_per_op"], 0.01)
        for record, rig in zip(records, null, strict=True)
    ]


def overall(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the geometric means over the traces for each contender.

    Parameters
    ----------
    results : sequence of dict
        As `compare` returns them.

    Returns
    -------
    list of dict
        One for each contender: ``name``, ``failed``, ``memory_from`` (None in
        records that an older version wrote), ``ns`` (median over the
        rounds), ``ratio`` (median, least and greatest over the rounds), quantiles
        of both verbs in cycles with ``worst_of_all`` (the greatest over the traces),
        ``memory`` (None if it is not known of every trace).
    """
    names = dict.fromkeys(result["name"] for result in results)
    measured = {result["trace"] for result in results if result["memory"]}
    return [
        mean_of([result for result in results if result["name"] == name], measured)
        for name in names
    ]


def mean_of(mine: Sequence[dict[str, Any]], measured: Container[str]) -> dict[str, Any]:
    """Return the means of one contender; its memory is measured on some traces."""
    rounds = range(len(mine[0]["ratio"]))
    ratios = [geometric([r["ratio"][i] for r in mine]) for i in rounds]
    memory = [r["memory"] for r in mine if r["trace"] in measured]
    return {
        "name": mine[0]["name"],
        "failed": sum(r["failed"] for r in mine),
        "memory_from": mine[0].get("memory_from"),
        "ns": statistics.median(geometric([r["ns"][i] for r in mine]) for i in rounds),
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        **{
            verb: {
                **{
                    key: mean_cycles([r[verb][key] for r in mine])
                    for key in ("p50", "p999", "worst")
                },
                "worst_of_all": max(r[verb]["worst"] for r in mine),
            }
            for verb in VERBS.values()
        },
        "memory": geometric(memory) if memory and all(memory) else None,
    }


def geometric(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return statistics.geometric_mean(values)


def main() -> None:
    """Do the task on standard input."""
    try:
        json.dump(list(work(json.load(sys.stdin))), sys.stdout)
    except (PeerError, BadArgument, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
