# SPDX-License-Identifier: BSD-3-Clause
"""Undo: whichever instruction is the last, the arena can be led back from it.

A child makes a call on a shared arena instruction by instruction. After each, the
parent copies the arena, undoes what the journal says in the copy, and compares it with
the arena as it was at the last commit. Every word must be the same, but for those that
mean nothing: the bytes of free pages, those inside free and waiting blocks, the start
bits of a pool that is being destroyed, entries of the directory without one, the lock
line, what a slot says of the verb under way, and the journal itself. A commit in the
middle of a call, as between the halves of a block that moves, becomes what is compared
with.

Undoing is cut short after every entry as well, and done again: the result is the same.
"""

import contextlib
import ctypes
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from support.builds import Builds

from xmem import OutOfMemory, Pool
from xmem.arena import FRAME_FREE
from xmem.measure.insn import Steps

from . import Refuted
from .headers import Snapshot
from .shared_pools import PAGE, SOURCE, SharedPool

N_PAGES = 48
KINDS: list[dict[str, Any]] = [
    {},
    {"quick": True},
    {"grow_pages": 1},
    {"grow_pages": 2, "quick": True},
    {"grow_pages": 3},
    {"grow_pages": 2, "join_regions": False},
    {"max_pages": 6, "grow_pages": 2},
    {"heap": "array"},
    {"heap": "merged"},
]
#: Numbers of the interfaces, as in the format.
INTERFACES = {"array": 2, "merged": 5}
SIZES = [0, 1, 24, 25, 40, 200, 600, 1500, 3000, 4000, 4072, 5000, 9000]
ALIGNS = [16, 16, 16, 64, 2048, PAGE]
#: Calls of these are made less often.
RARE = ["run", "room", "pools", "words"]
#: Where the directory is, and the state in an entry: without a pool that alone means
#: anything.
DIRECTORY, ENTRY_BYTES, ENTRY_STATE = 1024, 64, 56
#: Bytes of the lock line, and of what a slot says plainly.
LOCK_BYTES = 64
SLOT_BYTES = 64
#: Words of a slot: what the last verb is and is about, and the verbs begun and done.
ABOUT, BEGUN, DONE = slice(1, 4), 4, 5


class Scene(SharedPool):
    """A shared pool, and what is live in it."""

    def __init__(
        self, folder: Path, kind: dict[str, Any], seed: int, shared: Any
    ) -> None:
        super().__init__(folder / "arena", shared, kind, N_PAGES)
        self.kind = kind
        self.rng = np.random.default_rng(seed)
        self.live: dict[int, bytes] = {}
        self.runs: dict[int, str] = {}  # and the verb that frees each
        self.other: Pool | None = None
        self.dying = 0  # number of a pool that is being destroyed
        interface = kind.get("heap")
        shared.set_interface(INTERFACES.get(interface, 0))
        self.verbs = (
            ("xmalloc", "xfree", "xrealloc")
            if interface is None
            else ("heap xmalloc", "heap xfree", "heap xrealloc")
        )
        self.n_moments = 0
        self.n_undone = 0
        self.most_entries = 0
        self.n_calls: Counter[str] = Counter()

    # What is compared

    def bytes_now(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(Snapshot(self.arena).bytes, dtype=np.uint8)

    def n_entries(self, held: npt.NDArray[np.uint8]) -> int:
        """Entries of the journal."""
        at = self.area + self.at.JOURNAL_AT
        return (int(held[at : at + 8].view(np.uint64)[0]) - self.at.ENTRIES_AT) // 16

    def all_but_end(self) -> npt.NDArray[np.bool_]:
        """All bytes but those of the word that counts the entries."""
        means = np.ones(self.arena.n_bytes, dtype=bool)
        at = self.area + self.at.JOURNAL_AT
        means[at : at + 8] = False
        return means

    def require_same(
        self,
        held: npt.NDArray[np.uint8],
        wanted: npt.NDArray[np.uint8],
        means: npt.NDArray[np.bool_],
    ) -> None:
        """Refute a state that is not the one that was wanted."""
        differs = means & (held != wanted)
        if differs.any():
            raise Refuted(f"{int(np.flatnonzero(differs)[0]):#x} differs")

    def require_told(
        self, undone: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]
    ) -> None:
        """Refute a slot that gives the answer of one verb as another's."""
        at = self.area + self.at.SLOTS_AT + self.shared.my_slot * SLOT_BYTES
        slot, then = (
            held[at : at + SLOT_BYTES].view(np.uint64) for held in (undone, wanted)
        )
        if slot[BEGUN] == slot[DONE] and (slot[ABOUT] != then[ABOUT]).any():
            raise Refuted("the slot tells of a verb that has not begun")

    def mask(self, unwritten: set[int]) -> npt.NDArray[np.bool_]:
        """Bytes that mean something, of the arena as it is.

        ``unwritten`` are live blocks whose contents are not to be compared.
        """
        now = Snapshot(self.arena)
        means = np.ones(self.arena.n_bytes, dtype=bool)
        bits = now.word(56)
        for page, state, owner, n_pages in now.runs():
            start, end = page * PAGE, (page + n_pages) * PAGE
            if state == FRAME_FREE:
                means[start:end] = False
            if owner == self.dying != 0:
                means[bits + (start >> 7) : bits + (end >> 7)] = False
        for block in now.pool(self.pool.id, "tlsf"):
            if not block.used:
                means[block.start + 16 : block.end - 8] = False
            elif not now.start(block.start) and block.start % PAGE:
                means[block.start + 8 : block.end] = False
            elif block.start in unwritten:
                means[block.start : block.end] = False
        for entry in range(DIRECTORY, DIRECTORY + 3 * ENTRY_BYTES, ENTRY_BYTES):
            if not now.word(entry + ENTRY_STATE) & 0xFFFFFFFF:
                means[entry : entry + ENTRY_STATE] = False
                means[entry + ENTRY_STATE + 4 : entry + ENTRY_BYTES] = False
        area = self.area
        means[area : area + LOCK_BYTES] = False
        slot = area + self.at.SLOTS_AT + self.shared.my_slot * SLOT_BYTES
        means[slot : slot + self.at.DONE_AT] = False
        journal = area + self.at.JOURNAL_AT
        means[journal + 16 : area + self.at.AREA_BYTES] = False
        return means

    # One call

    def step(self, verb: str, *args: int, pool: Pool | None = None) -> int:
        """Make a call by steps; undo in a copy after each instruction."""
        reference = self.bytes_now()
        means = self.mask(set())
        known = set(self.live)
        before = reference
        n_before = 0
        steps = Steps(pool or self.pool, self.at.STEPS.get(verb, verb), *args)
        for _ in steps:
            self.n_moments += 1
            raw = Snapshot(self.arena).bytes
            if raw == before.tobytes():
                continue
            held = np.frombuffer(bytearray(raw), dtype=np.uint8)
            n_entries = self.n_entries(held)
            if n_before and not n_entries:
                # A commit, by this one store: what it must lead back to from here on.
                self.require_same(held, before, self.all_but_end())
                reference, means = held, self.mask(self.fresh(known))
            else:
                copy = bytearray(raw)
                self.undo(copy, n_entries)
                undone = np.frombuffer(copy, dtype=np.uint8)
                self.require_same(undone, reference, means)
                self.require_told(undone, reference)
            before, n_before = held, n_entries
        self.n_calls[f"{verb}: {steps.path}"] += 1
        assert steps.value is not None
        return steps.value

    def fresh(self, known: set[int]) -> set[int]:
        """Payloads in use that were not live before the call."""
        now = Snapshot(self.arena)
        seen = now.pool(self.pool.id, "tlsf")
        return {block.start for block in seen if block.used} - known

    def undo(self, copy: bytearray, n_entries: int) -> None:
        """Undo in a copy; cut short after any entry and done again, it is the same."""
        if n_entries == 0:
            return
        self.n_undone += 1
        self.most_entries = max(self.most_entries, n_entries)
        whole = bytearray(copy)
        if not self.shared.undo(whole):
            raise Refuted("a journal that a verb wrote was refused")
        if self.n_undone % 16 == 0:
            for n_left in range(n_entries):
                self.cut_short(bytearray(copy), n_left, whole)
        copy[:] = whole

    def cut_short(self, copy: bytearray, n_left: int, whole: bytearray) -> None:
        """Stop an undo when so many entries are left, and do it again from there."""
        at = self.area + self.at.JOURNAL_AT
        words = np.frombuffer(copy, np.uint64)
        entries = words[(at + self.at.ENTRIES_AT) // 8 :]
        n = (int(words[at // 8]) - self.at.ENTRIES_AT) // 16
        for i in range(n - 1, n_left - 1, -1):
            place = (at + int(entries[2 * i].view(np.int64))) // 8
            words[place] = entries[2 * i + 1]
        # Killed after a store, before it was counted off.
        words[at // 8] = self.at.ENTRIES_AT + 16 * min(n_left + 1, n)
        if not self.shared.undo(copy) or copy != whole:
            raise Refuted(f"undone again from {n_left} entries, it is not the same")

    # Random calls

    def fill(self, offset: int, n_bytes: int) -> bytes:
        """Write a pattern of its own into a block; return it."""
        held = self.rng.bytes(n_bytes)
        ctypes.memmove(self.base + offset, held, n_bytes)
        return held

    def draw(self) -> int:
        return list(self.live)[int(self.rng.integers(len(self.live)))]

    def call(self) -> None:
        """One random call, by steps."""
        if self.rng.random() < 0.3:
            getattr(self, str(self.rng.choice(RARE)))()
        else:
            self.call_often()

    def run(self) -> None:
        """Take a run of pages or free one, of the pool or of the arena."""
        if self.runs and self.rng.random() < 0.6:
            offset = list(self.runs)[int(self.rng.integers(len(self.runs)))]
            if self.step(self.runs[offset], offset) != 1:
                raise Refuted(f"the run at {offset:#x} is not live")
            del self.runs[offset]
            return
        n_pages, order = int(self.rng.integers(1, 5)), int(self.rng.integers(3))
        if self.rng.random() < 0.5:
            offset, free = self.step("page_alloc", n_pages, PAGE << order), "page_free"
        else:
            offset, free = self.step("take", n_pages, order), "give"
        if offset:
            self.runs[offset] = free

    def room(self) -> None:
        """Pages for later, or given back; blocks that wait given back."""
        verb = str(self.rng.choice(["reserve", "drain", "shrink"]))
        if verb == "reserve":
            keeps = self.kind.get("quick", False) and self.rng.random() < 0.2
            self.step(verb, int(self.rng.integers(1, 5)), int(keeps))
        else:
            self.step(verb, int(self.rng.integers(1, 20)))

    def pools(self) -> None:
        """Make another pool, with blocks; or destroy it."""
        if self.other is None:
            if self.step("create", int(self.rng.integers(2))):
                self.other = Pool.open(self.arena, "other", verify=False)
                for _ in range(int(self.rng.integers(6))):
                    with contextlib.suppress(OutOfMemory):
                        self.other.xmalloc(int(self.rng.choice(SIZES)))
            return
        number, serial = self.other.id, self.shared.serial(self.other.id)
        self.dying = number
        if self.step("retire", pool=self.other) != 1:
            raise Refuted("the pool cannot be retired")
        while self.step("release", number, serial):
            pass
        self.dying = 0
        self.other = None

    def words(self) -> None:
        """The root; or a new block and a word that names it, as one."""
        if self.rng.random() < 0.4 or not self.live:
            self.step("root", int(self.rng.integers(self.arena.n_bytes)))
            return
        link = self.draw()
        if len(self.live[link]) < 8:
            return
        size = int(self.rng.integers(1, 3000))
        offset = self.step("publish", link, size)
        if offset:
            self.live[link] = offset.to_bytes(8, "little") + self.live[link][8:]
            self.live[offset] = b"Z" * size

    def call_often(self) -> None:
        """One random call of a verb of blocks, by steps."""
        xmalloc, xfree, xrealloc = self.verbs
        draw = self.rng.random()
        size = int(self.rng.choice(SIZES))
        if self.live and draw < 0.4:
            offset = self.draw()
            self.step(xfree, offset)
            del self.live[offset]
        elif self.live and draw < 0.6:
            offset = self.draw()
            kept = self.live[offset][:size]
            moved = self.step(xrealloc, offset, size)
            if moved:
                del self.live[offset]
                if self.contents(moved, len(kept)) != kept:
                    raise Refuted(f"xrealloc lost contents of {offset:#x}")
                self.live[moved] = self.fill(moved, size)
        else:
            offset = self.step(xmalloc, size, int(self.rng.choice(ALIGNS)))
            if offset:
                self.live[offset] = self.fill(offset, size)

    def hurry(self, n_calls: int) -> None:
        """Some random calls at full speed, so that many heaps are seen."""
        for _ in range(n_calls):
            if self.live and self.rng.random() < 0.52:
                offset = self.draw()
                if not self.shared.free(offset):
                    raise Refuted(f"{offset:#x} is not live")
                del self.live[offset]
                continue
            size = int(self.rng.choice(SIZES))
            offset = self.shared.alloc(size)
            if offset:
                self.live[offset] = self.fill(offset, size)

    def sound(self) -> None:
        """Refute a heap that is not sound, or a block whose contents have changed."""
        assert self.shared.lock() == self.at.TAKEN
        broken = self.shared.check()
        self.shared.unlock()
        if broken is not None:
            raise Refuted(f"not sound: {broken}")
        for offset, held in self.live.items():
            if self.contents(offset, len(held)) != held:
                raise Refuted(f"the contents of {offset:#x} have changed")


def prove(n_calls: int, seed: int, shared: Any) -> tuple[int, int, int, Counter[str]]:
    """Make this many calls of each kind by steps.

    Parameters
    ----------
    n_calls, seed : int
        Calls of each kind, and the seed of the first.
    shared : module
        ``support/_shared.pyx``.

    Returns
    -------
    n_moments, n_undone, most_entries : int
        Moments looked at, those in which something was undone, and the most entries of
        a journal.
    paths : Counter
        Calls made, by verb and path.
    """
    n_moments = n_undone = most_entries = 0
    paths: Counter[str] = Counter()
    for i, kind in enumerate(KINDS):
        with tempfile.TemporaryDirectory() as folder:
            scene = Scene(Path(folder), kind, seed + i, shared)
            for _ in range(n_calls):
                try:
                    scene.call()
                    scene.hurry(3)
                    scene.sound()
                except Refuted as why:
                    raise Refuted(
                        f"{kind}, seed {seed + i}, call {scene.n_calls.total()}: {why}"
                    ) from None
            n_moments += scene.n_moments
            n_undone += scene.n_undone
            most_entries = max(most_entries, scene.most_entries)
            scene.close()
            paths.update(scene.n_calls)
    return n_moments, n_undone, most_entries, paths


@click.command()
@click.option("--calls", default=400, show_default=True, help="Of each kind of pool.")
@click.option("--seed", default=1, show_default=True)
def main(calls: int, seed: int) -> None:
    """Single-step calls; print how many moments were undone."""
    with tempfile.TemporaryDirectory() as folder:
        shared = Builds(Path(folder)).module(SOURCE)
        n_moments, n_undone, most, paths = prove(calls, seed, shared)
    for path, n in sorted(paths.items()):
        click.echo(f"{n:8,}  {path}")
    click.echo(
        f"undo: {n_moments:,} instructions of {paths.total():,} calls on {len(KINDS)} "
        f"kinds of pool, {n_undone:,} with entries to undo, at most {most}; each led "
        "back to the last commit"
    )


if __name__ == "__main__":
    main()
