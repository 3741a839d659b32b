# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of shared pools: under the arena's lock, each store in its journal."""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.superblock cimport arena_t
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.core.creation cimport creation_t, released_t, settings_t

cdef int last_cause() noexcept nogil
cdef void limit_wait(uint64_t most_ns) noexcept nogil

# A transaction of the caller's: what `shared_put` stores between the two, and what
# verbs of pools of the arena do, happens as a whole or not at all, whoever is killed.
# The journal has room for AREA_JOURNAL_ENTRIES words; a verb takes up to 64 of them,
# and one that finds no room at first commits what was before it.
cdef bint shared_begin(arena_t* arena) noexcept nogil
cdef void shared_put(arena_t* arena, uint64_t* word, uint64_t value) noexcept nogil
cdef void shared_commit(arena_t* arena) noexcept nogil

# The arena's own page runs, and its root. Without the lock they return 0 or False, and
# `last_cause` says why.
cdef uint32_t shared_take(
    arena_t* arena, uint64_t n_pages, unsigned order
) noexcept nogil
cdef bint shared_give(arena_t* arena, offset_t offset) noexcept nogil
cdef bint shared_set_root(arena_t* arena, uint64_t offset) noexcept nogil

cdef creation_t shared_create(
    arena_t* arena,
    const char* name,
    uint64_t name_bytes,
    settings_t* settings,
    uint32_t* number,
) noexcept nogil
cdef bint shared_retire(arena_t* arena, pool_t* door) noexcept nogil
cdef bint shared_release_next(
    arena_t* arena,
    uint32_t number,
    uint32_t serial,
    uint32_t* page,
    released_t* released,
) noexcept nogil
cdef uint64_t shared_reserve(
    arena_t* arena, pool_t* door, uint64_t n_pages, bint keeps
) noexcept nogil
cdef uint64_t shared_give_waiting(
    arena_t* arena, pool_t* door, uint64_t n_most
) noexcept nogil
cdef uint64_t shared_shrink_next(
    arena_t* arena, pool_t* door, uint64_t* page
) noexcept nogil
