# SPDX-License-Identifier: BSD-3-Clause
"""What processes that share an arena have in common: lock, journal, slots."""
