# SPDX-License-Identifier: BSD-3-Clause
"""The waste report: the library's measurements, and what the command shows.

Figures are compared with the formats' arithmetic, written here a second time.
"""

import functools
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

import xmem
import xmem.cli.waste as command_module
import xmem.measure.waste as waste_module
from xmem.cli.group import xmem as command
from xmem.cli.plots.waste import draw_waste, group_curves
from xmem.cli.tables.waste import complaint, make_waste_table, telling_sizes
from xmem.heap import INTERFACES
from xmem.measure.waste import WASTE_DTYPE, WasteCurve, measure_waste, routines_of

PAGE = 4096
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
NAMES = [
    "strict",
    "array",
    "subpage: xmalloc",
    "subpage: xmalloc_subpage",
    "legacy",
    "merged",
]


@pytest.fixture(scope="module")
def curves():
    return {
        curve.name: curve
        for interface in INTERFACES
        for curve in measure_waste(interface, page_size=PAGE)
    }


def round_up(n, multiple):
    return -(-n // multiple) * multiple


@functools.cache
def tlsf_sharers(block, page):
    """Blocks of ``block`` bytes that a page holds: 8 before them, a sentinel of 8."""
    offset, n = 8, 0
    while offset + block <= page - 8:
        n += 1
        # No payload starts on a multiple of 4096: the block before takes 16 more.
        offset += block + 16 * ((offset + block + 8) % 4096 == 0)
    return n


def tlsf_point(size, page):
    """Pages and sharers of TLSF blocks: 8 bytes of header, 16 of a region."""
    block = max(32, round_up(size + 8, 16))
    if block > page - 16:
        return -(-size // page), 1
    return 1, tlsf_sharers(block, page)


def legacy_point(size, page):
    """Pages and sharers of legacy blocks: 64 bytes of header, powers of two."""
    block = round_up(size + 64, 64)
    if block < page:
        return 1, page // block
    return 1 << (-(-block // page) - 1).bit_length(), 1


# The library


def test_there_is_a_curve_for_each_routine(curves):
    assert list(curves) == NAMES
    for name, curve in curves.items():
        assert curve.points.dtype == WASTE_DTYPE
        assert np.array_equal(curve.points["size"], np.arange(1, 4 * PAGE + 1))
        assert curve.page_size == PAGE
        assert curve.xmalloc_max == (3968 if name == "legacy" else 4072)


@pytest.mark.parametrize("page", [PAGE, 16384])
@pytest.mark.parametrize("interface", INTERFACES)
def test_every_size_takes_what_the_format_says(interface, page):
    for curve in measure_waste(interface, page_size=page, n_pages=3):
        legacy = curve.name in ("legacy", "subpage: xmalloc")
        point = legacy_point if legacy else tlsf_point
        expected = [point(size, page) for size in range(1, 3 * page + 1)]
        if curve.routine == "xmalloc_subpage":
            expected[page - 24 :] = [(0, 0)] * (2 * page + 24)
        found = list(
            zip(
                curve.points["pages"].tolist(),
                curve.points["per_page"].tolist(),
                strict=True,
            )
        )
        assert found == expected


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("legacy", 2, 4),
        ("subpage: xmalloc", 2, 4),
        ("strict", 1, 2),
        ("array", 1, 2),
        ("merged", 1, 2),
        ("subpage: xmalloc_subpage", 0, 0),
    ],
)
def test_the_complaint_of_the_proposal_and_its_end(curves, name, one, two):
    curve = curves[name]
    assert curve.at(PAGE)[0] == one
    assert curve.at(2 * PAGE)[0] == two


def test_slightly_less_than_a_page_takes_two_only_in_the_legacy_engine(curves):
    for name, curve in curves.items():
        takes = {curve.at(size)[0] for size in range(4033, PAGE)}
        if name in ("legacy", "subpage: xmalloc"):
            assert takes == {2}
        else:
            assert takes <= {0, 1}


def test_the_limit_is_where_xmalloc_subpage_ends(curves):
    curve = curves["subpage: xmalloc_subpage"]
    assert curve.at(curve.xmalloc_max) == (1, 1)
    assert curve.at(curve.xmalloc_max + 1) == (0, 0)
    assert curve.served().sum() == curve.xmalloc_max


def test_the_report_is_measured_on_the_heap(monkeypatch):
    """A heap that takes a page too many is seen, so nothing is only computed."""

    class Wasteful(xmem.Heap):
        def page_alloc_exact(self, n_pages):
            return super().page_alloc_exact(n_pages + 1)

    honest = measure_waste("strict", page_size=PAGE, n_pages=2)[0]
    monkeypatch.setattr(waste_module, "Heap", Wasteful)
    wasteful = measure_waste("strict", page_size=PAGE, n_pages=2)[0]
    assert not honest.same_pages(wasteful)
    assert wasteful.at(4072) == (1, 1)
    assert wasteful.at(4073) == (2, 1)
    assert wasteful.at(2 * PAGE) == (3, 1)


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_size_meets_an_empty_heap(monkeypatch, interface):
    seen = []

    class Watched(xmem.Heap):
        def shrink(self):
            given = super().shrink()
            stats = self.stats()
            seen.append((stats.live_blocks, stats.n_pages))
            return given

    monkeypatch.setattr(waste_module, "Heap", Watched)
    curves = measure_waste(interface, page_size=PAGE, n_pages=1)
    assert len(seen) == sum(int(curve.served().sum()) for curve in curves)
    assert set(seen) == {(0, 0)}


def test_page_size_is_the_systems_by_default():
    with xmem.Arena.anonymous(1 << 20) as arena:
        assert measure_waste("merged", n_pages=1)[0].page_size == arena.page_size


@pytest.mark.parametrize("interface", ["strict", "subpage"])
def test_progress_ends_with_all_of_it(interface):
    seen = []
    n_curves = len(
        measure_waste(
            interface,
            page_size=PAGE,
            n_pages=1,
            progress=lambda done, total: seen.append((done, total)),
        )
    )
    assert seen[-1] == (n_curves * PAGE, n_curves * PAGE)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_wrong_arguments_are_refused():
    with pytest.raises(xmem.BadArgument, match="interface must be one of 'strict'"):
        measure_waste("xen")
    with pytest.raises(xmem.BadArgument, match="interface must be one of"):
        routines_of("tlsf")
    with pytest.raises(xmem.BadArgument, match="n_pages must be at least 1"):
        measure_waste("strict", n_pages=0)
    with pytest.raises(xmem.BadArgument, match="page_size must be a power of two"):
        measure_waste("strict", page_size=5000)


# Its figures


def curve_of(*points):
    table = np.zeros(len(points), dtype=WASTE_DTYPE)
    table["size"] = np.arange(1, len(points) + 1)
    table["pages"], table["per_page"] = zip(*points, strict=True)
    return WasteCurve("legacy", "xmalloc", 4, 3, table)


def test_waste_is_what_is_taken_beyond_the_request():
    curve = curve_of((1, 2), (1, 2), (1, 1), (2, 1), (0, 0))
    assert curve.pages_each()[:4].tolist() == [0.5, 0.5, 1, 2]
    assert math.isnan(curve.pages_each()[4])
    assert curve.waste()[:4].tolist() == [1, 0, 1, 4]
    assert curve.mean_waste(1, 3) == pytest.approx(2 / 3)
    assert curve.mean_waste(3, 5) == pytest.approx(5 / 2)
    assert math.isnan(curve.mean_waste(5, 5))


@pytest.mark.parametrize("size", [0, -1, 6])
def test_a_size_that_was_not_measured_is_refused(size):
    curve = curve_of((1, 2), (1, 2), (1, 1), (2, 1), (0, 0))
    assert curve.at(5) == (0, 0)
    with pytest.raises(xmem.BadArgument, match="sizes from 1 to 5 were measured"):
        curve.at(size)


def test_waste_is_never_negative_and_legacy_is_never_better(curves):
    for curve in curves.values():
        assert np.nanmin(curve.waste()) >= 0
    worse = curves["legacy"].waste() - curves["merged"].waste()
    assert (worse >= 0).all()
    assert curves["legacy"].mean_waste(PAGE, 4 * PAGE) > 3500
    assert curves["merged"].mean_waste(PAGE, 4 * PAGE) == pytest.approx(2047.5, abs=1)


def test_steps_are_the_whole_curve(curves):
    for curve in curves.values():
        points = [
            (size, step["pages"], step["per_page"])
            for step in curve.steps()
            for size in range(step["first"], step["last"] + 1)
        ]
        assert points == curve.points.tolist()
        assert len(curve.steps()) < 100


# The command


def run(*arguments):
    result = CliRunner().invoke(command, ["waste", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def cells_of(text, label):
    """Cells of the row that begins with a label and bytes."""
    lines = [line for line in text.splitlines() if line.startswith(f"{label}  ")]
    assert len(lines) == 1, text
    return lines[0].removeprefix(label).split()


def test_command_shows_every_interface_and_telling_size():
    result = run("--page-size", PAGE)
    assert result.exit_code == 0
    text = result.stdout
    assert cells_of(text, "1 byte") == [
        "1",
        *["1/127", "1/127", "1/32", "1/127", "1/32", "1/127"],
    ]
    assert cells_of(text, "half a page") == ["2,048", *"111111"]
    assert cells_of(text, "XMALLOC_MAX") == ["4,072", *"112121"]
    assert cells_of(text, "XMALLOC_MAX + 1") == ["4,073", *"112-21"]
    assert cells_of(text, "1 page - 1") == ["4,095", *"112-21"]
    assert cells_of(text, "1 page") == ["4,096", *"112-21"]
    assert cells_of(text, "1 page + 1") == ["4,097", *"222-22"]
    assert cells_of(text, "2 pages") == ["8,192", *"224-42"]
    assert cells_of(text, "2 pages + 1") == ["8,193", *"334-43"]
    assert cells_of(text, "3 pages") == ["12,288", *"334-43"]
    assert cells_of(text, "4 pages") == ["16,384", *"448-84"]
    assert cells_of(text, "waste, 1 to 4 pages")[3] == "-"
    assert (
        "One page requested, 2 taken; two requested, 4 taken: subpage: xmalloc, legacy."
        in text
    )
    assert (
        "One page requested, 1 taken; two requested, 2 taken: strict, array, merged."
        in text
    )
    assert "Traceback" not in result.stderr


def test_command_measures_the_interfaces_that_are_named():
    text = run("--interface", "merged", "--interface", "legacy").stdout
    head = text.splitlines()[1].split()
    assert head[-2:] == ["merged", "legacy"]
    assert "strict" not in head


def test_interface_may_be_named_twice():
    text = run("--interface", "merged", "--interface", "merged").stdout
    assert text.splitlines()[1].split().count("merged") == 1


def test_progress_is_on_standard_error():
    result = run("--interface", "array")
    assert "waste of array: done" in result.stderr
    assert "done" not in result.stdout


def test_table_is_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = run("--page-size", PAGE).stdout
    assert "…" not in text
    assert cells_of(text, "2 pages") == ["8,192", *"224-42"]


def test_other_page_sizes_scale():
    text = run("--page-size", "64K", "--interface", "strict").stdout
    assert cells_of(text, "XMALLOC_MAX") == ["65,512", "1"]
    assert cells_of(text, "2 pages") == ["131,072", "2"]


def test_json_holds_every_size(tmp_path, curves):
    file = tmp_path / "out.json"
    assert run("--page-size", PAGE, "--json", file).exit_code == 0
    records = json.loads(file.read_text())
    assert [(r["interface"], r["routine"]) for r in records] == [
        (curve.interface, curve.routine) for curve in curves.values()
    ]
    for record, curve in zip(records, curves.values(), strict=True):
        assert list(record) == [
            "interface",
            "routine",
            "page_size",
            "xmalloc_max",
            "steps",
        ]
        assert record == curve.record()
        assert record["steps"][-1]["last"] == 4 * PAGE


@pytest.mark.parametrize("interface", [None, *INTERFACES])
def test_plot_is_a_png_of_modest_size(tmp_path, interface):
    file = tmp_path / "out.png"
    which = ["--interface", interface] if interface else []
    result = run(*which, "--page-size", PAGE, "--plot", file)
    assert result.exit_code == 0
    assert f"Plot: {file}" in result.stdout
    assert file.read_bytes().startswith(PNG_MAGIC)
    assert 10_000 < file.stat().st_size < 150_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--page-size", "5000"], "page_size must be a power of two"),
        (["--page-size", "none"], "is not a size"),
        (["--interface", "tlsf"], "'tlsf' is not one of"),
        (["--json", "no/such/folder/out.json"], "not a folder that can be written to"),
        (["--plot", "no/such/folder/out.png"], "not a folder that can be written to"),
        (["surplus"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_failed_measurement_ends_with_status_1(monkeypatch):
    def broken(*_, **__):
        raise xmem.OutOfMemory("no room today")

    monkeypatch.setattr(command_module, "measure_waste", broken)
    result = run()
    assert result.exit_code == 1
    assert "OutOfMemory: no room today" in result.stderr


def test_interruption_ends_with_status_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_module, "measure_waste", interrupted)
    assert run().exit_code == 130


# What a person reads


def test_too_many_pages_stand_out(curves):
    table = make_waste_table([curves["legacy"], curves["merged"]])
    legacy, merged = table.columns[2:4]
    sizes = [size for _, size in telling_sizes([curves["legacy"], curves["merged"]])]
    for i, size in enumerate(sizes):
        needed = -(-size // PAGE)
        bold = curves["legacy"].at(size)[0] > needed
        assert legacy._cells[i].style == ("bold" if bold else "")
        assert merged._cells[i].style == ""
    assert sum(cell.style == "bold" for cell in legacy._cells[: len(sizes)]) == 8


def test_the_limit_shown_is_legacys_only_where_it_is_alone(curves):
    assert ("XMALLOC_MAX", 3968) in telling_sizes([curves["legacy"]])
    assert ("XMALLOC_MAX", 4072) in telling_sizes([curves["legacy"], curves["array"]])


def test_complaint_puts_equal_results_together(curves):
    assert complaint([curves["merged"], curves["strict"]]) == [
        "One page requested, 1 taken; two requested, 2 taken: merged, strict."
    ]
    assert complaint([curves["subpage: xmalloc_subpage"]]) == []


def test_curves_that_agree_are_one_line(curves):
    groups = group_curves(list(curves.values()))
    assert [[curve.name for curve in group] for group in groups] == [
        ["strict", "array", "merged"],
        ["subpage: xmalloc", "legacy"],
        ["subpage: xmalloc_subpage"],
    ]


def test_picture_says_the_complaint_in_words(curves, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        "xmem.cli.plots.waste.save", lambda figure, path: figures.append(figure)
    )
    draw_waste(list(curves.values()), tmp_path / "out.png")
    axes = figures[0].axes[0]
    texts = {text.get_text() for text in axes.texts}
    assert texts == {
        "1 requested, 2 taken",
        "2 requested, 4 taken",
        "1 requested, 1 taken",
        "2 requested, 2 taken",
    }
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "no waste",
        "strict, array, merged",
        "subpage: xmalloc, legacy",
        "subpage: xmalloc_subpage (refuses the rest)",
    ]
