# SPDX-License-Identifier: BSD-3-Clause
"""Counting has no C-level interface; the header gives the module its name."""
