# SPDX-License-Identifier: BSD-3-Clause
"""Replay against the five interfaces: what a ported program would have done.

The reference runs the same trace through the methods of `Heap`, which refuse
every routine that does not match: so it also proves that the trace, as replay
runs it at C level, frees by the right routines.
"""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import xmem
from xmem.cli.group import xmem as command
from xmem.heap import INTERFACES
from xmem.measure.replay import replay
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
    peak_live,
)

PAGE = 4096
ARENA_BYTES = 16 << 20


def random_trace(rng, n_ops=3000):
    """Births, resizes and frees around the limits, pages and multiples of them."""
    ops = np.zeros(n_ops, dtype=TRACE_DTYPE)
    live = []
    born = 0
    for op in ops:
        kind = rng.choice(5, p=[0.3, 0.35, 0.25, 0.05, 0.05])
        if not live and kind in (OP_FREE, OP_REALLOC):
            kind = OP_MALLOC
        if kind in (OP_MALLOC, OP_CALLOC, OP_MEMALIGN):
            op["id"] = born
            live.append(born)
            born += 1
        else:
            which = rng.integers(len(live))
            op["id"] = live.pop(which) if kind == OP_FREE else live[which]
        op["op"] = kind
        if kind == OP_MEMALIGN:
            op["align_log2"] = rng.integers(4, 15)
        if kind != OP_FREE:
            near = rng.choice([0, 1, PAGE // 2, PAGE - 24, PAGE, 2 * PAGE, 4 * PAGE])
            if rng.random() < 0.5:
                op["size"] = max(0, near + rng.integers(-40, 41))
            else:
                op["size"] = rng.integers(1, 3 * PAGE)
    return ops


class Program:
    """A program on one interface, in the heap's checked methods."""

    def __init__(self, arena, interface):
        self.heap = xmem.Heap(arena, interface)
        self.pages = 0
        self.objects = {}

    def held(self):
        return sum(pool.total_size for pool in self.heap.pools)

    def routine(self, n, align):
        small = n <= self.heap.xmalloc_max(align)
        if self.heap.interface == "strict" and not small:
            return "page_alloc"
        if self.heap.interface == "subpage" and small:
            return "xmalloc_subpage"
        return "xmalloc"

    def take(self, routine, n, align):
        if routine == "page_alloc":
            n_pages = self.run_pages(n, align)
            if align > PAGE:
                offset = self.heap.page_alloc((n_pages - 1).bit_length())
            else:
                offset = self.heap.page_alloc_exact(n_pages)
        elif routine == "xmalloc_subpage":
            offset = self.heap.xmalloc_subpage(n, align=align)
        elif self.heap.interface == "array":
            offset = self.heap.xmalloc_array(n, 1, align=align)
        else:
            offset = self.heap.xmalloc(n, align=align)
        self.pages = max(self.pages, self.held())
        return offset

    def give(self, routine, offset):
        frees = {"page_alloc": "page_free", "xmalloc_subpage": "xfree_subpage"}
        getattr(self.heap, frees.get(routine, "xfree"))(offset)

    @staticmethod
    def run_pages(n, align):
        n_pages = max(1, -(-n // PAGE), align // PAGE)
        return 1 << (n_pages - 1).bit_length() if align > PAGE else n_pages

    def resize(self, routine, offset, old, n, align):
        new = self.routine(n, align)
        if routine == new == "xmalloc":
            return new, self.xrealloc(offset, n, align)
        if routine == new == "page_alloc" and (
            self.run_pages(n, align) == self.run_pages(old, align)
        ):
            return new, offset
        moved = self.take(new, n, align)
        self.heap.view(moved)[: min(old, n)] = bytes(
            self.heap.view(offset, min(old, n))
        )
        self.give(routine, offset)
        return new, moved

    def xrealloc(self, offset, n, align):
        if self.heap.interface == "array":
            return self.heap.xrealloc_array(offset, n, 1, align=align)
        return self.heap.xrealloc(offset, n, align=align)

    def run(self, ops):
        for op, log2, _, ident, size in ops.tolist():
            if op == OP_FREE:
                routine, offset, _, _ = self.objects.pop(ident)
                self.give(routine, offset)
            elif op == OP_REALLOC:
                routine, offset, old, align = self.objects[ident]
                routine, offset = self.resize(routine, offset, old, size, align)
                assert offset % align == 0
                self.objects[ident] = (routine, offset, size, align)
            else:
                align = 1 << log2 if op == OP_MEMALIGN else 16
                routine = self.routine(size, align)
                offset = self.take(routine, size, align)
                self.objects[ident] = (routine, offset, size, align)


@pytest.mark.parametrize("interface", INTERFACES)
def test_replay_does_what_the_ported_program_does(interface, seed):
    ops = random_trace(np.random.default_rng(seed))
    result = replay(
        ops,
        interface=interface,
        repeats=1,
        verify=True,
        page_size=PAGE,
        arena_bytes=ARENA_BYTES,
    )
    assert result.failed == 0
    assert result.content_errors == 0
    assert result.peak_live_bytes == peak_live(ops)
    with xmem.Arena.anonymous(ARENA_BYTES, page_size=PAGE) as arena:
        program = Program(arena, interface)
        program.run(ops)
        assert result.stats == program.heap.stats()
        # What a call holds only meanwhile, the program does not see.
        peaks = sum(pool.peak_pages for pool in result.stats.pools) * PAGE
        assert program.pages <= result.peak_page_bytes <= peaks
        assert len(result.stats.pools) == 2 or result.peak_page_bytes == peaks


def test_names_what_it_ran_against(seed):
    ops = random_trace(np.random.default_rng(seed), 50)
    on_heap = replay(ops, interface="subpage", repeats=1)
    assert (on_heap.engine, on_heap.interface) == ("firstfit", "subpage")
    assert on_heap.contender == "subpage"
    assert on_heap.record("t")["interface"] == "subpage"
    on_pool = replay(ops, repeats=1)
    assert (on_pool.engine, on_pool.interface) == ("tlsf", None)
    assert on_pool.contender == "tlsf"
    assert "interface" not in on_pool.record("t")


def test_a_heap_grows_by_one_page_and_a_pool_by_sixteen():
    ops = np.zeros(1, dtype=TRACE_DTYPE)
    ops["size"] = 100
    assert replay(ops, interface="merged", repeats=1).stats.n_pages == 1
    assert replay(ops, repeats=1).stats.n_pages == 16
    assert replay(ops, interface="merged", grow_pages=4, repeats=1).stats.n_pages == 4


@pytest.mark.parametrize("interface", INTERFACES)
def test_counts_what_an_interface_could_not_serve(interface):
    ops = np.zeros(3, dtype=TRACE_DTYPE)
    ops["id"] = [0, 1, 1]
    ops["op"] = [OP_MALLOC, OP_MALLOC, OP_REALLOC]
    ops["size"] = [64 << 20, 10, 64 << 20]
    result = replay(
        ops, interface=interface, repeats=1, verify=True, arena_bytes=ARENA_BYTES
    )
    assert (result.failed, result.content_errors) == (2, 0)
    assert result.stats.live_blocks == 1


def test_the_limit_of_a_resize_is_that_of_the_alignment_at_birth():
    with xmem.Arena.anonymous(ARENA_BYTES, page_size=PAGE) as arena:
        heap = xmem.Heap(arena, "strict")
        offset = heap.xmalloc(100, align=2048)
        least, most = heap.xmalloc_max(2048), heap.XMALLOC_MAX
        assert least < most
        for n in (least + 1, most, most + 1):
            with pytest.raises(xmem.SizeLimitError, match="at alignment 2048"):
                heap.xrealloc(offset, n)
        assert heap.xrealloc(offset, least) % 2048 == 0


def peak_pages(*lines):
    """Most pages of the subpage interface over (op, id, size) lines."""
    ops = np.zeros(len(lines), dtype=TRACE_DTYPE)
    for field, values in zip(
        ("op", "id", "size"), zip(*lines, strict=True), strict=True
    ):
        ops[field] = values
    result = replay(ops, interface="subpage", repeats=1, page_size=PAGE)
    assert result.failed == 0
    return result.peak_page_bytes // PAGE, [p.peak_pages for p in result.stats.pools]


def test_peaks_of_two_pools_count_together_only_when_they_are():
    large, small = (OP_MALLOC, 0, 2 * PAGE), (OP_MALLOC, 1, 100)
    assert peak_pages(large, small) == (5, [4, 1])
    assert peak_pages(large, (OP_FREE, 0, 0), small) == (4, [4, 1])
    # Both are held while the contents are copied.
    assert peak_pages((OP_MALLOC, 0, 100), (OP_REALLOC, 0, 2 * PAGE)) == (5, [4, 1])
    assert peak_pages(large, (OP_REALLOC, 0, 3 * PAGE)) == (4, [4, 0])
    assert peak_pages(large, (OP_REALLOC, 0, 5 * PAGE)) == (12, [12, 0])


def test_refuses_engine_and_interface_together(seed):
    ops = random_trace(np.random.default_rng(seed), 5)
    with pytest.raises(xmem.BadArgument, match="not both"):
        replay(ops, engine="tlsf", interface="strict")
    with pytest.raises(xmem.BadArgument, match="interface must be one of"):
        replay(ops, interface="tlsf")
    with pytest.raises(xmem.BadArgumentType, match="interface must be str"):
        replay(ops, interface=3)


# The command


@pytest.fixture
def trace(tmp_path, seed):
    path = tmp_path / "mixed.npz"
    np.savez(path, ops=random_trace(np.random.default_rng(seed), 200))
    return path


def run(*arguments):
    result = CliRunner().invoke(command, ["replay", "--repeats", "1", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def second_cells(text):
    """Second cell of each row of the table."""
    lines = text.split("─\n")[1].split("\n\n")[0].splitlines()
    return [line.split()[1] for line in lines if line.strip()]


def test_command_replays_on_interfaces(trace, tmp_path):
    file = tmp_path / "out.json"
    text = run(
        str(trace),
        *["--interface", "strict", "--interface", "legacy", "--interface", "strict"],
        *["--verify", "--json", str(file), "--plot", str(tmp_path / "out.png")],
    )
    assert second_cells(text) == ["strict", "legacy"]
    assert "interface" in text
    assert "engine" not in text
    records = json.loads(file.read_text())
    assert [record["interface"] for record in records] == ["strict", "legacy"]
    assert [record["engine"] for record in records] == ["tlsf", "firstfit"]


def test_command_compares_interfaces_with_engines(trace):
    text = run(str(trace), "--interface", "merged", "--engine", "tlsf")
    assert second_cells(text) == ["tlsf", "merged"]
    assert "engine or" in text


@pytest.mark.parametrize("interface", INTERFACES)
def test_command_draws_every_interface(trace, tmp_path, interface):
    picture = tmp_path / "out.png"
    run(str(trace), "--interface", interface, "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_command_refuses_an_unknown_interface(trace):
    result = CliRunner().invoke(command, ["replay", "--interface", "xen", str(trace)])
    assert result.exit_code == 2
    assert "'xen' is not one of" in result.stderr
