# SPDX-License-Identifier: BSD-3-Clause
"""A library that replaces malloc, as a shared object: it calls the C library's."""

import shutil
import subprocess

import pytest

WHOLE = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t n) { return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { return __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return __libc_memalign(align, n); }
void free(void *p) { __libc_free(p); }
"""
NOTHING = "int nothing(void) { return 0; }"


def build(folder, soname, source=WHOLE):
    """A shared object of this name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    file = folder / "malloc.c"
    file.write_text(source)
    target = folder / soname
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", target, file],
        check=True,
    )
    return target
