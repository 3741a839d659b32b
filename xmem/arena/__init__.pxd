# SPDX-License-Identifier: BSD-3-Clause
"""The face of the pages: superblock, directory and frames, in one cimport.

The Arena object is in xmem.arena.arena.
"""

from xmem.arena.check cimport check_frames, check_heads, check_record
from xmem.arena.directory cimport (
    directory_entry,
    directory_find,
    directory_name,
    directory_vacant,
)
from xmem.arena.frames cimport (
    frames_alloc,
    frames_alloc_aligned,
    frames_free,
    frames_head_of,
)
from xmem.arena.records cimport (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_REGION,
    FRAME_RUN,
    FRAME_WHOLE,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
    is_region,
)
from xmem.arena.stretches cimport stretches_longest
from xmem.arena.superblock cimport (
    ARENA_MAX_LOG2,
    ARENA_MAX_POOLS,
    ENTRY_DESTROYING,
    ENTRY_EMPTY,
    ENTRY_INITIALISING,
    ENTRY_NAME_BYTES,
    ENTRY_READY,
    arena_t,
    entry_t,
    frame_t,
    page_of,
    page_offset,
)
