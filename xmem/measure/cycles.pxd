# SPDX-License-Identifier: BSD-3-Clause
"""Timing of calls has no C-level interface; the header gives the module its name."""
