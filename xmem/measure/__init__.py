# SPDX-License-Identifier: BSD-3-Clause
"""The laboratory: traces replayed, timed, counted and compared."""
