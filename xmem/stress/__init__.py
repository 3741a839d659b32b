# SPDX-License-Identifier: BSD-3-Clause
"""Stress tests: endless operations, all verified, and a trace of each fault."""
