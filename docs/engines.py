# SPDX-License-Identifier: BSD-3-Clause
"""Write what performance.md says of another TLSF: ``make engines PEER=FILE.so``.

The environment names it: PEER is a shared object that exports a ``struct peer``
(measure/peer.h), MORE are files of traces besides those of asv_bench, for the table of
arenas. ``python docs/engines.py NAME...`` writes some of the parts. Takes five minutes;
nothing else should run meanwhile.
"""

import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measured
from measured import DOCS, fill, require_release, table

from xmem.cli.versus import peer_contender
from xmem.measure.peers import Peer
from xmem.measure.ranks import VERBS
from xmem.measure.trace import load, peak_live
from xmem.measure.versus import compare, engines, least_arena, least_format_bytes

PAGE = DOCS / "performance.md"
TRACES = sorted(measured.TRACES.glob("*.npz"))
QUANTILES = ("p50", "p999", "worst")
ROUNDS, REPEATS = 5, 5


def peer() -> Path:
    """Return the file of the other engine; the program ends if there is none."""
    if "PEER" not in os.environ:
        sys.exit("PEER is not set: a shared object that exports a struct peer")
    return Path(os.environ["PEER"])


def ratios(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """Return the geometric means over the traces, each a quotient."""
    pairs = list(zip(mine, theirs, strict=True))
    time = [
        statistics.median(a / b for a, b in zip(one["ns"], other["ns"], strict=True))
        for one, other in pairs
    ]
    found = [statistics.geometric_mean(time)]
    for verb in VERBS.values():
        for key in QUANTILES:
            found.append(
                statistics.geometric_mean(
                    max(one[verb][key], 1) / max(other[verb][key], 1)
                    for one, other in pairs
                )
            )
    return [f"{value:.2f}" for value in found]


def tlsf() -> str:
    """Divide what calls take by what they take in the other engine."""
    other = peer_contender(peer())
    found = compare(
        [*engines(reserved=True), other], TRACES, rounds=ROUNDS, repeats=REPEATS
    )
    of: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        of.setdefault(one["name"], []).append(one)
    theirs = of.pop(other.name)
    heads = [
        f"divided by {other.name}'s",
        "time",
        *(f"{verb[1:]} {what}" for verb in VERBS for what in ("p50", "p99.9", "worst")),
    ]
    return table(heads, [[name, *ratios(mine, theirs)] for name, mine in of.items()])


def least() -> str:
    """Find the least arenas that serve traces, over the bytes live at the peak."""
    other, mine = Peer.load(str(peer().resolve())), Peer.engine()
    more = [Path(name) for name in os.environ.get("MORE", "").split()]
    rows = []
    for file in [*TRACES, *more]:
        ops = load(file)
        live = peak_live(ops)
        ours, theirs = (least_arena(one, ops) / live for one in (mine, other))
        own = least_format_bytes(ops) / live - 1
        rows.append(
            [
                file.stem,
                *(f"{value:.3f}" for value in (ours, theirs)),
                f"{ours - theirs:+.3f}",
                f"{own:.3f}",
            ]
        )
    heads = ["least arena / live", "xmem", other.name, "difference", "xmem's format"]
    return table(heads, rows)


PARTS: dict[tuple[Path, str], Callable[[], str]] = {
    (PAGE, "tlsf"): tlsf,
    (PAGE, "least"): least,
}


def main() -> None:
    """Replace what was measured."""
    require_release()
    fill(PARTS)


if __name__ == "__main__":
    main()
