# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of `codes.pxd` for Python, the names of the verbs, a trace's dtype."""

import numpy as np

cdef op_t _an_op

#: Of an array of operations, which is ``op_t`` field by field.
TRACE_DTYPE = np.asarray(<op_t[:1]>&_an_op).dtype

_NAMES = {
    VERB_XMALLOC: "xmalloc",
    VERB_XFREE: "xfree",
    VERB_XREALLOC: "xrealloc",
    VERB_PAGE_ALLOC: "page_alloc",
    VERB_PAGE_FREE: "page_free",
}

#: Names of the verbs by number.
VERBS = tuple(_NAMES[number] for number in range(len(_NAMES)))

#: Those of them that serve operations of a trace.
TRACE_VERBS = VERBS[:VERB_XREALLOC + 1]

#: The verb that serves each kind of operation, by the kind's number.
VERB_OF_OP = tuple(verb_of(op) for op in range(OP_MEMALIGN + 1))
