# SPDX-License-Identifier: BSD-3-Clause
"""The face of both engines: all that a pool needs of them, in one cimport."""

from xmem.engine.allocation cimport (
    aligned_gap,
    aligned_slack,
    tlsf_alloc,
    tlsf_alloc_aligned,
    tlsf_alloc_large,
    tlsf_alloc_small,
    tlsf_carve,
    tlsf_carve_off,
    tlsf_find_aligned,
)
from xmem.engine.block cimport (
    BLOCK_ALIGN_MASK,
    BLOCK_ALIGN_MAX,
    BLOCK_ALIGN_SHIFT,
    BLOCK_FREE,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    BLOCK_MIN_BYTES,
    BLOCK_PREV_FREE,
    BLOCK_SIZE_SHIFT,
    BLOCK_TAG_MASK,
    BLOCK_TAG_SHIFT,
    PAGE_RULE_BYTES,
    REGION_HEAD_BYTES,
    REGION_OVERHEAD_BYTES,
    REGION_TAIL_BYTES,
    block_bytes_for,
    block_of,
    block_prev_free,
    block_size,
    block_tag_end,
    block_word,
    block_write,
    breaks_page_rule,
    payload_of,
    word_at,
    word_size,
)
from xmem.engine.firstfit cimport (
    FIRSTFIT_ALIGNMENT,
    FIRSTFIT_LINE,
    FIRSTFIT_NEXT,
    FIRSTFIT_PADDED,
    FIRSTFIT_PREV,
    firstfit_alloc,
    firstfit_block_of,
    firstfit_bytes_for,
    firstfit_coalesce,
    firstfit_init,
    firstfit_link,
    firstfit_payload,
    firstfit_shrink,
    firstfit_t,
    firstfit_take,
)
from xmem.engine.freelists cimport (
    FREELISTS_HEADS,
    FREELISTS_MAX_WORDS,
    LINK_BACK,
    LINK_NEXT,
    freelists_find,
    freelists_insert,
    freelists_largest,
    freelists_remove,
    outlined_insert,
    outlined_remove,
)
from xmem.engine.mapping cimport (
    MAPPING_MAX_LOG2,
    MAPPING_SL_LOG2,
    mapping_insert,
    mapping_n_bins,
)
from xmem.engine.remainder cimport (
    SMALL_MAX_BYTES,
    tlsf_cut_aside,
    tlsf_list_aside,
    tlsf_refill,
)
from xmem.engine.resizing cimport tlsf_resize, tlsf_resize_left
from xmem.engine.tlsf cimport (
    has_free_left,
    has_free_right,
    tlsf_coalesce,
    tlsf_find,
    tlsf_free,
    tlsf_init,
    tlsf_mark_free,
    tlsf_t,
    word_alignment,
)
from xmem.engine.tlsf_regions cimport (
    can_detach,
    region_bytes_for,
    tlsf_detach,
    tlsf_region_block,
    tlsf_region_end,
    tlsf_region_limit,
    tlsf_region_list,
)
