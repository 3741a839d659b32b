# SPDX-License-Identifier: BSD-3-Clause
"""The face of the base: all that a higher layer needs of it, in one cimport."""

from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    flag_argument,
    offset_argument,
    size_argument,
    text_argument,
    words_argument,
)
from xmem.base.bits cimport (
    align_down,
    align_up,
    bit,
    ceil_log2,
    find_first_set,
    find_last_set,
    with_bit,
    without_bit,
)
from xmem.base.checks cimport (
    assume,
    claim,
    likely,
    require,
    store_barrier,
    unlikely,
)
from xmem.base.engines cimport ENGINE_FIRSTFIT, ENGINE_TLSF, engine_names
from xmem.base.finding cimport (
    INVARIANT_FIRST,
    INVARIANT_LAST,
    finding_t,
    invariant,
    report,
)
from xmem.base.grains cimport (
    GRAIN_BYTES,
    GRAIN_LOG2,
    GRAINS_BYTE_LOG2,
    GRAINS_WORD_LOG2,
    grain_clear,
    grain_set,
    grain_test,
)
from xmem.base.journal cimport LOGGED, log_commit, log_to, put, put32
from xmem.base.memcheck cimport (
    AUDIT_OFF,
    MEMCHECKED,
    checker_pause,
    checker_resume,
    engine_copy,
    engine_fill,
    memory_allocated,
    memory_close,
    memory_defined,
    memory_freed,
    memory_open,
    memory_pool_destroyed,
)
from xmem.base.offset cimport offset_t
