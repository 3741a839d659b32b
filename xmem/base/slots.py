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
