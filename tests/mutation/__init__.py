# SPDX-License-Identifier: BSD-3-Clause
"""Mutation testing: does a test fail when one line is wrong?

``make mutants`` (``python -m mutation`` in the folder ``tests``) changes lines of xmem,
one at a time, and runs the nearest tests on each. A change that no test notices has
survived: either a test is missing, or the change makes no difference, which
``equivalent.toml`` then explains.

`sources` reads statements, `operators` changes them, `chosen` draws a sample of the
changes by area, `tree` builds a copy of the repository that has them, `trials` runs the
tests, and `results` keeps what came of it and writes the table of reliability.md.
"""
