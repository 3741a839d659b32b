# SPDX-License-Identifier: BSD-3-Clause
"""Floors: what a call from Python takes when no allocator does anything.

A method of a compiled type costs its call, and the conversion of its arguments and its
result; memory for NumPy costs the call of a handler. A measurement next to these tells
how much of it is the allocator's.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_FromLongLong
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport strcpy

from xmem.base.arguments cimport align_argument, offset_argument, size_argument
from xmem.base.errors import BadArgument

__all__ = ["Conversions", "c_memory"]

cnp.import_array()


cdef class Conversions:
    """The conversions of `Pool.xmalloc` and `Pool.xfree`, and nothing else.

    Attributes
    ----------
    n_live : int
        Calls of xmalloc, less those of xfree.
    """

    cdef readonly long long n_live

    def xmalloc(self, n, /, align=16):
        """Convert a size and an alignment; return the size as an offset would be.

        Raises
        ------
        BadArgument, BadArgumentType
            As `Pool.xmalloc`.
        """
        cdef uint64_t n_bytes = size_argument(n)
        align_argument(align)
        self.n_live += 1
        return PyLong_FromLongLong(<long long>n_bytes)

    def xfree(self, offset, /):
        """Convert an offset.

        Raises
        ------
        BadArgumentType, NotABlock
            As `Pool.xfree` of what is no integer or does not fit in 64 bits.
        """
        offset_argument(offset)
        self.n_live -= 1


cdef void* _malloc(void* context, size_t n_bytes) noexcept nogil:
    return malloc(n_bytes)


cdef void* _calloc(void* context, size_t count, size_t n_bytes) noexcept nogil:
    return calloc(count, n_bytes)


cdef void* _realloc(void* context, void* at, size_t n_bytes) noexcept nogil:
    return realloc(at, n_bytes)


cdef void _free(void* context, void* at, size_t n_bytes) noexcept nogil:
    free(at)


cdef cnp.PyDataMem_Handler _handler
strcpy(_handler.name, "xmem floor")
_handler.version = 1
_handler.allocator.ctx = NULL
_handler.allocator.malloc = _malloc
_handler.allocator.calloc = _calloc
_handler.allocator.realloc = _realloc
_handler.allocator.free = _free


cdef class c_memory:
    """Have NumPy take the data of new arrays from the C library, by a handler.

    A context manager like `xmem.numpy_memory`, for one thread or task at a time.
    NumPy's own memory for small arrays is a cache in front of the C library; under any
    handler it does without that. Source: NEP 49.
    """

    cdef object _before

    def __enter__(self):
        if self._before is not None:
            raise BadArgument("the manager has been entered already")
        self._before = cnp.PyDataMem_SetHandler(
            PyCapsule_New(&_handler, "mem_handler", NULL)
        )
        return self

    def __exit__(self, *exc_info):
        if self._before is None:
            raise BadArgument("the manager has not been entered")
        cnp.PyDataMem_SetHandler(self._before)
        self._before = None
