# SPDX-License-Identifier: BSD-3-Clause
"""The bins of the TLSF engine: free lists and the two bitmaps over them.

A bin is one word in the control block, the offset of its first block. A free
block stores the next block and, as in a hash list, the offset of the word
that points to it: the bin or the ``next`` of its predecessor. So removal
needs neither the block's size nor its predecessor, and when the list becomes
empty the word's position says which bin it was. One block may be set aside: it is
on the list of no bin, and the word that points to it is one of its own.

Two levels of bitmap say which bins are not empty: one bit for each bin in the lower,
one for each word of the lower in the upper.

F1  a block is on a free list, or set aside, if and only if its FREE bit is set
F2  it is on the list of mapping_insert(size), unless it is set aside
F3  a bit of the lower level is set if and only if its bin is not empty,
    one of the upper level if and only if its lower word is not 0
F4  the word that a block's link names holds that block's offset
F5  no block follows the one that is set aside

This header knows nothing of a block's neighbours.
"""

from libc.stdint cimport uint64_t

from xmem.base.bits cimport find_first_set, find_last_set, with_bit, without_bit
from xmem.base.checks cimport assume, claim, require
from xmem.base.journal cimport put
from xmem.base.offset cimport offset_t
from xmem.engine.block cimport word_at
from xmem.engine.mapping cimport MAPPING_MAX_BINS, mapping_insert

cdef enum:
    FREELISTS_MAX_WORDS = (MAPPING_MAX_BINS + 63) >> 6

    # From the lists to the first bin's word, wherever they lie: a bin is found
    # without looking up where the bins are.
    FREELISTS_HEADS = 504

    LINK_NEXT = 8       # position of the two links in a free block
    LINK_BACK = 16


cdef struct freelists_t:
    uint64_t upper                      # bit i: lower[i] is not 0
    uint64_t n_bins
    offset_t heads                      # offset of the first bin's word
    offset_t aside                      # the block set aside, 0: none
    uint64_t lower[FREELISTS_MAX_WORDS]


# The rare paths of regions call the two through these: the compiler then copies them to
# where blocks are allocated and freed; see checks.pxd.
ctypedef void (*insert_t)(char*, freelists_t*, offset_t, uint64_t) noexcept nogil
ctypedef void (*remove_t)(char*, freelists_t*, offset_t) noexcept nogil

cdef extern from *:
    insert_t outlined_insert "XMEM_OUTLINED"(insert_t function) noexcept nogil
    remove_t outlined_remove "XMEM_OUTLINED"(remove_t function) noexcept nogil


cdef inline offset_t* freelists_head(
    freelists_t* lists, uint64_t index
) noexcept nogil:
    """The word of bin ``index``."""
    return <offset_t*>(<char*>lists + FREELISTS_HEADS) + index


cdef inline void freelists_mark(
    freelists_t* lists, uint64_t index
) noexcept nogil:
    """Record that bin ``index`` is no longer empty."""
    cdef uint64_t row = index >> 6
    put(&lists.lower[row], with_bit(lists.lower[row], index))
    put(&lists.upper, with_bit(lists.upper, row))


cdef inline void freelists_insert(
    char* base, freelists_t* lists, offset_t block, uint64_t size
) noexcept nogil:
    """Put ``block`` first on the list of its size."""
    cdef uint64_t index = mapping_insert(size)
    cdef offset_t* head = freelists_head(lists, index)
    cdef offset_t next_block = head[0]
    require(index < lists.n_bins)
    put(word_at(base, block + LINK_NEXT), next_block)
    put(word_at(base, block + LINK_BACK), <offset_t>(<char*>head - base))
    put(head, block)
    if next_block != 0:
        put(word_at(base, next_block + LINK_BACK), block + LINK_NEXT)
    else:
        freelists_mark(lists, index)


cdef inline void freelists_clear(
    freelists_t* lists, uint64_t index
) noexcept nogil:
    """Record that bin ``index`` has become empty."""
    cdef uint64_t row = index >> 6
    cdef uint64_t word = without_bit(lists.lower[row], index)
    put(&lists.lower[row], word)
    if word == 0:
        put(&lists.upper, without_bit(lists.upper, row))


cdef inline void freelists_remove(
    char* base, freelists_t* lists, offset_t block
) noexcept nogil:
    """Take ``block`` off the list that it is on."""
    cdef offset_t next_block = word_at(base, block + LINK_NEXT)[0]
    cdef offset_t back = word_at(base, block + LINK_BACK)[0]
    cdef uint64_t index
    require(word_at(base, back)[0] == block)
    put(word_at(base, back), next_block)
    if next_block != 0:
        put(word_at(base, next_block + LINK_BACK), back)
        return
    # The block was the last. The list is empty now only if `back` is a bin. The
    # word of a predecessor lies outside the bins; if it lies below them the
    # difference wraps to a large number.
    index = (back - lists.heads) >> 3
    if index < lists.n_bins:
        freelists_clear(lists, index)


cdef inline offset_t freelists_first(
    char* base, freelists_t* lists, uint64_t index
) noexcept nogil:
    """First block of bin ``index``, 0 if the bin is empty."""
    return freelists_head(lists, index)[0]


cdef inline uint64_t freelists_search(
    freelists_t* lists, uint64_t index
) noexcept nogil:
    """First bin >= ``index`` that is not empty, or 0, which is always empty.

    ``index`` is that of a size up to 2**MAPPING_MAX_LOG2 bytes, rounded up: the
    bitmap has its bit, but there may be no such bin.
    """
    cdef uint64_t row = index >> 6
    cdef uint64_t word = lists.lower[row] >> (index & 63)
    require(index < 64 * FREELISTS_MAX_WORDS)
    if word != 0:
        index += find_first_set(word)
        assume(index != 0)
        return index
    word = lists.upper & (~<uint64_t>1 << row)
    if word == 0:
        return 0
    row = find_first_set(word)
    index = (row << 6) + find_first_set(lists.lower[row])
    assume(index != 0)
    return index


cdef inline offset_t freelists_find(
    char* base, freelists_t* lists, uint64_t index
) noexcept nogil:
    """First block of the first bin >= ``index`` that is not empty, or 0."""
    if index >= lists.n_bins:
        return 0
    index = freelists_search(lists, index)
    return freelists_first(base, lists, index) if index != 0 else 0


cdef inline offset_t freelists_largest(
    char* base, freelists_t* lists
) noexcept nogil:
    """First block of the last bin that is not empty, or 0."""
    cdef uint64_t row, index
    if lists.upper == 0:
        return 0
    row = find_last_set(lists.upper)
    index = (row << 6) + find_last_set(lists.lower[row])
    return freelists_first(base, lists, index)


cdef inline void freelists_take(
    char* base, freelists_t* lists, uint64_t index, offset_t block
) noexcept nogil:
    """Take ``block``, the first of bin ``index``, off its list."""
    cdef offset_t next_block = word_at(base, block + LINK_NEXT)[0]
    cdef offset_t* head = freelists_head(lists, index)
    require(head[0] == block)
    put(head, next_block)
    if next_block != 0:
        put(word_at(base, next_block + LINK_BACK), <offset_t>(<char*>head - base))
    else:
        freelists_clear(lists, index)


cdef inline void freelists_set_aside(
    char* base, freelists_t* lists, offset_t block
) noexcept nogil:
    """Set a block that is on no list aside, in place of the one that was.

    The caller uses or lists that. `freelists_remove` takes a block from here as from
    any list.
    """
    put(word_at(base, block + LINK_NEXT), 0)
    put(word_at(base, block + LINK_BACK), <offset_t>(<char*>&lists.aside - base))
    put(&lists.aside, block)


cdef inline void freelists_init(
    char* base, freelists_t* lists, offset_t heads, uint64_t n_bins
) noexcept nogil:
    """Empty bins whose words start at ``heads``."""
    cdef uint64_t i
    claim(FREELISTS_MAX_WORDS <= 64)            # a bit each in the upper level
    claim(sizeof(freelists_t) <= FREELISTS_HEADS)
    require(base + heads == <char*>lists + FREELISTS_HEADS)
    lists.upper = 0
    lists.n_bins = n_bins
    lists.heads = heads
    lists.aside = 0
    for i in range(FREELISTS_MAX_WORDS):
        lists.lower[i] = 0
    for i in range(n_bins):
        word_at(base, heads + i * 8)[0] = 0
