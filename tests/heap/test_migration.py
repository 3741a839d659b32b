# SPDX-License-Identifier: BSD-3-Clause
"""docs/interfaces.md: the program of its migration guide, and what its tables say.

The page's Python is run as it stands; each stage of the program is then driven
through one random history, and has to hold what a dictionary holds.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import xmem
from xmem.cli.group import xmem as command
from xmem.heap import INTERFACES
from xmem.measure.waste import measure_waste

PAGE = 4096
LIMIT = 4072
DOCS = Path(__file__).resolve().parents[2] / "docs"
STAGES = ["LegacyStore", "SubpageStore", "ArrayStore", "StrictStore", "MergedStore"]

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="the page is in a checkout only"
)


@pytest.fixture(scope="module")
def text():
    return (DOCS / "interfaces.md").read_text()


@pytest.fixture(scope="module")
def page(text):
    """Names that the page's Python defines, all blocks run in their order."""
    names = {"__name__": "page"}
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(match[1], names)
    return names


@pytest.fixture
def arena():
    with xmem.Arena.anonymous(4 << 20, page_size=PAGE) as arena:
        yield arena


def section(text, title):
    """Text under a heading, up to the next."""
    return re.search(rf"^#+ {title}$(.*?)(?=^#|\Z)", text, re.M | re.S)[1]


def tables(text):
    """Tables of a text, each as rows of cells, its head first."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    split = [
        [
            [cell.strip() for cell in line[1:-1].split("|")]
            for line in table.splitlines()
        ]
        for table in found
    ]
    return [[table[0], *table[2:]] for table in split]


def quoted(cell):
    """Names in a cell's code."""
    return re.findall(r"`(\w+)`", cell)


# The program


def history(rng, n=400):
    """Puts, appends and drops of records around the limit and whole pages."""
    sizes = [0, 1, 100, 2048, 4000, LIMIT, LIMIT + 1, PAGE, PAGE + 1, 2 * PAGE, 9000]
    live = []
    for key in range(n):
        kind = rng.choice(["put", "append", "drop"], p=[0.4, 0.4, 0.2])
        size = max(0, int(rng.choice(sizes) + rng.integers(-3, 4)))
        if kind == "put" or not live:
            live.append(key)
            yield "put", key, rng.bytes(size)
        elif kind == "append":
            more = int(rng.choice([0, 1, 50, 700, size]))
            yield "append", live[rng.integers(len(live))], rng.bytes(more)
        else:
            yield "drop", live.pop(rng.integers(len(live))), None


def drive(store, steps):
    """Drive a store; after each step it holds what a dictionary holds."""
    model = {}
    for i, (verb, key, data) in enumerate(steps):
        if verb == "drop":
            store.drop(key)
            del model[key]
        else:
            getattr(store, verb)(key, data)
            model[key] = model.get(key, b"") + data
            assert store.get(key) == model[key]
        if i % 50 == 0:
            store.heap.check()
            assert all(store.get(key) == data for key, data in model.items())
    assert {key: store.get(key) for key in store.records} == model
    return model


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_keeps_what_the_one_before_keeps(page, arena, stage, seed):
    before = arena.n_free_pages
    store = page[stage](arena)
    assert store.heap.interface == stage.removesuffix("Store").lower()
    held = drive(store, history(np.random.default_rng(seed)))
    assert len(held) > 20
    for key in held:
        store.drop(key)
    store.heap.check()
    stats = store.heap.stats()
    assert (stats.live_blocks, stats.run_pages) == (0, 0)
    store.heap.destroy()
    assert arena.n_free_pages == before


@pytest.mark.parametrize("interface", ["legacy", "subpage", "merged"])
def test_the_old_program_runs_unchanged_where_xmalloc_serves_any_size(
    page, arena, interface, seed
):
    drive(page["LegacyStore"](arena, interface), history(np.random.default_rng(seed)))


@pytest.mark.parametrize("interface", ["array", "strict"])
def test_the_old_program_sees_where_it_crosses_the_limit(page, arena, interface):
    store = page["LegacyStore"](arena, interface)
    store.put("a", bytes(LIMIT))
    for grow in (
        lambda: store.put("b", bytes(LIMIT + 1)),
        lambda: store.append("a", b"x"),
    ):
        with pytest.raises(
            xmem.SizeLimitError, match="take whole pages from page_alloc"
        ):
            grow()
    assert store.get("a") == bytes(LIMIT)
    assert list(store.records) == ["a"]
    store.heap.check()


@pytest.mark.parametrize(
    ("stage", "size", "words"),
    [
        ("SubpageStore", 100, "free it with xfree_subpage"),
        ("StrictStore", 2 * PAGE, "free them with page_free"),
    ],
)
def test_a_free_that_was_forgotten_is_named(page, arena, stage, size, words):
    """A stage that frees as the stage before did."""

    class Forgetful(page[stage]):
        give = page["LegacyStore"].give

    store = Forgetful(arena)
    store.put("a", b"kept" * (size // 4))
    with pytest.raises(xmem.MismatchedFree, match=words):
        store.give(*store.records["a"])
    assert store.get("a") == b"kept" * (size // 4)
    store.heap.check()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_loses_bytes_is_seen(page, arena, stage, seed):
    """The drive itself: a store that keeps a byte too few when it resizes."""

    class Leaky(page[stage]):
        def resize(self, offset, old, new):
            moved = super().resize(offset, old, new)
            if old:
                self.heap.view(moved)[old - 1] ^= 1
            return moved

    with pytest.raises(AssertionError):
        drive(Leaky(arena), history(np.random.default_rng(seed)))


def test_the_pages_of_each_stage_are_as_the_page_says(text, page):
    (table,) = tables(section(text, "What each stage gains"))
    assert {quoted(row[0])[0]: int(row[1]) for row in table[1:]} == page["pages"]
    assert list(page["pages"]) == [
        stage.removesuffix("Store").lower() for stage in STAGES
    ]


def test_the_message_is_as_the_page_says(text, page, arena):
    with pytest.raises(xmem.SizeLimitError) as caught:
        page["LegacyStore"](arena, "strict").put("large", bytes(LIMIT + 1))
    assert str(caught.value) in re.sub(r"\s+", " ", text)


# The tables

#: How each routine is called for `n` bytes.
CALLS = {
    "xmalloc": lambda heap, n: heap.xmalloc(n),
    "xzalloc": lambda heap, n: heap.xzalloc(n),
    "xmalloc_bytes": lambda heap, n: heap.xmalloc_bytes(n),
    "xmemdup": lambda heap, n: heap.xmemdup(bytes(n)),
    "block": lambda heap, n: heap.block(n).detach(),
    "xrealloc": lambda heap, n: heap.xrealloc(heap.xmalloc(1), n),
    "xmalloc_array": lambda heap, n: heap.xmalloc_array(n, 1),
    "xzalloc_array": lambda heap, n: heap.xzalloc_array(1, n),
    "xmalloc_flex_struct": lambda heap, n: heap.xmalloc_flex_struct(n - 8, 1, 8),
    "xrealloc_array": lambda heap, n: heap.xrealloc_array(heap.xmalloc(1), n, 1),
    "xmalloc_subpage": lambda heap, n: heap.xmalloc_subpage(n),
    "page_alloc": lambda heap, n: heap.page_alloc((-(-n // PAGE) - 1).bit_length()),
    "page_alloc_exact": lambda heap, n: heap.page_alloc_exact(-(-n // PAGE)),
}


def outcome(heap, routine):
    """In the words of the page: what a routine serves."""
    try:
        offset = CALLS[routine](heap, LIMIT)
    except xmem.NotInInterface:
        return "absent"
    assert heap.usable_size(offset) >= LIMIT
    for n in (LIMIT + 1, 3 * PAGE):
        try:
            assert heap.usable_size(CALLS[routine](heap, n)) >= n
        except xmem.SizeLimitError:
            continue
        return "any size"
    return "to the limit"


def test_every_routine_serves_what_the_table_says(text, arena):
    (table, _) = tables(section(text, "Every routine in every interface"))
    interfaces = [quoted(cell)[0] for cell in table[0][1:]]
    assert interfaces == list(INTERFACES)
    routines = [name for row in table[1:] for name in quoted(row[0])]
    assert sorted(routines) == sorted(CALLS)
    for row in table[1:]:
        for interface, cell in zip(interfaces, row[1:], strict=True):
            for routine in quoted(row[0]):
                heap = xmem.Heap(arena, interface)
                assert outcome(heap, routine) == cell, (routine, interface)
                heap.check()
                heap.destroy(force=True)


@pytest.mark.parametrize("size", [100, 3 * PAGE])
def test_every_free_takes_what_the_table_says(text, arena, size):
    (_, table) = tables(section(text, "Every routine in every interface"))
    interfaces = [quoted(cell)[0] for cell in table[0][1:]]
    assert interfaces == list(INTERFACES)
    for row in table[1:]:
        routine = quoted(row[0])[0]
        for interface, cell in zip(interfaces, row[1:], strict=True):
            heap = xmem.Heap(arena, interface)
            taken = set()
            for free in ("xfree", "xfree_subpage", "page_free"):
                try:
                    offset = CALLS[routine](heap, size)
                except (xmem.NotInInterface, xmem.SizeLimitError):
                    assert not cell or size > LIMIT
                    continue
                try:
                    getattr(heap, free)(offset)
                except (xmem.MismatchedFree, xmem.NotInInterface):
                    continue
                taken.add(free)
            assert not taken or taken == set(quoted(cell)), (routine, interface)
            assert taken or size > LIMIT or not cell, (routine, interface)
            heap.check()
            heap.destroy(force=True)


def test_costs_are_as_the_page_says(text):
    (table,) = tables(section(text, "What each costs in memory"))
    curves = {
        curve.name: curve
        for interface in INTERFACES
        for curve in measure_waste(interface, page_size=PAGE)
    }
    columns = [
        ["strict", "array", "merged"],
        ["subpage: xmalloc_subpage"],
        ["legacy", "subpage: xmalloc"],
    ]
    assert sorted(name for names in columns for name in names) == sorted(curves)
    for row in table[1:]:
        size = int(re.match(r"\d+", row[0])[0])
        for names, cell in zip(columns, row[1:], strict=True):
            for name in names:
                pages, per_page = curves[name].at(size)
                shown = f"{pages}/{per_page}" if per_page > 1 else str(pages)
                assert cell.strip("*") == (shown if pages else "refused"), (size, name)
    pages = curves["legacy"].points["pages"]
    assert np.flatnonzero(pages > 1)[0] + 1 == 4033
    assert "two from 4033 bytes on" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(("grow_pages", "statement"), [(16, "31 blocks of 2048 bytes")])
def test_larger_regions_remedy_half_page_blocks_as_the_page_says(
    text, arena, grow_pages, statement
):
    assert statement in re.sub(r"\s+", " ", text)
    heap = xmem.Heap(arena, grow_pages=grow_pages)
    for _ in range(31):
        heap.xmalloc(2048)
    assert heap.stats().n_pages == 16
    heap.xmalloc(2048)
    assert heap.stats().n_pages == 32
    single = xmem.Heap(arena)
    for _ in range(16):
        single.xmalloc(2048)
    assert single.stats().n_pages == 16


def test_the_limit_is_as_the_page_says(text, arena):
    assert "4096 \N{MINUS SIGN} 24 = 4072" in text
    for interface in ("strict", "array", "subpage", "merged"):
        heap = xmem.Heap(arena, interface)
        assert (heap.PAGE_SIZE, heap.DELTA, heap.XMALLOC_MAX) == (4096, 24, LIMIT)
        assert heap.xmalloc_max(1024) < LIMIT


# The commands


def commands(text):
    """Commands of the page that draw or print something."""
    return re.findall(r"^    (xmem waste .*)$", text, re.M)


def test_the_picture_is_there_and_its_command_draws_one(text, tmp_path):
    (line,) = commands(text)
    picture = DOCS / "waste.png"
    assert "](waste.png)" in text
    assert "docs/waste.png" in line
    arguments = shlex.split(line)[1:]
    arguments[arguments.index("docs/waste.png")] = str(tmp_path / "waste.png")
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    for path in (picture, tmp_path / "waste.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert path.stat().st_size < 150_000


def test_the_interfaces_can_be_replayed_as_the_page_says(text, tmp_path):
    (line,) = re.findall(r"`(xmem replay [^`]*)`", text)
    ops = np.zeros(3, dtype=xmem.measure.replay.TRACE_DTYPE)
    ops["id"], ops["size"] = [0, 1, 2], [100, 4096, 9000]
    np.savez(tmp_path / "trace.npz", ops=ops)
    arguments = [
        str(tmp_path / "trace.npz") if word == "trace.npz" else word
        for word in shlex.split(line)[1:]
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "strict" in result.stdout
    assert "legacy" in result.stdout
