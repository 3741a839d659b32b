# SPDX-License-Identifier: BSD-3-Clause
"""The checkers: whole, in slices, asserted; and what a finding means."""
