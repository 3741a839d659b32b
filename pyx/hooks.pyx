# SPDX-License-Identifier: BSD-3-Clause
"""The caller's own source of regions: get_mem and put_mem of a pool.

A pool with hooks (POOL_HOOKED) asks the caller's functions instead of the page
frames. They run in the middle of a verb and may do anything, even destroy the
pool: whoever calls a method here enters the pool again afterwards.
"""

from xmem.base.errors import BadArgument, BadArgumentType

from cpython.exc cimport PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport uint32_t, uint64_t

from xmem.allocator cimport Allocator
from xmem.arena.records cimport frame_pages
from xmem.arena.superblock cimport page_offset
from xmem.base cimport ENGINE_TLSF, offset_argument, offset_t
from xmem.core cimport (
    hard_overhead,
    may_hold,
    pages_left,
    pool_t,
    region_adopt,
    region_pages_for,
    returned_take,
)
from xmem.engine cimport BLOCK_ALIGN_MAX, BLOCK_GRAIN, block_bytes_for

cdef extern from "Python.h":
    # Without Cython's check: the caller looks for NULL.
    PyObject* _call "PyObject_CallObject"(PyObject*, PyObject*) noexcept


cdef class Hooks:
    """Where the regions of one pool come from, and where they go."""

    cdef uint64_t obtain(
        self, Allocator pool, pool_t* c, uint64_t n_pages
    ) except? 0:
        """Add a region of at least ``n_pages`` from get_mem; returns its pages."""
        cdef uint64_t given
        cdef offset_t start
        cdef uint32_t page
        if self.get_mem is None:        # cleared by the garbage collector
            return 0
        found = self.get_mem(n_pages)
        if found is None:
            return 0
        start = offset_argument(found)
        pool.enter()
        page = pool.arena.require_run(start, "get_mem")
        pool.arena.refuse_exported(start)
        given = frame_pages(pool.arena.c.frames[page].word)
        if given < n_pages or not may_hold(c, given):
            raise BadArgument(
                f"get_mem returned a run of {given} pages; {n_pages} were requested"
                + (
                    ""
                    if given < n_pages
                    else f", and the pool's limit admits {pages_left(c)}"
                )
            )
        region_adopt(&pool.arena.c, c, page)
        return given

    cdef uint64_t obtain_for(
        self, Allocator pool, pool_t* c, uint64_t n_bytes, uint64_t alignment
    ) except? 0:
        """Add a region for a request, if the pool's limit admits one."""
        cdef uint64_t n_pages
        if n_bytes > c.max_request or alignment > BLOCK_ALIGN_MAX:
            return 0
        n_pages = region_pages_for(
            &pool.arena.c,
            block_bytes_for(n_bytes + hard_overhead(c)),
            max(alignment, BLOCK_GRAIN),
        )
        if not may_hold(c, n_pages):
            return 0
        if n_pages < c.grow_pages and may_hold(c, c.grow_pages):
            n_pages = c.grow_pages
        return self.obtain(pool, c, n_pages)

    cdef void put(self, offset_t start, uint64_t n_pages) noexcept:
        """Call put_mem. Its exceptions are unraisable, because the verb is done."""
        cdef tuple arguments
        cdef PyObject* result
        if self.put_mem is None:        # cleared by the garbage collector
            return
        arguments = (start, n_pages)
        result = _call(<PyObject*>self.put_mem, <PyObject*>arguments)
        if result == NULL:
            PyErr_WriteUnraisable(self.put_mem)
        else:
            Py_DECREF(<object>result)

    cdef void put_returned(self, Allocator pool, pool_t* c) noexcept:
        """Hand the region that was cut out of the pool, if any, to put_mem."""
        cdef uint64_t page = returned_take(c)
        if page != 0:
            self.put(
                page_offset(&pool.arena.c, page),
                frame_pages(pool.arena.c.frames[page].word),
            )


cdef Hooks hooks_from(unsigned engine, object get_mem, object put_mem):
    """Hooks of the caller's functions; None if there are none."""
    cdef Hooks hooks
    if (get_mem is None) != (put_mem is None):
        raise BadArgument("give both get_mem and put_mem, or neither")
    if get_mem is None:
        return None
    if not callable(get_mem) or not callable(put_mem):
        raise BadArgumentType("get_mem and put_mem must be callable")
    if engine != ENGINE_TLSF:
        raise BadArgument("only the tlsf engine takes regions from get_mem")
    hooks = Hooks.__new__(Hooks)
    hooks.get_mem = get_mem
    hooks.put_mem = put_mem
    return hooks
