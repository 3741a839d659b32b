# SPDX-License-Identifier: BSD-3-Clause
"""Planning the superblock of a new arena, and verifying that of a file.

Nothing here maps memory: a file is judged by its first bytes and its length.
"""

import zlib

from xmem.base.errors import ArenaFormatError, BadArgument

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xmem.arena.vm cimport vm_page_bytes
from xmem.base.arguments cimport count_argument
from xmem.base.bits cimport align_up, bit, is_power_of_two

cdef bytes MAGIC = b"XMEM\r\n\x1a\n"


cdef int superblock_plan(
    superblock_t* plan, object n_bytes, object page_size, object max_pools
) except -1:
    """Check the arguments of a new arena with its flags, and compute its layout."""
    cdef uint64_t page_bytes, total, pools
    superblock_claims()
    if page_size is None:
        page_bytes = vm_page_bytes()
    else:
        page_bytes = count_argument(page_size, "page_size", 1)
    if not (
        is_power_of_two(page_bytes)
        and ARENA_MIN_PAGE_BYTES <= page_bytes <= ARENA_MAX_PAGE_BYTES
    ):
        raise BadArgument(
            f"page_size must be a power of two from {ARENA_MIN_PAGE_BYTES} "
            f"to {ARENA_MAX_PAGE_BYTES} bytes, not {page_size}"
        )
    pools = count_argument(max_pools, "max_pools", 1)
    if pools > ARENA_MAX_POOLS:
        raise BadArgument(
            f"max_pools must be at most {ARENA_MAX_POOLS}, not {max_pools}"
        )
    total = count_argument(n_bytes, "n_bytes", 1)
    if total > bit(ARENA_MAX_LOG2):
        raise BadArgument(
            f"an arena has at most 2**{ARENA_MAX_LOG2} bytes, not {n_bytes}"
        )
    total = align_up(total, page_bytes)
    if total // page_bytes > 0xFFFFFFFF:
        raise BadArgument(
            f"an arena has fewer than 2**32 pages; {n_bytes} bytes need a "
            "larger page_size"
        )
    superblock_layout(plan, total, page_bytes, pools)
    if plan.first_page >= plan.n_pages:
        raise BadArgument(
            f"{n_bytes} bytes are too few: the tables of such an arena take "
            f"{plan.first_page} pages of {page_bytes} bytes and leave none"
        )
    return 0


cdef uint32_t superblock_crc(superblock_t* super) except? 0:
    """Checksum of the superblock's fixed part."""
    return zlib.crc32(
        PyBytes_FromStringAndSize(<char*>super, SUPERBLOCK_FIXED_BYTES)
    )


cdef int superblock_verify(bytes head, int64_t length, str path) except -1:
    """Refuse a file whose superblock is not that of an arena we can open."""
    cdef superblock_t super
    _read_fixed_part(&super, head, length, path)
    _check_geometry(&super, path)
    if <uint64_t>length < super.n_bytes:
        raise ArenaFormatError(
            f"{path}: truncated: {length} bytes of {super.n_bytes}"
        )
    if <uint64_t>length > super.n_bytes:
        raise ArenaFormatError(
            f"{path}: {length} bytes where the superblock says {super.n_bytes}"
        )
    if super.state == ARENA_INITIALISING:
        raise ArenaFormatError(f"{path}: was never completely created")
    if super.state != ARENA_READY and super.state != ARENA_CLEAN:
        raise ArenaFormatError(
            f"{path}: damaged in its superblock (state {super.state:#x})"
        )
    return 0


cdef int _read_fixed_part(
    superblock_t* super, bytes head, int64_t length, str path
) except -1:
    """Copy a superblock from a file's first bytes: S1 and S2 of its fixed part."""
    if len(head) < <Py_ssize_t>sizeof(superblock_t):
        raise ArenaFormatError(
            f"{path}: {length} bytes are too few for an arena's superblock: "
            "not an arena, or truncated"
        )
    memcpy(super, <char*>head, sizeof(superblock_t))
    if head[:8] != MAGIC:
        raise ArenaFormatError(f"{path}: not an arena (no magic at its start)")
    if super.byte_order != ARENA_BYTE_ORDER:
        raise ArenaFormatError(
            f"{path}: written on a machine of another byte order, or damaged "
            "in its superblock"
        )
    if super.version != ARENA_VERSION:
        raise ArenaFormatError(
            f"{path}: format version {super.version}; this xmem reads version "
            f"{ARENA_VERSION}"
        )
    if super.fixed_crc != superblock_crc(super):
        raise ArenaFormatError(
            f"{path}: damaged in its superblock (checksum of the fixed part)"
        )
    return 0


cdef int _check_geometry(superblock_t* super, str path) except -1:
    """S1: the tables are where ``superblock_layout`` puts them."""
    cdef superblock_t plan
    if super.flags & ~<uint64_t>ARENA_FLAGS:
        raise ArenaFormatError(
            f"{path}: damaged in its superblock (flags {super.flags:#x})"
        )
    memset(&plan, 0, sizeof(superblock_t))
    plan.flags = super.flags
    try:
        superblock_plan(&plan, super.n_bytes, super.page_bytes, super.max_pools)
    except BadArgument as error:
        raise ArenaFormatError(
            f"{path}: damaged in its superblock ({error})"
        ) from None
    if (
        plan.n_bytes != super.n_bytes
        or plan.n_pages != super.n_pages
        or plan.first_page != super.first_page
        or plan.directory != super.directory
        or plan.frame_table != super.frame_table
        or plan.start_bitmap != super.start_bitmap
        or plan.runheads != super.runheads
        or plan.stretches != super.stretches
        or plan.area != super.area
    ):
        raise ArenaFormatError(f"{path}: damaged in its superblock (geometry)")
    return 0


cdef int superblock_write(superblock_t* super, uint64_t secret) except -1:
    """Complete a planned superblock, in state INITIALISING."""
    memcpy(super.magic, <char*>MAGIC, 8)
    super.version = ARENA_VERSION
    super.byte_order = ARENA_BYTE_ORDER
    super.secret = secret
    super.state = ARENA_INITIALISING
    super.fixed_crc = superblock_crc(super)
    return 0


cdef uint32_t superblock_seal(superblock_t* super) except? 0:
    """Checksum that superblock and directory have in the state CLEAN."""
    cdef bytes held = PyBytes_FromStringAndSize(
        <char*>super, <Py_ssize_t>super.frame_table
    )
    cdef superblock_t* copy = <superblock_t*><char*>held
    copy.state = ARENA_CLEAN
    copy.page_crc = 0
    return zlib.crc32(held)
