# SPDX-License-Identifier: BSD-3-Clause
"""A pool's control block: everything that the arena stores of a pool but its blocks.

It lies at the start of a run of pages in state FRAME_CONTROL and is found through the
pool directory. In a TLSF pool the bins follow, and then the quick lists, if any::

    | pool_t: identity, limits, counters, both engines, hardening | bins | lists |

Its words are offsets and counts; nothing in it belongs to a process.

C1  n_pages = region_pages + run_pages <= max_pages (if not 0), <= peak_pages
C2  region_pages and n_regions agree with the frame table, run_pages and
    n_runs too
C3  the engine's used_bytes and n_used agree with a walk of its blocks
C4  directory entry, frame table and control block agree on the pool
C5  the spare region, if any, is a region of the pool, and so is the roomy one; what
    was extended last is a page of the arena
C6  the state of hardening agrees with the pool's flags, the ring with its count, and
    the count of lost blocks with a walk of the blocks
C7  the quick lists hold blocks in use without start bit, each of its list's
    size, as many and as large as the counts say; no other such block exists; a bit of
    their bitmap is set if and only if the word of its list is not 0
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.arena cimport ARENA_MAX_LOG2, ARENA_MAX_POOLS, arena_t, entry_t
from xmem.base cimport (
    ENGINE_TLSF,
    GRAIN_BYTES,
    claim,
    engine_fill,
    finding_t,
    offset_t,
)
from xmem.engine cimport (
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_SIZE_SHIFT,
    BLOCK_TAG_MASK,
    BLOCK_TAG_SHIFT,
    FREELISTS_HEADS,
    MAPPING_MAX_LOG2,
    SMALL_MAX_BYTES,
    firstfit_init,
    firstfit_t,
    mapping_n_bins,
    tlsf_init,
    tlsf_t,
)

cdef enum:
    POOL_JOINS = 1          # adjacent regions become one
    POOL_HOOKED = 2         # the caller's functions give and take regions
    POOL_ADAPTS = 4         # regions grow with the pool
    POOL_SHARED = 8         # of a door, never of a control block; see routes.pxd

    # Hardening of the TLSF engine; see hardening.pxd.
    POOL_CANARY = 16
    POOL_CHECKSUM = 32
    POOL_SAFE_LINKS = 64
    POOL_POISON = 128
    POOL_QUARANTINE = 256
    POOL_HARDENED = (
        POOL_CANARY | POOL_CHECKSUM | POOL_SAFE_LINKS | POOL_POISON | POOL_QUARANTINE
    )

    SMALL_REQUEST_BYTES = SMALL_MAX_BYTES - BLOCK_HEADER_BYTES

    HARD_RING = 16          # blocks in quarantine, a power of two
    POOL_MAGIC = 0x4C4F4F50
    POOL_BYTES = 704        # of pool_t, rounded up to a cache line

    QUICK_MAX_BYTES = 4096      # of a block on a quick list
    QUICK_SIZE_LOG2 = 4         # a list for each multiple of 16
    QUICK_N_LISTS = QUICK_MAX_BYTES >> QUICK_SIZE_LOG2
    QUICK_N_WORDS = QUICK_N_LISTS >> 6
    QUICK_SHARE = 8             # of the bytes live in regions, one part may wait,
    QUICK_SLACK_BYTES = 16384   # and so many more


cdef struct hard_t:
    offset_t ring[HARD_RING]    # blocks in quarantine, 0: none
    uint64_t n_freed            # into the ring, ever; its low bits are the slot
    uint64_t n_waiting
    uint64_t n_lost             # damaged blocks that will never be freed
    finding_t damage            # the first that a verb found, until it is read
    uint32_t sizes[HARD_RING]   # of the blocks in quarantine, headers included


cdef struct quicklists_t:
    uint64_t listed[QUICK_N_WORDS]      # bit i: list i is in use
    # Of blocks of 16 (i + 1) bytes: the payload freed last, which holds the next;
    # QUICK_DRY if there is none, 0 if the list is not in use.
    offset_t heads[QUICK_N_LISTS]


cdef struct pool_t:
    uint32_t magic
    uint32_t number             # 1 ..., owner in the frame table, tag of blocks
    uint32_t engine
    uint32_t flags
    uint64_t max_request        # payload bytes that no request may exceed
    uint64_t release_bytes      # least free block that may hold a whole region
    offset_t spare              # without joins: block of the spare region, 0: none
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
    offset_t quicklists         # of its quicklists_t, 0: none
    uint64_t quick_below        # requests below it look at them first, 0: none
    uint64_t quick_count        # blocks on them
    uint64_t quick_bytes        # of these blocks, headers included
    uint64_t lock_room[2]
    uint32_t interface          # of the heap to which the pool belongs, or 0
    uint32_t role               # in that heap
    tlsf_t tlsf
    firstfit_t firstfit
    hard_t hard
    uint64_t roomy              # with joins: where a large block started last, or 0
    uint64_t kept_pages         # of regions: no xfree leaves the pool with fewer
    uint64_t last_region        # with joins: page of the one extended last, or 0


cdef inline void control_claims() noexcept nogil:
    """Constants and places on which engines, arena and docs/format.md agree."""
    claim(<int>MAPPING_MAX_LOG2 >= <int>ARENA_MAX_LOG2)       # each block has a bin,
    claim(<int>BLOCK_SIZE_SHIFT + <int>ARENA_MAX_LOG2 <= 64)  # a header,
    claim(<int>BLOCK_GRAIN == <int>GRAIN_BYTES)               # and a start bit
    claim(BLOCK_TAG_MASK >> BLOCK_TAG_SHIFT == ARENA_MAX_POOLS)
    claim(<int>BLOCK_GRAIN == 1 << QUICK_SIZE_LOG2)
    claim(HARD_RING & (HARD_RING - 1) == 0)
    # The bins lie where the free lists look for them: behind the control block.
    claim(POOL_BYTES == (sizeof(pool_t) + 63) & ~<uint64_t>63)
    claim(<uint64_t>&(<pool_t*>NULL).tlsf.bins + FREELISTS_HEADS == POOL_BYTES)
    # The places that docs/format.md states.
    claim(<uint64_t>&(<pool_t*>NULL).max_request == 16)
    claim(<uint64_t>&(<pool_t*>NULL).short_limit == 112)
    claim(<uint64_t>&(<pool_t*>NULL).interface == 168)
    claim(<uint64_t>&(<pool_t*>NULL).tlsf == 176)
    claim(<uint64_t>&(<pool_t*>NULL).tlsf.bins.lower == 232)
    claim(<uint64_t>&(<pool_t*>NULL).firstfit == 384)
    claim(<uint64_t>&(<pool_t*>NULL).hard == 432)
    claim(<uint64_t>&(<pool_t*>NULL).hard.damage == 584)
    claim(<uint64_t>&(<pool_t*>NULL).hard.sizes == 616)
    claim(<uint64_t>&(<pool_t*>NULL).roomy == 680)
    claim(<uint64_t>&(<pool_t*>NULL).kept_pages == 688)
    claim(<uint64_t>&(<pool_t*>NULL).last_region == 696)


cdef inline offset_t control_bins() noexcept nogil:
    """Distance from the control block to its bins: a multiple of a cache line."""
    return POOL_BYTES


cdef inline uint64_t control_n_bins(arena_t* arena) noexcept nogil:
    """Bins for every block that this arena can hold."""
    return mapping_n_bins(arena.n_bytes)


cdef inline uint64_t control_bytes(
    arena_t* arena, unsigned engine, bint has_quicklists
) noexcept nogil:
    """Size of a control block with its bins and, behind them, its quick lists."""
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
    """Write the control block of a pool that has no pages."""
    cdef pool_t* pool = <pool_t*>(arena.base + control)
    cdef uint64_t tag = <uint64_t>number << BLOCK_TAG_SHIFT
    control_claims()
    # The pages may hold stale bytes; what is not set below is 0.
    engine_fill(pool, 0, sizeof(pool_t))
    pool.magic = POOL_MAGIC
    pool.number = number
    pool.engine = engine
    pool.flags = flags
    # With room for headers and alignment: smaller requests do not overflow and
    # have a bin. Larger ones could never be served.
    pool.max_request = arena.n_bytes - arena.page_bytes
    pool.release_bytes = ~<uint64_t>0
    pool.grow_pages = grow_pages
    pool.max_pages = max_pages
    if engine == ENGINE_TLSF and not flags & POOL_HARDENED:
        pool.short_limit = SMALL_REQUEST_BYTES + 1
    if engine == ENGINE_TLSF:
        tlsf_init(
            arena.base,
            &pool.tlsf,
            control + control_bins(),
            control_n_bins(arena),
            tag,
        )
    pool.tlsf.tag = tag         # of both engines: verbs read it here
    firstfit_init(&pool.firstfit, tag, arena.page_bytes)


cdef inline void control_add_quicklists(
    arena_t* arena, offset_t control
) noexcept nogil:
    """Give a pool empty quick lists, for which its control block has room."""
    cdef pool_t* pool = <pool_t*>(arena.base + control)
    pool.quicklists = control + control_bytes(arena, ENGINE_TLSF, False)
    pool.quick_below = QUICK_MAX_BYTES - BLOCK_HEADER_BYTES + 1
    pool.short_limit = 0
    engine_fill(arena.base + pool.quicklists, 0, sizeof(quicklists_t))


cdef inline quicklists_t* quicklists_of(arena_t* arena, pool_t* pool) noexcept nogil:
    """The quick lists of a pool that has them."""
    return <quicklists_t*>(arena.base + pool.quicklists)


cdef inline pool_t* control_of(arena_t* arena, entry_t* entry) noexcept nogil:
    """Control block that a directory entry names."""
    return <pool_t*>(arena.base + entry.control)
