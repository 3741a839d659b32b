# SPDX-License-Identifier: BSD-3-Clause
"""Blocks that Python objects own, which may not be freed by their offsets.

An owned block is freed by the object that owns it; a bitmap with one bit per grain
says which blocks are owned. The object may have exported its memory to buffers and
arrays: these are counted for each pool, which cannot be destroyed meanwhile. All this
belongs to the process and is not in the arena: it lies in a mapping of its own, made
when the first block is owned, whose untouched pages cost nothing.

An object that is collected while another thread works in the arena without the GIL
cannot free its block at once. The free is deferred, in O(1), and done when that thread
has finished.
"""

from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.ref cimport Py_XDECREF, Py_XINCREF, PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from xmem.arena.vm cimport vm_map, vm_page_bytes, vm_unmap
from xmem.base.bits cimport align_up
from xmem.base.grains cimport (
    GRAINS_BYTE_LOG2,
    GRAINS_WORD_LOG2,
    grain_clear,
    grain_set,
    grain_test,
)
from xmem.base.offset cimport offset_t

ctypedef void (*give_back_t)(PyObject* owner, offset_t payload) noexcept


cdef struct deferred_t:
    deferred_t* next
    PyObject* owner             # a reference that the list holds
    offset_t payload


cdef struct holds_t:
    uint64_t* owned             # NULL: no block has ever been owned
    uint64_t* n_lent            # exports of owned blocks, by pool number
    uint64_t mapped_bytes
    uint64_t arena_bytes
    give_back_t give_back
    deferred_t* deferred        # frees to be done, the last first


cdef inline int holds_begin(
    holds_t* holds,
    uint64_t arena_bytes,
    uint32_t max_pools,
    give_back_t give_back,
) noexcept nogil:
    """Make the mapping, if there is none; -1 when the system refuses it."""
    cdef uint64_t bitmap = align_up((arena_bytes >> GRAINS_BYTE_LOG2) + 8, 64)
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
    """Unmap; the arena is being closed."""
    if holds.owned != NULL:
        vm_unmap(<char*>holds.owned, holds.mapped_bytes)
        holds.owned = NULL


cdef inline bint hold_test(holds_t* holds, offset_t payload) noexcept nogil:
    """Whether an object owns the block at ``payload``, any integer."""
    return holds.owned != NULL and grain_test(
        holds.owned, holds.arena_bytes, payload
    )


cdef inline void hold_set(holds_t* holds, offset_t payload) noexcept nogil:
    """Record that an object owns the live block at ``payload``."""
    grain_set(holds.owned, payload)


cdef inline void hold_clear(holds_t* holds, offset_t payload) noexcept nogil:
    """Record that no object owns the block at ``payload`` any more."""
    grain_clear(holds.owned, payload)


cdef inline void hold_clear_pages(
    holds_t* holds, offset_t start, uint64_t n_bytes
) noexcept nogil:
    """Record that no object owns a block in these pages."""
    if holds.owned != NULL:
        memset(
            &holds.owned[start >> GRAINS_WORD_LOG2], 0, n_bytes >> GRAINS_BYTE_LOG2
        )


cdef inline int holds_defer(
    holds_t* holds, PyObject* owner, offset_t payload
) noexcept:
    """Defer the free of a block; -1 when there is no memory to record it."""
    cdef deferred_t* deferred = <deferred_t*>malloc(sizeof(deferred_t))
    if deferred == NULL:
        return -1
    Py_XINCREF(owner)
    deferred.owner = owner
    deferred.payload = payload
    deferred.next = holds.deferred
    holds.deferred = deferred
    return 0


cdef inline void holds_drain(holds_t* holds) noexcept:
    """Do all deferred frees."""
    cdef deferred_t* deferred = holds.deferred
    cdef deferred_t* following
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* traceback
    if deferred == NULL:
        return
    holds.deferred = NULL
    PyErr_Fetch(&kind, &value, &traceback)      # of the call that ends here
    while deferred != NULL:
        following = deferred.next
        holds.give_back(deferred.owner, deferred.payload)
        Py_XDECREF(deferred.owner)
        free(deferred)
        deferred = following
    PyErr_Restore(kind, value, traceback)
