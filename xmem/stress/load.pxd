# SPDX-License-Identifier: BSD-3-Clause
"""Stress: operations made up, carried out and verified; nothing to cimport."""
