# SPDX-License-Identifier: BSD-3-Clause
"""A pool at C level: an engine, its regions, its control block."""
