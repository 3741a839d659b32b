# SPDX-License-Identifier: BSD-3-Clause
"""What the core offers to the objects above it: ``from xmem.core cimport ...``.

A pool at C level without its verbs (those are `xmem.verbs`): what it consists
of, how it is made, grown, shrunk and ended, and which blocks are its own.
"""

from xmem.core.capacity cimport pool_capacity
from xmem.core.control cimport (
    HARD_RING,
    POOL_CANARY,
    POOL_CHECKSUM,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    POOL_POISON,
    POOL_QUARANTINE,
    POOL_SAFE_LINKS,
    pool_t,
)
from xmem.core.creation cimport (
    CREATION_BAD_NAME,
    CREATION_BAD_SETTINGS,
    CREATION_DONE,
    CREATION_NAME_TAKEN,
    CREATION_NO_ENTRY,
    CREATION_NO_PAGES,
    CREATION_SHARED,
    creation_pages,
    creation_t,
    owner_at,
    pool_create,
    pool_destroy,
    pool_named,
    pool_numbered,
    pool_release_next,
    pool_retire,
    released_t,
    settings_t,
)
from xmem.core.growth cimport run_free
from xmem.core.hardened cimport hard_prepare_free
from xmem.core.hardening cimport check_payload, damage_of, hard_overhead
from xmem.core.plain cimport is_run, owns_unshared, pool_alignment, pool_owns
from xmem.core.regions cimport may_hold, pages_left, region_pages_for
from xmem.core.reserve cimport (
    pool_keep,
    pool_reserve,
    pool_shrink,
    region_adopt,
    returned_take,
    shrink_begin,
    shrink_next,
    waiting_give,
)
from xmem.core.startbits cimport start_test, starts_repeated
