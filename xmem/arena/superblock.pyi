# SPDX-License-Identifier: BSD-3-Clause
"""The first bytes of an arena; C-level interface only."""
