# SPDX-License-Identifier: BSD-3-Clause
"""The superblock at an arena's start, and the tables that follow it.

The tables are packed; the page frames follow::

    0       1024       + 64 x max_pools   + 16 x pages   + 1 bit a grain
    | super | pool      | frame           | start        | run   | stretch | page   |
    | block | directory | table           | bitmap       | heads | tree    | frames |

The last two are caches of the frame table; see runheads.pxd and stretches.pxd. In an
arena that processes share the shared area follows them; see shared/area.pxd.

``superblock_t`` lies at offset 0 in its own bytes: a fixed part, written once
and covered by ``fixed_crc``, and a changing part. ``page_crc`` covers the
superblock and the directory whenever the state is CLEAN.

S1  magic, version, byte order, page size and table offsets are those that
    ``superblock_layout`` gives for the arena's bytes, max_pools and flags, of which
    none is unknown
S2  fixed_crc, and in a clean arena page_crc, match
S3  the state word is one of ARENA_*

``arena_t`` is process-local: where this process mapped the arena, and the
addresses that follow. It is never stored in the arena.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from xmem.base.bits cimport align_up, find_last_set
from xmem.base.checks cimport claim
from xmem.base.grains cimport GRAINS_BYTE_LOG2
from xmem.base.memcheck cimport audit_start
from xmem.base.offset cimport offset_t
from xmem.shared.area cimport AREA_ALIGNMENT, area_t

cdef enum:
    ARENA_VERSION = 9
    ARENA_BYTE_ORDER = 0x01020304
    ARENA_MIN_PAGE_BYTES = 4096
    ARENA_MAX_PAGE_BYTES = 1 << 21
    ARENA_MAX_LOG2 = 44             # bytes of an arena
    ARENA_MAX_POOLS = 32767         # tags of 15 bits
    ARENA_DEFAULT_POOLS = 48        # their entries end at byte 4096

    # States; no two differ in one bit only.
    ARENA_INITIALISING = 0x11E0
    ARENA_READY = 0x22D3            # open in a process, or left by one that died
    ARENA_CLEAN = 0x443C

    # Flags
    ARENA_PREALLOCATED = 1          # the file keeps all its disk blocks
    ARENA_SHARED = 2                # it has a shared area
    ARENA_FLAGS = 3                 # those that there are

    FRAMES_N_ORDERS = 33
    RUNHEADS_MAX_LEVELS = 6         # 64 ** 6 > 2 ** 32
    STRETCHES_LOG2 = 3              # of the entries that one of the next level sums up
    STRETCHES_GROUP = 1 << STRETCHES_LOG2
    STRETCHES_MAX_LEVELS = 11       # 8 ** 11 > 2 ** 32
    SUPERBLOCK_BYTES = 1024
    SUPERBLOCK_FIXED_BYTES = 112    # covered by fixed_crc
    ENTRY_NAME_BYTES = 40

    ENTRY_EMPTY = 0
    ENTRY_INITIALISING = 1
    ENTRY_READY = 2
    ENTRY_DESTROYING = 3            # in a shared arena, until all its pages are free


cdef struct frames_t:
    uint64_t n_free_pages
    uint64_t top                    # first page of the free run at the end, or n_pages
    uint64_t order_bitmap           # bit k: the list of order k is not empty
    uint32_t heads[FRAMES_N_ORDERS]  # first page of each list, 0 = none
    uint32_t padding


cdef struct superblock_t:
    # Fixed part
    uint8_t magic[8]
    uint32_t version
    uint32_t byte_order
    uint64_t n_bytes
    uint32_t page_bytes
    uint32_t n_pages
    uint32_t first_page             # first page frame behind the tables
    uint32_t max_pools
    uint64_t directory              # offsets of the tables
    uint64_t frame_table
    uint64_t start_bitmap
    uint64_t secret                 # random, this arena's own
    uint64_t flags                  # ARENA_ constants
    uint64_t runheads
    uint64_t stretches
    uint64_t area                   # offset of the shared area, or 0
    uint64_t reserved
    uint32_t fixed_crc
    uint32_t padding
    # Changing part
    uint64_t state
    uint64_t root                   # the user's, 0 = none
    uint32_t page_crc
    uint32_t n_serials              # pools made so far
    # Of a shared arena, where it was verified last: the boot, and the file.
    uint64_t boot[2]
    uint64_t device
    uint64_t inode
    uint64_t room[4]
    frames_t frames


cdef struct entry_t:                # of the pool directory, 64 bytes
    uint8_t name[ENTRY_NAME_BYTES]  # UTF-8, padded with zeros
    uint64_t control                # offset of the pool's control block
    uint32_t control_pages
    uint32_t engine
    uint32_t state                  # an ENTRY_ constant
    uint32_t serial                 # distinguishes the entry's successive pools


cdef struct frame_t:                # of the frame table, 16 bytes
    uint64_t word                   # see frames.pxd
    # Of a free run the neighbours on its list. Of a pool's run the lowest bits of
    # `next` are log2 of the alignment asked for; of a hardened pool's block the rest
    # of the two is the number of bytes asked for, see hardening.pxd.
    uint32_t next
    uint32_t prev


cdef struct arena_t:
    char* base
    superblock_t* super
    entry_t* directory
    frame_t* frames
    uint64_t* start_bits
    uint64_t* runheads[RUNHEADS_MAX_LEVELS]
    uint32_t* longest[STRETCHES_MAX_LEVELS]     # of the tree of stretches, in pages
    uint32_t n_runhead_levels
    uint32_t n_stretch_levels
    uint64_t n_bytes
    uint64_t page_bytes
    uint64_t alignment              # of the base, and so the greatest of addresses
    uint32_t page_shift
    uint32_t n_pages
    uint32_t first_page
    uint64_t audit_left             # verbs until the next audit; see audit.pxd
    void* routes                    # where processes share it: see core/routes.pxd


cdef int superblock_plan(superblock_t* plan, object n_bytes, object page_size,
                         object max_pools) except -1
cdef int superblock_verify(bytes head, int64_t length, str path) except -1
cdef int superblock_write(superblock_t* super, uint64_t secret) except -1
cdef uint32_t superblock_seal(superblock_t* super) except? 0


cdef inline void superblock_claims() noexcept nogil:
    """The places and sizes that docs/format.md states."""
    claim(<uint64_t>&(<superblock_t*>NULL).n_bytes == 16)
    claim(<uint64_t>&(<superblock_t*>NULL).directory == 40)
    claim(<uint64_t>&(<superblock_t*>NULL).secret == 64)
    claim(<uint64_t>&(<superblock_t*>NULL).flags == 72)
    claim(<uint64_t>&(<superblock_t*>NULL).runheads == 80)
    claim(<uint64_t>&(<superblock_t*>NULL).stretches == 88)
    claim(<uint64_t>&(<superblock_t*>NULL).area == 96)
    claim(<uint64_t>&(<superblock_t*>NULL).fixed_crc == SUPERBLOCK_FIXED_BYTES)
    claim(SUPERBLOCK_FIXED_BYTES == 112)
    claim(<uint64_t>&(<superblock_t*>NULL).state == 120)
    claim(<uint64_t>&(<superblock_t*>NULL).page_crc == 136)
    claim(<uint64_t>&(<superblock_t*>NULL).boot == 144)
    claim(<uint64_t>&(<superblock_t*>NULL).frames == 208)
    claim(<uint64_t>&(<superblock_t*>NULL).frames.heads == 232)
    claim(sizeof(superblock_t) <= SUPERBLOCK_BYTES)
    claim(<uint64_t>&(<entry_t*>NULL).control == ENTRY_NAME_BYTES)
    claim(<uint64_t>&(<entry_t*>NULL).serial == 60)
    claim(sizeof(entry_t) == 64)
    claim(<uint64_t>&(<frame_t*>NULL).next == 8)
    claim(sizeof(frame_t) == 16)
    claim(SUPERBLOCK_BYTES + ARENA_DEFAULT_POOLS * sizeof(entry_t) == 4096)
    claim(STRETCHES_GROUP == 8)
    # An order for each power of two of pages in the greatest arena.
    claim(
        <uint64_t>ARENA_MIN_PAGE_BYTES << (FRAMES_N_ORDERS - 1)
        == <uint64_t>1 << ARENA_MAX_LOG2
    )


cdef inline uint64_t runheads_words(uint64_t n_entries) noexcept nogil:
    """Words of a level of the run heads, for so many entries below it."""
    return (n_entries + 63) >> 6


cdef inline uint64_t stretches_entries(uint64_t n_entries) noexcept nogil:
    """Entries of a level of the stretches, for so many below it."""
    return (n_entries + STRETCHES_GROUP - 1) >> STRETCHES_LOG2


cdef inline uint64_t runheads_bytes(uint64_t n_pages) noexcept nogil:
    """Size of all levels of the run heads."""
    cdef uint64_t n_words = runheads_words(n_pages)
    cdef uint64_t total = n_words
    while n_words > 1:
        n_words = runheads_words(n_words)
        total += n_words
    return total << 3


cdef inline uint64_t stretches_total(uint64_t n_pages) noexcept nogil:
    """Entries of all levels of the stretches; each level has whole groups."""
    cdef uint64_t n_entries = stretches_entries(n_pages)
    cdef uint64_t total = align_up(n_entries, STRETCHES_GROUP)
    while n_entries > 1:
        n_entries = stretches_entries(n_entries)
        total += align_up(n_entries, STRETCHES_GROUP)
    return total


cdef inline void superblock_layout(
    superblock_t* out, uint64_t n_bytes, uint64_t page_bytes, uint64_t max_pools
) noexcept nogil:
    """Compute the geometry of an arena of ``n_bytes``, a multiple of its page.

    The flags are set.
    """
    cdef unsigned page_shift = find_last_set(page_bytes)
    cdef uint64_t n_pages = n_bytes >> page_shift
    cdef uint64_t end
    out.n_bytes = n_bytes
    out.page_bytes = <uint32_t>page_bytes
    out.n_pages = <uint32_t>n_pages
    out.max_pools = <uint32_t>max_pools
    out.directory = SUPERBLOCK_BYTES
    out.frame_table = out.directory + max_pools * sizeof(entry_t)
    out.start_bitmap = out.frame_table + (
        align_up(n_pages, STRETCHES_GROUP) * sizeof(frame_t)
    )
    out.runheads = out.start_bitmap + align_up(n_bytes >> GRAINS_BYTE_LOG2, 8)
    out.stretches = out.runheads + runheads_bytes(n_pages)
    end = out.stretches + stretches_total(n_pages) * sizeof(uint32_t)
    if out.flags & ARENA_SHARED:
        out.area = align_up(end, AREA_ALIGNMENT)
        end = out.area + sizeof(area_t)
    out.first_page = <uint32_t>((end + page_bytes - 1) >> page_shift)


cdef inline void attach_levels(arena_t* arena, superblock_t* super) noexcept nogil:
    """Set the places of the levels of run heads and stretches."""
    cdef uint64_t n_entries = arena.n_pages
    cdef uint64_t* words = <uint64_t*>(arena.base + super.runheads)
    cdef uint32_t* longest = <uint32_t*>(arena.base + super.stretches)
    arena.n_runhead_levels = 0
    arena.n_stretch_levels = 0
    while arena.n_runhead_levels == 0 or n_entries > 1:
        n_entries = runheads_words(n_entries)
        arena.runheads[arena.n_runhead_levels] = words
        arena.n_runhead_levels += 1
        words += n_entries
    n_entries = arena.n_pages
    while arena.n_stretch_levels == 0 or n_entries > 1:
        n_entries = stretches_entries(n_entries)
        arena.longest[arena.n_stretch_levels] = longest
        arena.n_stretch_levels += 1
        longest += align_up(n_entries, STRETCHES_GROUP)


cdef inline void arena_attach(arena_t* arena, char* base) noexcept nogil:
    """Fill ``arena`` for a valid superblock mapped at ``base``."""
    cdef superblock_t* super = <superblock_t*>base
    arena.base = base
    arena.super = super
    arena.directory = <entry_t*>(base + super.directory)
    arena.frames = <frame_t*>(base + super.frame_table)
    arena.start_bits = <uint64_t*>(base + super.start_bitmap)
    arena.n_bytes = super.n_bytes
    arena.page_bytes = super.page_bytes
    arena.page_shift = find_last_set(arena.page_bytes)
    arena.n_pages = super.n_pages
    arena.first_page = super.first_page
    attach_levels(arena, super)
    arena.audit_left = audit_start()
    arena.routes = NULL


cdef inline area_t* area_of(arena_t* arena) noexcept nogil:
    """The shared area of an arena that has one."""
    return <area_t*>(arena.base + arena.super.area)


cdef inline offset_t page_offset(arena_t* arena, uint64_t page) noexcept nogil:
    """Offset of a page."""
    return page << arena.page_shift


cdef inline uint64_t page_of(arena_t* arena, offset_t offset) noexcept nogil:
    """Page in which ``offset`` lies."""
    return offset >> arena.page_shift
