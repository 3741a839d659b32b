# SPDX-License-Identifier: BSD-3-Clause
"""The pool directory: which pools an arena has, by name and by number.

Entry i is that of pool i + 1; the number is also the owner in the frame table. An
entry whose state is not READY is no pool.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memset

from xmem.arena.superblock cimport ENTRY_NAME_BYTES, ENTRY_READY, arena_t, entry_t


cdef inline entry_t* directory_entry(
    arena_t* arena, uint32_t number
) noexcept nogil:
    """Entry of a pool number, which is 1 to max_pools."""
    return &arena.directory[number - 1]


cdef inline entry_t* directory_find(
    arena_t* arena, const char* name, size_t n_bytes
) noexcept nogil:
    """Entry of the pool with a name, in UTF-8, or NULL."""
    cdef uint32_t number
    cdef entry_t* entry
    cdef char padded[ENTRY_NAME_BYTES]
    if n_bytes > ENTRY_NAME_BYTES:
        return NULL
    memset(padded, 0, ENTRY_NAME_BYTES)
    memcpy(padded, name, n_bytes)
    for number in range(1, arena.super.max_pools + 1):
        entry = directory_entry(arena, number)
        if entry.state == ENTRY_READY and (
            memcmp(entry.name, padded, ENTRY_NAME_BYTES) == 0
        ):
            return entry
    return NULL


cdef inline uint32_t directory_vacant(arena_t* arena) noexcept nogil:
    """Number of an entry that no pool uses, or 0 when the directory is full."""
    cdef uint32_t number
    for number in range(1, arena.super.max_pools + 1):
        if directory_entry(arena, number).state < ENTRY_READY:
            return number
    return 0


cdef inline str directory_name(arena_t* arena, uint32_t number):
    """Name of pool ``number``, or ``#number`` where no pool can have it."""
    cdef bytes padded
    if not 0 < number <= arena.super.max_pools:
        return f"#{number}"
    padded = PyBytes_FromStringAndSize(
        <char*>directory_entry(arena, number).name, ENTRY_NAME_BYTES
    )
    return padded.rstrip(b"\0").decode(errors="replace")
