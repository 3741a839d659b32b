# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of `xmem replay --plot` and what they are drawn from."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from support.tracing import trace

from xmem.base.errors import BadArgument
from xmem.cli.contenders import Replay, Trace
from xmem.cli.group import xmem
from xmem.cli.plots.live import live_blocks, worst_by_live
from xmem.cli.plots.paths import draw_paths, path_rows
from xmem.data import __file__ as DATA
from xmem.measure.counts import path_name
from xmem.measure.replay import load, replay
from xmem.measure.trace import OP_FREE, OP_MALLOC, OP_REALLOC

REDIS = DATA.replace("__init__.py", "redis.npz")
SIGNATURE = b"\x89PNG"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(
        xmem, ["replay", *map(str, arguments), "--max-ops", "3000", "--repeats", "3"]
    )


def test_three_pictures_and_the_malloc_of_the_system(here):
    result = run(REDIS, "--plot", "latency.png", "--json", "records.json")
    assert result.exit_code == 0, result.output
    for name in ("latency.png", "latency-live.png", "latency-paths.png"):
        assert (here / name).read_bytes().startswith(SIGNATURE)
        assert name in result.stdout
    records = json.loads((here / "records.json").read_text())
    assert [r["engine"] for r in records] == ["tlsf", "firstfit", "system"]
    assert records[2]["failed"] == 0
    assert records[2]["xfree_cycles"]["worst"] > 0
    assert "peak_page_bytes" not in records[2]


def test_without_a_picture_the_system_has_to_be_named(here):
    result = run(REDIS, "--json", "-")
    assert [r["engine"] for r in json.loads(result.stdout)] == ["tlsf", "firstfit"]
    result = run(REDIS, "--engine", "system", "--json", "-", "--hgrm", "hgrm")
    assert [r["engine"] for r in json.loads(result.stdout)] == ["system"]
    assert (here / "hgrm" / "redis.system.xfree.hgrm").is_file()


def test_no_heat_map_without_tlsf(here):
    result = run(REDIS, "--engine", "system", "--plot", "p.svg")
    assert result.exit_code == 0, result.output
    assert (here / "p-live.svg").is_file()
    assert not (here / "p-paths.svg").exists()
    assert "p-paths" not in result.output


@pytest.mark.parametrize("what", ["live", "paths"])
def test_no_second_picture_overwrites_what_is_there(here, what):
    np.savez(here / "x.npz", ops=trace((OP_MALLOC, 0, 100)))
    (here / "x.npz").rename(here / f"p-{what}.png")
    result = run(f"p-{what}.png", "--plot", "p.png")
    assert result.exit_code == 2
    assert "would overwrite" in result.stderr


def test_live_blocks_are_those_before_the_call():
    ops = trace(
        (OP_MALLOC, 0, 9), (OP_MALLOC, 1, 9), (OP_REALLOC, 0, 5), (OP_FREE, 1, 0)
    )
    assert live_blocks(ops["op"]).tolist() == [0, 1, 2, 2]


def test_the_worst_of_each_range_of_live_blocks():
    result = replay(load(REDIS)[:3000], repeats=1)
    blocks, cycles = worst_by_live(result)
    assert (np.diff(blocks) > 0).all()
    assert cycles.max() == max(result.summary("xfree")["worst"], 1)
    nothing = replay(trace((OP_MALLOC, 0, 9)), repeats=1)
    assert len(worst_by_live(nothing)[0]) == 0


def test_paths_are_those_of_the_calls():
    ops = trace(
        *((OP_MALLOC, i, 100) for i in range(5)),
        (OP_FREE, 1, 0),
        (OP_FREE, 3, 0),
        (OP_FREE, 2, 0),
        (OP_REALLOC, 0, 50),
        (OP_MALLOC, 5, 1 << 20),
        (OP_FREE, 5, 0),
    )
    result = replay(ops, repeats=1, paths=True, max_pages=16)
    verbs = {0: 0, 1: 1, 2: 2}
    names = [
        path_name(verbs[int(op)], int(path))
        for op, path in zip(ops["op"], result.paths, strict=True)
    ]
    assert names[0] == "split, grown"
    assert names[1:5] == ["split"] * 4
    assert names[5:9] == ["isolated", "isolated", "both", "in place"]
    assert names[9] == "failed"
    assert replay(ops, repeats=1).paths is None
    with pytest.raises(BadArgument, match="interface"):
        replay(ops, interface="strict", paths=True)


def test_rows_of_the_heat_map_add_up():
    result = replay(load(REDIS)[:3000], repeats=2, paths=True)
    names, shares = path_rows(result, np.logspace(0, 6, 20))
    assert shares.shape == (len(names), 19)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert len(set(names)) == len(names)
    assert any(name.startswith("xfree isolated") for name in names)


def test_nothing_is_drawn_of_no_paths(tmp_path):
    ops = load(REDIS)[:100]
    replays = [Replay(Trace("redis", ops), replay(ops, repeats=1))]
    assert not draw_paths(replays, tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
