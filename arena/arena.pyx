# SPDX-License-Identifier: BSD-3-Clause
"""The arena: one mapping, its superblock, its page frames, its life cycle.

``superblock.pxd`` describes the layout of its bytes, ``frames.pxd`` allocates runs of
pages. This module knows nothing of blocks.

Threading: a method holds the GIL from its first access to the arena to its last, and so
excludes all others. A method that releases the GIL for long marks the arena as busy,
and the others wait in ``enter``.

Forking: a child has its own copy of an anonymous arena and may use it. A file belongs
to the process that opened it, whose locks the child cannot share: in the child every
method but ``close`` is refused, and ``close`` only unmaps.
"""

import os

import numpy as np

from xmem.arena import vm as _vm
from xmem.base.errors import (
    ArenaClosed,
    ArenaFormatError,
    ArenaInUse,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
    corruption,
)
from xmem.base.repairs import Repair

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from xmem.arena.check cimport check_frames
from xmem.arena.directory cimport directory_entry, directory_name
from xmem.arena.frames cimport (
    frames_alloc_aligned,
    frames_free,
    frames_head_of,
    frames_init,
    frames_longest,
)
from xmem.arena.holds cimport (
    give_back_t,
    hold_test,
    holds_begin,
    holds_drain,
    holds_end,
)
from xmem.arena.orders cimport orders_largest
from xmem.arena.records cimport (
    FRAME_CONTROL as _CONTROL,
    FRAME_FREE as _FREE,
    FRAME_JOINED as _JOINED,
    FRAME_PENDING as _PENDING,
    FRAME_REGION as _REGION,
    FRAME_RUN as _RUN,
    FRAME_WHOLE as _WHOLE,
    frame_order,
    frame_owner,
    frame_pages,
    frame_state,
)
from xmem.arena.recovery cimport recover_frames, recovery_t
from xmem.arena.sites cimport site_allocated, site_freed, sites_end
from xmem.arena.superblock cimport (
    ARENA_CLEAN,
    ARENA_DEFAULT_POOLS as _DEFAULT_POOLS,
    ARENA_MAX_LOG2 as _MAX_LOG2,
    ARENA_PREALLOCATED,
    ARENA_READY,
    ENTRY_READY,
    SUPERBLOCK_BYTES,
    arena_attach,
    page_of,
    page_offset,
    superblock_layout,
    superblock_plan,
    superblock_seal,
    superblock_t,
    superblock_verify,
    superblock_write,
)
from xmem.arena.vm cimport (
    vm_alignment,
    vm_change,
    vm_discard,
    vm_error,
    vm_forks,
    vm_map,
    vm_page_bytes,
    vm_sync,
    vm_unmap,
)
from xmem.base cimport (
    align_down,
    align_up,
    count_argument,
    engine_names,
    finding_t,
    flag_argument,
    invariant,
    memory_open,
    offset_argument,
    offset_t,
    store_barrier,
    unlikely,
)

#: Binary logarithm of the bytes of the largest arena.
ARENA_MAX_LOG2 = _MAX_LOG2

FRAME_FREE = _FREE
FRAME_RUN = _RUN
FRAME_REGION = _REGION
FRAME_CONTROL = _CONTROL
FRAME_JOINED = _JOINED
FRAME_PENDING = _PENDING
FRAME_WHOLE = _WHOLE

FRAME_DTYPE = np.dtype(
    [
        ("page", "u4"),
        ("n_pages", "u4"),
        ("state", "u1"),
        ("order", "u1"),
        ("owner", "u2"),
    ]
)

cdef packed struct row_t:           # of FRAME_DTYPE
    uint32_t page
    uint32_t n_pages
    uint8_t state
    uint8_t order
    uint16_t owner

cdef extern from "pythread.h" nogil:
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int waits)
    void PyThread_release_lock(PyThread_type_lock lock)

cdef enum:
    TOUCHED_BYTES = 256 << 20       # greatest tables that are zeroed in place


cdef inline void lock_acquire(PyThread_type_lock lock) noexcept:
    """Acquire a lock, without the GIL while waiting; an exception may be set."""
    if not PyThread_acquire_lock(lock, 0):
        with nogil:
            PyThread_acquire_lock(lock, 1)


cdef examine_t pools_examine = NULL


cdef int arena_examine_by(examine_t examine) except -1:
    """Name the function that examines and repairs the pools of an arena."""
    global pools_examine
    pools_examine = examine
    return 0


cdef shrink_t pools_shrink = NULL


cdef int arena_shrink_by(shrink_t shrink) except -1:
    """Name the function that gives back the empty regions of an arena's pools."""
    global pools_shrink
    pools_shrink = shrink
    return 0


cdef tuple say_recovered(recovery_t* recovery):
    """What the recovery of the page frames found and did, if anything."""
    cdef finding_t* broken = &recovery.broken
    found = []
    if broken.code:
        error = corruption(
            broken.code, broken.offset, broken.found, broken.expected
        )
        found.append(str(error))
    if recovery.n_abandoned:
        found.append(f"{recovery.n_abandoned} pages of nobody")
    if not found:
        return ()
    done = "records, lists and counts of the page frames were written anew"
    return (Repair(None, "; ".join(found), done, True),)


# Views -----------------------------------------------------------------------

@cython.no_gc_clear     # __dealloc__ needs the arena, in a cycle too
cdef class View:
    """Exporter of live memory, which cannot be freed while the view exists.

    A view is made before the memory is proved live, and pinned right after: making an
    object can run a finaliser, which could free the memory in between.
    """

    @staticmethod
    cdef View of(object n_bytes):
        """A view to be pinned, of ``n_bytes`` given by the caller, or of all (None)."""
        cdef View view = View.__new__(View)
        view.wants_all = n_bytes is None
        if not view.wants_all:
            view.wanted = count_argument(n_bytes, "n_bytes", 0)
        return view

    cdef object export(self, Arena arena, offset_t offset, uint64_t capacity):
        """Pin the live memory at ``offset`` and return a memoryview of it."""
        self.pin(
            arena, offset, capacity if self.wants_all else self.wanted, capacity
        )
        return memoryview(self)

    cdef int pin(
        self, Arena arena, offset_t offset, uint64_t n_bytes, uint64_t capacity
    ) except -1:
        """Pin the first ``n_bytes`` of the ``capacity`` bytes at ``offset``."""
        if n_bytes > capacity:
            raise BadArgument(
                f"the memory at {offset:#x} holds {capacity} bytes; "
                f"{n_bytes} were requested"
            )
        arena.pin(offset)
        arena.n_exports += 1
        self.arena = arena
        self.offset = offset
        self.n_bytes = <Py_ssize_t>n_bytes
        return 0

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.arena is None:
            raise BufferError("views are made only by the methods named view")
        PyBuffer_FillInfo(
            buffer,
            self,
            self.arena.c.base + self.offset,
            self.n_bytes,
            False,
            flags,
        )

    def __dealloc__(self):
        if self.arena is None:
            return
        self.arena.n_exports -= 1
        self.arena.unpin(self.offset)

    def __reduce__(self):
        raise BadArgumentType("an exporter of arena memory cannot be copied")


# Arena -----------------------------------------------------------------------

@cython.no_gc_clear     # its views need it as long as they live, in a cycle too
cdef class Arena:
    """A page-aligned byte arena in one memory mapping.

    Make one by `Arena.anonymous`, `Arena.create` or `Arena.open`. Memory in it is
    named by offsets in bytes from the arena's base, which hold in every process that
    maps the arena, and after it has been closed and opened again. Untouched pages
    cost no memory.

    An arena is a context manager that closes itself.
    """

    def __cinit__(self):
        self.c.base = NULL
        self.fd = -1
        self.repairs = ()
        self.exports = {}
        self.orphans = {}
        self.gate = PyThread_allocate_lock()
        if self.gate == NULL:
            raise MemoryError("cannot allocate the lock of an arena")

    def __init__(self):
        raise BadArgumentType(
            "make an arena by Arena.anonymous, Arena.create or Arena.open"
        )

    def __dealloc__(self):
        # Views and pools hold a reference, so none is left; in a cycle with a
        # view __del__ came too early to close.
        if self.c.base != NULL:
            self._unmap()
        if self.gate != NULL:
            PyThread_free_lock(self.gate)

    def __del__(self):
        if self.c.base != NULL and self.n_exports == 0:
            self.close()

    # Life cycle

    @staticmethod
    def anonymous(n_bytes, *, page_size=None, max_pools=_DEFAULT_POOLS):
        """An arena in anonymous memory, private to this process.

        Parameters
        ----------
        n_bytes : int
            Size including all tables; rounded up to whole pages.
        page_size : int, optional
            Bytes of a page frame, a power of two from 4096; by default those of
            the system's pages.
        max_pools : int
            Greatest number of pools at any time.

        Raises
        ------
        BadArgument
            The size is impossible for an arena.
        OSError
            The system refuses the mapping.
        """
        cdef superblock_t plan
        cdef Arena arena = Arena.__new__(Arena)
        memset(&plan, 0, sizeof(superblock_t))
        superblock_plan(&plan, n_bytes, page_size, max_pools)
        arena.map(plan.n_bytes, -1)
        memcpy(arena.c.base, &plan, sizeof(superblock_t))
        arena.format()
        return arena

    @staticmethod
    def create(
        path, n_bytes, *, page_size=None, max_pools=_DEFAULT_POOLS, preallocate=False
    ):
        """An arena in a new file, which later processes can open.

        Parameters
        ----------
        path : str or os.PathLike
            Of the file, which must not exist.
        n_bytes, page_size, max_pools
            As in `anonymous`.
        preallocate : bool
            Allocate all disk blocks of the file now. Otherwise the file is sparse,
            and touching a page for which the file system has no room kills the
            process (SIGBUS), as with every mapped file. The file keeps its blocks:
            `trim` returns none of them.

        Raises
        ------
        BadArgument
            The size is impossible for an arena.
        FileExistsError
            The path exists.
        OSError
            The system refuses the file or the mapping, or has no room to
            preallocate. No file is left behind.
        """
        cdef superblock_t plan
        cdef Arena arena = Arena.__new__(Arena)
        path = _vm.path_argument(path)
        flag_argument(preallocate, "preallocate")
        memset(&plan, 0, sizeof(superblock_t))
        superblock_plan(&plan, n_bytes, page_size, max_pools)
        plan.flags = ARENA_PREALLOCATED if preallocate else 0
        fd = _vm.file_create(path, plan.n_bytes, preallocate)
        try:
            arena.map(plan.n_bytes, fd)
        except BaseException:
            _vm.file_close(fd)
            _vm.file_remove(path)
            raise
        arena.fd = fd
        arena.path = path
        memcpy(arena.c.base, &plan, sizeof(superblock_t))
        arena.format()
        return arena

    @staticmethod
    def open(path, *, verify=True, repair=False):
        """Open the arena in a file.

        Where a process died that had it open, the page frames are made whole
        again: lists and bitmaps are written anew, and pages that nobody owns any
        more are freed. Pools in which it was in the middle of a call stay shut
        until they are repaired. `repairs` says what was found and done.

        Parameters
        ----------
        path : str or os.PathLike
        verify : bool
            Verify the frame table, in time linear in the pages. Pools are
            verified when they are opened. Without it nothing is made whole.
        repair : bool
            Verify page frames and all pools, and repair those that are broken,
            from headers, frame table and start bits, in time linear in the
            arena. Freed blocks that waited, in the quarantine or in quick lists,
            are given back. A pool whose headers are damaged is left as it is.

        Raises
        ------
        ArenaFormatError
            The file is not an arena, is truncated, is damaged in its superblock,
            or has another format version; the message says which.
        ArenaInUse
            The file is already open, in this process or another.
        HeapCorruption
            The frame table violates an invariant that cannot be restored.
        OSError
            The file cannot be opened or mapped.
        """
        cdef Arena arena = Arena.__new__(Arena)
        path = _vm.path_argument(path)
        flag_argument(verify, "verify")
        flag_argument(repair, "repair")
        try:
            fd = _vm.file_open(path)
        except BlockingIOError:
            raise ArenaInUse(
                f"{path}: already open, in this process or another"
            ) from None
        except _vm.NotAFile:
            raise ArenaFormatError(
                f"{path}: not an arena (not a regular file)"
            ) from None
        try:
            superblock_verify(
                _vm.file_head(fd, SUPERBLOCK_BYTES), _vm.file_bytes(fd), path
            )
            arena.map(_vm.file_bytes(fd), fd)
            arena.path = path
            arena_attach(&arena.c, arena.c.base)
            arena.refuse_unsealed()
            if repair:
                arena.make_whole()
                arena.repairs += pools_examine(arena, True)
            elif verify and arena.c.super.state == ARENA_READY:
                arena.make_whole()
            elif verify:
                arena.check()
            else:
                arena.is_unseen = arena.c.super.state == ARENA_READY
        except BaseException:
            if arena.c.base != NULL:
                vm_unmap(arena.c.base, arena.c.n_bytes)
                arena.c.base = NULL
            _vm.file_close(fd)
            raise
        arena.fd = fd
        arena.c.super.state = ARENA_READY
        return arena

    cdef int refuse_unsealed(self) except -1:
        """ArenaFormatError if a clean arena is not as it was closed (S2)."""
        cdef superblock_t* super = self.c.super
        if super.state == ARENA_CLEAN and super.page_crc != superblock_seal(super):
            raise ArenaFormatError(
                f"{self.path}: damaged in its superblock or pool directory "
                "(checksum)"
            )
        return 0

    cdef int make_whole(self) except -1:
        """Make the page frames whole; what was wrong becomes the first of `repairs`."""
        cdef recovery_t recovery
        cdef finding_t finding
        cdef uint64_t state = self.c.super.state
        cdef bint is_whole
        # From the first store on the checksum of a clean arena does not hold.
        self.c.super.state = ARENA_READY
        store_barrier()
        with nogil:
            is_whole = recover_frames(&self.c, &recovery, &finding)
        if not is_whole:
            self.c.super.state = state
            raise corruption(
                finding.code, finding.offset, finding.found, finding.expected
            )
        self.frames_checked = True
        self.repairs = say_recovered(&recovery)
        return 0

    cdef int map(self, uint64_t n_bytes, int fd) except -1:
        """Map ``n_bytes`` of a file, or (-1) of anonymous memory."""
        cdef char* base = vm_map(n_bytes, vm_alignment(n_bytes), fd)
        if base == NULL:
            raise vm_error(f"{n_bytes} bytes could not be mapped")
        self.forks = vm_forks
        self.c.base = base
        self.c.n_bytes = n_bytes
        self.c.alignment = vm_alignment(n_bytes)
        return 0

    cdef int reformat(self) except -1:
        """Make the arena empty, as if it were new.

        For measurements: the memory stays mapped and resident. Pools of the arena must
        not be used afterwards.
        """
        cdef superblock_t plan
        cdef superblock_t* super = self.c.super
        cdef uint64_t tables = page_offset(&self.c, self.c.first_page)
        cdef uint64_t discarded = 0
        memset(&plan, 0, sizeof(superblock_t))
        superblock_layout(
            &plan, super.n_bytes, super.page_bytes, super.max_pools
        )
        plan.flags = super.flags
        if tables > TOUCHED_BYTES and not plan.flags & ARENA_PREALLOCATED:
            discarded = align_down(tables, vm_page_bytes())
            if vm_discard(self.c.base, discarded, self.fd >= 0):
                raise vm_error("the tables could not be returned to the system")
        memset(self.c.base + discarded, 0, tables - discarded)
        memcpy(self.c.base, &plan, sizeof(superblock_t))
        return self.format()

    cdef int format(self) except -1:
        """Write the tables of a superblock whose geometry is set."""
        cdef superblock_t* super = <superblock_t*>self.c.base
        superblock_write(super, int.from_bytes(os.urandom(8), "little"))
        arena_attach(&self.c, self.c.base)
        frames_init(&self.c)
        self.frames_checked = True      # they have just been written
        store_barrier()
        super.state = ARENA_READY
        return 0

    def close(self):
        """Unmap the arena; from then on every use of it raises `ArenaClosed`.

        A file-backed arena is written back and marked clean, unless a process died
        that had it open and it was then opened with ``verify=False``. Closing again
        does nothing.

        Raises
        ------
        BufferError
            A view of its memory is alive.
        """
        if self.c.base == NULL:
            return
        if self.forks != vm_forks and self.fd >= 0:
            self._unmap()
            return
        self.begin_long()
        try:
            self._unmap()
        finally:
            self.end_long()

    cdef int _unmap(self) except -1:
        """Write back, unmap and close; if that is refused, nothing has changed."""
        if self.n_exports:
            raise BufferError(
                f"views of the arena are alive ({self.n_exports}): release "
                "them before closing it"
            )
        if self.fd >= 0 and self.forks == vm_forks:
            # What was left half done and not looked at is left so.
            if not self.is_unseen:
                self.c.super.page_crc = superblock_seal(self.c.super)
                self.c.super.state = ARENA_CLEAN
            if vm_sync(self.c.base, self.c.n_bytes) != 0:
                self.c.super.state = ARENA_READY
                raise vm_error("the arena could not be written back")
        sites_end(&self.c)
        holds_end(&self.holds)
        memory_open(self.c.base, self.c.n_bytes)
        vm_unmap(self.c.base, self.c.n_bytes)
        self.c.base = NULL
        if self.fd >= 0:
            _vm.file_close(self.fd)
            self.fd = -1
        return 0

    def __enter__(self):
        self.enter()
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __reduce__(self):
        raise BadArgumentType(
            "an arena cannot be pickled; open its file in the other process"
        )

    def __repr__(self):
        where = "anonymous" if self.path is None else repr(self.path)
        if self.c.base == NULL:
            return f"<xmem.Arena {where}, closed>"
        return (
            f"<xmem.Arena {where}, {self.c.n_bytes} bytes in pages of "
            f"{self.c.page_bytes}, {self.c.super.frames.n_free_pages} pages free>"
        )

    cdef int enter(self) except -1:
        """Begin a method: the arena is open and no other thread works in it."""
        if unlikely(self.forks != vm_forks):
            self.inherited()
        while arena_is_busy(self):
            lock_acquire(self.gate)
            PyThread_release_lock(self.gate)
        if self.c.base == NULL:
            raise ArenaClosed("the arena has been closed")
        return 0

    cdef int inherited(self) except -1:
        """Begin the first method in the child of a fork."""
        if self.fd >= 0:
            raise ArenaInUse(
                f"{self.path}: opened by the process that forked this one, "
                "which still has it; close it before forking, and open it here"
            )
        # No thread of the parent is in this process.
        self.busy = False
        self.nested = 0
        self.gate = PyThread_allocate_lock()    # the old one may never be released
        if self.gate == NULL:
            raise MemoryError("cannot allocate the lock of an arena")
        self.forks = vm_forks
        holds_drain(&self.holds)
        return 0

    cdef int begin_long(self) except -1:
        """Enter for work without the GIL."""
        self.enter()
        if self.busy:                   # a finaliser in the thread that works
            self.nested += 1
            return 0
        lock_acquire(self.gate)
        if self.c.base == NULL:         # closed while we waited
            PyThread_release_lock(self.gate)
            raise ArenaClosed("the arena has been closed")
        self.busy_thread = PyThread_get_thread_ident()
        self.busy = True
        vm_change()
        return 0

    cdef int end_long(self) except -1:
        """Leave after work without the GIL; do the frees deferred meanwhile."""
        if self.nested:
            self.nested -= 1
            return 0
        self.busy = False
        PyThread_release_lock(self.gate)
        holds_drain(&self.holds)
        return 0

    # Properties

    @property
    def closed(self):
        """Whether the arena has been closed."""
        return self.c.base == NULL

    @property
    def n_bytes(self):
        """Size of the arena in bytes, including its tables."""
        self.enter()
        return self.c.n_bytes

    @property
    def page_size(self):
        """Bytes of a page frame."""
        self.enter()
        return self.c.page_bytes

    @property
    def n_pages(self):
        """Pages of the arena, including its tables."""
        self.enter()
        return self.c.n_pages

    @property
    def first_page(self):
        """Number of the first page after the tables."""
        self.enter()
        return self.c.first_page

    @property
    def n_free_pages(self):
        """Number of free pages."""
        self.enter()
        return self.c.super.frames.n_free_pages

    @property
    def largest_free_order(self):
        """Greatest order that `page_alloc` has room for, -1 when no page is free."""
        self.enter()
        return orders_largest(&self.c)

    @property
    def longest_free_run(self):
        """Greatest number of pages that `page_alloc_exact` has room for."""
        self.enter()
        return frames_longest(&self.c)

    @property
    def max_order(self):
        """Largest possible order of a run in this arena."""
        self.enter()
        return (<object>self.c.n_pages).bit_length() - 1

    @property
    def max_align(self):
        """Greatest alignment in bytes that addresses in the arena can have."""
        self.enter()
        return self.c.alignment

    @property
    def root(self):
        """An offset of the user's choice, stored in the arena; 0 at first."""
        self.enter()
        return self.c.super.root

    @root.setter
    def root(self, offset):
        cdef uint64_t word = count_argument(offset, "root", 0)
        self.enter()
        if word >= self.c.n_bytes:
            raise BadArgument(f"root {offset} is outside the arena")
        self.c.super.root = word

    # Page runs

    def page_alloc(self, order, /):
        """``2**order`` contiguous pages, aligned to their size.

        Parameters
        ----------
        order : int
            log2 of the number of pages.

        Returns
        -------
        int
            Offset of the first page in bytes.

        Raises
        ------
        OutOfMemory
            No free run is large enough.
        BadArgument
            The order is negative.
        """
        cdef uint64_t word = count_argument(order, "order", 0)
        self.enter()
        # More pages than an arena has are refused before the order is looked at.
        return self.allocate_run(
            pages_of_order(word), <unsigned>word, f"page_alloc({word})"
        )

    def page_alloc_exact(self, n_pages, /):
        """Exactly ``n_pages`` contiguous pages, which start at any page.

        The lowest that are free: as long as so many lie side by side, there is room.

        Returns
        -------
        int
            Offset of the first page in bytes.

        Raises
        ------
        OutOfMemory
            No free run is large enough.
        BadArgument
            ``n_pages`` is less than 1.
        """
        cdef uint64_t count = count_argument(n_pages, "n_pages", 1)
        self.enter()
        return self.allocate_run(count, 0, f"page_alloc_exact({count})")

    cdef object allocate_run(self, uint64_t n_pages, unsigned order, str call):
        """Offset of a new run of the caller's, aligned to ``2**order`` pages."""
        cdef uint32_t page = frames_alloc_aligned(&self.c, n_pages, order, _RUN, 0)
        if page == 0:
            raise self.no_room(call, "")
        site_allocated(
            &self.c, page_offset(&self.c, page), page_offset(&self.c, n_pages)
        )
        return page_offset(&self.c, page)

    cdef object no_room(self, str call, str held):
        """The error for a request without room; ``held`` describes its pool."""
        return OutOfMemory(
            f"{call}: no room: {held}the arena has "
            f"{self.c.super.frames.n_free_pages} free pages, at most "
            f"{self.longest_free_run} side by side (order {self.largest_free_order})"
        )

    cdef uint32_t require_run(self, offset_t offset, str verb) except? 0:
        """Page of a live run of the caller's, or the error that says why it is none."""
        cdef uint64_t word = 0
        cdef uint64_t page = page_of(&self.c, offset)
        cdef uint32_t head
        if offset >= self.c.n_bytes or page < self.c.first_page:
            raise NotABlock(f"{verb}({offset:#x}): outside the page frames")
        if offset & (self.c.page_bytes - 1) == 0:
            word = self.c.frames[page].word
            if frame_state(word) == _RUN and frame_owner(word) == 0:
                return <uint32_t>page
        head = frames_head_of(&self.c, page)
        word = self.c.frames[head].word
        if frame_state(word) == _FREE:
            raise DoubleFree(
                f"{verb}({offset:#x}): page {page} is free: already freed, or "
                "never allocated"
            )
        if frame_owner(word) != 0:
            raise MismatchedFree(
                f"{verb}({offset:#x}): page {page} belongs to pool "
                f"{directory_name(&self.c, frame_owner(word))!r}: "
                + (
                    "free it with page_free of that pool's heap"
                    if frame_state(word) == _RUN
                    else "free its blocks with that pool's xfree"
                )
            )
        raise NotABlock(
            f"{verb}({offset:#x}): inside the run of {frame_pages(word)} pages "
            f"at {page_offset(&self.c, head):#x}; pass the run's own offset"
        )

    def page_free(self, offset, /):
        """Free a run of `page_alloc` or `page_alloc_exact`.

        Parameters
        ----------
        offset : int
            As the allocation returned it.

        Raises
        ------
        DoubleFree, MismatchedFree, NotABlock
            No run of the caller's starts there; nothing has changed.
        BufferError
            A view of the run is alive.
        """
        cdef offset_t where = offset_argument(offset)
        cdef uint32_t page
        self.enter()
        page = self.require_run(where, "page_free")
        self.refuse_exported(where)
        site_freed(&self.c, where)
        frames_free(&self.c, page)

    def run_pages(self, offset, /):
        """Pages of the live run that starts at ``offset``.

        Raises
        ------
        InvalidFree
            As in `page_free`.
        """
        cdef offset_t where = offset_argument(offset)
        self.enter()
        return frame_pages(
            self.c.frames[self.require_run(where, "run_pages")].word
        )

    def view(self, offset, n_bytes=None, /):
        """Memory of a live run of pages.

        While the view, or anything made from it, is alive, the run cannot be freed nor
        the arena closed.

        Parameters
        ----------
        offset : int
            Of a run of `page_alloc` or `page_alloc_exact`.
        n_bytes : int, optional
            At most the run's length, which is the default.

        Returns
        -------
        memoryview
            Writable bytes.
        """
        cdef offset_t where = offset_argument(offset)
        cdef View view = View.of(n_bytes)
        cdef uint64_t n_pages
        self.enter()
        n_pages = frame_pages(self.c.frames[self.require_run(where, "view")].word)
        return view.export(self, where, page_offset(&self.c, n_pages))

    def address(self, offset, /):
        """Address of ``offset`` in this process."""
        cdef offset_t where = offset_argument(offset)
        self.enter()
        if where >= self.c.n_bytes:
            raise NotABlock(f"{offset} is outside the arena")
        return <uintptr_t>self.c.base + where

    cdef int prepare_holds(self, give_back_t give_back) except -1:
        """Let objects own blocks; ``give_back`` frees those of collected owners."""
        if holds_begin(
            &self.holds, self.c.n_bytes, self.c.super.max_pools, give_back
        ):
            raise vm_error("no memory for a table of the blocks that objects own")
        return 0

    cdef int pin(self, offset_t payload) except -1:
        """Count a view of the memory at ``payload``."""
        self.exports[payload] = self.exports.get(payload, 0) + 1
        return 0

    cdef int unpin(self, offset_t payload) except -1:
        """Count a view that has ended; after the last, free a block without owner."""
        left = self.exports[payload] - 1
        if left:
            self.exports[payload] = left
            return 0
        del self.exports[payload]
        if self.orphans:
            owner = self.orphans.pop(payload, None)
            if owner is not None:
                self.holds.give_back(<PyObject*>owner, payload)
        return 0

    cdef int refuse_viewed(self, offset_t payload) except -1:
        """BufferError if a view of the memory at ``payload`` is alive."""
        if self.n_exports and payload in self.exports:
            raise BufferError(
                f"views of the memory at {payload:#x} are alive "
                f"({self.exports[payload]}): release them first"
            )
        return 0

    cdef int refuse_exported(self, offset_t payload) except -1:
        """Raise if the memory at ``payload`` is viewed, or owned by an object."""
        self.refuse_viewed(payload)
        if hold_test(&self.holds, payload):
            raise MismatchedFree(
                f"an object owns the block at {payload:#x}, a Block or an array: "
                "release the Block, or drop the array"
            )
        return 0

    # Pools

    def pools(self):
        """Pools in the arena, by name.

        Returns
        -------
        dict
            Name to ``{"engine": str, "id": int}``.
        """
        cdef uint32_t number
        self.enter()
        found = {}
        for number in range(1, self.c.super.max_pools + 1):
            self.enter()        # making an object can run a finaliser
            entry = directory_entry(&self.c, number)
            if entry.state == ENTRY_READY:
                engine = engine_names.get(entry.engine, "unknown")
                name = directory_name(&self.c, number)
                found[name] = {"engine": engine, "id": number}
        return found

    # Inspection

    def frames(self):
        """Every run of the frame table in address order.

        Returns
        -------
        numpy.ndarray
            Structured: ``page`` (number), ``n_pages``, ``state`` (one of the
            constants ``FRAME_*``), ``order``, ``owner`` (pool id, 0 for the
            caller's runs).
        """
        cdef row_t[::1] rows
        cdef uint64_t page, word
        cdef Py_ssize_t i = 0
        self.enter()
        # From Python's memory: NumPy's may come from this very arena.
        found = np.frombuffer(
            bytearray(self._count_runs() * sizeof(row_t)), dtype=FRAME_DTYPE
        )
        rows = found
        self.enter()        # making an array can run a finaliser
        page = self.c.first_page
        while page < self.c.n_pages and i < rows.shape[0]:
            word = self.c.frames[page].word
            rows[i].page = <uint32_t>page
            rows[i].n_pages = <uint32_t>frame_pages(word)
            rows[i].state = frame_state(word)
            rows[i].order = frame_order(word)
            rows[i].owner = frame_owner(word)
            page += frame_pages(word)
            i += 1
        return found[:i]

    cdef uint64_t _count_runs(self) except 0:
        """Number of runs, which tile the page frames (P1)."""
        cdef uint64_t page = self.c.first_page
        cdef uint64_t count = 0
        cdef uint64_t n_pages
        while page < self.c.n_pages:
            n_pages = frame_pages(self.c.frames[page].word)
            if n_pages == 0 or n_pages > self.c.n_pages - page:
                raise corruption(
                    invariant(c"P", 1),
                    page_offset(&self.c, page),
                    n_pages,
                    self.c.n_pages - page,
                )
            page += n_pages
            count += 1
        return count

    def check(self):
        """Verify every invariant of the page frames (P1 to P6).

        Time is linear in the pages; the GIL is released.

        Raises
        ------
        HeapCorruption
            Of the first invariant that does not hold.
        """
        cdef finding_t finding
        cdef bint sound
        self.begin_long()
        try:
            with nogil:
                sound = check_frames(&self.c, &finding)
        finally:
            self.end_long()
        if not sound:
            raise corruption(
                finding.code, finding.offset, finding.found, finding.expected
            )
        self.frames_checked = True

    def sync(self):
        """Write a file-backed arena back to its file."""
        self.enter()
        if self.fd >= 0 and vm_sync(self.c.base, self.c.n_bytes) != 0:
            raise vm_error("the arena could not be written back")

    def trim(self):
        """Return the memory of free page runs to the system.

        Before, each pool that is not damaged gives the freed blocks that wait to its
        engine, and its empty regions to the arena, as `Pool.shrink` does. Regions that
        came from ``get_mem`` stay, and those of a pool that was told its size
        (``reserve=``). Time is linear in the blocks.

        No other method returns memory; in particular neither xmalloc nor xfree. A file
        that was created with ``preallocate=True`` keeps its disk blocks: nothing is
        returned.

        Returns
        -------
        int
            Bytes returned, whether they had been touched or not.

        Raises
        ------
        HeapCorruption
            The runs do not tile the page frames; nothing was returned.
        """
        cdef uint64_t page, word, first, last
        cdef uint64_t returned = 0
        self.enter()
        self._count_runs()
        if pools_shrink != NULL:
            self.begin_long()
            try:
                with nogil:
                    pools_shrink(&self.c)
            finally:
                self.end_long()
        if self.c.super.flags & ARENA_PREALLOCATED:
            return 0
        page = self.c.first_page
        while page < self.c.n_pages:
            word = self.c.frames[page].word
            if frame_state(word) == _FREE:
                first = align_up(page_offset(&self.c, page), vm_page_bytes())
                last = align_down(
                    page_offset(&self.c, page + frame_pages(word)),
                    vm_page_bytes(),
                )
                if last > first:
                    if vm_discard(
                        self.c.base + first, last - first, self.fd >= 0
                    ):
                        raise vm_error("pages could not be returned to the system")
                    returned += last - first
            page += frame_pages(word)
        return returned
