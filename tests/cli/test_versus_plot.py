# SPDX-License-Identifier: BSD-3-Clause
"""The picture of `xmem versus` can be read: what is drawn, and where."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from xmem.cli.plots.versus import (
    GREATEST,
    IN_ARENA,
    MEAN,
    OURS,
    THEIRS,
    colour_of,
    draw_means,
    figure_of,
    in_order,
)


def mean(name, source, worst, most=None, memory=1.25, ns=8.0):
    verb = {"p50": 30, "p999": 99, "worst": worst, "worst_of_all": most or worst}
    return {
        **{"name": name, "failed": 0, "memory_from": source, "ns": ns},
        **{"ratio": [ns / 8, ns / 8 - 0.1, ns / 8 + 0.2], "memory": memory},
        **{"xmalloc_cycles": verb, "xfree_cycles": verb},
    }


MEANS = [
    mean("xmem", "grown", 346.2, 507),
    mean("xmem, reserved", "reserved", 169, 325, ns=7.5),
    mean("glibc 2.36", "system", 10_727, 190_931, None, 21),
    mean("mimalloc 3", "system", 877, 3042, 1.647, 5.6),
    mean("of one size", "reserved", 26),
    # Records of an older version say nothing of it, and have such memory.
    mean("Conte", None, 285, 481, 0.9),
]


@pytest.fixture(scope="module")
def figure():
    made = figure_of(MEANS)
    FigureCanvasAgg(made).draw()
    return made


def test_xmem_comes_first_and_others_by_their_worst_malloc():
    assert [row["name"] for row in in_order(MEANS)] == [
        *("xmem", "xmem, reserved"),
        *("of one size", "Conte", "mimalloc 3", "glibc 2.36"),
    ]


def test_colours_tell_where_the_memory_comes_from(figure):
    assert [colour_of(row) for row in MEANS] == [
        *(OURS, OURS, THEIRS, THEIRS, IN_ARENA, THEIRS)
    ]
    names = figure.axes[0].get_yticklabels()
    assert [(name.get_text(), name.get_color()) for name in names] == [
        (row["name"], colour_of(row)) for row in in_order(MEANS)
    ]


def test_every_panel_has_dots_on_a_grid_behind_them(figure):
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert not axes.patches, "bars start at a point that an axis chose"
        assert axes.get_axisbelow() is True
        assert axes.get_xlabel()
    assert [axes.get_xscale() for axes in figure.axes] == [
        *["linear"] * 2,
        *["log"] * 2,
    ]


def test_numbers_stand_next_to_the_dots(figure):
    time, memory, malloc, free = [
        [text.get_text() for text in axes.texts] for axes in figure.axes
    ]
    assert time == ["8.0", "7.5", "8.0", "8.0", "5.6", "21.0"]
    # Where there is no figure, nothing is drawn.
    assert memory == ["1.25", "1.25", "1.25", "0.90", "1.65"]
    assert malloc == free
    assert malloc[:5] == ["346", "507", "169", "325", "26"]
    assert malloc[-2:] == ["10,727", "190,931"]


def test_no_number_is_struck_through(figure):
    """Nothing lies under a number but the grid, which its white box covers."""
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
            for line in axes.lines:
                ends = line.get_transform().transform(line.get_xydata())
                left, right = ends[:, 0].min(), ends[:, 0].max()
                beside = right < box.x0 or left > box.x1
                assert beside or not box.y0 < ends[0, 1] < box.y1
        for text in axes.texts:
            assert text.get_bbox_patch().get_facecolor() == (1, 1, 1, 1)
            assert figure.bbox.containsx(text.get_window_extent().x1)


def test_every_dot_lies_inside_its_panel(figure):
    for axes in figure.axes:
        for line in axes.lines:
            ends = line.get_transform().transform(line.get_xydata())
            assert all(axes.bbox.contains(*end) for end in ends)


def test_the_legend_names_the_marks_that_are_drawn(figure):
    def named(made):
        return [text.get_text() for text in made.legends[0].get_texts()]

    assert named(figure)[-2:] == [MEAN, GREATEST]
    one_trace = [mean("xmem", "grown", 346), mean("glibc 2.36", "system", 9000)]
    made = figure_of(one_trace)
    assert not {MEAN, GREATEST} & set(named(made))
    # A dot for each allocator and no ring.
    assert [len(axes.lines) for axes in made.axes[2:]] == [2, 2]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_one_allocator_is_a_picture_too(tmp_path, suffix):
    draw_means(MEANS[2:3], tmp_path / f"p.{suffix}")
    assert (tmp_path / f"p.{suffix}").stat().st_size > 1000
