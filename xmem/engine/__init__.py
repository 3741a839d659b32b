# SPDX-License-Identifier: BSD-3-Clause
"""The engines, TLSF and the legacy first fit: blocks inside bytes."""
