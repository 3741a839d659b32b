# SPDX-License-Identifier: BSD-3-Clause
"""Ranks of the worst calls, and the tables that show them."""

import pytest
from rich.console import Console

from xmem.cli.tables.versus import make_versus_table, make_worst_table, worst_cells
from xmem.measure.ranks import ranks, with_ranks

#: Worst mallocs and frees of each allocator on two traces.
WORST = {
    "a": {"one": (100, 400), "two": (1000, 0)},
    "b": {"one": (110, 100), "two": (4000, 0)},
    "c": {"one": (111, 111), "two": (250, 0)},
}


def records(**more):
    def verb(cycles):
        return {"p50": 1, "p99": 1, "p999": 2, "worst": cycles, "raw_worst": 9000}

    return [
        {
            **{"name": name, "trace": trace, "ops": 7, "failed": 0, "ns": [3.0]},
            **{"ratio": [1.0], "memory": None, **more},
            **{"xmalloc_cycles": verb(malloc), "xfree_cycles": verb(free)},
        }
        for name, its in WORST.items()
        for trace, (malloc, free) in its.items()
    ]


@pytest.mark.parametrize(
    ("cycles", "expected"),
    [
        ([300, 100, 200], [3, 1, 2]),
        # Within a tenth of the best is as good, and no further.
        ([100, 110, 111], [1, 1, 2]),
        # A tie is between two: the third is near the second, not near the first.
        ([100, 108, 116, 500], [1, 1, 2, 4]),
        ([110.0, 100.0], [1, 1]),
        ([5], [1]),
        ([0, 26, 0], [1, 3, 1]),
        ([0, 0], [None, None]),
        ([], []),
    ],
)
def test_a_rank_counts_those_that_are_clearly_better(cycles, expected):
    assert ranks(cycles) == expected


def test_each_record_says_its_rank_on_its_trace():
    found = {(r["name"], r["trace"]): r for r in with_ranks(records())}
    assert {where: r["ranks"] for where, r in found.items()} == {
        ("a", "one"): {"xmalloc": 1, "xfree": 3},
        ("b", "one"): {"xmalloc": 1, "xfree": 1},
        ("c", "one"): {"xmalloc": 2, "xfree": 2},
        ("a", "two"): {"xmalloc": 2, "xfree": None},
        ("b", "two"): {"xmalloc": 3, "xfree": None},
        ("c", "two"): {"xmalloc": 1, "xfree": None},
    }
    means = [found["a", trace]["mean_worst"]["xmalloc"] for trace in ("one", "two")]
    assert means == pytest.approx([316.23] * 2, abs=0.01)
    # What was there stays.
    assert all(
        before.items() <= r.items()
        for before, r in zip(records(), found.values(), strict=True)
    )


def test_the_table_shows_cycles_and_ranks_and_those_of_the_mean():
    assert worst_cells(with_ranks(records()), "xmalloc") == {
        "a": ["100 (1)", "1,000 (2)", "316 (2)"],
        "b": ["110 (1)", "4,000 (3)", "663 (3)"],
        "c": ["111 (2)", "250 (1)", "167 (1)"],
    }
    # Nothing is freed in the second trace.
    assert [row[1] for row in worst_cells(with_ranks(records()), "xfree").values()] == [
        "-"
    ] * 3


def shown(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_tables_say_what_they_hold():
    assert "111 (2)" in shown(make_worst_table(with_ranks(records()), "xfree"))
    text = shown(make_versus_table(records(memory_from="grown")))
    assert text.count("grown") == 3
    # Records of an older version do not say where the memory comes from.
    assert "grown" not in shown(make_versus_table(records()))
