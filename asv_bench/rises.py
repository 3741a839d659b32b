# SPDX-License-Identifier: BSD-3-Clause
"""The committed history of the exact figures, and the rises that have a reason.

A figure that has to rise is listed in ``history/rises.toml``, in the commit that
makes it rise::

    [[rise]]
    figure = "instructions.Worst.track_xfree_worst_instructions(tlsf, 10)"
    from = 263
    to = 266
    commit = "Look at the quarantine before the lists"
    reason = "A block could be given out while it was in quarantine."

``make regress`` accepts exactly this rise: the same figure, from the same value to
the same value. The picture in docs/worst-case.md and the published pages show the
reason at the commit.
"""

import html
import itertools
import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
RISES = HERE / "history" / "rises.toml"


class Rise(NamedTuple):
    """One rise that is accepted."""

    figure: str
    before: float
    after: float
    commit: str
    reason: str


def read_rises(path: Path = RISES) -> list[Rise]:
    """Return the listed rises.

    Raises
    ------
    ValueError
        An entry lacks something, has more than it should, or is no rise.
    """
    found = []
    for entry in tomllib.loads(path.read_text()).get("rise", []):
        if set(entry) != {"figure", "from", "to", "commit", "reason"}:
            raise ValueError(f"{path}: a rise has figure, from, to, commit and reason")
        if not entry["to"] > entry["from"]:
            raise ValueError(f"{path}: {entry['figure']} does not rise")
        if not entry["commit"].strip() or not entry["reason"].strip():
            raise ValueError(f"{path}: {entry['figure']} rises without a reason")
        found.append(
            Rise(*(entry[key] for key in ("figure", "from", "to", "commit", "reason")))
        )
    return found


def is_listed(rises: list[Rise], figure: str, before: float, after: float) -> str:
    """Return the reason of exactly this rise, an empty string if none is listed."""
    for rise in rises:
        if (rise.figure, rise.before, rise.after) == (figure, before, after):
            return rise.reason
    return ""


# The records of asv --------------------------------------------------------------


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a machine, the oldest commit first."""
    found = [json.loads(path.read_text()) for path in folder.glob("*-*.json")]
    return sorted(found, key=lambda record: (record["date"], record["commit_hash"]))


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a record by the names that `regress` has for them."""
    found = {}
    for name, result in record["results"].items():
        if not result or not result[0]:
            continue
        values, params = result[:2]
        for value, where in zip(values, itertools.product(*params), strict=True):
            if value is not None and not math.isnan(value):
                shown = ", ".join(param.strip("'") for param in where)
                found[f"{name}({shown})"] = value
    return found


def newest(folder: Path) -> tuple[str, dict[str, float]]:
    """Return the newest commit of a machine's records, and its figures."""
    record = records(folder)[-1]
    return record["commit_hash"], figures(record)


def where(rises: list[Rise], folder: Path) -> Iterator[tuple[int, str, Rise]]:
    """Yield the index and the commit of the record at which each rise happened.

    A rise that no record shows yet, since its commit is not measured, is left out.
    """
    found = records(folder)
    shown = [figures(record) for record in found]
    for rise in rises:
        before = None
        for index, known in enumerate(shown):
            after = known.get(rise.figure)
            if after is None:
                continue
            if (before, after) == (rise.before, rise.after):
                yield index, found[index]["commit_hash"], rise
                break
            before = after


def page(rises: list[Rise], folder: Path) -> str:
    """Return the published page of all listed rises, as HTML."""
    commits = {rise: commit[:8] for _, commit, rise in where(rises, folder)}
    rows = [
        "<tr>"
        + "".join(
            f"<td>{html.escape(cell)}</td>"
            for cell in (
                commits.get(rise, "not measured yet"),
                rise.commit,
                rise.figure,
                f"{rise.before:g}",
                f"{rise.after:g}",
                rise.reason,
            )
        )
        + "</tr>"
        for rise in rises
    ]
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("commit", "subject", "figure", "from", "to", "reason")
    )
    return (
        '<!doctype html>\n<meta charset="utf-8">\n<title>Listed rises</title>\n'
        '<link href="libraries/bootstrap.min.css" rel="stylesheet">\n'
        '<div class="container"><h1>Rises that have a reason</h1>\n'
        f'<table class="table"><tr>{heads}</tr>\n'
        + "\n".join(rows)
        + "</table></div>\n"
    )
