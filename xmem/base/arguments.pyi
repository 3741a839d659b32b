# SPDX-License-Identifier: BSD-3-Clause
"""Sizes, counts and offsets from Python callers."""
