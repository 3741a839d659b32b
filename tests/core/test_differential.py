# SPDX-License-Identifier: BSD-3-Clause
"""Both engines run the same program and must agree on everything that a user sees.

The programs are random ones and prefixes of recorded traces: the trace of the
demo, and every ``.npz`` in the folder that ``XMEM_TEST_TRACES`` names. Each
live object holds bytes of its own, which are read back at every resize and
free, and at the end the objects of the two engines are compared.
"""

import os
import random
from pathlib import Path

import numpy as np
import pytest

import xmem
from xmem.data import demo_trace_path
from xmem.measure.replay import load, replay
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
    check_trace,
    peak_live,
)

CONTENDERS = {
    "tlsf": {},
    "tlsf-page": {"grow_pages": 1},
    "tlsf-split": {"grow_pages": 4, "join_regions": False},
    "firstfit": {"engine": "firstfit"},
}
TRACES = [
    Path(demo_trace_path()),
    *sorted(Path(os.environ.get("XMEM_TEST_TRACES", os.devnull)).glob("*.npz")),
]
PREFIX = 60_000


def random_program(source, n_ops):
    """A trace of every kind of call, filling and emptying by turns."""
    ops = np.zeros(n_ops, dtype=TRACE_DTYPE)
    live = []
    n_ids = 0
    for i, op in enumerate(ops):
        fills = i % 2000 < 1200
        if live and source.random() < (0.35 if fills else 0.7):
            k = source.randrange(len(live))
            op["id"] = live[k]
            if source.random() < 0.3:
                op["op"] = OP_REALLOC
                op["size"] = source.randrange(source.choice([64, 1000, 9000]))
            else:
                op["op"] = OP_FREE
                live[k] = live[-1]
                live.pop()
            continue
        op["op"] = source.choice([OP_MALLOC, OP_MALLOC, OP_CALLOC, OP_MEMALIGN])
        if op["op"] == OP_MEMALIGN:
            op["align_log2"] = source.randrange(14)
        op["size"] = source.randrange(source.choice([64, 64, 1000, 5000, 40000]))
        op["id"] = n_ids
        live.append(n_ids)
        n_ids += 1
    return check_trace(ops)


class Contender:
    """A pool on which a program runs, call by call, through the Python API."""

    def __init__(self, arena, source, settings):
        self.pool = xmem.Pool(arena, **settings)
        self.source = source
        self.objects = {}  # id: (offset, size)
        self.expected = {}  # id: contents

    def data(self, name):
        offset, size = self.objects[name]
        return bytes(self.pool.view(offset, size))

    def write(self, name, kept, data):
        """Fill what follows the ``kept`` first bytes."""
        offset, size = self.objects[name]
        self.expected[name] = self.expected.get(name, b"")[:kept] + data
        self.pool.view(offset, size)[kept:] = data
        assert self.data(name) == self.expected[name]

    def step(self, op, align_log2, name, size, data):
        pool = self.pool
        if op == OP_FREE:
            assert self.data(name) == self.expected.pop(name)
            pool.xfree(self.objects.pop(name)[0])
            return
        if op == OP_REALLOC:
            offset, before = self.objects[name]
            kept = min(before, size)
            self.objects[name] = pool.xrealloc(offset, size), size
            assert self.data(name)[:kept] == self.expected[name][:kept]
        elif op == OP_CALLOC:
            kept = 0
            self.objects[name] = pool.xzalloc(size), size
            assert self.data(name) == bytes(size)
        else:
            kept = 0
            align = 1 << align_log2 if op == OP_MEMALIGN else 16
            self.objects[name] = pool.xmalloc(size, align), size
            assert self.objects[name][0] % align == 0
        self.write(name, kept, data[kept:size])

    def finish(self):
        """Read everything back, free it in random order, leave nothing."""
        self.pool.check()
        stats = self.pool.stats()
        assert stats.live_blocks == len(self.objects)
        contents = {name: self.data(name) for name in self.objects}
        assert contents == self.expected
        names = list(self.objects)
        self.source.shuffle(names)
        for name in names:
            self.pool.xfree(self.objects.pop(name)[0])
        self.pool.check()
        stats = self.pool.stats()
        assert stats.live_blocks == stats.used_bytes == stats.run_pages == 0
        self.pool.shrink()
        assert self.pool.total_size == 0
        return contents


def run_all(ops, seed, check_every=500):
    """Run a program on every contender, in step; return what is live at the end."""
    source = random.Random(seed)
    largest = int(ops["size"].max())
    noise = source.randbytes(largest + 4096)
    with xmem.Arena.anonymous(
        4 * len(CONTENDERS) * peak_live(ops) + (16 << 20)
    ) as arena:
        contenders = [
            Contender(arena, source, settings) for settings in CONTENDERS.values()
        ]
        free = arena.n_free_pages
        for i, (op, align_log2, _, name, size) in enumerate(ops.tolist()):
            start = source.randrange(4096)
            data = noise[start : start + size]
            for contender in contenders:
                contender.step(op, align_log2, name, size, data)
            if i % check_every == 0:
                for contender in contenders:
                    contender.pool.check()
        results = [contender.finish() for contender in contenders]
        assert arena.n_free_pages == free
        arena.check()
    for result in results[1:]:
        assert result == results[0]
    return results[0]


@pytest.mark.parametrize("number", range(4))
def test_random_programs_end_alike(number, seed):
    ops = random_program(random.Random(f"{seed} {number}"), 6000)
    live = run_all(ops, seed)
    assert len(live) > 100


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_programs_end_alike(path, seed):
    ops = load(path)[:PREFIX]
    live = run_all(ops, seed, check_every=2000)
    kinds, counts = np.unique(ops["op"], return_counts=True)
    counts = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    births = sum(counts.get(op, 0) for op in (OP_MALLOC, OP_CALLOC, OP_MEMALIGN))
    assert len(live) == births - counts.get(OP_FREE, 0)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_recorded_programs_replay_clean(path, engine, page_size):
    ops = load(path)[:PREFIX]
    result = replay(ops, engine=engine, repeats=1, verify=True, page_size=page_size)
    assert (result.failed, result.content_errors) == (0, 0)
    assert result.peak_live_bytes == peak_live(ops)
    assert result.peak_page_bytes >= result.peak_live_bytes
    assert (
        result.stats.live_blocks
        == result.n_ops
        - 2 * (ops["op"] == OP_FREE).sum()
        - (ops["op"] == OP_REALLOC).sum()
    )


@pytest.mark.parametrize("engine", ["tlsf", "firstfit"])
def test_a_replay_gets_the_blocks_that_the_api_gives(engine, seed):
    """Replay at C level and the same calls from Python end in the same heap."""
    ops = random_program(random.Random(seed), 3000)
    result = replay(ops, engine=engine, repeats=1, arena_bytes=32 << 20)
    assert result.failed == 0
    with xmem.Arena.anonymous(32 << 20) as arena:
        contender = Contender(arena, random.Random(seed), {"engine": engine})
        for op, align_log2, _, name, size in ops.tolist():
            contender.step(op, align_log2, name, size, bytes(size))
        assert contender.pool.stats() == result.stats
