# SPDX-License-Identifier: BSD-3-Clause
"""Retired instructions of one call from Python, on any commit.

`xmem.measure.insn` counts only the build that it is part of, not commits older than
itself. This counts from outside: a forked child stops, calls, stops; the parent steps
it from stop to stop and counts the instructions that lie in the compiled modules of
xmem, not those of the interpreter. The count is exact, and the same on every x86-64
machine with the same compiler. A thousand steps take milliseconds.
"""

import ctypes
import gc
import os
import platform
import signal
import sys

TRACEME, PEEKUSER, STEP = 0, 3, 9
RIP = 16 * 8  # in struct user of x86-64

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.restype = ctypes.c_long
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class CannotCount(Exception):
    """This system does not allow stepping a child."""


class Ended(CannotCount):
    """The child is gone."""


def text_of(package):
    """Return the address ranges of the compiled modules of a package."""
    folder = os.path.dirname(sys.modules[package].__file__) + os.sep
    ranges = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            where, modes, _, _, _, *path = line.split(None, 5)
            if "x" in modes and path and path[0].startswith(folder):
                ranges.append([int(end, 16) for end in where.split("-")])
    return ranges


def wait_for_stop(pid):
    """Wait until the child stops; return the signal that stopped it."""
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise Ended(f"the child ended with status {status}")
    return os.WSTOPSIG(status)


def count(call, *arguments, package="xmem", before=None):
    """Count the instructions of a call that lie in a package's compiled modules.

    The call happens in a child, so its changes to private memory are not visible
    here; those to shared memory are. ``before`` is called there first: what a first
    call after a fork does in addition is then not counted.
    """
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        raise CannotCount("calls are stepped on Linux, x86-64, alone")
    ranges = text_of(package)
    gc.collect()
    pid = os.fork()
    if pid == 0:
        gc.disable()
        me, kill, stop = os.getpid(), os.kill, signal.SIGSTOP
        try:
            if LIBC.ptrace(TRACEME, 0, None, None) == 0:
                if before is not None:
                    before()
                kill(me, stop)
                call(*arguments)
                kill(me, stop)
        finally:
            os._exit(1)
    try:
        wait_for_stop(pid)
        steps = 0
        while True:
            if LIBC.ptrace(STEP, pid, None, None):
                raise CannotCount(os.strerror(ctypes.get_errno()))
            if wait_for_stop(pid) == signal.SIGSTOP:
                return steps
            rip = LIBC.ptrace(PEEKUSER, pid, RIP, None) & (1 << 64) - 1
            steps += any(first <= rip < end for first, end in ranges)
    except Ended:
        pid = 0
        raise
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
