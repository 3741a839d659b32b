# SPDX-License-Identifier: BSD-3-Clause
"""A peer written in C, which never uses memory twice, as a shared object."""

import shutil
import subprocess

import pytest

import xmem

BUMP = r"""
#include "measure/peer.h"
#include <stdint.h>

struct heap { char *next, *end; long n_live; };

static void *create(void *mem, size_t bytes)
{
    struct heap *h = mem;
    if (bytes < 100000)
        return NULL;
    h->next = (char *)mem + 4096;
    h->end = (char *)mem + bytes;
    h->n_live = 0;
    return h;
}

static void *take(void *handle, size_t n)
{
    struct heap *h = handle;
    char *found = h->next;
    n = (n + 31) & ~(size_t)15;
    if ((size_t)(h->end - found) < n)
        return NULL;
    h->next += n;
    h->n_live++;
    return found;
}

static void give(void *handle, void *p) { (void)p; ((struct heap *)handle)->n_live--; }
static void destroy(void *handle) { (void)handle; }

%s
"""
#: It gets its memory from the C library, and ignores its arena.
APART = r"""
#include <stdlib.h>
static void *begin(void *mem, size_t bytes) { (void)mem; (void)bytes; return &malloc; }
static void *own(void *handle, size_t n) { (void)handle; return malloc(n); }
static void release(void *handle, void *p) { (void)handle; free(p); }
struct peer PEER = {"apart", begin, own, release, NULL, NULL, destroy};
"""
WHOLE = 'struct peer PEER = {"bump", create, take, give, NULL, NULL, destroy};'


def build(folder, tail):
    """A shared object with this end."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = folder / "peer.c"
    source.write_text(BUMP % tail)
    target = folder / "peer.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-I{xmem.get_include()}", "-o", target, source],
        check=True,
    )
    return target
