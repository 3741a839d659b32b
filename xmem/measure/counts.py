# SPDX-License-Identifier: BSD-3-Clause
"""What `xmem.measure.insn` counted: instructions of single operations, and their paths."""

import errno
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument, XmemError

VERBS = ("xmalloc", "xfree", "xrealloc", "page_alloc", "page_free")

LEFT, RIGHT, RETURNED, RUN, SPLIT, GROWN, MOVED, FAILED = (1 << i for i in range(8))


class SteppingUnavailable(XmemError, OSError):
    """Instructions cannot be counted here.

    Parameters
    ----------
    number : int
        The system's error number; 0 where stepping is not supported.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        if number in (0, errno.ENOSYS):
            why = "needs Linux on x86-64 or aarch64"
        else:
            why = (
                "the system did not let us trace a child "
                f"({os.strerror(number)}): ptrace may be forbidden here"
            )
        super().__init__(number, f"counting instructions {why}")

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Pickle by the number."""
        return type(self), (self.number,)


class CounterUnavailable(XmemError, OSError):
    """The processor's counter cannot be read here.

    Parameters
    ----------
    number : int
        The system's error number.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(
            number,
            "the system has no counter of instructions for us "
            f"({os.strerror(number)}): virtual machines often hide it, and "
            "kernel.perf_event_paranoid above 2 forbids it",
        )

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Pickle by the number."""
        return type(self), (self.number,)


def path_name(verb: int, path: int) -> str:
    """Name the path of a call.

    Parameters
    ----------
    verb : int
        Index into `VERBS`.
    path : int
        Its bits.

    Returns
    -------
    str
        For an xfree ``isolated``, ``left``, ``right`` or ``both``, the
        neighbours that were free, and whether a region was returned; for an
        xmalloc ``exact``, ``split`` or ``grown``; for an xrealloc ``in place``
        or ``moved``; ``run`` where pages were concerned; ``failed``.
    """
    if path & FAILED:
        return "failed"
    if path & RUN:
        name = "run"
    elif verb == VERBS.index("xfree"):
        name = ("isolated", "left", "right", "both")[path & (LEFT | RIGHT)]
    elif verb == VERBS.index("xmalloc"):
        name = "split" if path & SPLIT else "exact"
    elif verb == VERBS.index("xrealloc"):
        name = "moved" if path & MOVED else "in place"
    else:
        return "page run"
    if path & GROWN:
        name += ", grown"
    if path & RETURNED:
        name += ", region returned"
    return name


def _verb_number(verb: str) -> int:
    """Index into `VERBS`."""
    if verb not in VERBS:
        raise BadArgument(f"verb must be one of {', '.join(VERBS)}, not {verb!r}")
    return VERBS.index(verb)


@dataclass(frozen=True)
class Summary:
    """Instructions of the operations of one verb, or of one of its paths.

    ``worst_index``, ``worst_size`` and ``worst_path`` are of the first of the
    operations that took most.
    """

    verb: str
    path: str
    n_ops: int
    least: int
    mean: float
    most: int
    worst_index: int
    worst_size: int
    worst_path: str


@dataclass(frozen=True)
class Counts:
    """Instructions of single operations, in arrays of one length.

    Attributes
    ----------
    index : numpy.ndarray
        Which operation of the trace.
    verb : numpy.ndarray of uint8
        Index into `VERBS`.
    size : numpy.ndarray of uint64
        Bytes asked for; 0 for an xfree.
    instructions : numpy.ndarray of uint64
        Retired from the verb's first instruction to its return.
    path : numpy.ndarray of uint8
        Bits for `path_name`.
    engine : str
        As in `xmem.Pool`.
    hardening : tuple of str
        As in `xmem.Pool`.
    """

    index: npt.NDArray[np.intp]
    verb: npt.NDArray[np.uint8]
    size: npt.NDArray[np.uint64]
    instructions: npt.NDArray[np.uint64]
    path: npt.NDArray[np.uint8]
    engine: str
    hardening: tuple[str, ...]

    def _summarise(
        self, mask: npt.NDArray[np.bool_], verb: int, path: str
    ) -> Summary | None:
        """Return the figures of what is marked; None of nothing."""
        found = np.flatnonzero(mask)
        if not len(found):
            return None
        some = self.instructions[found]
        worst = found[int(some.argmax())]
        return Summary(
            verb=VERBS[verb],
            path=path,
            n_ops=len(found),
            least=int(some.min()),
            mean=float(some.mean()),
            most=int(some.max()),
            worst_index=int(self.index[worst]),
            worst_size=int(self.size[worst]),
            worst_path=path_name(verb, int(self.path[worst])),
        )

    def summary(self, verb: str) -> Summary | None:
        """Return the figures of one verb.

        Parameters
        ----------
        verb : str
            Of `VERBS`.

        Returns
        -------
        Summary or None
            None where the trace has no such call.

        Raises
        ------
        BadArgument
            There is no such verb.
        """
        number = _verb_number(verb)
        return self._summarise(self.verb == number, number, "")

    def by_path(self, verb: str) -> list[Summary]:
        """Return the figures of each path that calls of a verb took.

        Parameters
        ----------
        verb : str
            Of `VERBS`.

        Returns
        -------
        list of Summary
            The most frequent path first.
        """
        number = _verb_number(verb)
        is_verb = self.verb == number
        found = [
            self._summarise(
                is_verb & (self.path == path), number, path_name(number, int(path))
            )
            for path in np.unique(self.path[is_verb])
        ]
        return sorted((s for s in found if s is not None), key=lambda s: -s.n_ops)

    def record(self, trace: str) -> dict[str, Any]:
        """Return the figures as plain values, for JSON.

        Parameters
        ----------
        trace : str
            Name of the trace.

        Returns
        -------
        dict
            ``trace``, ``engine``, ``hardening``, ``n_ops``, and for each verb
            that occurs its summary with ``paths``.
        """
        verbs = {}
        for verb in VERBS:
            whole = self.summary(verb)
            if whole is not None:
                verbs[verb] = {
                    **vars(whole),
                    "paths": [vars(summary) for summary in self.by_path(verb)],
                }
        return {
            "trace": trace,
            "engine": self.engine,
            "hardening": list(self.hardening),
            "n_ops": len(self.index),
            "verbs": verbs,
        }
