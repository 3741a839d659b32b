# SPDX-License-Identifier: BSD-3-Clause
"""Build hook: flags, macros, Cython's directives and build modes, for all modules.

``XMEM_TRACE=1``    line tracing for coverage of ``.pyx`` files.
``XMEM_CHECKED=1``  every ``require`` of the engines is compiled in and aborts.
``XMEM_DEBUG=1``    with debug symbols, which are four fifths of a module's bytes.
``XMEM_FLAGS=...``  replaces the flags of the compiler, for quick builds.
``XMEM_MODULES=...`` builds only these modules, their names separated by blanks.
"""

import os

import numpy
from Cython.Build import cythonize
from setuptools.command.build_ext import build_ext as _build_ext


def _is_on(variable):
    return os.environ.get(variable, "") not in ("", "0")


TRACE = _is_on("XMEM_TRACE")
CHECKED = _is_on("XMEM_CHECKED")
SYMBOLS = "-g" if _is_on("XMEM_DEBUG") else "-g0"
# GCC stops inlining once a file has grown by a share: then what a hot path calls would
# depend on everything else in the file.
FLAGS = os.environ.get(
    "XMEM_FLAGS",
    f"-O3 {SYMBOLS} -fno-tree-slp-vectorize --param=inline-unit-growth=200",
).split()
MODULES = os.environ.get("XMEM_MODULES", "").split()
#: The module whose stores are noted in a journal: see xmem/base/journal.pxd.
LOGGED = "xmem.journalled"
NUMPY_MACROS = [
    ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
    ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
]


class build_ext(_build_ext):
    """Compile the extensions with one set of Cython directives."""

    def finalize_options(self):
        """Set directives and macros once for all modules."""
        super().finalize_options()
        self.cython_directives = {
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "binding": False,
            "linetrace": TRACE,
        }
        self.parallel = self.parallel or len(os.sched_getaffinity(0))
        self.include_dirs = [*(self.include_dirs or ()), numpy.get_include()]
        if MODULES:
            self.extensions = [one for one in self.extensions if one.name in MODULES]
        for extension in self.extensions:
            extension.extra_compile_args = FLAGS
            if extension.name == LOGGED:
                extension.define_macros = [("XMEM_LOGGED", "1")]
        macros = [*NUMPY_MACROS]
        if TRACE:
            macros += [
                ("CYTHON_TRACE", "1"),
                ("CYTHON_TRACE_NOGIL", "1"),
                ("CYTHON_USE_SYS_MONITORING", "0"),
            ]
        if CHECKED:
            macros.append(("XMEM_CHECKED", "1"))
        if TRACE or CHECKED:
            self.force = True
        self.define = [*(self.define or ()), *macros]

    def build_extensions(self):
        """Translate all modules in a process for each core, then compile them."""
        translated = cythonize(
            self.extensions,
            nthreads=self.parallel,
            force=self.force,
            quiet=not self.verbose,
            include_path=self.include_dirs,
            compiler_directives=self.cython_directives,
            build_dir=None if TRACE else self.build_temp,
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().build_extensions()
