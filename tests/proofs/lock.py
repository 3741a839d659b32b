# SPDX-License-Identifier: BSD-3-Clause
"""The lock of a shared arena, explored: every order of steps, a kill before each.

A model of shared/lock.pxd: the word, the epoch of each slot, the byte that the kernel
keeps locked for it, the bits of those who starve. A step is one access to what is
shared. Processes join, want the lock, give up, own it, release or hand it over, leave
and are killed; a process may have two threads, which share its slot. A sleeper may wake
at any time, as with a timed wait. The bit for waiters is left out: it decides who is
woken, and nobody waits for that alone.

In no state may two be in the section. From each state in which a process is alive that
wants the lock, somebody must be able to enter without another kill.

The traps that the lock avoids are variants of the model, in which one of the two fails.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import click

from . import Refuted

NOBODY = -1
FREE = (NOBODY, 0, False)

Word = tuple[int, int, bool]  # slot, epoch, handed


class Thread(NamedTuple):
    """Where a thread is, and the word that it has read."""

    at: str
    seen: Word = FREE


class State(NamedTuple):
    """What the processes share, and where each thread is."""

    word: Word
    epochs: tuple[int, ...]  # of the slots
    bytes: tuple[int, ...]  # the process that has it locked, of the slots
    starving: frozenset[int]
    homes: tuple[tuple[int, int], ...]  # slot and epoch of each process
    threads: tuple[Thread, ...]
    joins: int


@dataclass(frozen=True)
class Model:
    """Processes, by the number of their threads, and how the lock behaves.

    Parameters
    ----------
    processes : tuple of int
        Threads of each process.
    n_slots, n_joins : int
        Slots, and how often a process may join in all.
    has_epochs : bool
        Whether a word names the epoch of its slot.
    trusts_own : bool
        Whether the own slot lives without a question. The answer through one's own
        description would be that it does not.
    keeps_byte : bool
        Whether the lock on a byte survives a descriptor that the program closes.
    knows_file : bool
        Whether a question through a descriptor that has become another file's is
        recognised.
    steals : bool
        Whether one who has slept takes a lock that was handed to another who does not
        take it.
    """

    processes: tuple[int, ...]
    n_slots: int
    n_joins: int
    has_epochs: bool = True
    trusts_own: bool = True
    keeps_byte: bool = True
    knows_file: bool = True
    steals: bool = True

    @property
    def owners(self) -> tuple[int, ...]:
        """Process of each thread."""
        return tuple(p for p, n in enumerate(self.processes) for _ in range(n))

    def start(self) -> State:
        n = len(self.processes)
        return State(
            FREE,
            (0,) * self.n_slots,
            (NOBODY,) * self.n_slots,
            frozenset(),
            ((NOBODY, 0),) * n,
            tuple(Thread("out") for _ in self.owners),
            0,
        )

    def steps(self, state: State) -> Iterator[tuple[bool, State]]:
        """Each state that may follow, and whether a process was killed."""
        for process in range(len(self.processes)):
            slot, _ = state.homes[process]
            if slot == NOBODY:
                yield from self.join(state, process)
                continue
            yield True, self.ended(state, process)
            if not self.keeps_byte and state.bytes[slot] == process:
                yield False, state._replace(bytes=put(state.bytes, slot, NOBODY))
        for i, process in enumerate(self.owners):
            if state.homes[process][0] != NOBODY:
                yield from ((False, after) for after in self.move(state, i, process))

    def join(self, state: State, process: int) -> Iterator[tuple[bool, State]]:
        if state.joins == self.n_joins:
            return
        for slot, owner in enumerate(state.bytes):
            if owner == NOBODY:
                threads = tuple(
                    Thread("new" if mine == process else thread.at, thread.seen)
                    for thread, mine in zip(state.threads, self.owners, strict=True)
                )
                yield (
                    False,
                    state._replace(
                        bytes=put(state.bytes, slot, process),
                        homes=put(state.homes, process, (slot, 0)),
                        threads=threads,
                        joins=state.joins + 1,
                    ),
                )

    def ended(self, state: State, process: int) -> State:
        """Return the state after a process has ended, in whatever it was doing."""
        slot, _ = state.homes[process]
        held = state.bytes
        if held[slot] == process:
            held = put(held, slot, NOBODY)
        return state._replace(
            bytes=held,
            homes=put(state.homes, process, (NOBODY, 0)),
            threads=tuple(
                Thread("out") if mine == process else thread
                for thread, mine in zip(state.threads, self.owners, strict=True)
            ),
        )

    def is_dead(self, state: State, word: Word, process: int) -> bool:
        slot, epoch, _ = word
        if self.has_epochs and state.epochs[slot] != epoch:
            return True
        if slot == state.homes[process][0]:
            return not self.trusts_own
        return state.bytes[slot] == NOBODY

    def move(self, state: State, i: int, process: int) -> Iterator[State]:
        """One step of a thread of a process that has joined."""
        at, seen = state.threads[i]
        slot, epoch = state.homes[process]
        mine = (slot, epoch, False)

        def go(where: str, seen: Word = FREE, **changes: object) -> State:
            threads = put(state.threads, i, Thread(where, seen))
            return state._replace(threads=threads, **changes)  # type: ignore[arg-type]

        if at == "new":
            # The first thread raises the epoch; the others find it raised.
            if epoch == 0:
                raised = state.epochs[slot] + 1 if self.has_epochs else 1
                yield go(
                    "idle",
                    epochs=put(state.epochs, slot, raised),
                    homes=put(state.homes, process, (slot, raised)),
                )
            else:
                yield go("idle")
        elif at == "idle":
            yield go("read")
        elif at == "read":
            yield go("judge", state.word)
        elif at == "judge":
            if seen == FREE or seen == (slot, epoch, True):
                yield go("take", seen)
            else:
                yield go("starve", seen)
                yield go("give up")
        elif at == "take":
            if state.word == seen:
                yield go("enter", word=mine)
            else:
                yield go("read")
        elif at == "starve":
            yield go("sleep", seen, starving=state.starving | {slot})
        elif at == "sleep":
            if state.word != seen:
                yield go("read")
            elif seen[2]:
                yield go("steal" if self.steals else "read", seen)
            else:
                yield go("ask", seen)
        elif at == "ask":
            if self.is_dead(state, seen, process) or not self.knows_file:
                yield go("steal", seen)
            if not self.is_dead(state, seen, process):
                yield go("read")
        elif at == "steal":
            if state.word == seen:
                left = state.starving - {seen[0]}
                yield go("enter", word=mine, starving=left)
            else:
                yield go("read")
        elif at == "enter":
            yield go("section", starving=state.starving - {slot})
        elif at == "section":
            yield go("free" if not state.starving else "hand", word_of(state, slot))
        elif at == "free":
            yield go("idle", word=FREE)
            yield self.ended(go("idle", word=FREE), process)
        elif at == "hand":
            heir = seen[0]
            yield go("idle", word=(heir, state.epochs[heir], True))
        elif at == "give up":
            yield go("idle", starving=state.starving - {slot})


def put(table: tuple, place: int, value: object) -> tuple:  # type: ignore[type-arg]
    """Return a table with another value in a place."""
    return (*table[:place], value, *table[place + 1 :])


def word_of(state: State, slot: int) -> Word:
    """Return a word that names the next slot behind ``slot`` that starves, if any."""
    behind = sorted(state.starving, key=lambda other: (other <= slot, other))
    return (behind[0], 0, True) if behind else FREE


def explore(model: Model) -> int:
    """Return the number of states that can be reached, or refute the lock."""
    start = model.start()
    seen = {start}
    waiting = deque([start])
    before: dict[State, list[State]] = {}
    while waiting:
        state = waiting.popleft()
        inside = [thread.at for thread in state.threads].count("section")
        if inside > 1:
            raise Refuted(f"two in the section: {state}")
        for is_kill, after in model.steps(state):
            if not is_kill:
                before.setdefault(after, []).append(state)
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    entered = {s for s in seen if any(t.at == "section" for t in s.threads)}
    able = set(entered)
    waiting = deque(entered)
    while waiting:
        for state in before.get(waiting.popleft(), ()):
            if state not in able:
                able.add(state)
                waiting.append(state)
    for state in seen - able:
        if any(thread.at not in ("out", "new", "idle") for thread in state.threads):
            raise Refuted(f"nobody can enter any more: {state}")
    return len(seen)


#: What `make test` explores, and what the command adds.
SHORT = (Model((1, 1), 2, 3), Model((2, 1), 2, 2))
LONG = (
    *SHORT,
    Model((1, 1), 2, 4),
    Model((1, 1, 1), 2, 3),
    Model((1, 1, 1), 3, 3),
    Model((2, 1), 2, 3),
)
#: The traps, each in the least model that falls into it.
TRAPS = {
    "no epochs": Model((1, 1), 1, 3, has_epochs=False),
    "the own byte is asked": Model((2,), 1, 1, trusts_own=False),
    "a closed descriptor frees the byte": Model((1, 1), 2, 2, keeps_byte=False),
    "a question goes to another file": Model((1, 1), 2, 2, knows_file=False),
    "nobody takes what was handed to another": Model((1, 1), 2, 2, steals=False),
}


@click.command()
def main() -> None:
    """Explore the lock; print how many states there are."""
    n_states = 0
    for model in LONG:
        n_states += explore(model)
    for name, trap in TRAPS.items():
        try:
            explore(trap)
        except Refuted:
            continue
        raise Refuted(f"the model does not see the trap: {name}")
    click.echo(
        f"lock: {n_states:,} states of {len(LONG)} models; never two in the section, "
        f"never nobody; {len(TRAPS)} traps seen"
    )


if __name__ == "__main__":
    main()
