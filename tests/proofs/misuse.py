# SPDX-License-Identifier: BSD-3-Clause
"""What allocators notice of a wrong program: ours, glibc's, and others installed.

For each mistake a small C program is run on each allocator (preloaded, with its
checks turned on where it has them), and the same is done to a pool of ours. The
table says when the allocator stopped: in the wrong call itself, in the next
operation on the block, later, never, or by a crash somewhere else.

``python -m proofs.misuse`` prints the table for docs/reliability.md.
"""

import ctypes
import glob
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from xmem import Arena, Heap, HeapCorruption, InvalidFree, Pool

PAGE = 4096
AT_ONCE, NEXT, LATER, NEVER, CRASH = (
    "at once",
    "next operation",
    "later",
    "never",
    "crash",
)

#: Mistake, and what is done.
MISTAKES = {
    "double_free": "double free, at once",
    "double_free_later": "double free after other frees",
    "double_free_reused": "double free after the memory was given out again",
    "wild": "free of a wild address",
    "interior": "free of an address inside a block",
    "mismatched": "free of memory of another allocator",
    "behind": "1 byte written behind a block",
    "before": "1 byte written in front of a block",
    "after_free": "write after free",
    "link": "links of a free block overwritten",
}

SOURCE = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void say(const char *what) { if (write(1, what, strlen(what)) < 0) _exit(9); }

#define N 400
static char *kept[N];

static void churn(void)
{
    unsigned x = 12345;
    for (int i = 0; i < 20000; i++) {
        x = x * 1103515245 + 12345;
        unsigned k = (x >> 16) % N;
        free(kept[k]);
        kept[k] = malloc(x >> 20 & 1 ? 104 : 16 + (x >> 8) % 900);
        memset(kept[k], 1, 16);
    }
    for (int i = 0; i < N; i++)
        free(kept[i]);
}

int main(int argc, char **argv)
{
    const char *what = argv[argc > 1];
    /* volatile: or the compiler, knowing what is undefined, drops it. */
    char *volatile a = malloc(104), *volatile p = malloc(104);
    char *volatile b = malloc(104), *volatile q;
    size_t end;
    static char outside[256];
    a[0] = b[0] = 1;
    memset(p, 1, 104);
    if (!strcmp(what, "double_free")) {
        free(p);
        free(p);
        say("made ");
    } else if (!strcmp(what, "double_free_later")) {
        free(p);
        free(a);
        free(b);
        a = b = 0;
        free(p);
        say("made ");
    } else if (!strcmp(what, "double_free_reused")) {
        free(p);
        for (int i = 0; i < 64; i++)
            kept[i] = malloc(104);
        free(p);
        say("made ");
        for (int i = 0; i < 64; i++)
            free(kept[i]), kept[i] = 0;
    } else if (!strcmp(what, "wild")) {
        free(outside + 64);
        say("made ");
    } else if (!strcmp(what, "interior")) {
        free(p + 16);
        say("made ");
        free(p);
    } else if (!strcmp(what, "mismatched")) {
        q = mmap(0, 65536, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        free(q + 4096 + 16);
        say("made ");
    } else if (!strcmp(what, "behind")) {
        end = 104;
        p[end] ^= 0x41;
        say("made ");
        free(p);
    } else if (!strcmp(what, "before")) {
        p[-1] ^= 0x41;
        say("made ");
        free(p);
    } else if (!strcmp(what, "after_free")) {
        free(p);
        memset(p + 32, 0x41, 24);
        say("made ");
        p = malloc(104);
    } else if (!strcmp(what, "link")) {
        free(p);
        memset(p, 0x41, 16);
        say("made ");
        p = malloc(104);
    }
    say("next ");
    churn();
    say("end");
    _exit(0);
}
"""


def libraries() -> dict[str, dict[str, str]]:
    """Environment of each allocator that is at hand."""
    found = {"glibc": {}}

    def first(pattern: str) -> str | None:
        paths = sorted(
            path
            for folder in ("/usr/lib", "/usr/lib/*", "/usr/local/lib")
            for path in glob.glob(f"{folder}/{pattern}")
        )
        return paths[0] if paths else None

    debug = first("libc_malloc_debug.so.0") or first("libc_malloc_debug.so*")
    if debug:
        found["glibc, MALLOC_CHECK_=3"] = {
            "LD_PRELOAD": debug,
            "MALLOC_CHECK_": "3",
            "GLIBC_TUNABLES": "glibc.malloc.check=3",
        }
    jemalloc = first("libjemalloc.so.2")
    if jemalloc:
        found["jemalloc"] = {"LD_PRELOAD": jemalloc}
        found["jemalloc, junk and no tcache"] = {
            "LD_PRELOAD": jemalloc,
            "MALLOC_CONF": "junk:true,tcache:false,abort:true,abort_conf:true",
        }
    for name, pattern in (
        ("mimalloc", "libmimalloc.so.2*"),
        ("mimalloc, secure", "libmimalloc-secure.so*"),
        ("mimalloc, debug", "libmimalloc-debug.so*"),
    ):
        path = first(pattern)
        if path:
            found[name] = {"LD_PRELOAD": path, "MIMALLOC_SHOW_ERRORS": "1"}
    return found


def run_c(program: Path, mistake: str, env: dict[str, str]) -> str:
    """Make a mistake on an allocator; return when it was seen."""
    done = subprocess.run(
        [program, mistake],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    crashed = -done.returncode in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
    # Some print and go on: what was printed before the next marker counts.
    if done.returncode == 0:
        return NEVER if not done.stderr else f"{AT_ONCE} (a message)"
    if crashed:
        return CRASH
    if "made" not in done.stdout:
        return AT_ONCE
    return NEXT if "next" not in done.stdout else LATER


# Ours ------------------------------------------------------------------------


def run_ours(mistake: str, hardened: bool) -> str:
    """Make a mistake on a pool; return when it was seen."""
    with Arena.anonymous(4 << 20, page_size=PAGE) as arena:
        pool = Pool(arena, hardened=hardened)
        other = Heap(arena)
        a, p, b = (pool.xmalloc(104) for _ in range(3))
        base = arena.address(0)

        def wrong() -> Callable[[], object]:
            """Make the mistake; return the next operation on the block."""
            if mistake == "double_free":
                pool.xfree(p)
                pool.xfree(p)
            elif mistake == "double_free_later":
                for offset in (p, a, b):
                    pool.xfree(offset)
                pool.xfree(p)
            elif mistake == "double_free_reused":
                pool.xfree(p)
                again = [pool.xmalloc(104) for _ in range(64)]
                pool.xfree(p)
                return lambda: [pool.xfree(offset) for offset in again]
            elif mistake == "wild":
                pool.xfree(123_456)
            elif mistake == "interior":
                pool.xfree(p + 16)
            elif mistake == "mismatched":
                pool.xfree(other.xmalloc(100))
            elif mistake == "behind":
                flip(base + p + pool.usable_size(p))
                return lambda: pool.xfree(p)
            elif mistake == "before":
                flip(base + p - 1)
                return lambda: pool.xfree(p)
            elif mistake == "after_free":
                pool.xfree(p)
                ctypes.memset(base + p + 32, 0x41, 24)
                return lambda: use_again(pool)
            elif mistake == "link":
                pool.xfree(p)
                ctypes.memset(base + p, 0x41, 16)
                return lambda: use_again(pool)
            return lambda: None

        try:
            following = wrong()
        except InvalidFree:
            return AT_ONCE
        try:
            following()
        except (HeapCorruption, InvalidFree):
            return NEXT
        try:
            pool.check()
        except HeapCorruption:
            return LATER
        return NEVER


def run_ours_apart(mistake: str, hardened: bool) -> str:
    """`run_ours` in a process of its own, which it may end."""
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-c"),
            "from proofs.misuse import run_ours; "
            f"print(run_ours({mistake!r}, {hardened}))",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else CRASH


def flip(address: int) -> None:
    """Change a byte."""
    ctypes.c_ubyte.from_address(address).value ^= 0x41


def use_again(pool: Pool) -> None:
    """Take the freed block into use again, through the quarantine if need be."""
    for _ in range(16):
        pool.xfree(pool.xmalloc(40))
    pool.xmalloc(104)


def measure() -> dict[str, dict[str, str]]:
    """When each allocator saw each mistake."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "misuse.c"
        program = Path(folder) / "misuse"
        source.write_text(SOURCE)
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        subprocess.run([compiler, "-O0", "-w", "-o", program, source], check=True)
        table = {
            "xmem": {name: run_ours_apart(name, False) for name in MISTAKES},
            "xmem, hardened": {name: run_ours_apart(name, True) for name in MISTAKES},
        }
        for name, env in libraries().items():
            table[name] = {what: run_c(program, what, env) for what in MISTAKES}
    return table


@click.command()
def main() -> None:
    """Print what each allocator saw, as a table."""
    table = measure()
    click.echo("| mistake | " + " | ".join(table) + " |")
    click.echo("|---|" + "---|" * len(table))
    for what, mistake in MISTAKES.items():
        click.echo(
            f"| {mistake} | " + " | ".join(t[what] for t in table.values()) + " |"
        )


if __name__ == "__main__":
    main()
