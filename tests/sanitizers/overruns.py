# SPDX-License-Identifier: BSD-3-Clause
"""Wrong accesses inside an arena, which memory checkers must detect.

``python overruns.py`` runs each in a process of its own under ASan's runtime and
under valgrind, on a build with checks, and says which were detected where. It fails
if one was not, or if a correct program is accused. ``python
overruns.py NAME`` makes one of them.
"""

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable

from xmem import Arena, Heap, Pool

arena = Arena.anonymous(1 << 20, page_size=4096)
NOW = "now:"
KINDS = {"plain": {}, "hardened": {"hardened": True}, "legacy": {"engine": "firstfit"}}


def touch(offset: int, n_bytes: int) -> None:
    """Write as a program would: by libc, for which ASan and valgrind have eyes."""
    ctypes.memset(arena.address(0) + offset, 0, n_bytes)


def mistake(offset: int, n_bytes: int) -> None:
    """Touch what is not to be touched; nothing before it is a mistake."""
    print(NOW, file=sys.stderr, flush=True)
    touch(offset, n_bytes)


def behind(pool: Pool) -> None:
    """One byte behind what may be used."""
    offset = pool.xmalloc(100)
    mistake(offset, pool.usable_size(offset) + 1)


def before(pool: Pool) -> None:
    """One byte in front."""
    mistake(pool.xmalloc(100) - 1, 1)


def after_free(pool: Pool) -> None:
    """The first byte of a freed block."""
    offset = pool.xmalloc(100)
    pool.xmalloc(10)
    pool.xfree(offset)
    mistake(offset, 1)


def after_move(pool: Pool) -> None:
    """A block that xrealloc has moved away."""
    offset = pool.xmalloc(100)
    pool.xmalloc(10)
    if pool.xrealloc(offset, 3000) == offset:
        raise SystemExit("it was not moved")
    mistake(offset + 20, 8)


def after_shrink(pool: Pool) -> None:
    """The end that xrealloc has cut off."""
    offset = pool.xmalloc(3000)
    pool.xmalloc(10)
    pool.xrealloc(offset, 100)
    mistake(offset + 2000, 1)


def run_after_free(pool: Pool) -> None:
    """A page run that was given back."""
    offset = arena.page_alloc(1)
    touch(offset, 8192)
    arena.page_free(offset)
    mistake(offset + 5000, 1)


def nothing(pool: Pool) -> None:
    """No mistake: all that may be done, to the last byte."""
    live = []
    for i in range(600):
        offset = pool.xmalloc(i * 7 % 3000, align=16 << i % 4)
        touch(offset, pool.usable_size(offset))
        live.append(offset)
        if i % 3 == 2:
            pool.xfree(live.pop(i // 3 % len(live)))
        if i % 5 == 0:
            k = i % len(live)
            live[k] = pool.xrealloc(live[k], i * 11 % 4000)
            touch(live[k], pool.usable_size(live[k]))
    pool.check()
    pool.walk()
    pool.stats()
    while not pool.check_step(10):
        pass
    heap = Heap(arena)
    page = heap.page_alloc(0)
    touch(page, 4096)
    heap.page_free(page)
    for offset in live:
        pool.xfree(offset)
    pool.shrink()
    pool.destroy()
    run = arena.page_alloc(2)
    touch(run, 4 * 4096)
    arena.close()


MISTAKES: list[Callable[[Pool], None]] = [
    behind,
    before,
    after_free,
    after_move,
    after_shrink,
    run_after_free,
]


def run(name: str, kind: str, checker: str) -> str:
    """Output of a checker over one deed; empty if it had nothing to say."""
    command = [sys.executable, "-P", __file__, name, kind]
    env = dict(os.environ, PYTHONMALLOC="malloc")
    if checker == "asan":
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        library = subprocess.run(
            [compiler, "-print-file-name=libasan.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        env |= {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
        sign = "use-after-poison"
    else:
        command = ["valgrind", "-q", "--undef-value-errors=no", *command]
        sign = "Invalid write"
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if sign in done.stderr.partition(NOW)[2] and sign not in done.stderr.split(NOW)[0]:
        return sign
    # Valgrind has something to say of the dynamic loader as well.
    if done.returncode or "xmem" in done.stderr:
        return f"{done.returncode}: {done.stderr[:2000]}"
    return ""


def main() -> None:
    """Make every mistake under every checker."""
    wrong = 0
    for checker in ("asan", "valgrind"):
        for kind in KINDS:
            for deed in [*MISTAKES, nothing]:
                sign = run(deed.__name__, kind, checker)
                right = (
                    not sign
                    if deed is nothing
                    else sign in ("use-after-poison", "Invalid write")
                )
                wrong += not right
                print(
                    f"{'ok  ' if right else 'FAIL'} {checker:8} {kind:8} "
                    f"{deed.__name__:14} {sign or 'silent'}",
                    flush=True,
                )
    if wrong:
        raise SystemExit(f"{wrong} of the above are not as they should be")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        globals()[sys.argv[1]](Pool(arena, **KINDS[sys.argv[2]]))
    else:
        main()
