# SPDX-License-Identifier: BSD-3-Clause
"""Percentile distributions in HdrHistogram's text format (.hgrm).

Plotters of HdrHistogram read it. The library is its port to Python.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram

from xmem.cli.contenders import Replay
from xmem.cli.exits import Unwritten

VERBS = ("xmalloc", "xfree", "xrealloc")
SIGNIFICANT_DIGITS = 3


def hgrm_names(replays: Sequence[Replay]) -> dict[str, tuple[Replay, str]]:
    """Return the names of the files: one for each replay and verb in it."""
    return {
        f"{replay.trace.name}.{replay.result.contender}.{verb}.hgrm": (replay, verb)
        for replay in replays
        for verb in VERBS
        if (replay.result.of_kind(verb) & replay.result.was_run).any()
    }


def write_hgrm(replays: Sequence[Replay], folder: Path) -> list[str]:
    """Write the cycles of each verb of each replay into a folder.

    Parameters
    ----------
    replays : sequence of Replay
        Replays to write.
    folder : Path
        Made if it does not exist. Files of the same names are replaced.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    Unwritten
        The folder or a file cannot be written.
    """
    names = hgrm_names(replays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (replay, verb) in names.items():
            with (folder / name).open("wb") as file:
                histogram(replay, verb).output_percentile_distribution(file, 1.0)
    except OSError as error:
        raise Unwritten(str(folder), error) from error
    return list(names)


def histogram(replay: Replay, verb: str) -> HdrHistogram:
    """Return a histogram of a verb's cycles; 0 counts as 1, the least it can hold."""
    result = replay.result
    cycles = result.cycles[result.of_kind(verb) & result.was_run]
    values, counts = np.unique(np.maximum(cycles, 1), return_counts=True)
    recorded = HdrHistogram(1, max(int(values[-1]), 2), SIGNIFICANT_DIGITS)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        recorded.record_value(value, count)
    return recorded
