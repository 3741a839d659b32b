# SPDX-License-Identifier: BSD-3-Clause
"""The pools of an arena, examined and repaired: what was found and done."""

from xmem.arena.arena import Arena
from xmem.base.repairs import Repair

def examine_arena(arena: Arena) -> tuple[Repair, ...]: ...
