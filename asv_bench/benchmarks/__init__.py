# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks of xmem for asv: one module per subject."""
