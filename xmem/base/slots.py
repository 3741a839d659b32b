# SPDX-License-Identifier: BSD-3-Clause
"""What the processes of a shared arena are about."""

from typing import NamedTuple


class SlotInfo(NamedTuple):
    """What the slot of a process says, which it had or still has.

    Attributes
    ----------
    slot : int
        Its number.
    pid : int
        Of the process, in its own namespace; for people to read.
    is_alive : bool
        Whether the process lives.
    verb : str or None
        What it did last, or is doing; None before the first.
    subject : int
        What that is about: a payload or an offset, a number of bytes or of pages.
    pool_id : int or None
        `Pool.id` of the pool that it is about.
    is_cut_short : bool
        Whether the process was killed in the middle. Then the verb has been undone.
    answer : int
        What the last verb that was done returned.
    left : tuple of int
        Of a process that was killed: offsets of blocks, or of runs of pages, that only
        it may have known of. One that it has handed on is among them as well.
    """

    slot: int
    pid: int
    is_alive: bool
    verb: str | None
    subject: int
    pool_id: int | None
    is_cut_short: bool
    answer: int
    left: tuple[int, ...]


class ArenaStats(NamedTuple):
    """State of an arena at one moment.

    Attributes
    ----------
    n_pages, n_free_pages : int
        Pages of the arena with its tables, and those that nobody has.
    longest_free_run : int
        Greatest number of pages that `Arena.page_alloc_exact` has room for.
    n_pools : int
        Pools in the directory.
    n_processes : int
        Processes that have the arena open; 1 if it is not shared.
    takeovers : int
        Times that the lock was taken over from a process that was killed, since the
        arena was made; 0 if it is not shared.
    undone : int
        Those of the takeovers in which something was half done, and was undone.
    longest_wait_ns : int
        Longest time in ns that a call has waited for the lock and got it; 0 if none
        has slept or the arena is not shared.
    """

    n_pages: int
    n_free_pages: int
    longest_free_run: int
    n_pools: int
    n_processes: int
    takeovers: int
    undone: int
    longest_wait_ns: int
