# SPDX-License-Identifier: BSD-3-Clause
"""Libraries that replace malloc: which of them the linker finds, and what they define.

Nothing is loaded into this process: a library may refuse to be loaded late, or change
what follows. The linker is asked which files it would load, and a fork looks for a
symbol.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

#: What each allocator's library is called, the first that is found counts. Versions
#: that are installed side by side have names of their own.
KNOWN: dict[str, tuple[str, ...]] = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc.so.1", "libjemalloc.so"),
    "mimalloc 3": ("libmimalloc.so.3",),
    "mimalloc 2": ("libmimalloc.so.2", "libmimalloc.so.2.0"),
    "mimalloc": ("libmimalloc.so",),
    "tcmalloc": (
        *("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
        *("libtcmalloc_minimal.so", "libtcmalloc.so"),
    ),
    "snmalloc": ("libsnmallocshim.so", "libsnmallocshim.so.0"),
    "rpmalloc": ("librpmallocwrap.so", "librpmalloc.so"),
}


class Found(ctypes.Structure):
    """``Dl_info`` of <dlfcn.h>."""

    file: bytes | None
    base: int | None
    symbol: bytes | None
    address: int | None
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def installed() -> dict[str, str]:
    """Return the libraries in `KNOWN` that are installed here, by allocator.

    Returns
    -------
    dict
        The name for the linker of each. One file enters once, and a library enters
        only if it has a malloc.
    """
    found: dict[str, str] = {}
    taken = set()
    for name, sonames in KNOWN.items():
        for soname in sonames:
            file = loadable(soname)
            real = file and os.path.realpath(file)
            if real and real not in taken and defines(real, "malloc") is not False:
                found[name] = soname
                taken.add(real)
                break
    return found


def loadable(soname: str) -> str | None:
    """Return the file that the linker would preload under a name; None if none."""
    environment = {
        **os.environ,
        "LD_PRELOAD": soname,
        "LD_TRACE_LOADED_OBJECTS": "1",
    }
    # glibc's linker prints what it would load and runs nothing. Another linker runs
    # an interpreter that has nothing to read.
    done = subprocess.run(
        [sys.executable],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(rf"^\s*{re.escape(soname)} => (\S+) \(0x", done.stdout, re.M)
    return found and found[1]


def defines(file: str | Path, symbol: str) -> bool | None:
    """Whether a library itself defines a symbol; None if it cannot be loaded late.

    It is loaded in a fork.
    """
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            where = definer(ctypes.CDLL(str(file)), symbol)
            status = int(os.path.realpath(where or "") != os.path.realpath(file))
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: True, 1: False}.get(status)


def definer(library: ctypes.CDLL, symbol: str) -> str | None:
    """Return the file that defines a symbol, as a loaded library sees it.

    Parameters
    ----------
    library : ctypes.CDLL
        The library, or ``ctypes.CDLL(None)`` for the process.
    symbol : str
        A function or an object.
    """
    try:
        address = ctypes.addressof(ctypes.c_char.in_dll(library, symbol))
    except ValueError:
        return None
    found = Found()
    tell = ctypes.CDLL(None).dladdr
    tell.argtypes = [ctypes.c_void_p, ctypes.POINTER(Found)]
    if not tell(address, ctypes.byref(found)) or found.file is None:
        return None
    return os.fsdecode(found.file)
