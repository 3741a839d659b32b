# SPDX-License-Identifier: BSD-3-Clause
"""A short form of each proof by brute force; ``make proofs`` runs them whole.

And tests that each proof can fail.
"""

import math

import numpy as np
import pytest
import support.damage as fmt
from support.damage import Words

import xmem
from proofs import (
    Refuted,
    bits,
    bounds,
    exhaustive,
    faults,
    fuzz,
    heaps,
    integers,
    kills,
    lock,
    monotony,
    objects,
    soak_kill,
    stores,
    turmoil,
    undo,
)
from proofs.headers import Snapshot
from xmem import Arena, Pool
from xmem.measure import insn
from xmem.measure.bounds import BOUNDS, Bound
from xmem.measure.trace import load

pytestmark = [pytest.mark.damages, pytest.mark.proofs]
steps = pytest.mark.skipif(
    not insn.is_available(), reason="the system lets nobody trace a child"
)


def test_exhaustive():
    n_states, n_refused = exhaustive.prove(4)
    assert n_states > 20_000
    assert n_refused > 40


def test_integers_of_one_pool_and_one_heap():
    assert integers.prove_pool({"engine": "tlsf", "hardened": True}) > 500_000
    assert integers.prove_heap("subpage", False) > 400_000


def test_bits():
    assert bits.prove().total() > 10_000


@pytest.mark.no_asan
def test_faults():
    n_failed, n_refused = faults.prove_pages(400)
    assert n_failed > 20
    assert n_refused > 20
    assert faults.prove_calls() > 30


@pytest.mark.parametrize("which", range(3))
def test_monotony_of_a_churn(seed, which):
    assert 1 < monotony.prove_churn(seed + which) < 1.2


@pytest.mark.parametrize("quick", [False, True])
def test_monotony_of_a_trace(quick):
    redis = load(next(monotony.DATA.glob("redis.npz")))
    assert 1 < monotony.prove_trace(redis, quick=quick) < 1.5


def test_monotony_sees_an_arena_that_is_too_large():
    with pytest.raises(Refuted):
        monotony.prove_sizes(1 << 20, lambda n: n != (1 << 20) + (1 << 18))
    with pytest.raises(Refuted):
        monotony.prove_sizes(1 << 20, lambda n: 1 << 20 <= n != (1 << 20) + 40960)


def test_turmoil(seed):
    seen = turmoil.prove(100_000, seed)
    assert sum(seen.n_done) == 100_000


def test_objects(seed):
    seen = objects.prove(4, seed)
    assert seen["rounds"] >= len(objects.KINDS)
    assert all(seen[deed] for deed in ("make", "end", "view", "resize", "misuse"))


def test_objects_notices_what_is_lost_or_overwritten(monkeypatch):
    bytes_of = objects.bytes_of

    def careless(thing):
        memory = bytes_of(thing)
        return memory[:0] if len(memory) == 200 else memory

    monkeypatch.setattr(objects, "bytes_of", careless)
    make = objects.Worker.make

    def overwrites(self):
        make(self)
        memory = bytes_of(self.kept[-1][0])
        if len(memory) > 200:
            memory[-1] ^= 1

    monkeypatch.setattr(objects.Worker, "make", overwrites)
    with pytest.raises(Refuted, match=r"does not hold|lost its contents"):
        objects.prove(4, 1)


def test_objects_notices_a_leak(monkeypatch):
    end = objects.Round.end

    def forgets(self):
        self.allocator.xmalloc(10)
        end(self)

    monkeypatch.setattr(objects.Round, "end", forgets)
    with pytest.raises(Refuted, match="were lost"):
        objects.prove(4, 1)


@pytest.mark.parametrize("model", lock.SHORT, ids=str)
def test_lock(model):
    assert lock.explore(model) > 10_000


@pytest.mark.parametrize("trap", lock.TRAPS)
def test_lock_sees_the_trap(trap):
    with pytest.raises(Refuted):
        lock.explore(lock.TRAPS[trap])


@steps
def test_undo(seed, shared_module):
    n_moments, n_undone, most, paths = undo.prove(7, seed, shared_module)
    assert n_moments > 10_000
    assert n_undone > 1_000
    assert most < shared_module.N_ENTRIES // 4
    assert paths.total() > 5 * len(undo.KINDS)
    assert len(paths) > 15


@pytest.mark.no_asan
@pytest.mark.parametrize("quick", [False, True])
def test_soak_kill(seed, shared_module, quick):
    soak = soak_kill.prove(120, seed, shared_module, {"quick": quick})
    assert soak.n_kills >= 120


@steps
@pytest.mark.release
def test_bounds(seed):
    """A part of the search exceeds no bound; the heaps known to come close do so."""
    search = bounds.Search(seed)
    search.recall((20,), math.inf)
    for _ in range(20):
        search.climb()
    bounds.refute(search)
    best = search.best()
    for verb in bounds.VERBS:
        assert max(f.share for (v, _), f in best.items() if v == verb) > 0.8


@steps
def test_bounds_sees_a_call_that_exceeds_its_bound(monkeypatch):
    monkeypatch.setitem(BOUNDS, ("xfree", "plain"), Bound(40, 0))
    search = bounds.Search(1)
    for case in heaps.directed(8, 3, {}):
        search.visit(case, ("xfree",))
    with pytest.raises(Refuted, match="its bound is 40"):
        bounds.refute(search)


@steps
def test_stores(seed):
    n_instructions, paths = stores.prove(8, seed)
    assert n_instructions > 1000
    assert paths.total() == 8 * len(stores.KINDS)


@pytest.mark.no_asan
def test_kills(seed):
    found = kills.prove(3, seed)
    assert found.total() == 3 * len(kills.KINDS)


@pytest.mark.no_asan
def test_kills_notices_a_block_that_is_lost(monkeypatch):
    """A worker that writes down what it never allocated."""
    free = kills.Worker.free

    def forgets(self, slot):
        offset = int(self.journal.slots[slot]["offset"])
        free(self, slot)
        self.journal.slots[slot] = (offset, 0, 0)
        self.many = lambda: None
        self.allocate = self.resize = self.free = lambda slot: None

    monkeypatch.setattr(kills.Worker, "free", forgets)
    with pytest.raises(Refuted, match="was lost"):
        kills.prove(20, 1, ["joined"])


@steps
def test_stores_sees_a_file_that_cannot_be_repaired(tmp_path):
    scene = stores.Scene(tmp_path / "arena", {"engine": "tlsf"}, 1)
    offset = scene.pool.xmalloc(100)
    scene.live[offset] = scene.fill(scene.pool.view(offset))
    scene.look(None)
    words = Words(scene.arena)
    words.flip_start(offset)
    with pytest.raises(Refuted, match="start bit"):
        scene.look(None)
    scene.seen = Snapshot(scene.arena).bytes
    with pytest.raises(Refuted, match="the repair lost"):
        scene.recover(None)
    words.repair()
    scene.look(None)


@pytest.mark.parametrize("seed_bytes", range(20))
def test_fuzzed_inputs_without_a_fuzzer(seed_bytes, tmp_path):
    rng = np.random.default_rng(seed_bytes)
    replay = fuzz.FuzzReplay()
    opened = fuzz.FuzzOpen(tmp_path)
    for _ in range(30):
        replay(rng.bytes(int(rng.integers(1, 900))))
        opened(rng.bytes(int(rng.integers(1, 60))))


# That they can fail ------------------------------------------------------------


@pytest.fixture
def arena():
    with Arena.anonymous(40 << 12, page_size=4096) as made:
        yield made


@pytest.mark.parametrize(
    "spoil",
    [
        lambda words, block: words.flip(block, 1 << 25),  # its size
        lambda words, block: words.flip(block, 1 << 6),  # its tag
        lambda words, block: words.set(block, 0),
        lambda words, block: words.set_half(words.frame(block >> 12), 99),
    ],
)
def test_the_walk_by_headers_sees_damage(arena, spoil):
    pool = Pool(arena)
    offset = pool.xmalloc(100)
    assert len([b for b in Snapshot(arena).pool(pool.id, "tlsf") if b.used]) == 1
    spoil(Words(arena), offset - 8)
    with pytest.raises(Refuted):
        Snapshot(arena).pool(pool.id, "tlsf")


@steps
def test_stores_sees_a_block_that_is_not_where_it_was(tmp_path):
    scene = stores.Scene(tmp_path / "arena", {"engine": "tlsf"}, 1)
    offset = scene.pool.xmalloc(100)
    scene.live[offset] = scene.fill(scene.pool.view(offset))
    scene.look(None)
    scene.pool.view(offset)[3] ^= 1
    with pytest.raises(Refuted, match="contents"):
        scene.look(None)
    scene.look(offset)
    scene.pool.view(offset)[3] ^= 1
    scene.pool.xfree(offset)
    with pytest.raises(Refuted):
        scene.look(None)


def test_exhaustive_sees_a_pool_that_loses_a_block(monkeypatch):
    tree = exhaustive.Tree({"engine": "tlsf"})
    monkeypatch.setattr(tree, "make", lambda verb, offset, n, align, live: live)
    tree.pool.xmalloc(10)
    with pytest.raises(Refuted, match="live are"):
        tree.visit({}, 1)


def test_integers_sees_a_function_that_takes_too_much(arena):
    pool = Pool(arena)
    offset = pool.xmalloc(100)
    assert integers.compare(arena, "usable_size", pool.usable_size, {offset})
    with pytest.raises(Refuted):
        integers.compare(arena, "lenient", lambda i: pool.usable_size(i | 1), {offset})
    with pytest.raises(Refuted):
        integers.compare(arena, "usable_size", pool.usable_size, {offset + 16})


def test_turmoil_sees_a_block_that_was_overwritten():
    scene = turmoil.Turmoil(1)
    offset, size, number = scene.allocate(100)
    scene.pool.view(offset)[0] ^= 1
    scene.free(offset, size, number)
    assert scene.wrong


def test_a_fuzzed_damage_report_that_names_no_invariant(arena):
    """Found by proofs.fuzz: such a report in a control block was believed."""
    pool = Pool(arena, name="it", hardened=True)
    words = Words(arena)
    words.set_half(words.control(pool) + fmt.DAMAGE, 0x0FFFFFFF)
    with pytest.raises(xmem.HeapCorruption, match="C6"):
        pool.check()
