# SPDX-License-Identifier: BSD-3-Clause
"""What was found broken in an arena, and what was done about it."""

from typing import NamedTuple


class Repair(NamedTuple):
    """One thing that was broken: the page frames, or a pool.

    Attributes
    ----------
    pool : str or None
        The pool's name; None for page frames and start bits outside of all pools.
    found : str
        What was wrong.
    done : str
        What was done; empty if nothing.
    is_sound : bool
        Whether it is sound now.
    """

    pool: str | None
    found: str
    done: str
    is_sound: bool

    def __str__(self) -> str:
        """Return one line."""
        name = "page frames" if self.pool is None else f"pool {self.pool!r}"
        parts = [f"{name}: {self.found}"]
        if self.done:
            parts.append(self.done)
        if not self.is_sound:
            parts.append("not repaired")
        return "; ".join(parts)
