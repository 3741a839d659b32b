# SPDX-License-Identifier: BSD-3-Clause
"""A pool's control block: what the arena keeps of a pool beside its blocks.

It lies at the start of a run of pages in state FRAME_CONTROL and is found
through the pool directory. Behind it, for TLSF, lie the bins::

    | pool_t: identity, limits, counters | tlsf_t or firstfit_t | bins ... |

Its words are offsets and counts: nothing in it belongs to one process.

C1  n_pages = region_pages + run_pages <= max_pages (if not 0), <= peak_pages
C2  region_pages and n_regions agree with the frame table, run_pages and
    n_runs too
C3  the engine's used_bytes and n_used agree with a walk of its blocks
C4  directory entry, frame table and control block agree on the pool
C5  the empty region kept in hand, if any, is a region of the pool
C6  what hardening keeps agrees with the pool's flags, the ring with its count
C7  the quick lists hold blocks in use without start bit, each of its list's
    size, as many and as large as the counts say; no other such block exists
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena.superblock cimport arena_t, entry_t
from xmem.base.bits cimport align_up
from xmem.base.finding cimport finding_t
from xmem.base.memcheck cimport engine_fill
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport BLOCK_TAG_SHIFT
from xmem.engine.firstfit cimport firstfit_init, firstfit_t
from xmem.engine.mapping cimport mapping_n_bins
from xmem.engine.tlsf cimport tlsf_init, tlsf_t

cdef enum:
    ENGINE_TLSF = 1
    ENGINE_FIRSTFIT = 2

    POOL_JOINS = 1          # adjacent regions become one
    POOL_HOOKED = 2         # the caller's functions give and take regions
    POOL_ADAPTS = 4         # regions grow with the pool

    # Hardening, of the TLSF engine (hardening.pxd).
    POOL_CANARY = 16
    POOL_CHECKSUM = 32
    POOL_SAFE_LINKS = 64
    POOL_POISON = 128
    POOL_QUARANTINE = 256
    POOL_HARDENED = 496     # any of these

    HARD_RING = 16          # blocks in quarantine, a power of two
    POOL_MAGIC = 0x4C4F4F50

    QUICK_MAX_BYTES = 1024      # greatest block that waits in quick lists
    QUICK_N_LISTS = 65          # by size / 16
    QUICK_MAX_BLOCKS = 255      # on a list


cdef struct hard_t:
    offset_t ring[16]           # HARD_RING blocks in quarantine, 0: none
    uint64_t n_freed            # into the ring, ever; its low bits are the slot
    uint64_t n_waiting
    uint64_t n_lost             # damaged blocks that were never given back
    finding_t damage            # the first that a verb found, until it is read


cdef struct quicklist_t:
    offset_t head               # payload freed last, 0: none; it holds the next
    uint64_t count


cdef struct quicklists_t:
    quicklist_t[65] lists         # QUICK_N_LISTS


cdef struct pool_t:
    uint32_t magic
    uint32_t number             # 1 ..., owner in the frame table, tag of blocks
    uint32_t engine
    uint32_t flags
    uint64_t max_request        # payload bytes that no request may exceed
    uint64_t release_bytes      # least free block that may hold a whole region
    offset_t spare              # TLSF without joins: the empty region in hand
    uint64_t returned           # hooked: page of a region cut out for put_mem
    uint64_t grow_pages
    uint64_t max_pages          # 0 = no limit but the arena
    uint64_t n_pages            # held: regions and runs
    uint64_t peak_pages
    uint64_t region_pages
    uint64_t run_pages
    uint64_t n_regions          # as obtained from the frames, joined or not
    uint64_t n_runs
    uint64_t short_limit        # requests below it take the short path
    offset_t quicklists              # of its quicklists_t, 0: none
    uint64_t quick_limit        # bytes that may wait there
    uint64_t quick_blocks       # on each list
    uint64_t quick_bytes        # that wait, headers included
    uint64_t lock_room[2]
    uint32_t interface          # of the heap to which the pool belongs, or 0
    uint32_t role               # in that heap
    tlsf_t tlsf
    firstfit_t firstfit
    hard_t hard


cdef inline offset_t control_bins() noexcept nogil:
    """Distance from the control block to its bins: a cache line's multiple."""
    return align_up(sizeof(pool_t), 64)


cdef inline uint64_t control_n_bins(arena_t* arena) noexcept nogil:
    """Bins for every block that this arena can hold."""
    return mapping_n_bins(arena.n_bytes)


cdef inline uint64_t control_bytes(
    arena_t* arena, unsigned engine, bint has_quicklists
) noexcept nogil:
    """Size of a control block; quick lists lie behind the bins."""
    cdef uint64_t n_bytes = control_bins() + 8 * control_n_bins(arena)
    if engine != ENGINE_TLSF:
        return sizeof(pool_t)
    return n_bytes + sizeof(quicklists_t) if has_quicklists else n_bytes


cdef inline void control_init(
    arena_t* arena,
    offset_t control,
    unsigned number,
    unsigned engine,
    unsigned flags,
    uint64_t grow_pages,
    uint64_t max_pages,
) noexcept nogil:
    """Write the control block of a pool that holds no page."""
    cdef pool_t* pool = <pool_t*>(arena.base + control)
    cdef uint64_t tag = <uint64_t>number << BLOCK_TAG_SHIFT
    # The pages may hold what others left; what is not set below is 0.
    engine_fill(pool, 0, sizeof(pool_t))
    pool.magic = POOL_MAGIC
    pool.number = number
    pool.engine = engine
    pool.flags = flags
    # Slack for headers and alignment: what passes cannot overflow, and its
    # bin exists. What does not pass could never be served.
    pool.max_request = arena.n_bytes - arena.page_bytes
    pool.release_bytes = ~<uint64_t>0
    pool.grow_pages = grow_pages
    pool.max_pages = max_pages
    if engine == ENGINE_TLSF and not flags & POOL_HARDENED:
        pool.short_limit = pool.max_request + 1
    if engine == ENGINE_TLSF:
        tlsf_init(
            arena.base,
            &pool.tlsf,
            control + control_bins(),
            control_n_bins(arena),
            tag,
        )
    pool.tlsf.tag = tag         # both: verbs look at it, whatever the engine
    firstfit_init(&pool.firstfit, tag, arena.page_bytes)


cdef inline void control_add_quicklists(
    arena_t* arena, offset_t control, uint64_t n_blocks, uint64_t n_bytes
) noexcept nogil:
    """Give a pool empty quick lists, for which there is room behind its bins."""
    cdef pool_t* pool = <pool_t*>(arena.base + control)
    pool.quicklists = control + control_bytes(arena, ENGINE_TLSF, False)
    pool.quick_blocks = n_blocks
    pool.quick_limit = n_bytes
    pool.short_limit = 0
    engine_fill(arena.base + pool.quicklists, 0, sizeof(quicklists_t))


cdef inline quicklists_t* quicklists_of(arena_t* arena, pool_t* pool) noexcept nogil:
    """The quick lists of a pool that has them."""
    return <quicklists_t*>(arena.base + pool.quicklists)


cdef inline pool_t* control_of(arena_t* arena, entry_t* entry) noexcept nogil:
    """Control block that a directory entry names."""
    return <pool_t*>(arena.base + entry.control)
