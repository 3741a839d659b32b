# SPDX-License-Identifier: BSD-3-Clause
"""The header-only layers as a module, for tests; requirements abort.

Three things that the package's own interfaces do not show: the functions of a
layer by themselves, an engine over plain memory without arena or pool, and
how many function calls a verb makes (the compiler calls a counter at the
entry of every function, inlined or not). A loop of the core calls a function
in every turn, so the calls bound the work.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

from xmem.arena.arena cimport Arena
from xmem.arena.frames cimport frames_alloc, frames_free, frames_put, frames_take
from xmem.arena.holds cimport holds_begin, holds_end, holds_t
from xmem.arena.records cimport FRAME_RUN
from xmem.arena.stretches cimport stretches_lower, stretches_raise
from xmem.arena.superblock cimport arena_t, page_of, page_offset
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    flag_argument,
    offset_argument,
    size_argument,
    words_argument,
)
from xmem.base.bits cimport (
    align_down,
    align_up,
    bit,
    ceil_log2,
    find_first_set,
    find_last_set,
    is_power_of_two,
)
from xmem.base.grains cimport grain_clear, grain_set, grain_test
from xmem.core.control cimport POOL_BYTES, control_bytes, pool_t, quicklists_t
from xmem.core.placement cimport place_in
from xmem.core.plain cimport (
    plain_alloc,
    plain_capacity,
    plain_free,
    plain_resize,
    pool_alignment,
    pool_owns,
)
from xmem.core.spares cimport is_hopeless, spare_drop
from xmem.core.startbits cimport start_after, start_before, start_from, start_test
from xmem.engine.allocation cimport tlsf_alloc, tlsf_alloc_aligned
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_PREV_FREE,
    BLOCK_TAG_MASK,
    REGION_HEAD_BYTES,
    block_bytes_for,
    block_prev_free,
    block_size,
    block_split_size,
    block_tag_end,
    block_word,
    block_write,
    breaks_page_rule,
    word_at,
    word_size,
)
from xmem.engine.firstfit cimport (
    FIRSTFIT_NEXT,
    firstfit_alloc,
    firstfit_bytes_for,
    firstfit_coalesce,
    firstfit_init,
    firstfit_link,
    firstfit_shrink,
    firstfit_t,
    firstfit_take,
    firstfit_unlink,
)
from xmem.engine.freelists cimport (
    FREELISTS_HEADS,
    LINK_NEXT,
    freelists_find,
    freelists_first,
    freelists_init,
    freelists_insert,
    freelists_remove,
    freelists_set_aside,
    freelists_t,
)
from xmem.engine.mapping cimport mapping_insert, mapping_n_bins, mapping_search
from xmem.engine.remainder cimport tlsf_list_aside
from xmem.engine.resizing cimport tlsf_resize, tlsf_resize_left
from xmem.engine.tlsf cimport (
    has_free_left,
    has_free_right,
    tlsf_find,
    tlsf_free,
    tlsf_init,
    tlsf_t,
    word_alignment,
)
from xmem.engine.tlsf_regions cimport (
    tlsf_region_block,
    tlsf_region_end,
    tlsf_region_limit,
    tlsf_region_list,
)
from xmem.measure.clock cimport (
    clock_hz,
    clock_nanoseconds,
    clock_overhead,
    clock_ticks,
)
from xmem.measure.codes cimport OP_REALLOC, op_t
from xmem.measure.paths cimport path_after, path_before
from xmem.measure.pattern cimport all_zero, pattern_fill, pattern_holds
from xmem.measure.player cimport count_new, count_resized, object_t, player_t
from xmem.pool cimport Pool, pool_is_ordinary
from xmem.verbs cimport pool_alloc, pool_alloc_patiently, pool_free, pool_resize

cdef extern from *:
    """
    #include <stdint.h>
    #define PROBE_HIDDEN __attribute__((no_instrument_function, visibility("hidden")))
    static struct { void *function; uint64_t calls; } probe_seen[32];
    static int probe_n_seen, probe_on;
    static uint64_t probe_total;
    void __cyg_profile_func_enter(void *function, void *site) PROBE_HIDDEN;
    void __cyg_profile_func_exit(void *function, void *site) PROBE_HIDDEN;
    void __cyg_profile_func_enter(void *function, void *site)
    {
        int i;
        if (!probe_on)
            return;
        probe_total++;
        for (i = 0; i < probe_n_seen; i++)
            if (probe_seen[i].function == function)
                probe_seen[i].calls++;
    }
    void __cyg_profile_func_exit(void *function, void *site)
    {
    }
    static void PROBE_HIDDEN probe_name(void *function)
    {
        probe_seen[probe_n_seen++].function = function;
    }
    static void PROBE_HIDDEN probe_start(void)
    {
        int i;
        for (i = 0; i < probe_n_seen; i++)
            probe_seen[i].calls = 0;
        probe_total = 0;
        probe_on = 1;
    }
    static uint64_t PROBE_HIDDEN probe_stop(void)
    {
        probe_on = 0;
        return probe_total;
    }
    static uint64_t PROBE_HIDDEN probe_calls(int i)
    {
        return probe_seen[i].calls;
    }
    """
    void probe_name(void* function) nogil
    void probe_start() nogil
    uint64_t probe_stop() nogil
    uint64_t probe_calls(int i) nogil


# Counting ----------------------------------------------------------------------

NAMES = (
    "insert",
    "remove",
    "find",
    "header",
    "tag",
    "aside",
    "link",
    "unlink",
    "frames_take",
    "frames_put",
    "stretches_raise",
    "stretches_lower",
    "place_in",
    "spare_drop",
)

probe_name(<void*>freelists_insert)
probe_name(<void*>freelists_remove)
probe_name(<void*>freelists_find)
probe_name(<void*>block_write)
probe_name(<void*>block_tag_end)
probe_name(<void*>freelists_set_aside)
probe_name(<void*>firstfit_link)
probe_name(<void*>firstfit_unlink)
probe_name(<void*>frames_take)
probe_name(<void*>frames_put)
probe_name(<void*>stretches_raise)
probe_name(<void*>stretches_lower)
probe_name(<void*>place_in)
probe_name(<void*>spare_drop)


cdef dict _counts(uint64_t total):
    counts = {name: probe_calls(i) for i, name in enumerate(NAMES)}
    counts["calls"] = total
    return counts


def counted_alloc(Pool pool, uint64_t n_bytes, uint64_t alignment=16):
    """Payload (0: refused) and how often each function was called."""
    cdef uint64_t payload, total
    probe_start()
    payload = pool_alloc(&pool.arena.c, pool.c, n_bytes, alignment)
    total = probe_stop()
    return payload, _counts(total)


def counted_patient_alloc(Pool pool, uint64_t n_bytes, uint64_t alignment=16):
    """As `counted_alloc`, of the verb that would rather wait than fail."""
    cdef uint64_t payload, total
    probe_start()
    payload = pool_alloc_patiently(&pool.arena.c, pool.c, n_bytes, alignment)
    total = probe_stop()
    return payload, _counts(total)


def counted_free(Pool pool, uint64_t payload):
    cdef uint64_t total
    probe_start()
    pool_free(&pool.arena.c, pool.c, payload)
    total = probe_stop()
    return _counts(total)


def counted_resize(
    Pool pool, uint64_t payload, uint64_t n_bytes, uint64_t alignment=16
):
    cdef uint64_t moved, total
    probe_start()
    moved = pool_resize(&pool.arena.c, pool.c, payload, n_bytes, alignment)
    total = probe_stop()
    return moved, _counts(total)


def counted_page_alloc(Arena arena, uint64_t n_pages):
    cdef uint64_t page, total
    probe_start()
    page = frames_alloc(&arena.c, n_pages, FRAME_RUN, 0)
    total = probe_stop()
    return page_offset(&arena.c, page), _counts(total)


def counted_page_free(Arena arena, uint64_t offset):
    cdef uint64_t total
    probe_start()
    frames_free(&arena.c, <unsigned>page_of(&arena.c, offset))
    total = probe_stop()
    return _counts(total)


def page_take(Arena arena, uint64_t stretch, uint64_t offset, uint64_t n_pages):
    """Take the pages at ``offset`` out of the free run at ``stretch``."""
    frames_take(
        &arena.c,
        page_of(&arena.c, stretch),
        page_of(&arena.c, offset),
        n_pages,
        FRAME_RUN,
        0,
    )


# Functions of single layers ----------------------------------------------------

def bits(uint64_t word, uint64_t alignment):
    """Everything that bits.pxd says of a word (not 0)."""
    return {
        "find_last_set": find_last_set(word),
        "find_first_set": find_first_set(word),
        "align_up": align_up(word, alignment),
        "align_down": align_down(word, alignment),
        "is_power_of_two": bool(is_power_of_two(word)),
        "ceil_log2": ceil_log2(word),
    }


def one_bit(uint64_t index):
    return bit(index)


def mapping(uint64_t size):
    """Bin where a block is kept, and first bin that is searched."""
    return mapping_insert(size), mapping_search(size)


def n_bins(uint64_t size):
    return mapping_n_bins(size)


def bytes_for(uint64_t payload_bytes):
    """Block sizes of the two engines for a request."""
    return block_bytes_for(payload_bytes), firstfit_bytes_for(payload_bytes)


def split_size(uint64_t block, uint64_t size, uint64_t need):
    return block_split_size(block, size, need)


def page_rule_broken(uint64_t block):
    return bool(breaks_page_rule(block))


# Arguments and grains ----------------------------------------------------------

def argument(str kind, value):
    """A value as a verb converts it."""
    if kind == "size":
        return size_argument(value)
    if kind == "offset":
        return offset_argument(value)
    if kind == "align":
        return align_argument(value)
    return bool(flag_argument(value, "switch"))


def count(value, uint64_t least):
    return count_argument(value, "number", least)


def words(values, bint are_offsets):
    return words_argument(values, "values", are_offsets)


cdef void _give_nothing(PyObject* owner, uint64_t payload) noexcept:
    pass


def holds_room(uint64_t arena_bytes, unsigned max_pools):
    """Bytes mapped for an arena's owned blocks, and where the pools' counts start."""
    cdef holds_t holds
    memset(&holds, 0, sizeof(holds_t))
    if holds_begin(&holds, arena_bytes, max_pools, _give_nothing) != 0:
        raise MemoryError
    found = holds.mapped_bytes, <char*>holds.n_lent - <char*>holds.owned
    holds_end(&holds)
    return found


cdef class Grains:
    """The bits of the grains of 4096 bytes."""

    cdef uint64_t bits[4]

    def set(self, uint64_t offset):
        grain_set(self.bits, offset)

    def clear(self, uint64_t offset):
        grain_clear(self.bits, offset)

    def test(self, uint64_t offset):
        return bool(grain_test(self.bits, 4096, offset))

    def words(self):
        return list(self.bits)


# The core on a pool's own arena ------------------------------------------------

def core_alloc(Pool pool, uint64_t n_bytes, uint64_t alignment=16):
    return plain_alloc(&pool.arena.c, pool.c, n_bytes, alignment)


def core_free(Pool pool, uint64_t payload):
    plain_free(&pool.arena.c, pool.c, payload)


def core_resize(Pool pool, uint64_t payload, uint64_t n_bytes, uint64_t alignment=16):
    return plain_resize(&pool.arena.c, pool.c, payload, n_bytes, alignment, True)


def core_block(Pool pool, uint64_t payload):
    """Capacity and alignment of a live block."""
    return (
        plain_capacity(&pool.arena.c, pool.c, payload),
        pool_alignment(&pool.arena.c, pool.c, payload),
    )


def core_owns(Pool pool, uint64_t payload):
    return bool(pool_owns(&pool.arena.c, pool.c, payload))


def hopeless(Pool pool, uint64_t n_pages):
    """Whether no empty region that leaves can make room for so many pages."""
    return bool(is_hopeless(&pool.arena.c, pool.c, n_pages))


def drop_spare(Pool pool):
    """Give an empty region back; whether one was found."""
    return bool(spare_drop(&pool.arena.c, pool.c))


def ordinary(Pool pool):
    """Whether the next verb has no more to do than its work in the engine."""
    return pool_is_ordinary(pool)


def starts(Pool pool, uint64_t payload):
    """The bit of an offset, and the next set ones below and above it."""
    return (
        bool(start_test(&pool.arena.c, payload)),
        start_before(&pool.arena.c, payload),
        start_after(&pool.arena.c, payload),
    )


def start_search(Pool pool, uint64_t payload, uint64_t end, uint64_t n_words):
    """Where a search that may look at so many words ends."""
    return start_from(&pool.arena.c, payload, end, &n_words)


def control_sizes(Arena arena, unsigned engine):
    """Bytes of a control block, without and with quick lists."""
    return (
        control_bytes(&arena.c, engine, False),
        control_bytes(&arena.c, engine, True),
    )


def control_parts():
    """Bytes of pool_t, of its place in the arena, and of the quick lists."""
    return sizeof(pool_t), POOL_BYTES, sizeof(quicklists_t)


def control_word(Pool pool, uint64_t offset):
    """A word of the pool's control block."""
    return (<uint64_t*>(<char*>pool.c + offset))[0]


# Measuring ---------------------------------------------------------------------

def pattern(uint64_t n_bytes, uint64_t id):
    """The pattern of an object."""
    filled = bytearray(n_bytes)
    pattern_fill(PyByteArray_AS_STRING(filled), n_bytes, id)
    return filled


def holds_pattern(bytearray held, uint64_t id):
    return bool(pattern_holds(PyByteArray_AS_STRING(held), len(held), id))


def is_zero(bytearray held):
    return bool(all_zero(PyByteArray_AS_STRING(held), len(held)))


def errors_of_object(
    unsigned kind,
    uint64_t align_log2,
    uint64_t payload,
    bytearray held,
    uint64_t kept=0,
    bint verify=True,
):
    """Errors that a player counts of a new object, or of a resized one.

    ``held`` is what it finds at ``payload``, of which ``kept`` bytes were the object's.
    """
    cdef player_t player
    cdef arena_t arena
    cdef object_t target
    cdef op_t op
    cdef uint8_t align = align_log2
    memset(&player, 0, sizeof(player_t))
    memset(&op, 0, sizeof(op_t))
    arena.base = PyByteArray_AS_STRING(held) - payload
    player.arena = &arena
    player.aligns = &align
    player.verify = verify
    target.payload = payload
    target.size = kept
    op.op = kind
    op.size = len(held)
    if kind == OP_REALLOC:
        count_resized(&player, &target, &op, payload)
    else:
        count_new(&player, &target, &op)
    return player.content_errors


def clock():
    """Ticks and nanoseconds now."""
    return clock_ticks(), clock_nanoseconds()


def clock_figures():
    """Ticks of a reading, and ticks per second."""
    return clock_overhead(), clock_hz()


def path_of(Pool pool, unsigned verb, uint64_t payload, uint64_t value):
    """The path of a call (0: xmalloc, 1: xfree, 2: xrealloc) that is made here.

    ``value`` is the size of a request.
    """
    cdef uint64_t path = path_before(&pool.arena.c, pool.c, verb, payload)
    cdef uint64_t n_pages = pool.c.n_pages
    cdef uint64_t result = 1
    if verb == 0:
        result = pool_alloc(&pool.arena.c, pool.c, value, 16)
    elif verb == 1:
        pool_free(&pool.arena.c, pool.c, payload)
    else:
        result = pool_resize(&pool.arena.c, pool.c, payload, value, 16)
    path |= path_after(&pool.arena.c, pool.c, verb, payload, result, n_pages)
    return result, path


# Plain memory instead of an arena ----------------------------------------------

cdef class Memory:
    """Zeroed bytes whose base is aligned to 4096."""

    cdef char* base
    cdef readonly uint64_t n_bytes

    def __cinit__(self, uint64_t n_bytes, *args):
        if posix_memalign(<void**>&self.base, 4096, n_bytes) != 0:
            raise MemoryError
        memset(self.base, 0, n_bytes)
        self.n_bytes = n_bytes

    def __dealloc__(self):
        free(self.base)

    def word(self, uint64_t offset):
        """The word at an offset."""
        return word_at(self.base, offset)[0]

    def payload(self, uint64_t block):
        """A copy of a block's payload."""
        return (self.base + block + 8)[: block_size(self.base, block) - 8]

    def fill(self, uint64_t block, bytes data):
        """Write into a block's payload."""
        assert <uint64_t>len(data) <= block_size(self.base, block) - 8
        memcpy(self.base + block + 8, <char*>data, len(data))


cdef class Lists(Memory):
    """Lists at offset 64, their bins behind, blocks anywhere behind those."""

    cdef freelists_t* lists

    def __init__(self, uint64_t n_bytes, uint64_t max_size):
        self.lists = <freelists_t*>(self.base + 64)
        freelists_init(
            self.base, self.lists, 64 + FREELISTS_HEADS, mapping_n_bins(max_size)
        )

    def insert(self, uint64_t block, uint64_t size):
        block_write(self.base, block, size, BLOCK_FREE)
        freelists_insert(self.base, self.lists, block, size)

    def remove(self, uint64_t block):
        freelists_remove(self.base, self.lists, block)

    def first(self, uint64_t index):
        return freelists_first(self.base, self.lists, index)

    def find(self, uint64_t index):
        return freelists_find(self.base, self.lists, index)

    def bin(self, uint64_t index):
        """Blocks of a bin in order."""
        cdef uint64_t block = freelists_first(self.base, self.lists, index)
        found = []
        while block != 0:
            found.append(block)
            block = word_at(self.base, block + LINK_NEXT)[0]
        return found

    def bitmaps(self):
        """Upper word, and bins whose lower bit is set."""
        return self.lists.upper, {
            i
            for i in range(self.lists.n_bins)
            if (self.lists.lower[i >> 6] >> (i & 63)) & 1
        }


cdef uint64_t NO_LIMIT = ~<uint64_t>0


cdef class Engine(Memory):
    """TLSF over plain memory; bins in its first bytes."""

    cdef tlsf_t* tlsf
    cdef uint64_t* starts
    cdef readonly uint64_t first        # where regions may start
    cdef readonly uint64_t tag

    def __cinit__(self, uint64_t n_bytes, *args):
        self.starts = <uint64_t*>calloc((n_bytes >> 10) + 1, 8)
        if self.starts == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.starts)

    def __init__(self, uint64_t n_bytes, unsigned number=5):
        cdef uint64_t heads
        self.tag = <uint64_t>number << 5
        self.tlsf = <tlsf_t*>(self.base + 64)
        heads = <char*>&self.tlsf.bins - self.base + FREELISTS_HEADS
        tlsf_init(
            self.base, self.tlsf, heads, mapping_n_bins(n_bytes), self.tag
        )
        self.first = align_up(heads + 8 * mapping_n_bins(n_bytes), 4096)

    @property
    def used(self):
        return self.tlsf.n_used, self.tlsf.used_bytes

    @property
    def aside(self):
        """The remainder, 0: none."""
        return self.tlsf.bins.aside

    def find(self, uint64_t need):
        return tlsf_find(self.base, self.tlsf, need)

    def list_aside(self):
        tlsf_list_aside(self.base, self.tlsf)

    def region_made(self, uint64_t start, uint64_t end, bint is_followed):
        """Make a region, as `region_add` does it, without a neighbour on the left."""
        cdef uint64_t limit = tlsf_region_limit(self.base, end, is_followed)
        tlsf_region_end(self.base, self.tlsf, end, limit)
        tlsf_region_block(self.base, self.tlsf, start + 8, limit - start - 8)
        tlsf_region_list(self.base, self.tlsf, start + 8)

    def add_region(self, uint64_t start, uint64_t end):
        self.region_made(start, end, False)

    def add_region_before(self, uint64_t start, uint64_t seam):
        self.region_made(start, seam, True)

    def alloc(self, uint64_t need, uint64_t alignment=16):
        if alignment <= 16:
            return tlsf_alloc(self.base, self.tlsf, need)
        return tlsf_alloc_aligned(self.base, self.tlsf, need, alignment)

    def free(self, uint64_t block):
        cdef uint64_t size
        cdef uint64_t word = block_word(self.base, block)
        tlsf_free(
            self.base,
            self.tlsf,
            &block,
            has_free_left(word),
            has_free_right(self.base, block, word),
            &NO_LIMIT,
            &size,
        )

    def resize(self, uint64_t block, uint64_t need):
        return bool(tlsf_resize(self.base, self.tlsf, block, need))

    def resize_left(self, uint64_t block, uint64_t need):
        return tlsf_resize_left(self.base, self.tlsf, block, need, self.starts)

    def listed(self):
        """Every free block, with the bin it is listed in; -1: the remainder."""
        cdef uint64_t i, block
        found = {}
        if self.tlsf.bins.aside != 0:
            found[self.tlsf.bins.aside] = -1
        for i in range(self.tlsf.bins.n_bins):
            block = freelists_first(self.base, &self.tlsf.bins, i)
            while block != 0:
                found[block] = i
                block = word_at(self.base, block + LINK_NEXT)[0]
        return found

    def walk(self, uint64_t start):
        """Blocks of the region at ``start``, the sentinel last."""
        cdef uint64_t block = start + REGION_HEAD_BYTES
        cdef uint64_t word
        found = []
        while True:
            word = block_word(self.base, block)
            found.append(
                {
                    "block": block,
                    "size": word_size(word),
                    "free": (word & BLOCK_FREE) != 0,
                    "prev_free": (word & BLOCK_PREV_FREE) != 0,
                    "left": (
                        block_prev_free(self.base, block)
                        if word & BLOCK_PREV_FREE
                        else None
                    ),
                    "align": word_alignment(word),
                    "aligned": (word & BLOCK_ALIGN_MASK) != 0,
                    "tag": word & BLOCK_TAG_MASK,
                }
            )
            if word_size(word) == 0:
                return found
            block += word_size(word)


cdef class Legacy(Memory):
    """First fit over pages of plain memory."""

    cdef firstfit_t engine

    def __init__(self, uint64_t n_bytes, uint64_t page_bytes=4096):
        firstfit_init(&self.engine, 7 << 5, page_bytes)

    @property
    def used(self):
        return self.engine.n_used, self.engine.used_bytes

    def take_page(self, uint64_t start, uint64_t need):
        """Use the left part of a new page."""
        firstfit_take(
            self.base, &self.engine, start, self.engine.page_bytes, need
        )
        return start

    def alloc(self, uint64_t need):
        return firstfit_alloc(self.base, &self.engine, need)

    def shrink(self, uint64_t block, uint64_t need):
        firstfit_shrink(self.base, &self.engine, block, need)

    def free(self, uint64_t block):
        """Where the merged block starts and its size; listed unless a page."""
        cdef uint64_t freed = block
        cdef uint64_t size = firstfit_coalesce(self.base, &self.engine, &freed)
        if size < self.engine.page_bytes:
            firstfit_link(self.base, &self.engine, freed)
        return freed, size

    def listed(self):
        """The free list, in its order."""
        cdef uint64_t block = self.engine.head
        found = []
        while block != 0:
            found.append(block)
            block = word_at(self.base, block + FIRSTFIT_NEXT)[0]
        return found

    def walk(self, uint64_t start):
        """(block, size, free) of each block of a page."""
        cdef uint64_t block = start
        found = []
        while block < start + self.engine.page_bytes:
            found.append(
                (
                    block,
                    block_size(self.base, block),
                    bool(block_word(self.base, block) & BLOCK_FREE),
                )
            )
            block += block_size(self.base, block)
        return found
