# SPDX-License-Identifier: BSD-3-Clause
"""The checker of the legacy engine's pages and free list: L1 to L3, B7, V1.

Nothing here writes to the arena or trusts a word that it reads; see check/tlsf.pxd.
"""

from libc.stdint cimport uint64_t

from xmem.arena cimport arena_t, page_offset
from xmem.base cimport finding_t, invariant, offset_t, report
from xmem.check.census cimport census_t, count_block, count_starts
from xmem.core.control cimport pool_t
from xmem.core.startbits cimport start_test
from xmem.engine cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_FREE,
    BLOCK_HEADER_BYTES,
    BLOCK_SIZE_SHIFT,
    BLOCK_TAG_MASK,
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    FIRSTFIT_NEXT,
    FIRSTFIT_PADDED,
    FIRSTFIT_PREV,
    block_word,
    word_at,
    word_size,
)


cdef inline bint check_tag(
    pool_t* pool, offset_t block, uint64_t word, finding_t* finding
) noexcept nogil:
    """B7 for a legacy block: the pool's tag and no unused bit."""
    cdef uint64_t unused = BLOCK_ALIGN_MASK | FIRSTFIT_PADDED
    if (word & (BLOCK_TAG_MASK | unused)) != pool.firstfit.tag:
        return report(finding, invariant(c"B", 7), block, word, pool.firstfit.tag)
    return True


cdef inline bint check_start(
    arena_t* arena,
    pool_t* pool,
    offset_t block,
    uint64_t size,
    finding_t* finding,
) noexcept nogil:
    """L1 and V1 for a legacy block in use: its payload, aligned or not."""
    cdef uint64_t alignment = word_at(arena.base, block + FIRSTFIT_ALIGNMENT)[0]
    cdef offset_t payload = block + FIRSTFIT_LINE
    cdef uint64_t padding, word
    if alignment == 0 or alignment & (alignment - 1):
        return report(finding, invariant(c"L", 1), block, alignment, 0)
    payload = (payload + alignment - 1) & ~(alignment - 1)
    if payload >= block + size or not start_test(arena, payload):
        return report(finding, invariant(c"V", 1), block, payload, 1)
    padding = payload - block - FIRSTFIT_LINE
    if padding != 0:
        word = (padding << BLOCK_SIZE_SHIFT) | pool.firstfit.tag | FIRSTFIT_PADDED
        if block_word(arena.base, payload - FIRSTFIT_LINE) != word:
            return report(
                finding,
                invariant(c"L", 1),
                payload - FIRSTFIT_LINE,
                block_word(arena.base, payload - FIRSTFIT_LINE),
                word,
            )
    word = block_word(arena.base, payload - BLOCK_HEADER_BYTES)
    if word != pool.firstfit.tag:
        return report(
            finding,
            invariant(c"L", 1),
            payload - BLOCK_HEADER_BYTES,
            word,
            pool.firstfit.tag,
        )
    return True


cdef inline bint check_page(
    arena_t* arena,
    pool_t* pool,
    offset_t start,
    census_t* census,
    finding_t* finding,
) noexcept nogil:
    """L1 to L3 and V1 for one page of the legacy engine."""
    cdef offset_t block = start
    cdef offset_t end = start + arena.page_bytes
    cdef bint prev_free = False
    cdef bint is_free
    cdef uint64_t word, size
    while block < end:
        word = block_word(arena.base, block)
        size = word_size(word)
        is_free = (word & BLOCK_FREE) != 0
        if not check_tag(pool, block, word, finding):
            return False
        if size == 0 or size & (FIRSTFIT_LINE - 1) or size > end - block:
            return report(finding, invariant(c"L", 1), block, size, end - block)
        if is_free and (prev_free or size == arena.page_bytes):
            return report(finding, invariant(c"L", 3), block, word, 0)
        if not is_free and not check_start(arena, pool, block, size, finding):
            return False
        count_block(census, size, is_free)
        prev_free = is_free
        block += size
    census.n_stretches += 1
    census.n_starts += count_starts(arena, start, end)
    return True


cdef inline bint check_firstfit_list(
    arena_t* arena, pool_t* pool, uint64_t n_free, finding_t* finding
) noexcept nogil:
    """L2: the list holds exactly the ``n_free`` free blocks."""
    cdef offset_t block = pool.firstfit.head
    cdef offset_t prev_block = 0
    cdef uint64_t count = 0
    while block != 0:
        if (
            block & (FIRSTFIT_LINE - 1)
            or block < page_offset(arena, arena.first_page)
            or block > arena.n_bytes - FIRSTFIT_LINE
            or count == n_free
            or not block_word(arena.base, block) & BLOCK_FREE
            or word_at(arena.base, block + FIRSTFIT_PREV)[0] != prev_block
        ):
            return report(finding, invariant(c"L", 2), block, prev_block, count)
        count += 1
        prev_block = block
        block = word_at(arena.base, block + FIRSTFIT_NEXT)[0]
    if count != n_free or count != pool.firstfit.n_free:
        return report(finding, invariant(c"L", 2), 0, count, n_free)
    return True
