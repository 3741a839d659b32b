# SPDX-License-Identifier: BSD-3-Clause
"""Memory that Python objects hold: what may not be freed by its offset.

An owned block belongs to an object that frees it: one bit per 16 bytes of the
arena says so. The object may have lent its memory to buffers and arrays: they
are counted for each pool, which cannot be destroyed meanwhile. All this is the
process's own and not in the arena: a mapping beside it, untouched pages of
which cost nothing, made when the first block is owned.

An object that is collected while another thread works in the arena without the
GIL cannot free its block at once; it is put on a list, in O(1), and freed when
that thread has ended.
"""

from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.ref cimport Py_XDECREF, Py_XINCREF, PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from xmem.arena.vm cimport vm_map, vm_page_bytes, vm_unmap
from xmem.base.bits cimport align_up, with_bit, without_bit
from xmem.base.offset cimport offset_t

ctypedef void (*give_back_t)(PyObject* owner, offset_t payload) noexcept


cdef struct late_t:
    late_t* below
    PyObject* owner             # a reference of the list's
    offset_t payload


cdef struct holds_t:
    uint64_t* owned             # NULL: no block has ever been owned
    uint64_t* n_lent            # buffers of owned blocks, by pool number
    uint64_t mapped_bytes
    uint64_t arena_bytes
    give_back_t give_back
    late_t* late                # what is to be given back


cdef inline int holds_begin(
    holds_t* holds,
    uint64_t arena_bytes,
    uint32_t max_pools,
    give_back_t give_back,
) noexcept nogil:
    """Make the mapping; -1 when the system refuses it."""
    cdef uint64_t bitmap = align_up((arena_bytes >> 7) + 8, 64)
    cdef uint64_t mapped = bitmap + 8 * (<uint64_t>max_pools + 1)
    cdef char* base
    if holds.owned != NULL:
        return 0
    base = vm_map(mapped, vm_page_bytes(), -1)
    if base == NULL:
        return -1
    holds.n_lent = <uint64_t*>(base + bitmap)
    holds.mapped_bytes = mapped
    holds.arena_bytes = arena_bytes
    holds.give_back = give_back
    holds.owned = <uint64_t*>base
    return 0


cdef inline void holds_end(holds_t* holds) noexcept nogil:
    """Give the mapping back; the arena is gone."""
    if holds.owned != NULL:
        vm_unmap(<char*>holds.owned, holds.mapped_bytes)
        holds.owned = NULL


cdef inline bint hold_test(holds_t* holds, offset_t payload) noexcept nogil:
    """Whether an object owns the block at ``payload``, any integer."""
    return (
        holds.owned != NULL
        and payload < holds.arena_bytes
        and (payload & 15) == 0
        and (holds.owned[payload >> 10] >> ((payload >> 4) & 63)) & 1
    )


cdef inline void hold_set(holds_t* holds, offset_t payload) noexcept nogil:
    """Record that an object owns the live block at ``payload``."""
    cdef uint64_t* word = &holds.owned[payload >> 10]
    word[0] = with_bit(word[0], payload >> 4)


cdef inline void hold_clear(holds_t* holds, offset_t payload) noexcept nogil:
    """Record that none does."""
    cdef uint64_t* word = &holds.owned[payload >> 10]
    word[0] = without_bit(word[0], payload >> 4)


cdef inline void hold_clear_pages(
    holds_t* holds, offset_t start, uint64_t n_bytes
) noexcept nogil:
    """Record that none owns a block in whole pages."""
    if holds.owned != NULL:
        memset(&holds.owned[start >> 10], 0, n_bytes >> 7)


cdef inline int holds_defer(
    holds_t* holds, PyObject* owner, offset_t payload
) noexcept:
    """Give a block back later; -1 when there is no memory to note it."""
    cdef late_t* late = <late_t*>malloc(sizeof(late_t))
    if late == NULL:
        return -1
    Py_XINCREF(owner)
    late.owner = owner
    late.payload = payload
    late.below = holds.late
    holds.late = late
    return 0


cdef inline void holds_settle(holds_t* holds) noexcept:
    """Give back what was deferred."""
    cdef late_t* late = holds.late
    cdef late_t* below
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* traceback
    if late == NULL:
        return
    holds.late = NULL
    PyErr_Fetch(&kind, &value, &traceback)      # of the call that this ends
    while late != NULL:
        below = late.below
        holds.give_back(late.owner, late.payload)
        Py_XDECREF(late.owner)
        free(late)
        late = below
    PyErr_Restore(kind, value, traceback)
