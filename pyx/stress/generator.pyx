# SPDX-License-Identifier: BSD-3-Clause
"""Operations generated without the GIL, in the trace format.

An `OpGenerator` derives operations from a seed and two tables: the sizes that are
requested, and how long blocks live. It does not look at a heap, so the same seed
gives the same operations whatever allocator serves them. An id names a slot for a
live object and is used again after the object was freed.
"""

import numpy as np

from xmem.base.errors import BadArgument, BadArgumentType
from xmem.measure.trace import TRACE_DTYPE

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from xmem.base.arguments cimport count_argument
from xmem.measure.codes cimport (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    op_t,
)

__all__ = ["MAX_IDS", "MAX_LIFETIME", "TABLE_ENTRIES", "OpGenerator"]

cdef enum:
    WHEEL = 1 << 16             # lifetimes are shorter, live objects fewer
    TABLE = 4096                # entries of the two tables

cdef uint32_t NOBODY = ~<uint32_t>0

#: Ids that a generator uses, which are the most objects live at once.
MAX_IDS = WHEEL

MAX_LIFETIME = WHEEL - 1

#: Entries of a table of sizes or lifetimes.
TABLE_ENTRIES = TABLE


cdef struct generator_t:
    uint64_t state              # of the random numbers
    uint64_t now                # allocations so far
    uint32_t n_live
    uint32_t n_vacant
    uint32_t* sizes             # TABLE
    uint32_t* lifetimes         # TABLE
    uint32_t* wheel             # per moment: the first object that ends then
    uint32_t* next_ending       # per object: the next that ends with it
    uint32_t* vacant            # ids that no object has
    uint32_t* live              # ids that objects have
    uint32_t* place             # per object: its index in live
    bint has_frames             # no reallocations, no alignments


cdef inline uint64_t draw(generator_t* generator) noexcept nogil:
    """Return the next random number (splitmix64, Steele et al. 2014)."""
    cdef uint64_t z
    generator.state += <uint64_t>0x9E3779B97F4A7C15
    z = generator.state
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline void generate_free(generator_t* generator, op_t* op) noexcept nogil:
    """Free the next object whose life ends now."""
    cdef uint64_t bucket = generator.now & (WHEEL - 1)
    cdef uint32_t number = generator.wheel[bucket]
    cdef uint32_t last
    generator.wheel[bucket] = generator.next_ending[number]
    generator.vacant[generator.n_vacant] = number
    generator.n_vacant += 1
    generator.n_live -= 1
    last = generator.live[generator.n_live]
    generator.live[generator.place[number]] = last
    generator.place[last] = generator.place[number]
    op.op = OP_FREE
    op.align_log2 = 0
    op.id = number
    op.size = 0


cdef inline void generate_alloc(
    generator_t* generator, op_t* op, uint64_t random, uint32_t size
) noexcept nogil:
    """Allocate an object, and enter the end of its life in the wheel."""
    cdef uint32_t number
    cdef uint64_t bucket = (
        generator.now + generator.lifetimes[(random >> 12) & (TABLE - 1)]
    ) & (WHEEL - 1)
    generator.n_vacant -= 1
    number = generator.vacant[generator.n_vacant]
    generator.next_ending[number] = generator.wheel[bucket]
    generator.wheel[bucket] = number
    generator.live[generator.n_live] = number
    generator.place[number] = generator.n_live
    generator.n_live += 1
    op.op = OP_MALLOC
    op.align_log2 = 0
    op.id = number
    op.size = size
    if generator.has_frames:
        return
    if (random >> 24) & 31 == 0:
        op.op = OP_CALLOC
    elif (random >> 24) & 31 == 1:
        op.op = OP_MEMALIGN
        op.align_log2 = <uint8_t>(5 + ((random >> 32) & 7))


cdef void generate_ops(
    generator_t* generator, op_t* ops, uint64_t n_ops
) noexcept nogil:
    """Generate the next operations."""
    cdef uint64_t i, random
    cdef uint32_t size
    for i in range(n_ops):
        ops[i].thread = 0
        if generator.wheel[generator.now & (WHEEL - 1)] != NOBODY:
            generate_free(generator, &ops[i])
            continue
        generator.now += 1
        random = draw(generator)
        size = generator.sizes[random & (TABLE - 1)]
        if (
            (random >> 29) & 15 == 0
            and generator.n_live != 0
            and not generator.has_frames
        ):
            ops[i].op = OP_REALLOC
            ops[i].align_log2 = 0
            ops[i].id = generator.live[((random >> 33) * generator.n_live) >> 31]
            ops[i].size = size
        else:
            generate_alloc(generator, &ops[i], random, size)


cdef class OpGenerator:
    """Generates operations from a seed.

    Parameters
    ----------
    sizes : array of `TABLE_ENTRIES` integers
        Bytes, or pages, that requests have; one is drawn for each request.
    lifetimes : array of `TABLE_ENTRIES` integers
        Allocations, from 1 to `MAX_LIFETIME`, that happen during an object's life.
    seed : int
        Of the random numbers.
    frames : bool
        Generate allocations and frees only, for page frames.

    Raises
    ------
    BadArgument, BadArgumentType
        A table or the seed is invalid.
    """

    cdef generator_t c
    cdef object tables

    def __init__(self, sizes, lifetimes, seed, *, frames=False):
        cdef uint32_t[::1] cells
        cdef uint64_t first = count_argument(seed, "seed", 0)
        drawn = _table(sizes, "sizes", 0, NOBODY)
        lives = _table(lifetimes, "lifetimes", 1, MAX_LIFETIME)
        self.tables = [
            drawn,
            lives,
            np.full(WHEEL, NOBODY, dtype=np.uint32),
            *(np.zeros(WHEEL, dtype=np.uint32) for _ in range(4)),
        ]
        self.tables[4][:] = np.arange(WHEEL, dtype=np.uint32)[::-1]
        cells = self.tables[0]
        self.c.sizes = &cells[0]
        cells = self.tables[1]
        self.c.lifetimes = &cells[0]
        cells = self.tables[2]
        self.c.wheel = &cells[0]
        cells = self.tables[3]
        self.c.next_ending = &cells[0]
        cells = self.tables[4]
        self.c.vacant = &cells[0]
        cells = self.tables[5]
        self.c.live = &cells[0]
        cells = self.tables[6]
        self.c.place = &cells[0]
        self.c.state = first
        self.c.now = self.c.n_live = 0
        self.c.n_vacant = WHEEL
        self.c.has_frames = bool(frames)

    def make(self, n_ops):
        """Generate the next operations.

        Parameters
        ----------
        n_ops : int
            How many.

        Returns
        -------
        numpy.ndarray
            In the trace format, except that ids are used again.
        """
        cdef uint64_t n = count_argument(n_ops, "n_ops", 0)
        cdef uint8_t[::1] raw
        if self.tables is None:
            raise BadArgument("the generator was never initialised")
        ops = np.zeros(n, dtype=TRACE_DTYPE)
        if n == 0:
            return ops
        raw = ops.view(np.uint8)
        with nogil:
            generate_ops(&self.c, <op_t*>&raw[0], n)
        return ops


cdef object _table(object values, str name, uint64_t least, uint64_t most):
    """Check one of the two tables and copy it."""
    try:
        table = np.array(values, dtype=np.int64)
    except (TypeError, ValueError):
        raise BadArgumentType(f"{name} must be integers") from None
    if table.shape != (TABLE,):
        raise BadArgument(f"{name} must be {TABLE} integers")
    if int(table.min()) < least or int(table.max()) > most:
        raise BadArgument(f"{name} must be from {least} to {most}")
    return table.astype(np.uint32)
