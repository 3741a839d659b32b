# SPDX-License-Identifier: BSD-3-Clause
"""The folder of xmem.h is known when xmem is installed: hence a setup.py."""

from setuptools import Extension, setup

import xmem

setup(
    py_modules=[],
    ext_modules=[
        Extension("arena_queue", ["arena_queue.c"], include_dirs=[xmem.get_include()])
    ],
)
