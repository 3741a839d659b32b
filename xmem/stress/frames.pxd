# SPDX-License-Identifier: BSD-3-Clause
"""Operations on page frames: objects are runs of pages, sizes are in pages.

The first and last word of each page of a run hold the object's pattern.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.frames cimport frames_alloc_aligned, frames_free
from xmem.arena.records cimport FRAME_RUN, frame_pages
from xmem.arena.superblock cimport page_offset
from xmem.base.bits cimport bit, exact_log2
from xmem.measure.clock cimport clock_ticks
from xmem.measure.codes cimport OP_FREE, SKIPPED, op_t
from xmem.measure.pattern cimport pattern_word
from xmem.measure.player cimport object_t, player_lock, player_t, player_unlock


cdef inline bint frames_hold(
    player_t* player, object_t* target, uint32_t id
) noexcept nogil:
    """Whether the first and last word of each page of a run are intact."""
    cdef uint64_t i
    cdef uint64_t* words
    for i in range(target.size):
        words = <uint64_t*>(
            player.arena.base + target.payload + page_offset(player.arena, i)
        )
        if words[0] != pattern_word(id, i) or (
            words[(player.arena.page_bytes >> 3) - 1] != pattern_word(id, ~i)
        ):
            return False
    return True


cdef inline void frames_fill(
    player_t* player, object_t* target, uint32_t id
) noexcept nogil:
    """Write the first and last word of each page of a player."""
    cdef uint64_t i
    cdef uint64_t* words
    for i in range(target.size):
        words = <uint64_t*>(
            player.arena.base + target.payload + page_offset(player.arena, i)
        )
        words[0] = pattern_word(id, i)
        words[(player.arena.page_bytes >> 3) - 1] = pattern_word(id, ~i)


cdef inline uint64_t free_run(player_t* player, const op_t* op) noexcept nogil:
    """Verify and free the run of an object; return the ticks of freeing it."""
    cdef object_t* target = &player.objects[op.id]
    cdef uint64_t ticks
    cdef uint32_t page = <uint32_t>(target.payload >> player.arena.page_shift)
    if not frames_hold(player, target, op.id):
        player.content_errors += 1
    player.live_blocks -= 1
    player.live_bytes -= target.size
    player_lock(player)
    if frame_pages(player.arena.frames[page].word) != target.size:
        player.content_errors += 1
    ticks = clock_ticks()
    frames_free(player.arena, page)
    ticks = clock_ticks() - ticks
    player_unlock(player)
    target.payload = 0
    return ticks


cdef inline uint64_t alloc_run(player_t* player, const op_t* op) noexcept nogil:
    """Allocate a run for an object and fill it; return the ticks of allocating."""
    cdef object_t* target = &player.objects[op.id]
    cdef uint64_t ticks
    cdef uint32_t page
    # As by page_alloc if it can be, else as by page_alloc_exact.
    cdef unsigned order = exact_log2(op.size)
    player_lock(player)
    ticks = clock_ticks()
    page = frames_alloc_aligned(player.arena, op.size, order, FRAME_RUN, 0)
    ticks = clock_ticks() - ticks
    player_unlock(player)
    if page == 0:
        player.failed += 1
        return ticks
    if page & (bit(order) - 1):
        player.content_errors += 1
    target.payload = page_offset(player.arena, page)
    target.size = op.size
    frames_fill(player, target, op.id)
    player.live_blocks += 1
    player.live_bytes += op.size
    return ticks


cdef inline uint64_t play_frames_op(player_t* player, const op_t* op) noexcept nogil:
    """Carry out one operation; return its ticks, or SKIPPED."""
    cdef bint is_live = player.objects[op.id].payload != 0
    if op.op == OP_FREE and is_live:
        return free_run(player, op)
    if op.op != OP_FREE and not is_live and op.size != 0:
        return alloc_run(player, op)
    player.skipped += 1
    return SKIPPED
