# SPDX-License-Identifier: BSD-3-Clause
"""The results of `xmem.measure.insn`: instructions of operations, and their paths."""

import errno
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem.base.errors import BadArgument, XmemError
from xmem.measure.codes import (
    PATH_FAILED,
    PATH_GROWN,
    PATH_LEFT,
    PATH_MOVED,
    PATH_RETURNED,
    PATH_RIGHT,
    PATH_RUN,
    PATH_SPLIT,
    VERB_XFREE,
    VERB_XMALLOC,
    VERB_XREALLOC,
    VERBS,
)

__all__ = ["VERBS", "Counts", "SteppingUnavailable", "Summary", "path_name"]


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
                "is not possible, because the system did not allow tracing a child "
                f"({os.strerror(number)}): ptrace may be forbidden here"
            )
        super().__init__(number, f"counting instructions {why}")

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
        The bits of its path, ``PATH_LEFT`` and so on of `xmem.measure.codes`.

    Returns
    -------
    str
        For an xfree ``isolated``, ``left``, ``right`` or ``both``, after the
        neighbours that were free, and whether a region was returned; for an
        xmalloc ``exact``, ``split`` or ``grown``; for an xrealloc ``in place``
        or ``moved``; ``run`` if the block is a run of pages; ``failed``; ``own`` for
        a function that is no verb.
    """
    if path & PATH_FAILED:
        return "failed"
    if path & PATH_RUN:
        name = "run"
    elif verb == VERB_XFREE:
        name = ("isolated", "left", "right", "both")[path & (PATH_LEFT | PATH_RIGHT)]
    elif verb == VERB_XMALLOC:
        name = "split" if path & PATH_SPLIT else "exact"
    elif verb == VERB_XREALLOC:
        name = "moved" if path & PATH_MOVED else "in place"
    elif verb >= len(VERBS):
        return "own"
    else:
        return "page run"
    if path & PATH_GROWN:
        name += ", grown"
    if path & PATH_RETURNED:
        name += ", region returned"
    return name


def verb_number(verb: str) -> int:
    """Index into `VERBS`."""
    if verb not in VERBS:
        raise BadArgument(f"verb must be one of {', '.join(VERBS)}, not {verb!r}")
    return VERBS.index(verb)


@dataclass(frozen=True)
class Summary:
    """Instructions of the operations of one verb, or of one of its paths.

    ``worst_index``, ``worst_size`` and ``worst_path`` describe the first of the
    operations that took the most.
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
    """Instructions of single operations, in arrays of equal length.

    Attributes
    ----------
    index : numpy.ndarray
        Index of the operation in the trace.
    verb : numpy.ndarray of uint8
        Index into `VERBS`.
    size : numpy.ndarray of uint64
        Bytes requested; 0 for an xfree.
    instructions : numpy.ndarray of uint64
        Retired from the verb's first instruction to its return.
    path : numpy.ndarray of uint8
        Bits of the path, for `path_name`.
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
        """Return the figures of the masked operations; None if there are none."""
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
            One of `VERBS`.

        Returns
        -------
        Summary or None
            None if the trace has no such call.

        Raises
        ------
        BadArgument
            There is no such verb.
        """
        number = verb_number(verb)
        return self._summarise(self.verb == number, number, "")

    def by_path(self, verb: str) -> list[Summary]:
        """Return the figures of each path that calls of a verb took.

        Parameters
        ----------
        verb : str
            One of `VERBS`.

        Returns
        -------
        list of Summary
            The most frequent path first.
        """
        number = verb_number(verb)
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
