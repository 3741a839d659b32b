# SPDX-License-Identifier: BSD-3-Clause
"""NumPy's data memory from an arena (NEP 49).

A handler is a record of four functions that NumPy calls, in a capsule that each
array keeps until its data has been freed. So an array made under a handler is
freed by that handler, wherever and whenever. Each allocation is a block that
its array owns, and counts as a buffer of it: see ``holds.pxd``.
"""

from xmem.allocator cimport Allocator


cdef class numpy_memory:
    cdef readonly Allocator allocator
    cdef readonly bint fallback
    cdef object capsule             # of the handler
    cdef list outer                 # handlers that were in force before
