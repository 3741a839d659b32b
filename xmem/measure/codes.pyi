# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that traces and measurements share; defined once, in codes.pxd."""

from typing import Any, Final

import numpy as np

OP_MALLOC: Final[int]
OP_FREE: Final[int]
OP_REALLOC: Final[int]
OP_CALLOC: Final[int]
OP_MEMALIGN: Final[int]

VERB_XMALLOC: Final[int]
VERB_XFREE: Final[int]
VERB_XREALLOC: Final[int]
VERB_PAGE_ALLOC: Final[int]
VERB_PAGE_FREE: Final[int]

PATH_LEFT: Final[int]
PATH_RIGHT: Final[int]
PATH_RETURNED: Final[int]
PATH_RUN: Final[int]
PATH_SPLIT: Final[int]
PATH_GROWN: Final[int]
PATH_MOVED: Final[int]
PATH_FAILED: Final[int]

TRACE_DTYPE: Final[np.dtype[Any]]
VERBS: Final[tuple[str, ...]]
TRACE_VERBS: Final[tuple[str, ...]]
VERB_OF_OP: Final[tuple[int, ...]]
