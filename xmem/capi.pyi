# SPDX-License-Identifier: BSD-3-Clause
"""The C interface of ``xmem.h``, for extension modules without Cython."""

from typing import Any, Final

_C_API: Final[Any]

def get_include() -> str: ...
