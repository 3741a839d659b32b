# SPDX-License-Identifier: BSD-3-Clause
"""Making a pool in an arena, and ending it.

A pool is an entry of the directory and a run of pages for its control block.
The entry is READY only when all that it names has been written, and is EMPTY
before anything that it names is given back: a process that dies in between
leaves pages in use, but no pool that is half there.

``pool_create`` and ``pool_destroy`` are for C callers. Python's `Pool` takes
the same steps one by one, because it has holds of its own to drop and the
caller's functions to call in between.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from xmem.arena cimport (
    ENTRY_DESTROYING,
    ENTRY_EMPTY,
    ENTRY_INITIALISING,
    ENTRY_NAME_BYTES,
    ENTRY_READY,
    FRAME_CONTROL,
    FRAME_PENDING,
    FRAME_RUN,
    arena_t,
    directory_entry,
    directory_find,
    directory_vacant,
    entry_t,
    frame_owner,
    frame_pack,
    frame_pages,
    frames_alloc,
    frames_free,
    frames_head_of,
    is_region,
    page_of,
    page_offset,
)
from xmem.base cimport (
    ENGINE_FIRSTFIT,
    ENGINE_TLSF,
    LOGGED,
    ceil_log2,
    memory_open,
    memory_pool_destroyed,
    offset_t,
    put,
    put32,
    store_barrier,
)
from xmem.core.control cimport (
    POOL_ADAPTS,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    control_add_quicklists,
    control_bytes,
    control_init,
    control_of,
    pool_t,
)
from xmem.core.regions cimport pages_for
from xmem.core.routes cimport is_door
from xmem.core.startbits cimport start_clear_pages

cdef enum:
    DEFAULT_GROW_PAGES = 16     # fits every arena: there may be no more pages


cdef enum creation_t:
    CREATION_DONE = 0
    # Why there is no pool.
    CREATION_BAD_SETTINGS = 1   # see settings_are_valid
    CREATION_BAD_NAME = 2       # more than ENTRY_NAME_BYTES
    CREATION_NAME_TAKEN = 3
    CREATION_NO_ENTRY = 4       # the directory is full
    CREATION_NO_PAGES = 5       # no run of pages for the control block
    CREATION_SHARED = 6         # the arena is shared: only Python makes pools there


cdef struct settings_t:
    unsigned engine             # ENGINE_*
    unsigned flags              # POOL_*, all but POOL_HOOKED
    uint64_t grow_pages         # 0: by default, and growing with the pool
    uint64_t max_pages          # 0: no limit but the arena
    bint has_quicklists


cdef struct released_t:
    offset_t start              # of a run of pages that has been released
    uint64_t n_bytes
    uint64_t n_pages
    bint is_kept                # it is a run of the caller's now


# Creation --------------------------------------------------------------------

cdef inline bint settings_are_valid(
    arena_t* arena, settings_t* settings
) noexcept nogil:
    """Whether there can be a pool of these settings in this arena."""
    if settings.engine != ENGINE_TLSF:
        return (
            settings.engine == ENGINE_FIRSTFIT
            and not settings.has_quicklists
            and not settings.flags & POOL_HARDENED
            and settings.grow_pages <= arena.n_pages
        )
    return (
        settings.grow_pages <= arena.n_pages
        and not (settings.has_quicklists and settings.flags & POOL_HARDENED)
        and not settings.flags
        & ~<unsigned>(POOL_JOINS | POOL_ADAPTS | POOL_HARDENED)
    )


cdef inline uint64_t creation_pages(
    arena_t* arena, settings_t* settings
) noexcept nogil:
    """Pages that the control block of a pool takes."""
    return pages_for(
        arena, control_bytes(arena, settings.engine, settings.has_quicklists)
    )


cdef inline void control_format(
    arena_t* arena, offset_t control, uint32_t number, settings_t* settings
) noexcept nogil:
    """Write the control block of a new pool into its pages."""
    cdef unsigned flags = settings.flags
    cdef uint64_t grow_pages = settings.grow_pages
    if grow_pages == 0:
        grow_pages = DEFAULT_GROW_PAGES
        if grow_pages > arena.n_pages:
            grow_pages = arena.n_pages
        if flags & POOL_JOINS:
            flags |= POOL_ADAPTS
    if settings.engine != ENGINE_TLSF:
        grow_pages = 1
        flags = 0
    control_init(
        arena,
        control,
        number,
        settings.engine,
        flags,
        grow_pages,
        settings.max_pages,
    )
    if settings.has_quicklists:
        control_add_quicklists(arena, control)


cdef inline void entry_write(
    arena_t* arena, uint32_t number, uint32_t page, unsigned engine
) noexcept nogil:
    """Fill the directory entry of a pool but for its name; READY at the end."""
    cdef entry_t* entry = directory_entry(arena, number)
    put(&entry.control, page_offset(arena, page))
    put32(&entry.control_pages, <uint32_t>frame_pages(arena.frames[page].word))
    put32(&entry.engine, engine)
    put32(&entry.serial, arena.super.n_serials)
    put32(&arena.super.n_serials, arena.super.n_serials + 1)
    store_barrier()
    put32(&entry.state, ENTRY_READY)


cdef inline creation_t pool_create(
    arena_t* arena,
    const char* name,
    uint64_t name_bytes,
    settings_t* settings,
    uint32_t* number,
) noexcept nogil:
    """Make an empty pool, and write its number; else nothing has changed.

    ``name`` is UTF-8 without NUL; with ``name_bytes`` 0 the pool is called
    ``pool-`` and its number. `pool_numbered` gives the pool.
    """
    cdef entry_t* entry
    cdef uint64_t n_pages
    cdef uint32_t page
    cdef uint32_t vacant
    cdef char[ENTRY_NAME_BYTES] by_number
    if not LOGGED and arena.routes != NULL:
        return CREATION_SHARED
    if name_bytes > ENTRY_NAME_BYTES:
        return CREATION_BAD_NAME
    if not settings_are_valid(arena, settings):
        return CREATION_BAD_SETTINGS
    vacant = directory_vacant(arena)
    if vacant == 0:
        return CREATION_NO_ENTRY
    if name_bytes == 0:
        name_bytes = snprintf(by_number, ENTRY_NAME_BYTES, "pool-%u", vacant)
        name = by_number
    if directory_find(arena, name, name_bytes) != NULL:
        return CREATION_NAME_TAKEN
    n_pages = creation_pages(arena, settings)
    page = frames_alloc(arena, n_pages, FRAME_PENDING, vacant)
    if page == 0:
        return CREATION_NO_PAGES
    entry = directory_entry(arena, vacant)
    put32(&entry.state, ENTRY_INITIALISING)
    memory_open(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )
    control_format(arena, page_offset(arena, page), vacant, settings)
    store_barrier()
    put(&arena.frames[page].word, frame_pack(FRAME_CONTROL, 0, vacant, n_pages))
    memset(entry.name, 0, ENTRY_NAME_BYTES)
    memcpy(entry.name, name, name_bytes)
    entry_write(arena, vacant, page, settings.engine)
    number[0] = vacant
    return CREATION_DONE


cdef inline pool_t* pool_numbered(arena_t* arena, uint32_t number) noexcept nogil:
    """The pool of a number that `pool_create` gave."""
    return control_of(arena, directory_entry(arena, number))


cdef inline pool_t* pool_named(
    arena_t* arena, const char* name, uint64_t name_bytes
) noexcept nogil:
    """The pool of a name in UTF-8, or NULL. Its control block is not checked."""
    cdef entry_t* entry = directory_find(arena, name, name_bytes)
    return NULL if entry == NULL else control_of(arena, entry)


# Destruction -----------------------------------------------------------------

cdef inline void pool_retire(arena_t* arena, pool_t* pool) noexcept nogil:
    """Take a pool out of the directory; its pages are still to be released.

    In a shared arena nobody gets its number before that.
    """
    put32(
        &directory_entry(arena, pool.number).state,
        ENTRY_DESTROYING if LOGGED else ENTRY_EMPTY,
    )
    store_barrier()
    memory_pool_destroyed(pool)


cdef inline void region_keep(arena_t* arena, uint64_t page) noexcept nogil:
    """Turn a region into a run of the caller's."""
    cdef uint64_t n_pages = frame_pages(arena.frames[page].word)
    put(&arena.frames[page].word, frame_pack(FRAME_RUN, ceil_log2(n_pages), 0, n_pages))
    memory_open(
        arena.base + page_offset(arena, page), page_offset(arena, n_pages)
    )


cdef inline bint pool_release_next(
    arena_t* arena,
    uint32_t number,
    bint keeps_regions,
    uint32_t* page,
    released_t* released,
) noexcept nogil:
    """Release the next run of pages of a retired pool; False when none is left.

    Start with ``page`` at the arena's first page. With ``keeps_regions`` the
    regions become runs of the caller's; everything else goes back to the frames.
    """
    cdef uint64_t word
    cdef uint32_t next_page
    while page[0] != 0:
        word = arena.frames[page[0]].word
        next_page = page[0] + <uint32_t>frame_pages(word)
        if frame_owner(word) == number:
            released.start = page_offset(arena, page[0])
            released.n_pages = frame_pages(word)
            released.n_bytes = page_offset(arena, released.n_pages)
            released.is_kept = keeps_regions and is_region(word, number)
            start_clear_pages(arena, released.start, released.n_bytes)
            if released.is_kept:
                region_keep(arena, page[0])
            else:
                frames_free(arena, page[0])
            # 0 behind the last page; a free neighbour may have been merged.
            page[0] = frames_head_of(arena, next_page)
            return True
        page[0] = frames_head_of(arena, next_page)
    return False


cdef inline unsigned owner_at(arena_t* arena, offset_t offset) noexcept nogil:
    """Number of the pool that owns the page of ``offset``, or 0."""
    return frame_owner(
        arena.frames[frames_head_of(arena, page_of(arena, offset))].word
    )


cdef inline void pool_destroy(arena_t* arena, pool_t* pool) noexcept nogil:
    """End a pool: its blocks are void, and its pages go back to the arena.

    Regions that came from a caller's function (POOL_HOOKED) become runs of the
    caller's, as Arena.page_alloc gives them. Nothing happens to a shared pool, which
    only Python ends.
    """
    cdef uint32_t number = pool.number
    cdef bint keeps_regions = (pool.flags & POOL_HOOKED) != 0
    cdef uint32_t page = arena.first_page
    cdef released_t released
    if is_door(arena, pool):
        return
    pool_retire(arena, pool)
    while pool_release_next(arena, number, keeps_regions, &page, &released):
        pass
