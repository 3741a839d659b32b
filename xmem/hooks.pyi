# SPDX-License-Identifier: BSD-3-Clause
"""The caller's own source of regions: what `Pool` keeps of get_mem and put_mem."""

class Hooks:
    """Where the regions of one pool come from, and where they go."""
