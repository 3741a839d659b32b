# SPDX-License-Identifier: BSD-3-Clause
"""The pools of an arena, examined and repaired: what was found and done."""

from xmem.base.errors import corruption
from xmem.base.repairs import Repair

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from xmem.arena cimport (
    ENTRY_READY,
    arena_t,
    check_frames,
    check_heads,
    directory_entry,
    directory_name,
)
from xmem.arena.arena cimport Arena, arena_examine_by, arena_shrink_by
from xmem.arena.recovery cimport recover_frames, recovery_t
from xmem.base cimport checker_pause, checker_resume, finding_t
from xmem.check.census cimport census_t
from xmem.check.control cimport check_control
from xmem.check.pool cimport check_pool
from xmem.check.repair cimport repair_pool
from xmem.check.strays cimport clear_strays, repair_t
from xmem.core.control cimport POOL_HOOKED, POOL_SHARED, control_of, pool_t
from xmem.core.reserve cimport pool_shrink, waiting_give


cdef bint is_sound(
    arena_t* arena, uint32_t number, finding_t* finding
) noexcept nogil:
    """Whether a pool passes its checks."""
    cdef census_t census
    return check_control(arena, number, finding) and check_pool(
        arena,
        control_of(arena, directory_entry(arena, number)),
        &census,
        finding,
    )


cdef bint repaired(
    arena_t* arena, uint32_t number, repair_t* repair, finding_t* finding
) noexcept nogil:
    """Repair a pool, and check it again; ``finding`` is what is wrong then."""
    cdef recovery_t recovery
    return (
        repair_pool(arena, number, repair, finding)
        and recover_frames(arena, &recovery, finding)
        and is_sound(arena, number, finding)
    )


cdef str say(finding_t* finding):
    """A finding in words."""
    return str(
        corruption(finding.code, finding.offset, finding.found, finding.expected)
    )


cdef str say_done(repair_t* repair):
    """What a repair did to a pool."""
    counted = [
        (repair.n_returned, "given back"),
        (repair.n_lost, "found damaged in the quarantine and lost"),
    ]
    parts = [
        f"{n} {'block' if n == 1 else 'blocks'} {what}" for n, what in counted if n
    ]
    if repair.n_starts:
        parts.append(f"{repair.n_starts} start bits cleared")
    if repair.n_poison:
        parts.append(f"{repair.n_poison} marks of broken poison dropped")
    if repair.n_unsealed == 1:
        parts.append(f"the block at {repair.unsealed + 8:#x} sealed anew")
    parts.append("lists and counters written anew")
    return ", ".join(parts)


cdef object examine_pool(Arena arena, uint32_t number, bint repairs):
    """A pool's `Repair`, or None if it is sound."""
    cdef arena_t* c = &arena.c
    cdef finding_t first, finding
    cdef repair_t repair
    cdef bint sound = False
    with nogil:
        checker_pause()
        sound = is_sound(c, number, &first)
        checker_resume()
    if sound:
        return None
    done = ""
    memset(&repair, 0, sizeof(repair_t))
    finding = first
    if repairs:
        with nogil:
            checker_pause()
            sound = repaired(c, number, &repair, &finding)
            checker_resume()
    found = say(&first)
    if sound:
        done = say_done(&repair)
    elif repairs and say(&finding) != found:
        found += f"; {say(&finding)}"
    return Repair(directory_name(c, number), found, done, sound)


cdef tuple examine(Arena arena, bint repairs):
    """What is broken in an arena whose page frames can be walked.

    With ``repairs`` the page frames are sound, and what can be repaired is.
    """
    cdef uint32_t number
    cdef uint64_t n_strays
    found = []
    if repairs:
        n_strays = clear_strays(&arena.c)
        if n_strays:
            found.append(
                Repair(
                    None, f"{n_strays} start bits outside all pools", "cleared", True
                )
            )
    for number in range(1, arena.c.super.max_pools + 1):
        if directory_entry(&arena.c, number).state == ENTRY_READY:
            repair = examine_pool(arena, number, repairs)
            if repair is not None:
                found.append(repair)
    return tuple(found)


def examine_arena(Arena arena not None):
    """Say what is broken in an open arena, page frames and pools, and change nothing.

    Parameters
    ----------
    arena : Arena
        Opened with ``verify=False``.

    Returns
    -------
    tuple of Repair
        Empty if everything is sound.
    """
    cdef finding_t finding
    arena.enter()
    if not check_heads(&arena.c, &finding):
        return (Repair(None, say(&finding), "", False),)
    found = ()
    if not check_frames(&arena.c, &finding):
        found = (Repair(None, say(&finding), "", False),)
    return found + examine(arena, False)


cdef void shrink_sound(arena_t* arena) noexcept nogil:
    """Give back what sound pools hold for later use: see `Arena.trim`."""
    cdef uint32_t number
    cdef finding_t finding
    cdef pool_t* pool
    for number in range(1, arena.super.max_pools + 1):
        if directory_entry(arena, number).state != ENTRY_READY:
            continue
        checker_pause()
        if is_sound(arena, number, &finding):
            pool = control_of(arena, directory_entry(arena, number))
            if pool.kept_pages != 0:
                waiting_give(arena, pool, ~<uint64_t>0)
            elif not pool.flags & (POOL_HOOKED | POOL_SHARED):
                pool_shrink(arena, pool)
        checker_resume()


arena_examine_by(examine)
arena_shrink_by(shrink_sound)
