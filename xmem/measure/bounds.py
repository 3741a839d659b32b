# SPDX-License-Identifier: BSD-3-Clause
"""How many instructions a call takes at most: a formula for each verb.

The bounds are those of the TLSF engine's verbs at C level, as `xmem.measure.insn.cost`
counts them, on every path, whether the call succeeds or fails. What an xrealloc copies
is apart. They depend on nothing but the *orders* of the arena, the logarithm of its
pages, and on the kind of pool. The figures are those of gcc 12 on x86-64, those of
another compiler or processor may differ; ``make proof-bounds`` searches for a call that
exceeds them.
"""

from dataclasses import dataclass
from typing import Literal

from xmem.base.errors import BadArgument
from xmem.pool import Pool

Kind = Literal["plain", "quick", "hardened"]

KINDS: tuple[Kind, ...] = ("plain", "quick", "hardened")
VERBS = ("xmalloc", "xfree", "xrealloc", "page_alloc", "page_free")
#: Orders of the greatest arena for which `make proof-bounds` searches.
ORDERS = 20


@dataclass(frozen=True)
class Bound:
    """Instructions at most: ``base + per_order * orders``.

    Attributes
    ----------
    base : int
        Whatever the arena.
    per_order : int
        For each order of the arena.
    """

    base: int
    per_order: int

    def at(self, orders: int) -> int:
        """Return the bound in an arena of ``2**orders`` pages.

        Parameters
        ----------
        orders : int
            Log2 of the arena's pages, rounded up.

        Returns
        -------
        int
        """
        return self.base + self.per_order * orders


#: By verb and kind of pool.
BOUNDS: dict[tuple[str, Kind], Bound] = {
    ("xmalloc", "plain"): Bound(1060, 22),
    ("xmalloc", "quick"): Bound(1200, 15),
    ("xmalloc", "hardened"): Bound(3320, 22),
    ("xfree", "plain"): Bound(620, 22),
    ("xfree", "quick"): Bound(680, 22),
    ("xfree", "hardened"): Bound(2700, 20),
    ("xrealloc", "plain"): Bound(1240, 5),
    ("xrealloc", "quick"): Bound(1240, 5),
    ("xrealloc", "hardened"): Bound(3560, 2),
    **{("page_alloc", kind): Bound(400, 24) for kind in KINDS},
    **{("page_free", kind): Bound(390, 14) for kind in KINDS},
}
#: What the proof that an offset is a live block adds.
PROOF = 40


def kind_of(pool: Pool) -> Kind:
    """Return the kind of a TLSF pool.

    Parameters
    ----------
    pool : Pool
        Of the TLSF engine.

    Returns
    -------
    {"plain", "quick", "hardened"}
    """
    if pool.hardening:
        return "hardened"
    return "quick" if pool.quick else "plain"


def bound(
    verb: str, orders: int, kind: Kind = "plain", *, checked: bool = False
) -> int:
    """Return the most instructions that a call takes.

    Parameters
    ----------
    verb : {"xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"}
        The verb, at C level.
    orders : int
        Log2 of the arena's pages, rounded up.
    kind : {"plain", "quick", "hardened"}
        Of the pool: ``"hardened"`` with any flags.
    checked : bool
        With the proof of the offset.

    Returns
    -------
    int

    Raises
    ------
    BadArgument
        There is no such verb or kind.
    """
    if (verb, kind) not in BOUNDS:
        raise BadArgument(f"no bound of {verb!r} in a pool that is {kind!r}")
    proof = PROOF if checked and verb in ("xfree", "xrealloc") else 0
    return BOUNDS[verb, kind].at(orders) + proof


def bound_of(pool: Pool, verb: str, *, checked: bool = False) -> int:
    """Return the most instructions that a call in a pool takes.

    Parameters
    ----------
    pool : Pool
        Of the TLSF engine, without hooks.
    verb, checked
        As for `bound`.

    Returns
    -------
    int

    Raises
    ------
    BadArgument
        There is no such verb.
    """
    orders = (pool.arena.n_pages - 1).bit_length()
    return bound(verb, orders, kind_of(pool), checked=checked)
