# SPDX-License-Identifier: BSD-3-Clause
"""Virtual memory and files: the system calls of an arena.

Those of the lock between processes are in xmem/shared/.

The C functions return NULL or -1 and leave the reason in ``errno``, of which
``vm_error`` makes an exception. Those on files are Python and raise ``OSError``.
"""

import errno as errno_module
import fcntl
import os
import stat
import tempfile

from xmem.base.errors import BadArgument, BadArgumentType

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from posix.mman cimport (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MS_SYNC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    madvise,
    mmap,
    msync,
    munmap,
)
from posix.unistd cimport _SC_PAGESIZE, sysconf

from xmem.base.bits cimport align_up, bit, ceil_log2

cdef extern from "<pthread.h>":
    int pthread_atfork(
        void (*prepare)() noexcept,
        void (*parent)() noexcept,
        void (*child)() noexcept,
    )

cdef extern from "<sys/mman.h>" nogil:
    """
    #ifndef MAP_NORESERVE
    #define MAP_NORESERVE 0
    #endif
    #ifndef MADV_REMOVE
    #define MADV_REMOVE MADV_DONTNEED
    #endif
    """
    int MAP_NORESERVE
    int MADV_DONTNEED
    int MADV_REMOVE


cdef extern from "<sys/vfs.h>":
    ctypedef struct statfs_t "struct statfs":
        long f_type

    int fstatfs(int fd, statfs_t* found)


#: File systems that other machines, or programs, stand behind; see statfs(2).
REMOTE = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "CIFS",
    0x65735546: "FUSE",
    0x01021997: "9P",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x73757245: "Coda",
}

cdef enum:
    FICLONE = 0x40049409            # see ioctl_ficlone(2)
    COPY_BYTES = 1 << 20
    VM_MAX_ALIGNMENT = 1 << 30      # of a mapping


cdef void _count_fork() noexcept nogil:
    """Run in the child of a fork."""
    global vm_forks
    vm_forks += 1
    vm_change()


cdef void vm_change() noexcept nogil:
    """Have every pool look again before its next verb."""
    global vm_changes
    vm_changes += 1


vm_forks = 0
vm_changes = 1              # 0: a pool that has not looked yet
if pthread_atfork(NULL, NULL, _count_fork):
    raise MemoryError("no room for a fork handler")


cdef uint64_t vm_page_bytes() noexcept nogil:
    """Page size of the system, bytes."""
    return <uint64_t>sysconf(_SC_PAGESIZE)


cdef uint64_t vm_alignment(uint64_t n_bytes) noexcept nogil:
    """Alignment for a mapping of an arena: that of the largest run it can hold."""
    cdef uint64_t whole = bit(ceil_log2(n_bytes))
    if whole > VM_MAX_ALIGNMENT:
        whole = VM_MAX_ALIGNMENT
    return whole if whole > vm_page_bytes() else vm_page_bytes()


cdef object vm_error(str what):
    """OSError of the last failed system call."""
    return OSError(errno, f"{what}: {os.strerror(errno)}")


cdef char* vm_map(uint64_t n_bytes, uint64_t alignment, int fd) noexcept nogil:
    """Map ``n_bytes`` of file ``fd`` (-1: anonymous memory), or NULL.

    The address is a multiple of ``alignment``, a power of two: more address space is
    reserved than needed, and the surplus returned. Nothing is committed: untouched
    pages cost no memory.
    """
    cdef uint64_t mapped = align_up(n_bytes, vm_page_bytes())
    cdef uint64_t span = mapped + alignment
    cdef int kind = MAP_SHARED if fd >= 0 else MAP_PRIVATE | MAP_ANONYMOUS
    cdef char* raw
    cdef char* base
    cdef uint64_t surplus
    if span < mapped:
        return NULL
    raw = <char*>mmap(
        NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )
    if <void*>raw == MAP_FAILED:
        return NULL
    surplus = align_up(<uintptr_t>raw, alignment) - <uintptr_t>raw
    base = raw + surplus
    if mmap(
        base,
        mapped,
        PROT_READ | PROT_WRITE,
        kind | MAP_FIXED | MAP_NORESERVE,
        fd,
        0,
    ) == MAP_FAILED:
        munmap(raw, span)
        return NULL
    if surplus:
        munmap(raw, surplus)
    if span - surplus - mapped:
        munmap(base + mapped, span - surplus - mapped)
    return base


cdef int vm_unmap(char* base, uint64_t n_bytes) noexcept nogil:
    """Unmap memory of ``vm_map``."""
    return munmap(base, align_up(n_bytes, vm_page_bytes()))


cdef int vm_sync(char* base, uint64_t n_bytes) noexcept nogil:
    """Write a file mapping back to its file."""
    return msync(base, align_up(n_bytes, vm_page_bytes()), MS_SYNC)


cdef int vm_discard(char* base, uint64_t n_bytes, bint is_file) noexcept nogil:
    """Return pages to the system; their contents become zero.

    ``base`` and ``n_bytes`` are multiples of the system's page.
    """
    return madvise(base, n_bytes, MADV_REMOVE if is_file else MADV_DONTNEED)


class NotAFile(Exception):
    """A path names something other than a regular file."""


def path_argument(path: object) -> str:
    """Return a path given by the caller as text."""
    try:
        # Not a subclass of str, which may lie about itself.
        text = str.__str__(os.fsdecode(path))
        os.fsencode(text)
    except TypeError:
        raise BadArgumentType(
            f"a path must be str or os.PathLike, not {type(path).__name__}"
        ) from None
    except UnicodeEncodeError:
        raise BadArgument(f"{path!r} cannot be the path of a file") from None
    if "\0" in text:
        raise BadArgument(f"a path must not contain NUL, as {path!r} does")
    return text


def file_create(path: str, n_bytes: int, preallocate: bool) -> int:
    """Descriptor of a new file of ``n_bytes``, exclusively locked.

    The file is sparse, or has all its disk blocks allocated.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, n_bytes)
        if preallocate:
            os.posix_fallocate(fd, 0, n_bytes)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def file_open(path: str) -> int:
    """Descriptor of an existing regular file."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile
    return fd


def file_lock(fd: int) -> bool:
    """Lock a file for oneself, if nobody else has it open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def file_unlock(fd: int) -> None:
    """Let others have a file again."""
    fcntl.flock(fd, fcntl.LOCK_UN)


# Files that processes share -----------------------------------------------------------

def file_create_unnamed(path: str, n_bytes: int, preallocate: bool) -> int:
    """Descriptor of a new file on the file system of a path, which it will have.

    Until `file_link` it has no name, or another where the system has no such files.
    """
    if os.path.lexists(path):
        there = errno_module.EEXIST
        raise FileExistsError(there, os.strerror(there), path)
    folder = os.path.dirname(path) or os.curdir
    try:
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno_module.EOPNOTSUPP, errno_module.EISDIR):
            raise
        fd, _ = tempfile.mkstemp(prefix=".xmem-", dir=folder)
    try:
        file_refuse_remote(fd, path)
        os.ftruncate(fd, n_bytes)
        if preallocate:
            os.posix_fallocate(fd, 0, n_bytes)
    except BaseException:
        file_abandon(fd)
        raise
    return fd


def file_link(fd: int, path: str) -> None:
    """Give a file of `file_create_unnamed` its name; FileExistsError if it is taken."""
    name = f"/proc/self/fd/{fd}"
    if os.fstat(fd).st_nlink:
        other = os.readlink(name)
        os.link(other, path)
        os.unlink(other)
    else:
        # With a descriptor this is linkat, which follows the link in /proc.
        os.link(name, path, src_dir_fd=fd, follow_symlinks=True)


def file_copy(fd: int, path: str, n_bytes: int) -> int:
    """Descriptor of a copy of a file, under another name next to a path.

    Where the file system can, both share their blocks until one is written.
    """
    copy, _ = tempfile.mkstemp(prefix=".xmem-", dir=os.path.dirname(path) or os.curdir)
    try:
        try:
            fcntl.ioctl(copy, FICLONE, fd)
        except OSError:
            os.ftruncate(copy, n_bytes)
            _copy_data(fd, copy, n_bytes)
    except BaseException:
        file_abandon(copy)
        raise
    return copy


def _copy_data(fd: int, copy: int, n_bytes: int) -> None:
    """Copy the parts of a file that are no holes."""
    at = 0
    while at < n_bytes:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno_module.ENXIO:
                return      # nothing but a hole follows
            raise
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(fd, min(end - at, COPY_BYTES), at)
            at += os.pwrite(copy, data, at)


def file_publish(fd: int, path: str) -> None:
    """Give a copy the name of a path, in place of what is there, and close it.

    When this returns, the copy is on the disk, whatever happens to the machine. Where
    the name cannot be given, the copy is removed.
    """
    try:
        os.fsync(fd)
        os.rename(os.readlink(f"/proc/self/fd/{fd}"), path)
    except BaseException:
        file_abandon(fd)
        raise
    os.close(fd)
    folder = os.open(os.path.dirname(path) or os.curdir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_abandon(fd: int) -> None:
    """Close a file of `file_create_unnamed` or `file_copy` that gets no name."""
    if os.fstat(fd).st_nlink:
        os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
    os.close(fd)


def file_in_memory(n_bytes: int, preallocate: bool) -> int:
    """Descriptor of a file in memory, which keeps its length."""
    fd = os.memfd_create("xmem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, n_bytes)
        if preallocate:
            os.posix_fallocate(fd, 0, n_bytes)
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        )
    except BaseException:
        os.close(fd)
        raise
    return fd


def file_refuse_remote(fd: int, path: str) -> None:
    """OSError if a file is not on this machine alone.

    Other machines may grant the locks and have other bytes.
    """
    cdef statfs_t found
    if fstatfs(fd, &found) != 0:
        raise vm_error(f"{path}: its file system cannot be told")
    name = REMOTE.get(<uint32_t>found.f_type)
    if name is not None:
        raise OSError(
            errno_module.EOPNOTSUPP,
            f"{path} is on {name}: processes can share an arena on a file system of "
            "this machine, such as /dev/shm",
        )


def file_head(fd: int, n_bytes: int) -> bytes:
    """Read up to ``n_bytes`` from the start of a file."""
    return os.pread(fd, n_bytes, 0)


def file_bytes(fd: int) -> int:
    """Length of a file."""
    return os.fstat(fd).st_size


def file_close(fd: int) -> None:
    """Close a descriptor, which releases its lock."""
    os.close(fd)


def file_remove(path: str) -> None:
    """Remove a file that was not completely created."""
    os.unlink(path)
