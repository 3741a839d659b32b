# SPDX-License-Identifier: BSD-3-Clause
"""Instructions counted by the processor (perf_event_open), in a child.

For systems that forbid ptrace and offer hardware counters. A counter counts
user-space instructions of the thread that opened it; reading it takes a system
call, whose user-space instructions are measured and subtracted. Interrupts may
add one now and then, so that these counts are nearly exact.

For Linux. Functions answer a negative error number elsewhere.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef XMEM_COUNTER
    #define XMEM_COUNTER
    #include <errno.h>
    #include <stdint.h>
    #if defined(__linux__)
    #include <linux/perf_event.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <sys/types.h>
    #include <sys/wait.h>
    #include <unistd.h>

    #define XMEM_COUNT_INSTRUCTIONS PERF_COUNT_HW_INSTRUCTIONS

    /* A file descriptor, or a negative error number. */
    static int xmem_counter_open(uint32_t type, uint64_t config)
    {
        struct perf_event_attr wanted;
        long counter;
        memset(&wanted, 0, sizeof wanted);
        wanted.size = sizeof wanted;
        wanted.type = type;
        wanted.config = config;
        wanted.exclude_kernel = 1;
        wanted.exclude_hv = 1;
        counter = syscall(SYS_perf_event_open, &wanted, 0, -1, -1,
            PERF_FLAG_FD_CLOEXEC);
        return counter < 0 ? -errno : (int)counter;
    }

    static inline uint64_t xmem_counter_read(int counter)
    {
        uint64_t n = 0;
        if (read(counter, &n, sizeof n) != (ssize_t)sizeof n)
            return 0;
        return n;
    }

    static void xmem_counter_close(int counter) { close(counter); }

    /* 0 in the child, which no signal but SIGKILL reaches. */
    static int xmem_counted_fork(void)
    {
        pid_t parent = getpid();
        pid_t child = fork();
        if (child == 0) {
            sigset_t all;
            sigfillset(&all);
            sigprocmask(SIG_SETMASK, &all, NULL);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(1);
        }
        return child < 0 ? -errno : (int)child;
    }

    /* 0 when it ended well; -EINTR when a signal came; else an error. */
    static int xmem_counted_wait(int child)
    {
        int status;
        if (waitpid(child, &status, 0) < 0)
            return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
    }

    static void xmem_counted_kill(int child)
    {
        int status;
        kill(child, SIGKILL);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    }

    static void xmem_counted_exit(int status) { _exit(status); }
    #else
    #define XMEM_COUNT_INSTRUCTIONS 0
    static int xmem_counter_open(uint32_t type, uint64_t config)
    { (void)type; (void)config; return -ENOSYS; }
    static uint64_t xmem_counter_read(int counter) { (void)counter; return 0; }
    static void xmem_counter_close(int counter) { (void)counter; }
    static int xmem_counted_fork(void) { return -ENOSYS; }
    static int xmem_counted_wait(int child) { (void)child; return -ENOSYS; }
    static void xmem_counted_kill(int child) { (void)child; }
    static void xmem_counted_exit(int status) { (void)status; }
    #endif
    #endif
    """
    uint64_t COUNT_INSTRUCTIONS "XMEM_COUNT_INSTRUCTIONS"

    int counter_open "xmem_counter_open"(
        uint32_t type, uint64_t config
    ) noexcept nogil
    uint64_t counter_read "xmem_counter_read"(int counter) noexcept nogil
    void counter_close "xmem_counter_close"(int counter) noexcept nogil
    int counted_fork "xmem_counted_fork"() noexcept nogil
    int counted_wait "xmem_counted_wait"(int child) noexcept nogil
    void counted_kill "xmem_counted_kill"(int child) noexcept nogil
    void counted_exit "xmem_counted_exit"(int status) noexcept nogil
