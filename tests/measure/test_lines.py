# SPDX-License-Identifier: BSD-3-Clause
"""The cache lines that calls touch, counted from their instructions."""

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xmem import Arena, BadArgument, InvalidFree, Pool
from xmem.arena import FRAME_CONTROL
from xmem.data import demo_trace_path
from xmem.measure import insn
from xmem.measure.lines import (
    KINDS,
    LINE_BYTES,
    Decoder,
    Lines,
    Places,
    call_lines,
    trace_lines,
)
from xmem.measure.replay import load

TRACE = demo_trace_path()
N_BYTES = 2 << 20

pytestmark = [
    pytest.mark.no_asan,  # the library is loaded in a way that ASan refuses
    pytest.mark.skipif(
        not insn.is_available() or platform.machine() != "x86_64",
        reason="lines are counted where a process may trace its child, on x86-64",
    ),
]


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Arena.anonymous(N_BYTES) as arena:
        yield Pool(arena)


def filled(pool: Pool, size: int = 1000) -> list[int]:
    """Eleven blocks side by side, each with lines of its own."""
    return [pool.xmalloc(size) for _ in range(11)]


def lines_between(*offsets: int) -> int:
    """Distinct lines in which words lie."""
    return len({offset // LINE_BYTES for offset in offsets})


@pytest.mark.release
def test_an_isolated_block_touches_its_ends(pool: Pool) -> None:
    """Header and two links; the header on the right and the tag in front of it."""
    blocks = filled(pool)
    at, right = blocks[4], blocks[5]
    expected = lines_between(at - 8, at, at + 8, right - 8, right - 16)
    assert call_lines(pool, "xfree", at)["blocks"] == expected
    # The block that is first on the list gets a link back.
    pool.xfree(blocks[8])
    assert call_lines(pool, "xfree", at)["blocks"] == expected + 1
    # A free neighbour: its header, its links, and the tag at its end.
    pool.xfree(blocks[5])
    assert call_lines(pool, "xfree", at)["blocks"] > expected + 1


@pytest.mark.release
def test_a_quick_list_touches_the_block_alone() -> None:
    with Arena.anonymous(N_BYTES) as arena:
        pool = Pool(arena, quick=True)
        at = filled(pool)[4]
        expected = lines_between(at - 8, at)
        assert call_lines(pool, "xfree", at)["blocks"] == expected
        pool.xfree(at)
        assert call_lines(pool, "xmalloc", 1000, 16)["blocks"] == expected


@pytest.mark.parametrize("quick", [False, True])
def test_what_a_call_changes_it_touches(tmp_path: Path, quick: bool) -> None:
    """The bytes that differ after a call in a file, at the same offsets."""
    with (
        Arena.anonymous(N_BYTES) as arena,
        Arena.create(tmp_path / "arena", N_BYTES) as stored,
    ):
        pools = [Pool(arena, quick=quick), Pool(stored, quick=quick)]
        rows = [filled(pool) for pool in pools]
        for pool, blocks in zip(pools, rows, strict=True):
            for i in (1, 2, 5, 8):
                pool.xfree(blocks[i])
        for verb, args in (
            ("xfree", (rows[0][6],)),
            ("xfree", (rows[0][0],)),
            ("xmalloc", (1000, 16)),
            ("xmalloc", (90_000, 16)),
            ("xrealloc", (rows[0][3], 1500, 16)),
        ):
            places = Places(arena)
            found = Decoder().touched(
                insn.states(pools[0], verb, *args), places.start, N_BYTES
            )
            before = stored_bytes(stored)
            for _ in insn.Steps(pools[1], verb, *args):
                pass
            after = stored_bytes(stored)
            changed = np.flatnonzero(
                np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
            )
            assert set((changed // LINE_BYTES).tolist()) <= found
            assert len(changed)
            getattr(pools[0], verb)(*args[:2])
            pools[0].check()


def stored_bytes(arena: Arena) -> bytes:
    """What the file of an arena holds."""
    assert arena.path is not None
    return Path(arena.path).read_bytes()


def test_the_kinds_are_told_apart(pool: Pool) -> None:
    places = Places(pool.arena)
    at = pool.xmalloc(1000)
    page = pool.arena.page_size // LINE_BYTES
    control = next(
        r["page"] for r in pool.arena.frames() if r["state"] == FRAME_CONTROL
    )
    found = [places.kind(line) for line in (0, int(control) * page, at // LINE_BYTES)]
    assert [KINDS[kind] for kind in found] == ["tables", "control", "blocks"]


@pytest.mark.parametrize("quick", [False, True])
def test_the_lines_of_a_trace(quick: bool) -> None:
    ops = load(TRACE)[:600]
    found = trace_lines(ops, quick=quick, every=3)
    counts = insn.count(ops, quick=quick, every=3)
    np.testing.assert_array_equal(found.index, counts.index)
    np.testing.assert_array_equal(found.verb, counts.verb)
    assert found.counts.shape == (len(found.index), len(KINDS))
    assert (found.counts.sum(axis=1) > 0).all()
    # An instruction touches two lines at most.
    assert (found.counts.sum(axis=1) <= 2 * counts.instructions).all()
    means = found.mean("xfree")
    assert set(means) == set(KINDS)
    assert means["blocks"] >= 1
    assert means["tables"] >= 1


def test_a_trace_without_a_verb_has_no_mean() -> None:
    found = trace_lines(load(TRACE)[:0])
    assert isinstance(found, Lines)
    assert found.mean("xmalloc") == {}
    with pytest.raises(BadArgument, match="verb must be one of"):
        found.mean("malloc")


def test_what_the_verb_refuses_is_refused(pool: Pool) -> None:
    at = pool.xmalloc(100)
    with pytest.raises(InvalidFree):
        call_lines(pool, "xfree", at + 16)
    with pytest.raises(BadArgument):
        call_lines(pool, "free", at)
    pool.check()
