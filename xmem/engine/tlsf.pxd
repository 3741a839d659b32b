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

from xmem.base.bits cimport bit, find_first_set
from xmem.base.checks cimport require, store_barrier, unlikely
from xmem.base.journal cimport put
from xmem.base.memcheck cimport MEMCHECKED
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_SHIFT,
    BLOCK_FREE,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    block_prev_free,
    block_size,
    block_split_at,
    block_tag_end,
    block_word,
    block_write,
    word_at,
    word_size,
)
from xmem.engine.freelists cimport (
    freelists_find,
    freelists_first,
    freelists_init,
    freelists_insert,
    freelists_remove,
    freelists_set_aside,
    freelists_t,
)
from xmem.engine.mapping cimport level_bin, mapping_level


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
    put(word_at(base, block), word_at(base, block)[0] | BLOCK_PREV_FREE)


cdef inline void clear_prev_free(char* base, offset_t block) noexcept nogil:
    put(word_at(base, block), word_at(base, block)[0] & ~<uint64_t>BLOCK_PREV_FREE)


cdef inline void tlsf_init(
    char* base, tlsf_t* tlsf, offset_t heads, uint64_t n_bins, uint64_t tag
) noexcept nogil:
    """Make an engine without regions; its bins are the words at ``heads``."""
    tlsf.tag = tag
    tlsf.used_bytes = 0
    tlsf.n_used = 0
    freelists_init(base, &tlsf.bins, heads, n_bins)


cdef inline offset_t tlsf_find(
    char* base, tlsf_t* tlsf, uint64_t need
) noexcept nogil:
    """A free block of at least ``need`` bytes, still on its list or aside, or 0.

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
    block = freelists_find(
        base,
        &tlsf.bins,
        level_bin(level, need - 1) + 1,
    )
    if block == 0 and tlsf.bins.aside != 0:
        block = tlsf.bins.aside
        if block_size(base, block) < need:
            return 0
    return block


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
    put(&tlsf.used_bytes, tlsf.used_bytes + need)
    put(&tlsf.n_used, tlsf.n_used + 1)


# Freeing ---------------------------------------------------------------------

cdef inline bint has_free_left(uint64_t word) noexcept nogil:
    """Whether the left neighbour of a block is free, by its header ``word``."""
    return (word & BLOCK_PREV_FREE) != 0


cdef inline bint has_free_right(
    char* base, offset_t block, uint64_t word
) noexcept nogil:
    """Whether the right neighbour of a block, by its header ``word``, is free."""
    return (block_word(base, block + word_size(word)) & BLOCK_FREE) != 0


cdef inline offset_t tlsf_coalesce_with(
    char* base,
    tlsf_t* tlsf,
    offset_t block,
    bint with_left,
    bint with_right,
    uint64_t* merged_bytes,
) noexcept nogil:
    """Mark a block free and merge it with the free ones of its neighbours.

    At most two removals and two header writes. Returns the merged block, which is on
    no list yet, and its size in ``merged_bytes``. One store merges it.

    Requires ``block`` is in use, and its neighbours are free as the flags say.
    Ensures  B4, B5 and B6 hold for the result.
    """
    cdef uint64_t word = block_word(base, block)
    cdef uint64_t size = word_size(word)
    cdef offset_t right = block + size
    cdef uint64_t right_word = block_word(base, right)
    cdef offset_t left
    require((word & BLOCK_FREE) == 0)
    require(with_left == has_free_left(word))
    require(with_right == has_free_right(base, block, word))
    put(&tlsf.used_bytes, tlsf.used_bytes - size)
    put(&tlsf.n_used, tlsf.n_used - 1)
    # A neighbour is unlinked before its links are overwritten.
    if with_right:
        freelists_remove(base, &tlsf.bins, right)
        size += word_size(right_word)
    else:
        put(word_at(base, right), right_word | BLOCK_PREV_FREE)
    if with_left:
        left = block_prev_free(base, block)
        freelists_remove(base, &tlsf.bins, left)
        if MEMCHECKED:
            # The absorbed header still says FREE: a second free is caught.
            put(word_at(base, block), word | BLOCK_FREE)
        size += block_size(base, left)
        block = left
    store_barrier()
    block_write(base, block, size, tlsf.tag | BLOCK_FREE)
    block_tag_end(base, block, size)
    merged_bytes[0] = size
    return block


cdef inline offset_t tlsf_coalesce(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t* merged_bytes
) noexcept nogil:
    """``tlsf_coalesce_with`` the neighbours that are free."""
    cdef uint64_t word = block_word(base, block)
    return tlsf_coalesce_with(
        base,
        tlsf,
        block,
        has_free_left(word),
        has_free_right(base, block, word),
        merged_bytes,
    )


cdef inline void tlsf_mark_free(
    char* base, tlsf_t* tlsf, offset_t block, uint64_t word
) noexcept nogil:
    """Mark a block without free neighbours, by its header ``word``, free.

    It is on no list yet.
    """
    cdef uint64_t size = word_size(word)
    put(&tlsf.used_bytes, tlsf.used_bytes - size)
    put(&tlsf.n_used, tlsf.n_used - 1)
    set_prev_free(base, block + size)
    store_barrier()
    put(word_at(base, block), word & ~<uint64_t>BLOCK_ALIGN_MASK | BLOCK_FREE)
    block_tag_end(base, block, size)


cdef inline bint tlsf_free(
    char* base,
    tlsf_t* tlsf,
    offset_t* block,
    bint with_left,
    bint with_right,
    const uint64_t* limit,
    uint64_t* merged_bytes,
) noexcept nogil:
    """Free a block; False if the result, of ``limit`` bytes or more, is not listed.

    At most two removals and one insertion. ``block`` and ``merged_bytes`` become
    those of the merged block; where the result is False the caller has to list it.
    The limit is passed by its address, so that no register holds it during the merge.
    Where there is no remainder, or where it has just been merged with, the result
    becomes the remainder.
    """
    block[0] = tlsf_coalesce_with(
        base, tlsf, block[0], with_left, with_right, merged_bytes
    )
    if unlikely(merged_bytes[0] >= limit[0]):
        return False
    if tlsf.bins.aside == 0:
        freelists_set_aside(base, &tlsf.bins, block[0])
    else:
        freelists_insert(base, &tlsf.bins, block[0], merged_bytes[0])
    return True
