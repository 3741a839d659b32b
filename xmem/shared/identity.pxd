# SPDX-License-Identifier: BSD-3-Clause
"""Who lives: a byte of the arena's file that the kernel keeps locked for each process.

The process in slot i holds an open-file-description lock on byte 2**62 + i, far behind
the end. Its description is opened for that alone, one page of it is mapped, and the
descriptor is closed again: the mapping keeps the description, so no ``close`` of the
program's reaches the lock. It is not mapped in a forked child (MADV_DONTFORK). So the
byte is free exactly when the process is dead or has replaced itself by exec, and a
number that the system has given to another process proves nothing.

A question about a byte goes through another description, for through one's own every
byte looks free. "Free" is believed only while the descriptor is still that of the
arena's file.
"""

from libc.stdint cimport uint32_t, uint64_t

from xmem.shared.area cimport area_t

cdef extern from *:
    """
    #ifndef XMEM_SHARED_IDENTITY
    #define XMEM_SHARED_IDENTITY
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <unistd.h>
    #include <sys/file.h>
    #include <sys/mman.h>
    #include <sys/stat.h>

    #ifndef F_OFD_GETLK
    #define F_OFD_GETLK 36
    #define F_OFD_SETLK 37
    #endif

    static inline int xmem_byte(int fd, int command, unsigned slot, int *kind)
    {
        struct flock lock;
        int result;
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = (off_t)(((uint64_t)1 << 62) + slot);
        lock.l_len = 1;
        lock.l_pid = 0;
        do
            result = fcntl(fd, command, &lock);
        while (result != 0 && errno == EINTR);
        *kind = lock.l_type;
        return result;
    }
    /* A description of its own of the file that fd is open on, or -1. */
    static inline int xmem_reopen(int fd)
    {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return open(path, O_RDWR | O_CLOEXEC);
    }
    /* The page that keeps a lock on the byte of a slot, or NULL. With errno EAGAIN or
       EACCES another process has the slot, with EBUSY one has the whole file. */
    static inline void *xmem_identity(int fd, unsigned slot, size_t page_bytes)
    {
        int kind, error, own = xmem_reopen(fd);
        void *page;
        if (own < 0)
            return NULL;
        page = MAP_FAILED;
        if (flock(own, LOCK_SH | LOCK_NB) != 0)
            errno = errno == EWOULDBLOCK ? EBUSY : errno;
        else if (xmem_byte(own, F_OFD_SETLK, slot, &kind) == 0)
            page = mmap(NULL, page_bytes, PROT_READ, MAP_SHARED, own, 0);
        error = errno;
        if (page != MAP_FAILED && madvise(page, page_bytes, MADV_DONTFORK) != 0) {
            error = errno;
            munmap(page, page_bytes);
            page = MAP_FAILED;
        }
        close(own);
        errno = error;
        return page == MAP_FAILED ? NULL : page;
    }
    static inline void xmem_unmap_identity(void *page, size_t page_bytes)
    {
        munmap(page, page_bytes);
    }
    /* Whether the byte of a slot is locked: 1, 0, or -1 where nobody can say. */
    static inline int xmem_is_locked(int fd, unsigned slot, uint64_t device,
                                     uint64_t inode)
    {
        struct stat file;
        int kind;
        if (xmem_byte(fd, F_OFD_GETLK, slot, &kind) != 0)
            return -1;
        if (kind != F_UNLCK)
            return 1;
        if (fstat(fd, &file) != 0 || (uint64_t)file.st_dev != device
            || (uint64_t)file.st_ino != inode)
            return -1;
        return 0;
    }
    #endif
    """
    void* identity_map "xmem_identity"(
        int fd, unsigned slot, size_t page_bytes
    ) noexcept nogil
    void identity_unmap "xmem_unmap_identity"(
        void* page, size_t page_bytes
    ) noexcept nogil
    int identity_asked "xmem_is_locked"(
        int fd, unsigned slot, uint64_t device, uint64_t inode
    ) noexcept nogil


cdef struct member_t:               # this process, as one of those of an arena
    char* base
    area_t* area
    uint64_t n_bytes                # of the arena
    uint64_t fixed_bytes            # of the superblock, which nothing changes
    uint64_t device                 # and inode: of the arena's file
    uint64_t inode
    void* identity                  # the page that keeps the byte locked
    int fd                          # for questions
    uint32_t slot
    uint32_t mine                   # the lock's word while this process owns it
    uint32_t depth                  # how often the thread that holds the lock entered
    uint32_t in_transaction         # of the program's own: how deep
    uint64_t holder                 # that thread, or 0
    uint64_t forks                  # of this process when it joined


cdef inline bint slot_is_alive(member_t* member, unsigned slot) noexcept nogil:
    """Whether the process in a slot lives; the own one does without a question."""
    if slot == member.slot:
        return True
    return identity_asked(member.fd, slot, member.device, member.inode) != 0
