# SPDX-License-Identifier: BSD-3-Clause
"""Build hook: NumPy's headers, Cython's directives and build modes.

``XMEM_TRACE=1``    line tracing for coverage of ``.pyx`` files.
``XMEM_CHECKED=1``  every ``require`` of the engines is compiled in and aborts.
"""

import os

import numpy
from setuptools.command.build_ext import build_ext as _build_ext


def _is_on(variable):
    return os.environ.get(variable, "") not in ("", "0")


TRACE = _is_on("XMEM_TRACE")
CHECKED = _is_on("XMEM_CHECKED")


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
        self.cython_c_in_temp = not TRACE
        self.include_dirs = [*(self.include_dirs or ()), numpy.get_include()]
        macros = []
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
