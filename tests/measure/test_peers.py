# SPDX-License-Identifier: BSD-3-Clause
"""Other allocators: loaded, measured, refused."""

import ctypes.util
from pathlib import Path

import numpy as np
import pytest
from support.peer import WHOLE, build

import xmem
from xmem.measure.peers import Peer, measure, play_touched, serves
from xmem.measure.replay import TRACE_DTYPE, load
from xmem.measure.versus import PRECISION, least_arena

ROOT = Path(__file__).resolve().parents[2]
REDIS = Path(xmem.__file__).parent / "data" / "redis.npz"


def trace(*rows):
    return np.array([(op, align, 0, i, n) for op, align, i, n in rows], TRACE_DTYPE)


OPS = load(REDIS)[:4000]
PEERS = [
    Peer.null(),
    Peer.system(),
    Peer.engine("tlsf"),
    Peer.engine("tlsf", checked=True, name="proved"),
    Peer.engine("firstfit"),
]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_runs_a_trace(peer):
    seen = []
    found = measure(peer, OPS, repeats=2, progress=lambda *both: seen.append(both))
    assert (found.failed, found.skipped) == (0, 0)
    assert found.engine == found.contender == peer.name
    assert len(found.cycles) == len(OPS)
    assert found.was_run.all()
    assert found.ns_per_op > 0
    assert found.summary("xmalloc")["worst"] >= found.summary("xmalloc")["p50"]
    assert found.record("redis")["trace"] == "redis"
    assert found.pages_per_live_byte is None
    assert seen[-1] == (5, 5)
    assert repr(peer) == f"<xmem.measure.peers.Peer {peer.name}>"


def test_a_shared_object_joins_by_its_own_functions(tmp_path):
    peer = Peer.load(build(tmp_path, WHOLE))
    assert (peer.name, peer.needs_arena) == ("bump", True)
    found = measure(peer, OPS, repeats=1)
    assert found.failed == 0
    # It has no memalign, and its realloc is made of its other functions.
    odd = trace(
        (4, 8, 0, 10), (0, 0, 1, 10), (2, 0, 1, 5000), (2, 0, 0, 9), (1, 0, 0, 0)
    )
    found = measure(peer, odd, repeats=1)
    assert (found.failed, found.skipped) == (2, 2)
    with pytest.raises(xmem.PeerError, match="could not make a heap"):
        measure(peer, OPS, repeats=1, arena_bytes=1 << 16)


def test_the_rig_by_itself_gets_an_arena_as_engines_do():
    assert [peer.needs_arena for peer in PEERS] == [True, False, True, True, True]


def test_the_least_arena_of_a_peer(tmp_path):
    ops = trace((0, 0, 0, 60_000), (0, 0, 1, 60_000))
    peer = Peer.load(build(tmp_path, WHOLE))
    assert serves(peer, ops, 1 << 18)
    assert not serves(peer, ops, 1 << 16)
    assert not serves(peer, ops, 120_000)
    assert serves(Peer.engine(), ops, 1 << 18)
    assert not serves(Peer.engine(), ops, 1 << 16)
    with pytest.raises(xmem.BadArgument, match="from the system"):
        serves(Peer.system(), ops, 1 << 20)
    assert play_touched(Peer.system(), ops) == 0
    assert play_touched(Peer.engine(), OPS) == 0


def test_the_least_arena_of_a_small_trace_is_small():
    """It is found to the precision that is promised, from four pages on."""
    ops = trace((0, 0, 0, 8192))
    least = least_arena(Peer.engine(), ops)
    assert serves(Peer.engine(), ops, least)
    assert not serves(Peer.engine(), ops, int(least * (1 - PRECISION)))


def test_what_is_no_peer_is_refused(tmp_path):
    with pytest.raises(xmem.PeerError, match="cannot load"):
        Peer.load(tmp_path / "missing.so")
    with pytest.raises(xmem.PeerError, match="no object PEER"):
        Peer.load(build(tmp_path, ""))
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    with pytest.raises(xmem.PeerError, match="lacks one of"):
        Peer.load(build(lacking, WHOLE.replace("take,", "NULL,")))
    with pytest.raises(xmem.PeerError, match="cannot load"):
        Peer.library(tmp_path / "missing.so")
    with pytest.raises(xmem.BadArgumentType, match="made by"):
        Peer()
    with pytest.raises(xmem.BadArgumentType, match="Peer"):
        measure("glibc", OPS)
    with pytest.raises(xmem.BadArgument, match="repeats"):
        measure(Peer.null(), OPS, repeats=0)
    with pytest.raises(xmem.BadArgument, match="repeats"):
        measure(Peer.null(), OPS, repeats=10**7)
    with pytest.raises(xmem.BadArgumentType, match="progress"):
        measure(Peer.null(), OPS, progress=3)
    with pytest.raises(xmem.BadArgumentType):
        measure(Peer.null(), [1, 2])
    with pytest.raises(TypeError, match="nonsense"):
        measure(Peer.engine(nonsense=5), OPS)


def test_a_library_is_called_by_its_own_malloc():
    name = ctypes.util.find_library("c")
    peer = Peer.library(name, "libc")
    assert (peer.name, peer.needs_arena) == ("libc", False)
    assert measure(peer, OPS, repeats=1).failed == 0


def test_an_empty_trace_is_measured():
    found = measure(Peer.null(), OPS[:0], repeats=1)
    assert (found.n_ops, found.ns_per_op) == (0, 0.0)
