# SPDX-License-Identifier: BSD-3-Clause
"""Proofs by brute force, each a module that can be run by itself.

``python -m proofs.NAME`` in the folder ``tests`` runs one at full length and
prints how many cases it tried; ``make proof-NAME`` does so from the top, ``make
proofs`` runs them all. ``test_proofs.py`` runs a short form of each.
A proof raises `Refuted` with the case that it found.
"""


class Refuted(AssertionError):
    """A case that should not be."""
