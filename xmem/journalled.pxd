# SPDX-License-Identifier: BSD-3-Clause
"""The verbs of shared pools: under the arena's lock, each store in its journal."""

from xmem.core.routes cimport routes_t

cdef int routes_fill(routes_t* routes) except -1
cdef int last_cause() noexcept nogil
