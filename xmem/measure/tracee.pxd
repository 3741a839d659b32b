# SPDX-License-Identifier: BSD-3-Clause
"""A child that is stepped instruction by instruction (ptrace).

The child runs C code only, because it is a fork of a Python process. It stops at
each *marker*, a breakpoint instruction between two pieces of work. The parent lets
it run to the next marker or steps it, and can read program counter, stack pointer
and return address after each step. Only the thread that forked may do so, and the
child dies with it.

For Linux on x86-64 and aarch64. Elsewhere ``TRACEE_SUPPORTED`` is 0 and every
function fails. Functions return 0, or a negative error number.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef XMEM_TRACEE
    #define XMEM_TRACEE
    #include <errno.h>
    #include <stdint.h>
    #if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
    #include <elf.h>
    #include <sched.h>
    #include <signal.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/ptrace.h>
    #include <sys/types.h>
    #include <sys/uio.h>
    #include <sys/user.h>
    #include <sys/wait.h>
    #include <unistd.h>
    #define XMEM_TRACEE_SUPPORTED 1
    #if defined(__x86_64__)
    #define XMEM_MARKER() __asm__ __volatile__("int3" ::: "memory")
    #else
    #define XMEM_MARKER() __asm__ __volatile__("brk #0" ::: "memory")
    #endif

    typedef struct {
        uint64_t pc;
        uint64_t sp;
        uint64_t link;      /* where the function returns to, at its entry */
    } xmem_place_t;

    /* Returns 0 in the child, which waits for its parent, and its pid there. */
    static pid_t xmem_tracee_fork(void)
    {
        pid_t parent = getpid();
        pid_t child = fork();
        if (child == 0) {
            sigset_t all;
            sigfillset(&all);
            sigdelset(&all, SIGTRAP);
            sigprocmask(SIG_SETMASK, &all, NULL);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent || ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
                _exit(126);
            XMEM_MARKER();
        }
        return child < 0 ? -errno : child;
    }

    /* Wait until the child has stopped, at a marker or after a step. */
    static int xmem_tracee_wait(pid_t child)
    {
        int status;
        while (waitpid(child, &status, __WALL) < 0)
            if (errno != EINTR)
                return -errno;
        if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
            return 0;
        if (WIFEXITED(status))
            return WEXITSTATUS(status) == 0 ? -ECHILD : -EPERM;
        return WIFSIGNALED(status) ? -ESRCH : -EFAULT;
    }

    /* On aarch64 the parent has to move the child past the breakpoint. */
    static int xmem_tracee_pass(pid_t child)
    {
    #if defined(__aarch64__)
        struct user_regs_struct regs;
        struct iovec vec = {&regs, sizeof regs};
        if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &vec) != 0)
            return -errno;
        regs.pc += 4;
        if (ptrace(PTRACE_SETREGSET, child, (void *)NT_PRSTATUS, &vec) != 0)
            return -errno;
    #else
        (void)child;
    #endif
        return 0;
    }

    static int xmem_tracee_go(pid_t child)
    {
        if (ptrace(PTRACE_CONT, child, 0, 0) != 0)
            return -errno;
        return xmem_tracee_wait(child);
    }

    static int xmem_tracee_step(pid_t child)
    {
        if (ptrace(PTRACE_SINGLESTEP, child, 0, 0) != 0)
            return -errno;
        return xmem_tracee_wait(child);
    }

    static int xmem_tracee_pc(pid_t child, uint64_t *pc)
    {
    #if defined(__x86_64__)
        errno = 0;
        *pc = (uint64_t)ptrace(PTRACE_PEEKUSER, child,
            (void *)offsetof(struct user_regs_struct, rip), 0);
        return -errno;
    #else
        struct user_regs_struct regs;
        struct iovec vec = {&regs, sizeof regs};
        if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &vec) != 0)
            return -errno;
        *pc = regs.pc;
        return 0;
    #endif
    }

    /* What an instruction can address by, in the order of REGISTERS. */
    static int xmem_tracee_registers(pid_t child, uint64_t *cells)
    {
    #if defined(__x86_64__)
        struct user_regs_struct regs;
        struct iovec vec = {&regs, sizeof regs};
        if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &vec) != 0)
            return -errno;
        uint64_t all[] = {
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi,
            regs.rbp, regs.rsp, regs.r8, regs.r9, regs.r10, regs.r11,
            regs.r12, regs.r13, regs.r14, regs.r15, regs.rip};
        memcpy(cells, all, sizeof all);
        return 0;
    #else
        (void)child; (void)cells;
        return -ENOSYS;
    #endif
    }

    /* Valid at the first instruction of a function. */
    static int xmem_tracee_place(pid_t child, xmem_place_t *place)
    {
        struct user_regs_struct regs;
        struct iovec vec = {&regs, sizeof regs};
        if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &vec) != 0)
            return -errno;
    #if defined(__x86_64__)
        place->pc = regs.rip;
        place->sp = regs.rsp;
        errno = 0;
        place->link = (uint64_t)ptrace(
            PTRACE_PEEKDATA, child, (void *)regs.rsp, 0);
        return -errno;
    #else
        place->pc = regs.pc;
        place->sp = regs.sp;
        place->link = regs.regs[30];
        return 0;
    #endif
    }

    static void xmem_tracee_end(pid_t child)
    {
        int status;
        kill(child, SIGKILL);
        while (waitpid(child, &status, __WALL) < 0 && errno == EINTR)
            ;
    }

    /* Run both on one processor: a step is then a context switch, not an IPI. */
    static void xmem_together(int on)
    {
        static __thread cpu_set_t before;
        cpu_set_t one;
        if (on) {
            CPU_ZERO(&before);
            sched_getaffinity(0, sizeof before, &before);
            CPU_ZERO(&one);
            CPU_SET(sched_getcpu(), &one);
            sched_setaffinity(0, sizeof one, &one);
        } else if (CPU_COUNT(&before) > 0) {
            sched_setaffinity(0, sizeof before, &before);
        }
    }
    #define xmem_tracee_exit() _exit(0)
    #else
    #define XMEM_TRACEE_SUPPORTED 0
    #define XMEM_MARKER() ((void)0)
    typedef struct { uint64_t pc, sp, link; } xmem_place_t;
    static int xmem_tracee_fork(void) { return -ENOSYS; }
    static int xmem_tracee_wait(int c) { (void)c; return -ENOSYS; }
    static int xmem_tracee_pass(int c) { (void)c; return -ENOSYS; }
    static int xmem_tracee_go(int c) { (void)c; return -ENOSYS; }
    static int xmem_tracee_step(int c) { (void)c; return -ENOSYS; }
    static int xmem_tracee_pc(int c, uint64_t *p)
    { (void)c; *p = 0; return -ENOSYS; }
    static int xmem_tracee_place(int c, xmem_place_t *p)
    { (void)c; (void)p; return -ENOSYS; }
    static int xmem_tracee_registers(int c, uint64_t *p)
    { (void)c; (void)p; return -ENOSYS; }
    static void xmem_tracee_end(int c) { (void)c; }
    static void xmem_together(int on) { (void)on; }
    #define xmem_tracee_exit() ((void)0)
    #endif
    #endif
    """
    bint TRACEE_SUPPORTED "XMEM_TRACEE_SUPPORTED"
    enum:
        N_REGISTERS "17"        # on x86-64; elsewhere they are not read

    ctypedef struct place_t "xmem_place_t":
        uint64_t pc
        uint64_t sp
        uint64_t link

    void tracee_marker "XMEM_MARKER"() noexcept nogil
    int tracee_fork "xmem_tracee_fork"() noexcept nogil
    int tracee_wait "xmem_tracee_wait"(int child) noexcept nogil
    int tracee_pass "xmem_tracee_pass"(int child) noexcept nogil
    int tracee_go "xmem_tracee_go"(int child) noexcept nogil
    int tracee_step "xmem_tracee_step"(int child) noexcept nogil
    int tracee_pc "xmem_tracee_pc"(int child, uint64_t* pc) noexcept nogil
    int tracee_place "xmem_tracee_place"(
        int child, place_t* place
    ) noexcept nogil
    int tracee_registers "xmem_tracee_registers"(
        int child, uint64_t* cells
    ) noexcept nogil
    void tracee_end "xmem_tracee_end"(int child) noexcept nogil
    void tracee_exit "xmem_tracee_exit"() noexcept nogil
    void tracee_together "xmem_together"(bint on) noexcept nogil
