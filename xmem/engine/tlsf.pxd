# SPDX-License-Identifier: BSD-3-Clause
"""The TLSF engine: two-level segregated fit over regions of an arena.

A region is a run of bytes that the pool hands over. Blocks tile it from its
first word to the sentinel, a header of size 0 that is always in use::

    start  +8                                        end - 8   end
      |    | block | block | ...               | block | sentinel |

Each verb does a bounded amount of work: at most two removals from and two
insertions into free lists, three bit scans, and as many header writes as
its docstring says. There is no loop, no system call and no Python object.

The engine neither obtains nor returns pages. ``tlsf_alloc`` returns 0 when no block
fits, and the pool that owns the engine decides what to do. ``tlsf_free`` hands a
coalesced block that may hold a whole region to the pool, unlisted, so that the pool
can return its pages.

Source: Masmano, Ripoll, Crespo, Real, ECRTS 2004; the probe of the lower bin
(a good fit that rounding up would miss) is ours.
"""

from libc.stdint cimport uint64_t

from xmem.base.bits cimport align_up, bit, find_first_set
from xmem.base.checks cimport assume, require, store_barrier, unlikely
from xmem.base.grains cimport grain_set
from xmem.base.memcheck cimport engine_move
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_SHIFT,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    REGION_HEAD_BYTES,
    REGION_TAIL_BYTES,
    block_prev_free,
    block_size,
    block_split_at,
    block_split_size,
    block_tag_end,
    block_word,
    block_write,
    breaks_page_rule,
    payload_of,
    word_at,
    word_size,
)
from xmem.engine.freelists cimport (
    freelists_find,
    freelists_first,
    freelists_init,
    freelists_insert,
    freelists_remove,
    freelists_search,
    freelists_t,
    freelists_take,
)
from xmem.engine.mapping cimport level_bin, mapping_level, mapping_search


cdef struct tlsf_t:
    uint64_t tag            # in every header of this engine
    uint64_t used_bytes     # blocks in use, headers included
    uint64_t n_used         # blocks in use
    freelists_t bins


cdef inline uint64_t align_bits(uint64_t alignment) noexcept nogil:
    """Header bits that record an alignment of 16 to 2048 bytes."""
    return (<uint64_t>find_first_set(alignment) - 4) << BLOCK_ALIGN_SHIFT


cdef inline uint64_t word_alignment(uint64_t word) noexcept nogil:
    """Alignment in bytes recorded in a header word."""
    return bit(4 + ((word & BLOCK_ALIGN_MASK) >> BLOCK_ALIGN_SHIFT))


cdef inline void set_prev_free(char* base, offset_t block) noexcept nogil:
    word_at(base, block)[0] |= BLOCK_PREV_FREE


cdef inline void clear_prev_free(char* base, offset_t block) noexcept nogil:
    word_at(base, block)[0] &= ~<uint64_t>BLOCK_PREV_FREE


cdef inline void tlsf_init(
    char* base, tlsf_t* tlsf, offset_t heads, uint64_t n_bins, uint64_t tag
) noexcept nogil:
    """Make an engine without regions; its bins are the words at ``heads``."""
    tlsf.tag = tag
    tlsf.used_bytes = 0
    tlsf.n_used = 0
    freelists_init(base, &tlsf.bins, heads, n_bins)


# Finding and cutting ---------------------------------------------------------

cdef inline offset_t tlsf_find(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """A free block of at least ``need`` bytes, still on its list, or 0.

    The head of the bin that ``need`` itself falls into is tried first: it may
    fit exactly, which the search, rounding up, would miss. So a block that
    was just freed serves a request of its own size, for every size.
    """
    cdef unsigned level = mapping_level(need)
    cdef offset_t block = freelists_first(
        base, &tlsf.bins, level_bin(level, need)
    )
    if block != 0 and block_size(base, block) >= need:
        return block
    return freelists_find(
        base,
        &tlsf.bins,
        level_bin(level, need - 1) + 1,
    )


cdef inline void tlsf_insert_rest(
    char* base, tlsf_t* tlsf, offset_t rest, uint64_t size
) noexcept nogil:
    """Put the free remainder of a split, whose header is written, on its list."""
    block_tag_end(base, rest, size)
    freelists_insert(base, &tlsf.bins, rest, size)


cdef inline void tlsf_place(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need, uint64_t bits
) noexcept nogil:
    """Use ``need`` bytes of a free block that is on no list.

    Writes two headers, or one and a flag; at most one insertion. ``bits`` are
    the flags of the block in use.
    """
    cdef uint64_t size = block_size(base, block)
    require(size >= need)
    # Not by block_split_size: compilers would compare once more, which costs every
    # xmalloc two instructions.
    need = block_split_at(block, need)
    if size >= need + BLOCK_MIN_BYTES:
        block_write(base, block + need, size - need, tlsf.tag | BLOCK_FREE)
        store_barrier()
        block_write(base, block, need, tlsf.tag | bits)
        tlsf_insert_rest(base, tlsf, block + need, size - need)
    else:
        need = size
        block_write(base, block, size, tlsf.tag | bits)
        clear_prev_free(base, block + size)
    tlsf.used_bytes += need
    tlsf.n_used += 1


cdef inline offset_t tlsf_alloc(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """A block in use of ``need`` bytes (header included), or 0.

    Searches as ``tlsf_find`` does, but knows the bin when it takes the block off its
    list. One removal, at most one insertion, at most three bit scans.
    Requires ``need`` is a block size that the bins can hold.
    """
    cdef unsigned level = mapping_level(need)
    cdef uint64_t index = level_bin(level, need)
    cdef offset_t block = freelists_first(base, &tlsf.bins, index)
    if block == 0 or block_size(base, block) < need:
        index = freelists_search(
            &tlsf.bins,
            level_bin(level, need - 1) + 1,
        )
        if unlikely(index == 0):
            return 0
        block = freelists_first(base, &tlsf.bins, index)
        assume(block != 0)
    freelists_take(base, &tlsf.bins, index, block)
    tlsf_place(base, tlsf, block, need, 0)
    return block


# Aligned allocation ----------------------------------------------------------

cdef inline uint64_t aligned_gap(
    offset_t block, uint64_t alignment
) noexcept nogil:
    """Bytes to leave free on the left so that the payload is aligned: 0 or >= 32."""
    cdef offset_t payload = align_up(payload_of(block), alignment)
    if 0 < payload - payload_of(block) < BLOCK_MIN_BYTES:
        payload += alignment
    if breaks_page_rule(payload - BLOCK_HEADER_BYTES):
        payload += alignment
    return payload - payload_of(block)


cdef inline uint64_t aligned_slack(uint64_t alignment) noexcept nogil:
    """Greatest value of ``aligned_gap``."""
    return 2 * alignment + BLOCK_GRAIN


cdef inline bint fits_aligned(
    char* base, offset_t block, uint64_t need, uint64_t alignment
) noexcept nogil:
    """Whether ``block`` is a block that has room for an aligned request."""
    return block != 0 and (
        block_size(base, block) >= need + aligned_gap(block, alignment)
    )


cdef inline offset_t tlsf_find_aligned(
    char* base, tlsf_t* tlsf, uint64_t need, uint64_t alignment
) noexcept nogil:
    """A free block with room for ``need`` aligned bytes, or 0.

    Three probes: the head of the request's own bin, then the first larger block,
    which may fit; then a block with room for any gap, which always does.
    """
    cdef unsigned level = mapping_level(need)
    cdef uint64_t padded = need + aligned_slack(alignment)
    cdef offset_t block = freelists_first(
        base, &tlsf.bins, level_bin(level, need)
    )
    if fits_aligned(base, block, need, alignment):
        return block
    block = freelists_find(base, &tlsf.bins, mapping_search(need))
    if fits_aligned(base, block, need, alignment):
        return block
    return freelists_find(base, &tlsf.bins, mapping_search(padded))


cdef inline offset_t tlsf_carve(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t need,
    uint64_t alignment,
) noexcept nogil:
    """Use ``need`` aligned bytes of a listed free block that has room for them.

    One removal, at most two insertions. The alignment is kept in the header.
    """
    cdef uint64_t gap = aligned_gap(block, alignment)
    cdef uint64_t bits = align_bits(alignment)
    cdef uint64_t size
    freelists_remove(base, &tlsf.bins, block)
    if gap != 0:
        size = block_size(base, block)
        block_write(base, block + gap, size - gap, tlsf.tag | BLOCK_FREE)
        store_barrier()
        block_write(base, block, gap, tlsf.tag | BLOCK_FREE)
        tlsf_insert_rest(base, tlsf, block, gap)
        block += gap
        bits |= BLOCK_PREV_FREE
    tlsf_place(base, tlsf, block, need, bits)
    return block


cdef inline offset_t tlsf_alloc_aligned(
    char* base, tlsf_t* tlsf, uint64_t need, uint64_t alignment
) noexcept nogil:
    """As ``tlsf_alloc``, with the payload at a multiple of ``alignment`` (32 to 2048).

    One removal, at most two insertions.
    """
    cdef offset_t block = tlsf_find_aligned(base, tlsf, need, alignment)
    if block == 0:
        return 0
    return tlsf_carve(base, tlsf, block, need, alignment)


# Freeing ---------------------------------------------------------------------

cdef inline offset_t tlsf_coalesce(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t* merged_bytes
) noexcept nogil:
    """Mark a block free and merge it with its free neighbours.

    At most two removals and two header writes. Returns the merged block, which is on
    no list yet, and its size in ``merged_bytes``. One store merges it.

    Requires ``block`` is in use.
    Ensures  B4, B5 and B6 hold for the result.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef offset_t left
    require((word & BLOCK_FREE) == 0)
    tlsf.used_bytes -= size
    tlsf.n_used -= 1
    # A neighbour is unlinked before its links are overwritten.
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
        size += word_size(right_word)
    else:
        word_at(base, right)[0] = right_word | BLOCK_PREV_FREE
    if word & BLOCK_PREV_FREE:
        left = block_prev_free(base, block)
        freelists_remove(base, &tlsf.bins, left)
        # The absorbed header still says FREE, so that a checked build catches a
        # second free.
        word_at(base, block)[0] = word | BLOCK_FREE
        size += block_size(base, left)
        block = left
    store_barrier()
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    block_tag_end(base, block, size)
    merged_bytes[0] = size
    return block


cdef inline bint tlsf_free(
    char* base,
    tlsf_t* tlsf,
    offset_t* block,
    const uint64_t* limit,
    uint64_t* merged_bytes,
) noexcept nogil:
    """Free a block; False if the result, of ``limit`` bytes or more, is not listed.

    At most two removals and one insertion. ``block`` and ``merged_bytes`` become
    those of the merged block; where the result is False the caller has to list it.
    The limit is passed by its address, so that no register holds it during the merge.
    """
    block[0] = tlsf_coalesce(base, tlsf, block[0], merged_bytes)
    if unlikely(merged_bytes[0] >= limit[0]):
        return False
    freelists_insert(base, &tlsf.bins, block[0], merged_bytes[0])
    return True


# Resizing --------------------------------------------------------------------

cdef inline void tlsf_fit(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t total,
    uint64_t need,
    uint64_t bits,
    bint right_knows_free,
) noexcept nogil:
    """Let a block in use keep ``need`` of the ``total`` bytes from its header on.

    The rest becomes free if it is large enough for a block. ``right_knows_free`` says
    that PREV_FREE is set in the header behind ``total``.
    """
    cdef uint64_t keep = block_split_size(block, total, need)
    cdef offset_t right = block + total
    if keep < total:
        block_write(base, block + keep, total - keep, tlsf.tag | BLOCK_FREE)
        store_barrier()
        block_write(base, block, keep, tlsf.tag | bits)
        tlsf_insert_rest(base, tlsf, block + keep, total - keep)
        if not right_knows_free:
            set_prev_free(base, right)
    else:
        block_write(base, block, total, tlsf.tag | bits)
        if right_knows_free:
            clear_prev_free(base, right)
    tlsf.used_bytes += keep


cdef inline bint tlsf_resize(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need
) noexcept nogil:
    """Shrink or grow a block in place; False when there is no room.

    Absorbs the right neighbour if it is free: one removal and one insertion.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef uint64_t bits = word & (BLOCK_PREV_FREE | BLOCK_ALIGN_MASK)
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef uint64_t total = size
    require((word & BLOCK_FREE) == 0)
    if right_word & BLOCK_FREE:
        total += word_size(right_word)
    if total < need:
        return False
    # Too little to split off, and nothing to absorb: nothing changes.
    if need <= size and block_split_size(block, total, need) >= size:
        return True
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
    tlsf.used_bytes -= size
    tlsf_fit(base, tlsf, block, total, need, bits, (right_word & BLOCK_FREE) != 0)
    return True


cdef inline offset_t tlsf_resize_left(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t need, uint64_t* starts
) noexcept nogil:
    """Grow a block into its free left neighbour, moving the payload, or return 0.

    Work is bounded except for the copy of the payload. The block keeps the alignment
    with which it was allocated; if the left payload lacks it, the result is 0. In
    ``starts`` the grain of the new payload is marked before the block becomes one;
    the caller unmarks that of the old payload.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef uint64_t bits = word & BLOCK_ALIGN_MASK
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef offset_t left
    cdef uint64_t total
    if not word & BLOCK_PREV_FREE:
        return 0
    left = block_prev_free(base, block)
    total = size + block_size(base, left)
    if right_word & BLOCK_FREE:
        total += word_size(right_word)
    if total < need or payload_of(left) & (word_alignment(word) - 1):
        return 0
    freelists_remove(base, &tlsf.bins, left)
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
    grain_set(starts, payload_of(left))
    store_barrier()
    # One store makes the three one block in use, before the payload moves over
    # the header between them.
    block_write(base, left, total, tlsf.tag | bits)
    store_barrier()
    engine_move(
        base + payload_of(left), base + payload_of(block), size - BLOCK_HEADER_BYTES
    )
    store_barrier()
    tlsf.used_bytes -= size
    tlsf_fit(base, tlsf, left, total, need, bits, (right_word & BLOCK_FREE) != 0)
    return left


# Regions ---------------------------------------------------------------------

cdef inline uint64_t region_bytes_for(uint64_t need) noexcept nogil:
    """Bytes of the smallest region that holds a block of ``need`` bytes."""
    return need + REGION_HEAD_BYTES + REGION_TAIL_BYTES


cdef inline void tlsf_add_region(
    char* base, tlsf_t* tlsf, offset_t start, offset_t end
) noexcept nogil:
    """Make the bytes from ``start`` to ``end`` a region with one free block."""
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef offset_t sentinel = end - REGION_TAIL_BYTES
    cdef uint64_t size = sentinel - block
    block_write(base, sentinel, 0, tlsf.tag | BLOCK_PREV_FREE)
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, size)


cdef inline void tlsf_add_region_before(
    char* base, tlsf_t* tlsf, offset_t start, offset_t seam
) noexcept nogil:
    """Extend the region that starts at ``seam`` leftwards to ``start``.

    The new block absorbs the words that a sentinel and a region's head would have
    used, and the old first block if that is free.
    """
    cdef offset_t block = start + REGION_HEAD_BYTES
    cdef offset_t right = seam + REGION_HEAD_BYTES
    cdef uint64_t right_word = block_word(base, right)
    cdef uint64_t size = right - block
    if right_word & BLOCK_FREE:
        freelists_remove(base, &tlsf.bins, right)
        size += word_size(right_word)
    else:
        word_at(base, right)[0] = right_word | BLOCK_PREV_FREE
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, size)


cdef inline bint can_detach(
    offset_t block, uint64_t size, offset_t start, offset_t end, bint is_first
) noexcept nogil:
    """Whether the bytes ``start`` to ``end`` can be cut out of the free block.

    On either side nothing, or enough for a block, must remain. ``is_first`` says that
    the region starts at ``start``.
    """
    cdef offset_t left_end = start - REGION_TAIL_BYTES
    cdef offset_t right = end + REGION_HEAD_BYTES
    cdef offset_t block_end = block + size
    if is_first:
        if block != start + REGION_HEAD_BYTES:
            return False
    elif block + BLOCK_MIN_BYTES > left_end:
        return False
    return (
        block_end == end - REGION_TAIL_BYTES
        or block_end == right
        or block_end >= right + BLOCK_MIN_BYTES
    )


cdef inline void tlsf_detach(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    uint64_t size,
    offset_t start,
    offset_t end,
    bint is_first,
) noexcept nogil:
    """Cut the bytes ``start`` to ``end`` out of a free block on no list.

    The left part gets a sentinel and the right part becomes a region of its own; at
    most two insertions. The bytes cut out are an empty region until their frames are
    returned.
    Requires ``can_detach``.
    """
    cdef offset_t middle = start + REGION_HEAD_BYTES
    cdef offset_t left_end = start - REGION_TAIL_BYTES
    cdef offset_t middle_end = end - REGION_TAIL_BYTES
    cdef offset_t right = end + REGION_HEAD_BYTES
    cdef offset_t block_end = block + size
    require(can_detach(block, size, start, end, is_first))
    if block_end > right:
        block_write(base, right, block_end - right, tlsf.tag | BLOCK_FREE)
        tlsf_insert_rest(base, tlsf, right, block_end - right)
    elif block_end == right:
        clear_prev_free(base, right)
    block_write(base, middle_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    if is_first:
        store_barrier()
        block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
        return
    block_write(base, middle, middle_end - middle, tlsf.tag | BLOCK_FREE)
    block_write(base, left_end, 0, tlsf.tag | BLOCK_PREV_FREE)
    store_barrier()
    block_write(base, block, left_end - block, tlsf.tag | BLOCK_FREE)
    tlsf_insert_rest(base, tlsf, block, left_end - block)
