# SPDX-License-Identifier: BSD-3-Clause
"""The C interface: a record of functions in the capsule ``xmem._C_API``.

``xmem.h`` says what each function does and requires. Its version is incremented
when a function changes its meaning; new functions are only appended.
"""

import os

from xmem.base.errors import BadArgument, BadArgumentType

from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from xmem.allocator cimport count_exports
from xmem.arena.arena cimport arena_refuse_held
from xmem.arena.holds cimport hold_test, holds_t
from xmem.arena.superblock cimport arena_t
from xmem.base.bits cimport is_power_of_two
from xmem.base.checks cimport likely
from xmem.base.offset cimport offset_t
from xmem.core.control cimport pool_t
from xmem.engine.block cimport BLOCK_GRAIN
from xmem.pool cimport Pool
from xmem.verbs cimport (
    pool_alloc_patiently,
    pool_alloc_short,
    pool_capacity,
    pool_free,
    pool_free_if_owned,
    pool_resize_patiently,
)

cdef extern from "xmem/xmem.h":
    enum:
        XMEM_API_VERSION
    const char* XMEM_API_NAME
    ctypedef struct xmem_pool:
        pass
    ctypedef struct xmem_api:
        uint32_t version
        uint32_t n_bytes
        uint64_t (*xmalloc)(object, uint64_t, uint64_t) except 0
        uint64_t (*xrealloc)(object, uint64_t, uint64_t, uint64_t) except 0
        int (*xfree)(object, uint64_t) except -1
        xmem_pool* (*borrow)(object) except NULL
        void (*give_back)(xmem_pool*) noexcept
        int (*enter)(xmem_pool*) except -1
        void (*leave)(xmem_pool*) noexcept
        void* (*alloc)(xmem_pool*, uint64_t, uint64_t) noexcept nogil
        void* (*resize)(xmem_pool*, void*, uint64_t, uint64_t) noexcept nogil
        void (*release)(xmem_pool*, void*) noexcept nogil
        int (*release_if_owned)(xmem_pool*, uint64_t) noexcept nogil
        uint64_t (*capacity)(xmem_pool*, const void*) noexcept nogil
        uint64_t (*offset_of)(xmem_pool*, const void*) noexcept nogil
        void* (*at)(xmem_pool*, uint64_t) noexcept nogil


ctypedef void* (*alloc_t)(xmem_pool*, uint64_t, uint64_t) noexcept nogil

cdef extern from *:
    alloc_t outlined_alloc "XMEM_OUTLINED"(alloc_t function) noexcept nogil


cdef struct borrowed_t:
    arena_t* arena
    pool_t* pool
    holds_t* holds
    void* object                    # the Pool, of which this has a reference


# Checked ---------------------------------------------------------------------

cdef Pool _pool_of(object pool):
    """``pool`` as a Pool, or the error."""
    if not isinstance(pool, Pool):
        raise BadArgumentType(f"pool must be a Pool, not {type(pool).__name__}")
    return pool


cdef int _require_alignment(uint64_t alignment) except -1:
    """Refuse an alignment that is no power of two."""
    if not is_power_of_two(alignment):
        raise BadArgument(f"align must be a power of two, not {alignment}")
    return 0


cdef uint64_t _xmalloc(object pool, uint64_t n_bytes, uint64_t alignment) except 0:
    _require_alignment(alignment)
    return _pool_of(pool).allocate(n_bytes, alignment, False, "xmalloc")


cdef uint64_t _xrealloc(
    object pool, uint64_t offset, uint64_t n_bytes, uint64_t alignment
) except 0:
    cdef Pool its = _pool_of(pool)
    _require_alignment(alignment)
    its.require_live(offset, "xrealloc")
    arena_refuse_held(its.arena, offset)
    return its.resize(offset, n_bytes, alignment, False, "xrealloc")


cdef int _xfree(object pool, uint64_t offset) except -1:
    cdef Pool its = _pool_of(pool)
    its.require_live(offset, "xfree")
    arena_refuse_held(its.arena, offset)
    return its.free_live(offset)


# A pool to work in -----------------------------------------------------------

cdef xmem_pool* _borrow(object pool) except NULL:
    cdef Pool its = _pool_of(pool)
    cdef borrowed_t* borrowed
    its.enter()
    if its.hooks is not None:
        raise BadArgument(
            "the pool's regions come from a Python function, which cannot be called "
            "without the GIL: borrow a pool without get_mem"
        )
    its.prepare_holds()
    borrowed = <borrowed_t*>malloc(sizeof(borrowed_t))
    if borrowed == NULL:
        raise MemoryError("no memory to borrow a pool")
    borrowed.arena = &its.arena.c
    borrowed.pool = its.c
    borrowed.holds = &its.arena.holds
    borrowed.object = <void*>its
    count_exports(its, 1)
    Py_INCREF(its)
    return <xmem_pool*>borrowed


cdef void _give_back(xmem_pool* pool) noexcept:
    cdef Pool its = <Pool>(<borrowed_t*>pool).object
    count_exports(its, -1)
    free(pool)
    Py_DECREF(its)


cdef int _enter(xmem_pool* pool) except -1:
    return (<Pool>(<borrowed_t*>pool).object).arena.begin_long()


cdef void _leave(xmem_pool* pool) noexcept:
    (<Pool>(<borrowed_t*>pool).object).arena.end_long()


# Without Python --------------------------------------------------------------

cdef void* _alloc_rest(
    xmem_pool* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    """`_alloc` of what needs a search, or is aligned to more than 16."""
    cdef borrowed_t* its = <borrowed_t*>pool
    cdef offset_t payload
    if not is_power_of_two(alignment) or alignment > its.arena.alignment:
        return NULL
    payload = pool_alloc_patiently(its.arena, its.pool, n_bytes, alignment)
    return NULL if payload == 0 else its.arena.base + payload


cdef void* _alloc(
    xmem_pool* pool, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    cdef borrowed_t* its = <borrowed_t*>pool
    cdef char* base = its.arena.base
    cdef offset_t payload = 0
    if likely(alignment == BLOCK_GRAIN):
        payload = pool_alloc_short(its.arena, its.pool, n_bytes)
    if likely(payload != 0):
        return base + payload
    return outlined_alloc(_alloc_rest)(pool, n_bytes, alignment)


cdef void* _resize(
    xmem_pool* pool, void* at, uint64_t n_bytes, uint64_t alignment
) noexcept nogil:
    cdef borrowed_t* its = <borrowed_t*>pool
    cdef offset_t payload = <char*>at - its.arena.base
    if not is_power_of_two(alignment) or alignment > its.arena.alignment:
        return NULL
    payload = pool_resize_patiently(its.arena, its.pool, payload, n_bytes, alignment)
    return NULL if payload == 0 else its.arena.base + payload


cdef void _release(xmem_pool* pool, void* at) noexcept nogil:
    cdef borrowed_t* its = <borrowed_t*>pool
    pool_free(its.arena, its.pool, <char*>at - its.arena.base)


cdef int _release_if_owned(xmem_pool* pool, uint64_t offset) noexcept nogil:
    cdef borrowed_t* its = <borrowed_t*>pool
    if hold_test(its.holds, offset):
        return 0                # an object's, which frees it itself
    return pool_free_if_owned(its.arena, its.pool, offset)


cdef uint64_t _capacity(xmem_pool* pool, const void* at) noexcept nogil:
    cdef borrowed_t* its = <borrowed_t*>pool
    return pool_capacity(its.arena, its.pool, <char*>at - its.arena.base)


cdef uint64_t _offset_of(xmem_pool* pool, const void* at) noexcept nogil:
    return <char*>at - (<borrowed_t*>pool).arena.base


cdef void* _at(xmem_pool* pool, uint64_t offset) noexcept nogil:
    return (<borrowed_t*>pool).arena.base + offset


cdef xmem_api _api

_api.version = XMEM_API_VERSION
_api.n_bytes = sizeof(xmem_api)
_api.xmalloc = _xmalloc
_api.xrealloc = _xrealloc
_api.xfree = _xfree
_api.borrow = _borrow
_api.give_back = _give_back
_api.enter = _enter
_api.leave = _leave
_api.alloc = _alloc
_api.resize = _resize
_api.release = _release
_api.release_if_owned = _release_if_owned
_api.capacity = _capacity
_api.offset_of = _offset_of
_api.at = _at

#: ``xmem_import()`` of xmem.h looks for this capsule.
_C_API = PyCapsule_New(&_api, XMEM_API_NAME, NULL)


def get_include():
    """Return the folder for a C compiler's ``-I``.

    It has ``xmem.h``, the interface for extensions, and ``measure/peer.h``, that of
    allocators which `xmem.measure.peers` measures.

    Returns
    -------
    str
    """
    return os.path.dirname(os.path.abspath(__file__))
