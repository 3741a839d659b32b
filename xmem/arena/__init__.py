# SPDX-License-Identifier: BSD-3-Clause
"""The arena: one mapping, its superblock and its page frames."""

from xmem.arena.arena import (
    ARENA_MAX_LOG2,
    FRAME_CONTROL,
    FRAME_DTYPE,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
    Arena,
)

__all__ = [
    "ARENA_MAX_LOG2",
    "FRAME_CONTROL",
    "FRAME_DTYPE",
    "FRAME_FREE",
    "FRAME_JOINED",
    "FRAME_PENDING",
    "FRAME_REGION",
    "FRAME_RUN",
    "FRAME_WHOLE",
    "Arena",
]
