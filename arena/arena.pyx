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
from time import sleep

import numpy as np

from xmem.arena import vm as _vm
from xmem.base.errors import (
    ArenaClosed,
    ArenaFormatError,
    ArenaInUse,
    BadArgument,
    BadArgumentType,
    DoubleFree,
    HeapCorruption,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
    corruption,
)
from xmem.base.repairs import Repair
from xmem.base.slots import ArenaStats

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from xmem.arena.check cimport check_frames
from xmem.arena.directory cimport directory_entry, directory_name
from xmem.arena.frames cimport (
    frames_alloc_aligned,
    frames_free,
    frames_head_of,
    frames_init,
    frames_largest_order,
    frames_longest,
)
from xmem.arena.holds cimport (
    give_back_t,
    hold_test,
    holds_begin,
    holds_drain,
    holds_end,
)
from xmem.arena.members cimport (
    area_begin,
    busy_error,
    is_done,
    is_forked,
    is_where_verified,
    member_begin,
    member_count,
    member_forget,
    member_hold,
    member_join,
    member_leave,
    member_reap,
    member_settle,
    member_slots,
    member_unhold,
    moment_ns,
    verified_here,
)
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
    ARENA_SHARED,
    ENTRY_DESTROYING,
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


cdef sharing_t* sharing = NULL


cdef int arena_share_by(sharing_t* verbs) except -1:
    """Name the verbs of arenas that processes share."""
    global sharing
    sharing = verbs
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


# Sharing ---------------------------------------------------------------------

cdef enum:
    STEP_NS = 1000000000

#: Seconds that a method waits for the lock of a shared arena, unless it is told.
_LOCK_TIMEOUT = 10.0
#: Between two looks whether a file is open for one process alone.
cdef double POLL_SECONDS = 0.001
_MOST_SECONDS = 1e9


cdef uint64_t _nanoseconds(object seconds) except? 0:
    """A time given by the caller in seconds."""
    try:
        found = float(seconds)
    except (TypeError, ValueError):
        raise BadArgumentType(
            f"lock_timeout must be seconds, not {type(seconds).__name__}"
        ) from None
    if not 0 <= found <= _MOST_SECONDS:
        raise BadArgument(
            f"lock_timeout must be from 0 to {_MOST_SECONDS:.0e} seconds, not {found}"
        )
    return <uint64_t>(found * STEP_NS)


cdef object _open_file(str path, object shared):
    """Descriptor of an arena's file; alone, if it is not shared or not wanted so."""
    cdef bytes head
    try:
        fd = _vm.file_open(path)
    except _vm.NotAFile:
        raise ArenaFormatError(f"{path}: not an arena (not a regular file)") from None
    try:
        head = _vm.file_head(fd, SUPERBLOCK_BYTES)
        is_shared = len(head) >= <Py_ssize_t>sizeof(superblock_t) and bool(
            (<superblock_t*><char*>head).flags & ARENA_SHARED
        )
        if is_shared and shared is not False:
            _vm.file_refuse_remote(fd, path)
        elif not _vm.file_lock(fd):
            raise ArenaInUse(f"{path}: already open, in this process or another")
        # Read once more: it may have changed until it was locked.
        superblock_verify(
            _vm.file_head(fd, SUPERBLOCK_BYTES), _vm.file_bytes(fd), path
        )
        if shared and not is_shared:
            raise BadArgument(
                f"{path}: was not created with shared=True: open it without"
            )
    except BaseException:
        _vm.file_close(fd)
        raise
    return fd


cdef object _create_shared(Arena arena, superblock_t* plan, str path):
    """Make a shared arena in a file, and give that its name at last."""
    cdef bint preallocate = (plan.flags & ARENA_PREALLOCATED) != 0
    if path is None:
        fd = _vm.file_in_memory(plan.n_bytes, preallocate)
    else:
        fd = _vm.file_create_unnamed(path, plan.n_bytes, preallocate)
    try:
        arena.map(plan.n_bytes, fd)
        arena.path = path
        memcpy(arena.c.base, plan, sizeof(superblock_t))
        arena.format()
        arena.share(fd)
        verified_here(arena.member, &arena.c)
        arena.join()
        if path is not None:
            _vm.file_link(fd, path)
    except BaseException:
        arena.abandon()
        if path is None:
            _vm.file_close(fd)
        else:
            _vm.file_abandon(fd)
        raise
    arena.fd = fd
    return arena


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
        path,
        n_bytes,
        *,
        page_size=None,
        max_pools=_DEFAULT_POOLS,
        preallocate=None,
        shared=False,
        lock_timeout=_LOCK_TIMEOUT,
    ):
        """An arena in a new file, which other processes can open.

        Parameters
        ----------
        path : str or os.PathLike
            Of the file, which must not exist. A shared one appears there only when
            it is complete.
        n_bytes, page_size, max_pools
            As in `anonymous`.
        preallocate : bool, optional
            Allocate all disk blocks of the file now; by default those of a shared
            arena. Otherwise the file is sparse, and touching a page for which the
            file system has no room kills the process (SIGBUS), as with every mapped
            file. The file keeps its blocks: `trim` returns none of them.
        shared : bool
            Whether several processes may have the arena open at a time. Then each
            verb takes the arena's lock, and what a process that is killed leaves half
            done is undone by the next. Otherwise it is one process at a time.
        lock_timeout : float
            Seconds that a method waits for that lock.

        Raises
        ------
        BadArgument
            The size is impossible for an arena.
        FileExistsError
            The path exists.
        OSError
            The system refuses the file or the mapping, or has no room to
            preallocate; or a shared arena would lie on a file system of other
            machines. No file is left behind.
        """
        cdef superblock_t plan
        cdef Arena arena = Arena.__new__(Arena)
        cdef bint is_shared
        path = _vm.path_argument(path)
        is_shared = flag_argument(shared, "shared")
        if preallocate is None:
            preallocate = is_shared
        flag_argument(preallocate, "preallocate")
        arena.timeout_ns = _nanoseconds(lock_timeout)
        memset(&plan, 0, sizeof(superblock_t))
        plan.flags = ARENA_PREALLOCATED if preallocate else 0
        if is_shared:
            plan.flags |= ARENA_SHARED
        superblock_plan(&plan, n_bytes, page_size, max_pools)
        if is_shared:
            return _create_shared(arena, &plan, path)
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
    def memfd(
        n_bytes,
        *,
        page_size=None,
        max_pools=_DEFAULT_POOLS,
        preallocate=True,
        lock_timeout=_LOCK_TIMEOUT,
    ):
        """A shared arena in memory, in a file without a name.

        Another process opens it as ``/proc/PID/fd/N`` with the number that `fileno`
        returns, or as ``/proc/self/fd/N`` if it inherited the descriptor. The memory
        is freed when the last process has closed the arena.

        Parameters
        ----------
        n_bytes, page_size, max_pools, preallocate, lock_timeout
            As in `create`.

        Raises
        ------
        BadArgument
            The size is impossible for an arena.
        OSError
            The system refuses, or has no room to preallocate.
        """
        cdef superblock_t plan
        cdef Arena arena = Arena.__new__(Arena)
        flag_argument(preallocate, "preallocate")
        arena.timeout_ns = _nanoseconds(lock_timeout)
        memset(&plan, 0, sizeof(superblock_t))
        plan.flags = ARENA_SHARED | (ARENA_PREALLOCATED if preallocate else 0)
        superblock_plan(&plan, n_bytes, page_size, max_pools)
        return _create_shared(arena, &plan, None)

    @staticmethod
    def open_or_create(
        path,
        n_bytes,
        *,
        page_size=None,
        max_pools=_DEFAULT_POOLS,
        preallocate=None,
        lock_timeout=_LOCK_TIMEOUT,
    ):
        """The shared arena in a file, which is made if there is none.

        Of processes that start together one makes it, and all have the same.

        Parameters
        ----------
        path, n_bytes, page_size, max_pools, preallocate, lock_timeout
            As in `create`. A file that is there stays as it is.

        Raises
        ------
        BadArgument, OSError
            As in `create`.
        ArenaFormatError, ArenaInUse, ArenaBusy, TooManyProcesses, HeapCorruption
            As in `open`.
        """
        while True:
            try:
                return Arena.open(path, shared=True, lock_timeout=lock_timeout)
            except FileNotFoundError:
                pass
            try:
                return Arena.create(
                    path,
                    n_bytes,
                    page_size=page_size,
                    max_pools=max_pools,
                    preallocate=preallocate,
                    shared=True,
                    lock_timeout=lock_timeout,
                )
            except FileExistsError:
                pass        # another was first

    @staticmethod
    def open(
        path,
        *,
        verify=True,
        repair=False,
        shared=None,
        lock_timeout=_LOCK_TIMEOUT,
    ):
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
        shared : bool, optional
            True: with others, as the arena was created for. False: alone, whatever it
            was created for. By default as it was created. Where others have it open
            nothing is verified, for they have; `repair` wants to be alone.
        lock_timeout : float
            As in `create`.

        Raises
        ------
        ArenaFormatError
            The file is not an arena, is truncated, is damaged in its superblock,
            or has another format version; or a pool of a shared arena is damaged that
            has to be verified, a copy for example. The message says which.
        ArenaInUse
            The file is already open, in this process or another, and is not shared or
            wanted alone.
        BadArgument
            It is to be shared, and was not created for that.
        ArenaBusy, TooManyProcesses
            It is shared; its lock was not to be had, or all its slots are taken.
        HeapCorruption
            The frame table violates an invariant that cannot be restored.
        OSError
            The file cannot be opened or mapped.
        """
        cdef Arena arena = Arena.__new__(Arena)
        path = _vm.path_argument(path)
        flag_argument(verify, "verify")
        flag_argument(repair, "repair")
        if shared is not None:
            flag_argument(shared, "shared")
        arena.timeout_ns = _nanoseconds(lock_timeout)
        arena.path = path
        fd = _open_file(path, shared)
        try:
            arena.map(_vm.file_bytes(fd), fd)
            arena_attach(&arena.c, arena.c.base)
            if shared is not False and arena.c.super.flags & ARENA_SHARED:
                arena.open_shared(fd, verify, repair)
            else:
                arena.open_alone(fd, verify, repair)
        except BaseException:
            arena.abandon()
            _vm.file_close(fd)
            raise
        arena.fd = fd
        arena.c.super.state = ARENA_READY
        return arena

    cdef int open_alone(self, int fd, bint verify, bint repair) except -1:
        """Verify an arena that nobody else has open, and repair it if asked to."""
        self.refuse_unsealed()
        if self.c.super.flags & ARENA_SHARED:
            self.share(fd)
            member_settle(self.member, repair)
            self.leave()
        if repair:
            self.make_whole()
            self.repairs += pools_examine(self, True)
        elif verify and self.c.super.state == ARENA_READY:
            self.make_whole()
        elif verify:
            self.check()
        else:
            self.is_unseen = self.c.super.state == ARENA_READY
        return 0

    cdef int abandon(self) except -1:
        """Undo what a creation or an opening that failed has done."""
        if self.member != NULL:
            self.leave()
        if self.c.base != NULL:
            vm_unmap(self.c.base, self.c.n_bytes)
            self.c.base = NULL
        return 0

    # Sharing

    cdef int share(self, int fd) except -1:
        """Prepare to be a member of those who share the arena."""
        cdef void* routes = sharing.make()
        if routes == NULL:
            raise MemoryError("no memory for a share in an arena")
        self.c.routes = routes
        self.member = <member_t*>routes
        member_begin(self.member, &self.c, fd)
        return 0

    cdef int leave(self) except -1:
        """Be a member no more."""
        try:
            if self.member.identity != NULL and self.forks == vm_forks:
                member_leave(self.member, self.timeout_ns)
        finally:
            free(self.member)
            self.member = NULL
            self.c.routes = NULL
        return 0

    cdef int join(self) except -1:
        """Become a member; wait as long as somebody has the file for himself."""
        cdef uint64_t until = moment_ns() + self.timeout_ns
        while not member_join(self.member, self.timeout_ns, str(self.path)):
            if moment_ns() >= until:
                raise ArenaInUse(f"{self.path}: somebody has it open alone")
            sleep(POLL_SECONDS)
        return 0

    cdef int open_shared(self, int fd, bint verify, bint repair) except -1:
        """Join those who have the arena open, or verify it if there are none."""
        self.share(fd)
        if _vm.file_lock(fd):
            try:
                self.verify_alone(verify, repair)
                self.c.super.state = ARENA_READY
            finally:
                _vm.file_unlock(fd)
        elif repair:
            raise ArenaInUse(f"{self.path}: others have it open: repair it alone")
        return self.join()

    cdef int verify_alone(self, bint verify, bint repair) except -1:
        """Undo what the dead left, and verify what may not be as they left it."""
        cdef bint is_known = is_where_verified(self.member, &self.c)
        member_settle(self.member, repair)
        if not is_known:
            member_forget(self.member)
        self.refuse_unsealed()
        if repair:
            self.make_whole()
            self.repairs += pools_examine(self, True)
        elif self.c.super.state == ARENA_CLEAN:
            if verify:
                self.check()
        elif verify or not is_known:
            self.make_whole()
            if not is_known:
                for broken in pools_examine(self, False):
                    raise ArenaFormatError(
                        f"{self.path}: {broken}. The file is a copy, or the machine "
                        "has stopped since it was verified; Arena.open with "
                        "repair=True repairs what can be repaired"
                    )
        if not is_known:
            verified_here(self.member, &self.c)
        return 0

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
        if self.member != NULL:
            raise BadArgument("a shared arena is not made anew")
        memset(&plan, 0, sizeof(superblock_t))
        plan.flags = super.flags
        superblock_layout(
            &plan, super.n_bytes, super.page_bytes, super.max_pools
        )
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
        if super.flags & ARENA_SHARED:
            area_begin(self.c.base + super.area)
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
        if self.member != NULL:
            self.leave_for_good()
        elif self.fd >= 0 and self.forks == vm_forks:
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

    cdef int leave_for_good(self) except -1:
        """Leave a shared arena; the last one seals it if its journal is whole."""
        cdef bint is_whole = True
        self.leave()
        if self.forks != vm_forks or not _vm.file_lock(self.fd):
            return 0
        try:
            self.share(self.fd)
            try:
                member_settle(self.member, False)
            except HeapCorruption:
                is_whole = False
            self.leave()
            if is_whole:
                self.c.super.page_crc = superblock_seal(self.c.super)
                self.c.super.state = ARENA_CLEAN
                if vm_sync(self.c.base, self.c.n_bytes) != 0:
                    self.c.super.state = ARENA_READY
        finally:
            _vm.file_unlock(self.fd)
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
        where = "anonymous" if self.member == NULL else "in memory"
        if self.path is not None:
            where = repr(self.path)
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

    cdef int hold(self) except -1:
        """Begin a method that reads what other processes change; `unhold` ends it."""
        self.enter()
        if self.member == NULL:
            return 0
        if member_hold(self.member, 0):
            return 0
        return self.hold_slowly()

    cdef int hold_slowly(self) except -1:
        """`hold` a lock that is not free, without the GIL."""
        cdef bint is_held
        self.begin_long()
        try:
            with nogil:
                is_held = member_hold(self.member, self.timeout_ns)
        finally:
            self.end_long()
        if not is_held:
            raise busy_error(self.member, str(self.path))
        return 0

    cdef void unhold(self) noexcept:
        """End what `hold` began."""
        if self.member == NULL:
            return
        member_unhold(self.member)
        if self.holds.deferred != NULL and self.member.depth == 0:
            holds_drain(&self.holds)

    cdef bint hold_at_once(self) noexcept:
        """`hold` in a method that may not wait; False if the lock is not free."""
        if self.is_copied:      # by a thread whose finaliser this is
            return False
        return self.member == NULL or member_hold(self.member, 0)

    cdef int refuse_shared(self, str what) except -1:
        """BadArgument for what cannot be in a shared arena."""
        self.enter()
        if self.member != NULL:
            raise BadArgument(f"{what} in a shared arena")
        return 0

    cdef int refuse_cause(self, int cause) except -1:
        """Raise the error for a verb that did nothing because of the lock."""
        if is_done(cause):
            return 0
        if is_forked(cause):
            self.inherited()
        raise busy_error(self.member, str(self.path))

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
        return frames_largest_order(&self.c)

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
        if self.member == NULL:
            self.c.super.root = word
            return
        self.hold()
        try:
            sharing.set_root(&self.c, word)
        finally:
            self.unhold()

    # Processes

    @property
    def shared(self):
        """Whether other processes may have the arena open now."""
        self.enter()
        return self.member != NULL

    @property
    def lock_timeout(self):
        """Seconds that a method waits for the lock of a shared arena."""
        return self.timeout_ns / <double>STEP_NS

    @lock_timeout.setter
    def lock_timeout(self, seconds):
        self.timeout_ns = _nanoseconds(seconds)

    def fileno(self):
        """Descriptor of the arena's file, which stays the arena's.

        Raises
        ------
        OSError
            The arena is anonymous.
        """
        self.enter()
        if self.fd < 0:
            raise OSError("an anonymous arena has no file")
        return self.fd

    def slots(self):
        """What the processes are about that have this shared arena open.

        Those that were killed are among them, until `reap` or until another process
        needs the slot.

        Returns
        -------
        tuple of SlotInfo

        Raises
        ------
        BadArgument
            The arena is not shared.
        ArenaBusy
            Its lock was not to be had.
        """
        self.require_shared()
        self.hold()
        try:
            return member_slots(self.member)
        finally:
            self.unhold()

    def reap(self):
        """Empty the slots of processes that were killed.

        Their blocks are not freed: nobody knows what they had handed on. `left` of
        what is returned names the last one that each was given. A pool that one of
        them was destroying is destroyed.

        Returns
        -------
        tuple of SlotInfo
            What their slots said.

        Raises
        ------
        BadArgument, ArenaBusy
            As in `slots`.
        """
        self.require_shared()
        self.hold()
        try:
            found = member_reap(self.member)
        finally:
            self.unhold()
        self.end_destructions()
        return found

    cdef int end_destructions(self) except -1:
        """Release the pages of pools that somebody has begun to destroy."""
        cdef uint32_t number, serial
        cdef uint32_t page
        cdef bint is_more
        for number in range(1, self.c.super.max_pools + 1):
            if self.c.directory[number - 1].state != ENTRY_DESTROYING:
                continue
            serial = self.c.directory[number - 1].serial
            page = self.c.first_page
            is_more = True
            while is_more:
                self.hold()
                is_more = sharing.release(&self.c, number, serial, &page)
                self.unhold()
        return 0

    def stats(self):
        """Figures of the arena, and of its lock if it is shared.

        Returns
        -------
        ArenaStats
        """
        self.hold()
        try:
            return ArenaStats(
                n_pages=self.c.n_pages,
                n_free_pages=self.c.super.frames.n_free_pages,
                longest_free_run=frames_longest(&self.c),
                n_pools=len(self.pools()),
                n_processes=1 if self.member == NULL else member_count(self.member),
                takeovers=0 if self.member == NULL else self.member.area.n_takeovers,
                undone=0 if self.member == NULL else self.member.area.n_undone,
                longest_wait_ns=(
                    0 if self.member == NULL else self.member.area.longest_wait_ns
                ),
            )
        finally:
            self.unhold()

    cdef int require_shared(self) except -1:
        """BadArgument if the arena is not shared."""
        self.enter()
        if self.member == NULL:
            raise BadArgument(
                "this arena is not shared: make it with Arena.create(..., shared=True)"
            )
        return 0

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
        cdef uint32_t page
        if self.member == NULL:
            page = frames_alloc_aligned(&self.c, n_pages, order, _RUN, 0)
        else:
            self.hold()
            try:
                page = sharing.take(&self.c, n_pages, order)
            finally:
                self.unhold()
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
        self.hold()
        try:
            page = self.require_run(where, "page_free")
            self.refuse_exported(where)
            site_freed(&self.c, where)
            if self.member == NULL:
                frames_free(&self.c, page)
            else:
                sharing.give(&self.c, where)
        finally:
            self.unhold()

    def run_pages(self, offset, /):
        """Pages of the live run that starts at ``offset``.

        Raises
        ------
        InvalidFree
            As in `page_free`.
        """
        cdef offset_t where = offset_argument(offset)
        self.hold()
        try:
            return frame_pages(
                self.c.frames[self.require_run(where, "run_pages")].word
            )
        finally:
            self.unhold()

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
        self.hold()
        try:
            n_pages = frame_pages(self.c.frames[self.require_run(where, "view")].word)
            return view.export(self, where, page_offset(&self.c, n_pages))
        finally:
            self.unhold()

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
        self.hold()
        try:
            return self._frames()
        finally:
            self.unhold()

    cdef object _frames(self):
        cdef row_t[::1] rows
        cdef uint64_t page, word
        cdef Py_ssize_t i = 0
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
        self.hold()
        try:
            self.begin_long()
            try:
                with nogil:
                    sound = check_frames(&self.c, &finding)
            finally:
                self.end_long()
        finally:
            self.unhold()
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

    def snapshot(self, path):
        """Write the arena, as it is at one moment, to another file.

        That is all that is promised against the end of the machine: when this returns,
        the copy is on the disk, and it is a complete arena. Processes that share the
        arena wait meanwhile; where the file system can share the blocks of both files
        (reflink), for one system call.

        Parameters
        ----------
        path : str or os.PathLike
            Of the copy. A file that is there is replaced, when the copy is complete.

        Raises
        ------
        OSError
            The arena is anonymous, or the copy cannot be written: nothing was replaced.
        ArenaBusy
            The lock of a shared arena was not to be had.
        """
        cdef bytearray head
        cdef superblock_t* super
        path = _vm.path_argument(path)
        fd = self.fileno()
        self.hold()
        try:
            self.begin_long()
            self.is_copied = True
            try:
                copy = _vm.file_copy(fd, path, self.c.n_bytes)
            finally:
                self.is_copied = False
                self.end_long()
        finally:
            self.unhold()
        try:
            head = bytearray(os.pread(copy, page_offset(&self.c, self.c.first_page), 0))
            super = <superblock_t*><char*>head
            if super.area != 0:
                area_begin(<char*>head + super.area)
            super.page_crc = superblock_seal(super)
            super.state = ARENA_CLEAN
            os.pwrite(copy, head, 0)
        except BaseException:
            _vm.file_abandon(copy)
            raise
        _vm.file_publish(copy, path)

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
        BadArgument
            The arena is shared.
        """
        cdef uint64_t page, word, first, last
        cdef uint64_t returned = 0
        self.enter()
        if self.member != NULL:
            raise BadArgument(
                "a shared arena keeps its pages: another process may take them "
                "meanwhile"
            )
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
