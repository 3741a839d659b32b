# SPDX-License-Identifier: BSD-3-Clause
"""Ranks: who has the shortest worst call on each trace, where near is as good.

The worst call of a trace differs a little from run to run. A rank therefore counts
those that are clearly better: it is 1 more than the number of allocators whose worst
call this one exceeds by more than a tenth. Whoever is within a tenth of the best
shares its rank.
"""

import statistics
from collections.abc import Sequence
from typing import Any

#: Two values tie if the greater is at most ``TIE[0] / TIE[1]`` of the other.
TIE = 11, 10
VERBS = {"xmalloc": "xmalloc_cycles", "xfree": "xfree_cycles"}


def ranks(values: Sequence[float]) -> list[int | None]:
    """Return the rank of each value, from 1 for the least.

    Parameters
    ----------
    values : sequence of float
        Cycles.

    Returns
    -------
    list
        None for all if all are 0: there was no such call.
    """
    if not any(values):
        return [None] * len(values)
    above, below = TIE
    return [
        1 + sum(above * other < below * value for other in values) for value in values
    ]


def mean_cycles(values: Sequence[float]) -> float:
    """Return the geometric mean of cycles, of which 0 count as 1."""
    return statistics.geometric_mean(max(value, 1) for value in values)


def with_ranks(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records with the ranks of their worst calls.

    Parameters
    ----------
    records : sequence of dict
        One for each contender and trace, as `xmem.measure.versus.compare` makes them.

    Returns
    -------
    list of dict
        The records with two keys more, each with ``xmalloc`` and ``xfree``:
        ``ranks``, of the worst call among all contenders on the trace, and
        ``mean_worst``, the geometric mean of the contender's worst calls over the
        traces, the same in all its records.
    """
    found = [{**record, "ranks": {}, "mean_worst": {}} for record in records]
    for verb, cycles in VERBS.items():
        for trace in dict.fromkeys(record["trace"] for record in found):
            its = [record for record in found if record["trace"] == trace]
            ranked = ranks([record[cycles]["worst"] for record in its])
            for record, rank in zip(its, ranked, strict=True):
                record["ranks"][verb] = rank
        for name in dict.fromkeys(record["name"] for record in found):
            mine = [record for record in found if record["name"] == name]
            mean = mean_cycles([record[cycles]["worst"] for record in mine])
            for record in mine:
                record["mean_worst"][verb] = mean
    return found
