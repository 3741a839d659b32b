# SPDX-License-Identifier: BSD-3-Clause
"""The Pool object: an engine, its regions and runs, its limits and counters."""

from libc.stdint cimport uint32_t, uint64_t

from xmem.allocator cimport Allocator
from xmem.arena.arena cimport Arena
from xmem.arena.superblock cimport ENTRY_READY, entry_t
from xmem.arena.vm cimport vm_changes
from xmem.base.finding cimport finding_t
from xmem.base.offset cimport offset_t
from xmem.check cimport block_info_t, census_t, cursor_t
from xmem.core.control cimport pool_t
from xmem.doors cimport Door
from xmem.hooks cimport Hooks


cdef class Pool(Allocator):
    cdef readonly str name
    cdef uint32_t serial            # of the directory entry it was made for
    cdef Hooks hooks                # None: regions come from the arena
    cdef offset_t step_at           # where check_step goes on, 0: the beginning
    cdef pool_t* c                  # what verbs take; valid while the arena is open
    cdef pool_t* control            # the same, unless c is a door; see core/routes.pxd
    cdef entry_t* entry             # of the directory, valid as long
    cdef Door door                  # of a shared arena; c is its stub
    cdef uint64_t ordinary          # vm_changes when `enter` found it so; see below

    cdef int attach(self, Arena arena, str name, uint32_t number) except -1
    cdef int refuse_again(self) except -1
    cdef int hook(self, Hooks hooks) except -1
    cdef int keep(self, uint64_t n_pages) except -1
    cdef bint is_gone(self) noexcept
    cdef offset_t allocate_shared(self, uint64_t n_bytes, uint64_t alignment,
                                  str verb) except 0
    cdef offset_t resize_shared(self, offset_t payload, uint64_t n_bytes,
                                uint64_t alignment, str verb) except 0
    cdef int free_shared(self, offset_t payload) except -1
    cdef offset_t require_shared(self, offset_t payload, str verb) except 0
    cdef uint64_t capacity_shared(self, offset_t payload, str verb) except? 0
    cdef int refuse_gone(self, offset_t payload, str verb) except -1
    cdef int _find(self, Arena owner, bytes encoded, bint verify) except -1
    cdef int refuse(self, offset_t payload, str verb) except -1
    cdef int require_sound(self, offset_t payload) except -1
    cdef int require_alignment(self, uint64_t alignment) except -1
    cdef int raise_damage(self) except -1
    cdef object damage(self, finding_t* finding)
    cdef object no_room(self, object n, str verb)
    cdef bint could_shrink_for(self, object n_bytes) except -1
    cdef offset_t allocate_more(self, uint64_t n_bytes, uint64_t alignment,
                                str verb) except 0
    cdef offset_t resize_more(self, offset_t payload, uint64_t n_bytes,
                              uint64_t alignment, str verb) except 0
    cdef int refuse_live(self) except -1
    cdef int refuse_exports(self) except -1
    cdef object walk_live(self, bint force)
    cdef int refuse_end(self, bint force) except -1
    cdef int end(self, list offsets, list regions) except -1
    cdef uint64_t live_blocks(self) noexcept
    cdef uint64_t waiting(self) noexcept
    cdef uint64_t waiting_bytes(self) noexcept
    cdef int verify(self, census_t* census, bint all_frames,
                    bint control) except -1
    cdef int verify_by(
        self, census_t* census, bint all_frames, bint control, bint everywhere
    ) except -1
    cdef int verify_held(
        self, census_t* census, bint all_frames, bint control, bint everywhere
    ) except -1
    cdef object _stats(self)
    cdef object _walk(self)
    cdef bint see(self, cursor_t* cursor, block_info_t* info) noexcept


cdef inline bint pool_is_destroyed(Pool pool) noexcept:
    """Whether the directory no longer has this pool."""
    return pool.entry.serial != pool.serial or pool.entry.state != ENTRY_READY


cdef inline bint pool_is_ordinary(Pool pool) noexcept:
    """Whether a verb has no more to do than its work in the engine.

    Nothing has changed since `Pool.enter` found the pool open and in no other thread's
    hands, without hooks and hardening, while no sites were recorded. What the verb says
    of a single block, whether it is live and whether it is held, is still to be asked.
    """
    return pool.ordinary == vm_changes and not pool_is_destroyed(pool)
