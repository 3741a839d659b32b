# SPDX-License-Identifier: BSD-3-Clause
"""The pool: what a Python caller allocates from.

Every integer that a caller hands in is proved to be a live block of this very
pool before the C level sees it (``pool_owns``); what is refused is explained,
and nothing is changed. Header arithmetic is not done here.

Threading: as in arena.pyx; the GIL excludes one method from another.
"""

import numpy as np

from xmem.base.engines import ENGINES
from xmem.base.errors import (
    BadArgument,
    BadArgumentType,
    DoubleFree,
    HeapCorruption,
    MismatchedFree,
    NotABlock,
    OutOfMemory,
    PoolDestroyed,
    PoolInUse,
    corruption,
)
from xmem.stats import PoolStats

cimport cython
from cpython.exc cimport PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xmem.allocator cimport Allocator
from xmem.arena.arena cimport Arena, View, arena_enter, arena_refuse_held
from xmem.arena.check cimport check_frames
from xmem.arena.directory cimport directory_find, directory_name
from xmem.arena.frames cimport (
    FRAME_CONTROL,
    FRAME_FREE,
    FRAME_JOINED,
    FRAME_PENDING,
    FRAME_RUN,
    FRAME_WHOLE,
    frame_owner,
    frame_pack,
    frame_pages,
    frame_state,
    frames_alloc,
    frames_free,
    frames_head_of,
    is_region,
)
from xmem.arena.holds cimport hold_clear_pages, hold_test
from xmem.arena.sites cimport site_allocated, site_freed
from xmem.arena.superblock cimport (
    ENTRY_EMPTY,
    ENTRY_INITIALISING,
    ENTRY_NAME_BYTES,
    ENTRY_READY,
    arena_t,
    entry_t,
    page_of,
    page_offset,
)
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    flag_argument,
    offset_argument,
    size_argument,
    words_argument,
)
from xmem.base.bits cimport bit, ceil_log2, find_last_set
from xmem.base.checks cimport store_barrier, unlikely
from xmem.base.finding cimport finding_t
from xmem.base.memcheck cimport (
    checker_pause,
    checker_resume,
    memory_close,
    memory_open,
    memory_pool_destroyed,
)
from xmem.base.offset cimport offset_t
from xmem.check.census cimport census_t
from xmem.check.control cimport check_control
from xmem.check.diagnosis cimport diagnose
from xmem.check.pool cimport check_pool
from xmem.check.slices cimport SLICE_DAMAGE, SLICE_END, check_slice, slice_t
from xmem.check.visit cimport (
    VISIT_WAITING,
    block_info_t,
    cursor_init,
    cursor_t,
    next_block,
)
from xmem.core.control cimport (
    ENGINE_TLSF,
    QUICK_MAX_BLOCKS,
    POOL_ADAPTS,
    POOL_CANARY,
    POOL_CHECKSUM,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    POOL_POISON,
    POOL_QUARANTINE,
    POOL_SAFE_LINKS,
    control_add_quicklists,
    control_bytes,
    control_init,
    control_of,
)
from xmem.core.growth cimport (
    may_hold,
    pages_for,
    region_add,
    region_cut,
    region_inside,
    region_pages_for,
)
from xmem.core.hardened cimport end_quarantine
from xmem.core.hardening cimport check_live, hard_overhead
from xmem.core.plain cimport is_run, pool_owns
from xmem.core.quicklists cimport quick_count, quick_drain
from xmem.core.startbits cimport start_clear, start_set, start_test
from xmem.engine.block cimport (
    BLOCK_ALIGN_MAX,
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    PAGE_RULE_BYTES,
    REGION_OVERHEAD_BYTES,
    block_bytes_for,
    block_of,
)
from xmem.engine.firstfit cimport FIRSTFIT_LINE
from xmem.engine.freelists cimport freelists_remove
from xmem.verbs cimport pool_alloc, pool_capacity, pool_free, pool_resize

cdef extern from "Python.h":
    # Without Cython's check: NULL is looked at by the caller.
    PyObject* _call "PyObject_CallObject"(PyObject*, PyObject*) noexcept

#: What a pool can be hardened with, by name.
HARDENING = {
    "canaries": POOL_CANARY,
    "checksums": POOL_CHECKSUM,
    "safe_links": POOL_SAFE_LINKS,
    "poison": POOL_POISON,
    "quarantine": POOL_QUARANTINE,
}

BLOCK_DTYPE = np.dtype(
    [
        ("offset", "u8"),
        ("size", "u8"),
        ("capacity", "u8"),
        ("used", "?"),
        ("region", "u4"),
        ("kind", "u1"),
    ]
)

cdef enum:
    DEFAULT_QUICK_BYTES = 1 << 16
    DEFAULT_GROW_PAGES = 16     # fits every arena: there may be no more pages


cdef packed struct row_t:
    uint64_t offset
    uint64_t size
    uint64_t capacity
    uint8_t used
    uint32_t region
    uint8_t kind


# Making a pool ---------------------------------------------------------------

cdef bytes _encode_name(object name):
    """A pool's name as the directory keeps it."""
    cdef bytes encoded
    if not isinstance(name, str):
        raise BadArgumentType(
            f"a pool's name must be str, not {type(name).__name__}"
        )
    try:
        encoded = str.encode(name)
    except UnicodeEncodeError:
        raise BadArgument(f"the name {name!r} cannot be encoded as UTF-8") from None
    if not encoded or b"\0" in encoded or len(encoded) > ENTRY_NAME_BYTES:
        raise BadArgument(
            f"a pool's name has 1 to {ENTRY_NAME_BYTES} bytes in UTF-8 and no "
            f"NUL, not {name!r}"
        )
    return encoded


cdef uint32_t _vacant_number(Arena arena) except 0:
    """Number of an empty entry of the directory."""
    cdef uint32_t i
    for i in range(arena.c.super.max_pools):
        if arena.c.directory[i].state != ENTRY_READY:
            return i + 1
    raise OutOfMemory(
        f"the arena has its {arena.c.super.max_pools} pools already; give "
        "max_pools= when it is made"
    )


cdef uint32_t pool_create(
    Arena arena,
    object name,
    object engine,
    object grow_pages,
    object max_pages,
    bint join_regions,
    unsigned hardening,
    object quick,
    object quick_bytes,
) except 0:
    """Number of a new pool; when anything is refused nothing has changed."""
    cdef uint64_t grow, limit, held_blocks, held_bytes
    cdef unsigned kind
    cdef uint32_t number, page
    cdef uint64_t n_pages
    cdef entry_t* entry
    cdef bytes encoded
    if not isinstance(engine, str):
        raise BadArgumentType(f"engine must be str, not {type(engine).__name__}")
    if engine not in ENGINES:
        raise BadArgument(f"engine must be 'tlsf' or 'firstfit', not {engine!r}")
    kind = ENGINES[engine]
    grow = DEFAULT_GROW_PAGES
    if grow_pages is not None:
        grow = count_argument(grow_pages, "grow_pages", 1)
    held_blocks = count_argument(quick, "quick", 0)
    held_bytes = count_argument(quick_bytes, "quick_bytes", 0)
    limit = 0 if max_pages is None else count_argument(max_pages, "max_pages", 1)
    encoded = None if name is None else _encode_name(name)
    if hardening and kind != ENGINE_TLSF:
        raise BadArgument("only the tlsf engine can be hardened")
    if held_blocks > QUICK_MAX_BLOCKS:
        raise BadArgument(
            f"quick must be at most {QUICK_MAX_BLOCKS} blocks, not {held_blocks}"
        )
    if held_blocks and kind != ENGINE_TLSF:
        raise BadArgument("only the tlsf engine can have quick lists")
    if held_blocks and hardening:
        raise BadArgument(
            "a hardened pool has no quick lists: use the quarantine, or do without one"
        )
    arena.enter()
    if grow > arena.c.n_pages:
        if grow > DEFAULT_GROW_PAGES:
            raise BadArgument(
                f"grow_pages is {grow}; the arena has {arena.c.n_pages} pages"
            )
        grow = arena.c.n_pages
    number = _vacant_number(arena)
    if encoded is None:
        encoded = b"pool-%d" % number
    if directory_find(&arena.c, encoded, len(encoded)) != NULL:
        raise BadArgument(f"the arena has a pool named {encoded.decode()!r}")
    n_pages = pages_for(
        &arena.c, control_bytes(&arena.c, kind, held_blocks != 0)
    )
    page = frames_alloc(&arena.c, n_pages, FRAME_PENDING, number)
    if page == 0:
        raise OutOfMemory(
            f"a pool's control block needs {n_pages} pages in a row; "
            f"{arena.c.super.frames.n_free_pages} are free"
        )
    entry = &arena.c.directory[number - 1]
    entry.state = ENTRY_INITIALISING
    memory_open(
        arena.c.base + page_offset(&arena.c, page),
        page_offset(&arena.c, n_pages),
    )
    control_init(
        &arena.c,
        page_offset(&arena.c, page),
        number,
        kind,
        hardening
        | (POOL_JOINS if join_regions and kind == ENGINE_TLSF else 0)
        | (
            POOL_ADAPTS
            if grow_pages is None and join_regions and kind == ENGINE_TLSF
            else 0
        ),
        grow if kind == ENGINE_TLSF else 1,
        limit,
    )
    if held_blocks:
        control_add_quicklists(
            &arena.c,
            page_offset(&arena.c, page),
            held_blocks,
            min(held_bytes, arena.c.n_bytes),
        )
    store_barrier()
    arena.c.frames[page].word = frame_pack(FRAME_CONTROL, 0, number, n_pages)
    memset(entry.name, 0, ENTRY_NAME_BYTES)
    memcpy(entry.name, <char*>encoded, len(encoded))
    entry.control = page_offset(&arena.c, page)
    entry.control_pages = <uint32_t>n_pages
    entry.engine = kind
    entry.serial = arena.c.super.n_serials
    arena.c.super.n_serials += 1
    store_barrier()
    entry.state = ENTRY_READY
    return number


cdef unsigned _hardening_flags(object hardened) except? 0xFFFF:
    """Flags of a pool for what its caller wants to be hardened."""
    cdef unsigned flags = 0
    if isinstance(hardened, (bool, np.bool_)):
        return POOL_HARDENED if hardened else 0
    if isinstance(hardened, str):
        raise BadArgumentType(
            f"hardened must be a truth value or a collection of names, not the "
            f"text {hardened!r}"
        )
    try:
        names = list(hardened)
    except TypeError:
        raise BadArgumentType(
            "hardened must be a truth value or a collection of names, not "
            f"{type(hardened).__name__}"
        ) from None
    for name in names:
        if not isinstance(name, str) or name not in HARDENING:
            raise BadArgument(
                f"hardened may name {', '.join(map(repr, HARDENING))}, not {name!r}"
            )
        flags |= HARDENING[name]
    return flags


cdef int _check_hooks(object engine, object get_mem, object put_mem) except -1:
    """Refuse functions that a pool cannot use."""
    if (get_mem is None) != (put_mem is None):
        raise BadArgument("give both get_mem and put_mem, or neither")
    if get_mem is None:
        return 0
    if not callable(get_mem) or not callable(put_mem):
        raise BadArgumentType("get_mem and put_mem must be callable")
    if engine != "tlsf":
        raise BadArgument("only the tlsf engine takes regions from get_mem")
    return 0


cdef object _table(uint64_t n):
    """A zeroed table of so many blocks.

    Its memory is Python's: NumPy's may be taken from this very pool.
    """
    return np.frombuffer(bytearray(n * sizeof(row_t)), dtype=BLOCK_DTYPE)


cdef object _live_rows(object blocks):
    """The rows of ``blocks`` that are in use."""
    chosen = blocks[blocks["used"]]
    live = _table(len(chosen))
    live[:] = chosen
    return live


cdef inline bint is_gone(Pool pool) noexcept:
    """Whether the directory no longer has this pool."""
    cdef entry_t* entry = &pool.arena.c.directory[pool.number - 1]
    return entry.serial != pool.serial or entry.state != ENTRY_READY


cdef int _refuse_gone(Pool pool) except -1:
    """PoolDestroyed if the directory no longer has this pool."""
    if is_gone(pool):
        raise PoolDestroyed(f"pool {pool.name!r} has been destroyed")
    return 0


cdef object _allocate_hooked(
    Pool pool, uint64_t[::1] wanted, uint64_t alignment, object offsets
):
    """As `Pool.xmalloc_many`, while the caller's functions may run."""
    cdef uint64_t[::1] given = offsets
    cdef Py_ssize_t i, j
    for i in range(wanted.shape[0]):
        try:
            given[i] = pool.allocate(wanted[i], alignment, "xmalloc_many")
        except BaseException:
            for j in range(i):
                pool.xfree(given[j])
            raise
    return offsets


cdef int _refuse_twice(object blocks) except -1:
    """DoubleFree if whole pages stand twice, which have no start bits."""
    found, counts = np.unique(
        blocks[blocks & (PAGE_RULE_BYTES - 1) == 0], return_counts=True
    )
    if (counts > 1).any():
        twice = int(found[counts > 1][0])
        raise DoubleFree(f"xfree_many: {twice:#x} stands twice")
    return 0


cdef int _refuse_repeated(Pool pool, uint64_t[::1] blocks) except -1:
    """DoubleFree if one of these live blocks stands twice.

    Start bits are cleared one after the other, and then set again: one that is
    clear already was met before.
    """
    cdef arena_t* arena = &pool.arena.c
    cdef Py_ssize_t i
    cdef Py_ssize_t repeated = -1
    for i in range(blocks.shape[0]):
        if blocks[i] & (PAGE_RULE_BYTES - 1):
            if not start_test(arena, blocks[i]):
                repeated = i
                break
            start_clear(arena, blocks[i])
    for i in range(blocks.shape[0] if repeated < 0 else repeated):
        if blocks[i] & (PAGE_RULE_BYTES - 1):
            start_set(arena, blocks[i])
    if repeated >= 0:
        raise DoubleFree(f"xfree_many: {blocks[repeated]:#x} stands twice")
    return 0


cdef int _free_proved(Pool pool, offset_t payload) except -1:
    """Free a block that was proved live and that nobody holds."""
    site_freed(&pool.arena.c, payload)
    pool_free(&pool.arena.c, pool.c, payload)
    if pool.c.returned:
        pool.settle()
        if pool.closed:         # by put_mem
            return 0
    if pool.c.flags & POOL_HARDENED:
        pool.raise_damage()
    return 0


@cython.no_gc_clear     # blocks use it until they are gone, in a cycle too
cdef class Pool(Allocator):
    """A heap in an arena: one engine over regions that grow and shrink.

    Parameters
    ----------
    arena : Arena
        Where the pool and all its memory live.
    name : str, optional
        By which `Pool.open` finds it again; at most 40 bytes in UTF-8. By
        default ``pool-`` and its number.
    engine : {"tlsf", "firstfit"}
        Two-level segregated fit, whose every operation is bounded, or Xen's
        legacy first fit, to measure against.
    grow_pages : int, optional
        Pages obtained at a time; by default 16, and when the pool has become
        larger the power of two in a quarter of its regions' pages (with
        ``join_regions=False`` always 16). Larger requests take as many as they
        need, and where limit or arena have fewer pages left, fewer are
        obtained. The legacy engine takes single pages whatever is said here.
    max_pages : int, optional
        Exact limit on the pages held for blocks and runs.
    join_regions : bool
        Make one stretch of regions that lie side by side.
    hardened : bool or collection of str
        What stray writes are looked for, at a bounded price in each call:
        True for all of `HARDENING`, or some of these names. ``"canaries"``: a
        pattern behind each block's bytes; ``"checksums"``: the word behind it
        is keyed by a secret of the arena and covers the header;
        ``"safe_links"``: headers and links beside a block are verified before
        they are followed; ``"poison"``: the first bytes of what is freed are
        overwritten, and verified when they are used again; ``"quarantine"``:
        a freed block waits until 16 others have been freed. For the tlsf
        engine; `usable_size` is then what was asked for.
    quick : int
        Blocks of each size that wait, when they are freed, to be used again as
        they are: at most 255 for each size up to 1024 bytes with the header; 0
        for none. It makes most calls for small blocks shorter, the longest
        somewhat longer; what waits does not merge with its neighbours. A
        request that finds no room gives the largest 16 of them to the engine
        first, and `shrink` all. For the tlsf engine, not hardened.
    quick_bytes : int
        Bytes, headers included, that may wait in all.
    get_mem, put_mem : callable, optional
        Where regions come from and go to, in place of the arena's own frames;
        both or neither. ``get_mem(n_pages)`` answers the offset of a run of at
        least so many pages that `Arena.page_alloc` or `page_alloc_exact` gave,
        or None; ``put_mem(offset, n_pages)`` takes such a run back, which is
        the caller's from then on. What get_mem raises comes through, and
        nothing has changed; what put_mem raises goes to `sys.unraisablehook`,
        for the call that returned the region has been carried out.

    Raises
    ------
    BadArgument, BadArgumentType
        An argument that cannot be meant, or a name that is taken.
    OutOfMemory
        No room for the control block.
    ArenaClosed
        The arena has been closed.

    Notes
    -----
    Offsets are bytes from the arena's base. Every verb checks, exactly, that
    an offset is a live block of this pool; what is not is refused with one of
    the `InvalidFree` errors, and nothing is changed.
    """

    def __init__(
        self,
        arena,
        *,
        name=None,
        engine="tlsf",
        grow_pages=None,
        max_pages=None,
        join_regions=True,
        hardened=False,
        quick=0,
        quick_bytes=DEFAULT_QUICK_BYTES,
        get_mem=None,
        put_mem=None,
    ):
        cdef uint32_t number
        if self.arena is not None:
            raise BadArgument("a pool is initialised once")
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        _check_hooks(engine, get_mem, put_mem)
        number = pool_create(
            arena,
            name,
            engine,
            grow_pages,
            max_pages,
            flag_argument(join_regions, "join_regions"),
            _hardening_flags(hardened),
            quick,
            quick_bytes,
        )
        self.attach(arena, directory_name(&(<Arena>arena).c, number), number)
        self.hook(get_mem, put_mem)

    cdef int hook(self, object get_mem, object put_mem) except -1:
        """Take regions from the caller's functions, or from the arena again."""
        self.get_mem = get_mem
        self.put_mem = put_mem
        if get_mem is None:
            self.c.flags &= ~<uint32_t>POOL_HOOKED
        else:
            self.c.flags |= POOL_HOOKED
        return 0

    @staticmethod
    def open(arena, name, *, verify=True, get_mem=None, put_mem=None):
        """The pool that was made under ``name``, with its blocks.

        Parameters
        ----------
        arena : Arena
        name : str
        verify : bool
            Check every invariant of page frames and pool first (time linear
            in both).
        get_mem, put_mem : callable, optional
            As in `Pool`; functions are not kept in the arena.

        Raises
        ------
        BadArgument
            The arena has no such pool.
        HeapCorruption
            An invariant does not hold.
        """
        cdef Pool pool
        cdef Arena owner
        cdef entry_t* entry
        cdef finding_t finding
        cdef uint32_t number
        cdef bytes encoded
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        owner = arena
        encoded = _encode_name(name)
        flag_argument(verify, "verify")
        owner.enter()
        entry = directory_find(&owner.c, encoded, len(encoded))
        if entry == NULL:
            known = ", ".join(map(repr, owner.pools())) or "none"
            raise BadArgument(f"no pool named {name!r}; the arena has: {known}")
        number = <uint32_t>(entry - owner.c.directory) + 1
        if not check_control(&owner.c, number, &finding):
            raise corruption(
                finding.code, finding.offset, finding.found, finding.expected
            )
        pool = Pool.__new__(Pool)
        pool.attach(owner, encoded.decode(), number)
        if verify:
            pool.check()
        _check_hooks(pool.engine, get_mem, put_mem)
        pool.hook(get_mem, put_mem)
        return pool

    cdef int attach(self, Arena arena, str name, uint32_t number) except -1:
        """Become the handle of an existing pool."""
        arena.enter()       # making an object can have run a finaliser
        self.name = name
        self.number = number
        self.serial = arena.c.directory[number - 1].serial
        self.c = control_of(&arena.c, &arena.c.directory[number - 1])
        self.arena = arena
        return 0

    def __reduce__(self):
        raise BadArgumentType(
            "a pool cannot be pickled; open its arena's file and Pool.open it"
        )

    def __repr__(self):
        if self.closed:
            return f"<xmem.Pool {self.name!r}, closed>"
        return (
            f"<xmem.Pool {self.name!r}, {self.engine}, "
            f"{self.c.n_pages} pages held>"
        )

    # What it is

    @property
    def closed(self):
        """Whether the pool can no longer be used: destroyed, or its arena closed."""
        if self.arena is None or self.arena.c.base == NULL:
            return True
        return (
            self.arena.c.directory[self.number - 1].serial != self.serial
            or self.arena.c.directory[self.number - 1].state != ENTRY_READY
        )

    @property
    def id(self):
        """Number of the pool in the arena, from 1; ``owner`` in the frame table."""
        return self.number

    @property
    def engine(self):
        """``"tlsf"`` or ``"firstfit"``."""
        self.enter()
        return "tlsf" if self.c.engine == ENGINE_TLSF else "firstfit"

    @property
    def grow_pages(self):
        """Pages obtained at a time, at least."""
        self.enter()
        return self.c.grow_pages

    @property
    def quick(self):
        """Blocks of each size that may wait to be used again; 0 for none."""
        self.enter()
        return self.c.quick_blocks

    @property
    def quick_bytes(self):
        """Bytes that may wait to be used again, headers included."""
        self.enter()
        return self.c.quick_limit

    @property
    def max_pages(self):
        """Greatest number of pages held; 0 when only the arena limits it."""
        self.enter()
        return self.c.max_pages

    @property
    def join_regions(self):
        """Whether regions that lie side by side are joined."""
        self.enter()
        return (self.c.flags & POOL_JOINS) != 0

    @property
    def hardening(self):
        """Names of what the pool is hardened with, of `HARDENING`."""
        self.enter()
        return tuple(
            name for name, flag in HARDENING.items() if self.c.flags & flag
        )

    @property
    def maxalloc(self):
        """Greatest request that one region of ``grow_pages`` serves, bytes."""
        self.enter()
        if self.c.engine != ENGINE_TLSF:
            return self.arena.c.page_bytes - 2 * FIRSTFIT_LINE
        return (
            (self.c.grow_pages << self.arena.c.page_shift)
            - REGION_OVERHEAD_BYTES
            - hard_overhead(self.c)
        )

    @property
    def used_size(self):
        """Bytes in use, headers included: blocks and runs."""
        self.enter()
        return self.c.run_pages * self.arena.c.page_bytes + (
            self.c.tlsf.used_bytes
            if self.c.engine == ENGINE_TLSF
            else self.c.firstfit.used_bytes
        )

    @property
    def total_size(self):
        """Bytes of all pages held: regions and runs."""
        self.enter()
        return self.c.n_pages << self.arena.c.page_shift

    # Arguments

    cdef int enter(self) except -1:
        """Begin a method: see `Arena.enter`."""
        if self.arena is None:
            raise BadArgument("the pool was never initialised")
        arena_enter(self.arena)
        _refuse_gone(self)
        return 0

    cdef offset_t live(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of this pool, or the error.

        The caller has converted all its arguments: from here to the C level
        no Python code may run, for it could free the block again.
        """
        if unlikely(self.arena is None):
            self.enter()
        arena_enter(self.arena)
        if unlikely(is_gone(self)):
            self.enter()
        if unlikely(not pool_owns(&self.arena.c, self.c, payload)):
            self.refuse(payload, verb)
        if self.c.flags & POOL_HARDENED:
            self.prove(payload)
        return payload

    cdef int prove(self, offset_t payload) except -1:
        """HeapCorruption if a hardened pool's live block is damaged."""
        cdef finding_t finding
        cdef bint is_sound
        if is_run(&self.arena.c, self.c, payload, FRAME_WHOLE):
            return 0
        checker_pause()
        is_sound = check_live(
            &self.arena.c, self.c, block_of(payload), &finding
        )
        checker_resume()
        if not is_sound:
            raise self.damage(&finding)
        return 0

    cdef int raise_damage(self) except -1:
        """HeapCorruption for what a verb of a hardened pool found."""
        cdef finding_t finding = self.c.hard.damage
        if finding.code == 0:
            return 0
        self.c.hard.damage.code = 0
        raise self.damage(&finding)

    cdef object damage(self, finding_t* finding):
        """The exception for a finding, with what lies around it."""
        return corruption(
            finding.code,
            finding.offset,
            finding.found,
            finding.expected,
            diagnose(&self.arena.c, self.c, finding.offset),
        )

    cdef int refuse(self, offset_t payload, str verb) except -1:
        """Say why ``payload`` is no live block of this pool; always raises."""
        cdef arena_t* arena = &self.arena.c
        cdef uint64_t page = page_of(arena, payload)
        cdef uint32_t head
        cdef uint64_t word
        cdef offset_t left
        cdef str what = f"{verb}({payload:#x})"
        self.enter()        # making a text can run a finaliser
        if payload >= arena.n_bytes or page < arena.first_page:
            raise NotABlock(f"{what}: outside the arena's page frames")
        head = frames_head_of(arena, page)
        word = arena.frames[head].word
        if frame_state(word) == FRAME_FREE:
            raise DoubleFree(
                f"{what}: page {page} is free: freed already, or never allocated"
            )
        if frame_state(word) == FRAME_CONTROL:
            raise NotABlock(f"{what}: inside a pool's control block")
        if frame_owner(word) == 0:
            raise MismatchedFree(
                f"{what}: inside the page run at {page_offset(arena, head):#x}, "
                "which Arena.page_alloc gave: free it with Arena.page_free"
            )
        if frame_owner(word) != self.number:
            raise MismatchedFree(
                f"{what}: memory of pool "
                f"{directory_name(&self.arena.c, frame_owner(word))!r}: use that pool"
            )
        if payload == page_offset(arena, head) and frame_state(word) == FRAME_RUN:
            raise MismatchedFree(
                f"{what}: pages that the heap's page_alloc gave: free them with "
                "page_free"
            )
        if not is_region(word, self.number):
            raise NotABlock(
                f"{what}: inside the run of {frame_pages(word)} pages at "
                f"{page_offset(arena, head):#x}"
            )
        if payload & 15:
            raise NotABlock(
                f"{what}: not a multiple of 16, which every block's offset is"
            )
        left = self.block_left_of(payload)
        if left != 0:
            raise NotABlock(f"{what}: inside the live block at {left:#x}")
        raise DoubleFree(
            f"{what}: no live block: freed already, or never allocated"
        )

    cdef offset_t block_left_of(self, offset_t payload) noexcept:
        """Live block of this pool in which ``payload`` lies, or 0."""
        cdef arena_t* arena = &self.arena.c
        cdef uint64_t i = payload >> 10
        cdef uint64_t least = page_offset(arena, arena.first_page) >> 10
        cdef uint64_t word = arena.start_bits[i] & (
            bit((payload >> 4) & 63) - 1
        )
        cdef offset_t left
        while word == 0:
            if i <= least:
                return 0
            i -= 1
            word = arena.start_bits[i]
        left = (i << 10) + (<uint64_t>find_last_set(word) << 4)
        if not pool_owns(arena, self.c, left):
            return 0
        if payload - left >= pool_capacity(arena, self.c, left):
            return 0
        return left

    cdef int admit_alignment(self, uint64_t alignment) except -1:
        """Refuse an alignment that addresses in this arena do not keep."""
        cdef uint64_t most = bit(find_last_set(self.arena.c.alignment))
        if alignment > most:
            raise BadArgument(
                f"align must be at most {most} bytes in this arena, not {alignment}"
            )
        return 0

    cdef object no_room(self, object n, str verb):
        """The error for a request that the pool cannot serve."""
        limit = f" of at most {self.c.max_pages}" if self.c.max_pages else ""
        if self.c.quick_bytes:
            n_waiting = quick_count(&self.arena.c, self.c)
            limit += (
                f" ({n_waiting} freed blocks wait in the quick lists: shrink() gives them "
                "back)"
            )
        return self.arena.no_room(
            f"{verb}({n})", f"the pool holds {self.c.n_pages} pages{limit}; "
        )

    cdef offset_t allocate(
        self, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """Serve a request whose arguments have been converted."""
        cdef offset_t payload
        if unlikely(self.arena is None):
            self.enter()
        arena_enter(self.arena)
        if unlikely(is_gone(self)):
            self.enter()
        if unlikely(alignment > BLOCK_GRAIN):
            self.admit_alignment(alignment)
        payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
        if payload == 0 and self.get_mem is not None:
            self.grow_hooked(n_bytes, alignment)
            self.enter()
            payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
        if payload == 0:
            self.raise_damage()
            raise self.no_room(n_bytes, verb)
        site_allocated(&self.arena.c, payload, n_bytes)
        return payload

    cdef int grow_hooked(self, uint64_t n_bytes, uint64_t alignment) except -1:
        """Add a region of the caller's, if the limit admits one."""
        cdef uint64_t n_pages
        if n_bytes > self.c.max_request or alignment > BLOCK_ALIGN_MAX:
            return 0
        n_pages = region_pages_for(
            &self.arena.c,
            block_bytes_for(n_bytes + hard_overhead(self.c)),
            max(alignment, BLOCK_GRAIN),
        )
        if not may_hold(self.c, n_pages):
            return 0
        if n_pages < self.c.grow_pages and may_hold(self.c, self.c.grow_pages):
            n_pages = self.c.grow_pages
        self.take_mem(n_pages)
        return 0

    cdef uint64_t take_mem(self, uint64_t n_pages) except? 0:
        """Add a region of at least so many pages from get_mem; answers its pages."""
        cdef uint64_t given
        cdef offset_t start
        cdef uint32_t page
        answer = self.get_mem(n_pages)
        if answer is None:
            return 0
        start = offset_argument(answer)
        self.enter()
        page = self.arena._own_run(start, "get_mem")
        self.arena.refuse_exported(start)
        given = frame_pages(self.arena.c.frames[page].word)
        if given < n_pages or not may_hold(self.c, given):
            raise BadArgument(
                f"get_mem gave {given} pages where {n_pages} were asked for"
            )
        self.arena.c.frames[page].word = frame_pack(
            FRAME_PENDING, 0, self.number, given
        )
        memory_close(
            self.arena.c.base + start, page_offset(&self.arena.c, given)
        )
        region_add(&self.arena.c, self.c, page)
        return given

    cdef int settle(self) except -1:
        """Hand a region that was cut out to the caller's function."""
        cdef uint64_t page = self.c.returned
        if page == 0 or self.put_mem is None:
            return 0
        self.c.returned = 0
        self.put_away(
            page_offset(&self.arena.c, page),
            frame_pages(self.arena.c.frames[page].word),
        )
        return 0

    cdef void put_away(self, offset_t start, uint64_t n_pages) noexcept:
        """Call put_mem; what it raises is unraisable, for the verb is done."""
        cdef tuple arguments = (start, n_pages)
        cdef PyObject* answer = _call(<PyObject*>self.put_mem, <PyObject*>arguments)
        if answer == NULL:
            PyErr_WriteUnraisable(self.put_mem)
        else:
            Py_DECREF(<object>answer)

    # What an allocator of owned blocks needs

    cdef bint is_lost(self) noexcept:
        return is_gone(self)

    cdef int begin(self) except -1:
        return self.enter()

    cdef offset_t take(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        return self.allocate(n_bytes, alignment, verb)

    cdef offset_t move(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        self.live(payload, verb)
        return self.resize(payload, n_bytes, alignment, verb)

    cdef offset_t resize(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """Resize a block that was proved live and that nobody else holds."""
        cdef offset_t moved
        cdef bint is_owned = hold_test(&self.arena.holds, payload)
        self.admit_alignment(alignment)
        moved = pool_resize(&self.arena.c, self.c, payload, n_bytes, alignment)
        if moved == 0 and self.get_mem is not None:
            self.grow_hooked(n_bytes, alignment)
            self.live(payload, verb)
            self.arena.refuse_viewed(payload)
            if hold_test(&self.arena.holds, payload) != is_owned:
                raise BufferError(
                    f"get_mem changed who owns the block at {payload:#x}"
                )
            moved = pool_resize(
                &self.arena.c, self.c, payload, n_bytes, alignment
            )
        if moved == 0:
            self.raise_damage()
            raise self.no_room(n_bytes, verb)
        site_freed(&self.arena.c, payload)
        site_allocated(&self.arena.c, moved, n_bytes)
        self.settle()
        return moved

    cdef int give(self, offset_t payload, str verb) except -1:
        self.live(payload, verb)
        return _free_proved(self, payload)

    cdef uint64_t room_at(self, offset_t payload, str verb) except? 0:
        self.live(payload, verb)
        return pool_capacity(&self.arena.c, self.c, payload)

    # Verbs

    def xmalloc(self, n, /, align=16):
        """Allocate ``n`` bytes; their contents are undefined.

        Parameters
        ----------
        n : int
            Bytes; 0 gives a block as well, which is to be freed.
        align : int
            Power of two, in bytes; at least 16 is always given. Above 2048
            the TLSF engine takes whole pages.

        Returns
        -------
        int
            Offset of the payload in the arena.

        Raises
        ------
        OutOfMemory
            Pool or arena have no room.
        BadArgument, BadArgumentType
            A negative size, an alignment that is no power of two or greater
            than `Arena.max_align`, or not integers.
        """
        return self.allocate(
            size_argument(n), align_argument(align), "xmalloc"
        )

    def xzalloc(self, n, /, align=16):
        """Allocate ``n`` bytes of zeros; otherwise as `xmalloc`."""
        cdef uint64_t n_bytes = size_argument(n)
        cdef offset_t payload = self.allocate(
            n_bytes, align_argument(align), "xzalloc"
        )
        memset(self.arena.c.base + payload, 0, n_bytes)
        return payload

    def xrealloc(self, offset, n, /, align=16):
        """Resize a block to ``n`` bytes, keeping its contents.

        In place where there is room, else leftwards or moved. The alignment
        asked for at birth is kept, or raised to ``align``.

        Parameters
        ----------
        offset : int
            A live block of this pool.
        n : int
            Bytes; 0 shrinks to the least block and frees nothing.
        align : int
            As in `xmalloc`.

        Returns
        -------
        int
            Offset of the payload now.

        Raises
        ------
        OutOfMemory
            No room; the block is as it was.
        InvalidFree
            ``offset`` is no live block of this pool.
        BufferError
            A view of the block is alive.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        self.live(payload, "xrealloc")
        arena_refuse_held(self.arena, payload)
        return self.resize(payload, n_bytes, alignment, "xrealloc")

    def xfree(self, offset, /):
        """Give a block back.

        Parameters
        ----------
        offset : int
            As an allocation of this pool answered it.

        Raises
        ------
        DoubleFree
            The block was freed already, or never allocated.
        MismatchedFree
            The memory belongs to another pool, or to `Arena.page_alloc`.
        NotABlock
            No block starts there.
        BufferError
            A view of the block is alive.
        HeapCorruption
            The pool is hardened, and the block was damaged: it stays live. Or
            another, freed before, was damaged in the quarantine, which it
            leaves now: this one has been freed, that one stays unused.
        """
        cdef offset_t payload = self.live(offset_argument(offset), "xfree")
        arena_refuse_held(self.arena, payload)
        _free_proved(self, payload)

    # Many blocks in one call

    def xmalloc_many(self, sizes, /, align=16):
        """Allocate a block of each of some sizes, or none.

        Parameters
        ----------
        sizes : array_like of int, shape (n,)
            Bytes of each.
        align : int
            Of all, as in `xmalloc`.

        Returns
        -------
        numpy.ndarray of uint64, shape (n,)
            Offsets of the payloads, in the order of the sizes.

        Raises
        ------
        OutOfMemory
            No room for one of them; those before it have been given back.
        BadArgument, BadArgumentType
            As in `xmalloc`, or ``sizes`` is no array of one dimension.
        """
        cdef uint64_t alignment = align_argument(align)
        cdef uint64_t[::1] wanted = words_argument(sizes, "sizes", False)
        cdef uint64_t[::1] given
        cdef Py_ssize_t i, j
        offsets = np.zeros(wanted.shape[0], dtype=np.uint64)
        given = offsets
        self.enter()
        self.admit_alignment(alignment)
        for i in range(wanted.shape[0]):
            if wanted[i] > self.c.max_request:
                raise self.no_room(wanted[i], "xmalloc_many")
        if self.get_mem is not None:
            return _allocate_hooked(self, wanted, alignment, offsets)
        for i in range(wanted.shape[0]):
            given[i] = pool_alloc(&self.arena.c, self.c, wanted[i], alignment)
            if given[i] == 0:
                break
            site_allocated(&self.arena.c, given[i], wanted[i])
        else:
            return offsets
        for j in range(i):
            site_freed(&self.arena.c, given[j])
            pool_free(&self.arena.c, self.c, given[j])
        self.raise_damage()
        raise self.no_room(wanted[i], "xmalloc_many")

    def xfree_many(self, offsets, /):
        """Give blocks back: all, or, if one of them is none, nothing.

        Parameters
        ----------
        offsets : array_like of int, shape (n,)
            As allocations of this pool answered them, each once.

        Raises
        ------
        InvalidFree
            As in `xfree`, of the first that is no live block, or stands twice.
            No block has been freed.
        BufferError
            A view of one of the blocks is alive; no block has been freed.
        HeapCorruption
            As in `xfree`. Damage of a block itself is found before any is freed.
        """
        cdef uint64_t[::1] blocks = words_argument(offsets, "offsets", True)
        cdef Py_ssize_t i
        cdef Py_ssize_t n = blocks.shape[0]
        _refuse_twice(np.asarray(blocks))
        self.enter()
        for i in range(n):
            self.live(blocks[i], "xfree_many")
            arena_refuse_held(self.arena, blocks[i])
        _refuse_repeated(self, blocks)
        if self.get_mem is not None:
            for i in range(n):
                self.xfree(blocks[i])
            return
        for i in range(n):
            site_freed(&self.arena.c, blocks[i])
            pool_free(&self.arena.c, self.c, blocks[i])
        if self.c.flags & POOL_HARDENED:
            self.raise_damage()

    def usable_size(self, offset, /):
        """Bytes that may be used at a live block: at least those asked for.

        Raises
        ------
        InvalidFree
            As in `xfree`.
        """
        cdef offset_t payload = self.live(offset_argument(offset), "usable_size")
        return pool_capacity(&self.arena.c, self.c, payload)

    def view(self, offset, n_bytes=None, /):
        """Memory of a live block.

        While the view (or anything made from it) is alive, freeing or
        resizing the block and closing the arena are refused.

        Parameters
        ----------
        offset : int
            A live block of this pool.
        n_bytes : int, optional
            At most its usable size, which is the default.

        Returns
        -------
        memoryview
            Writable bytes.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef View view = View.of(n_bytes)
        self.live(payload, "view")
        return view.export(
            self.arena, payload, pool_capacity(&self.arena.c, self.c, payload)
        )

    # Pages

    def reserve(self, n_pages, /):
        """Obtain up to ``n_pages`` ahead of time, in the largest runs first.

        For the TLSF engine only. Where regions come from get_mem, it is asked
        for all of them at once.

        Returns
        -------
        int
            Pages obtained: fewer where limit or arena end.
        """
        cdef uint64_t left
        cdef uint64_t got = 0
        cdef uint64_t largest
        cdef uint32_t page
        left = count_argument(n_pages, "n_pages", 0)
        self.enter()
        if self.c.engine != ENGINE_TLSF:
            raise BadArgument("only the tlsf engine can reserve pages")
        if self.c.max_pages and left > self.c.max_pages - self.c.n_pages:
            left = self.c.max_pages - self.c.n_pages
        if self.get_mem is not None:
            return self.take_mem(left) if left else 0
        while left and self.arena.c.super.frames.order_bitmap:
            largest = bit(
                find_last_set(self.arena.c.super.frames.order_bitmap)
            )
            page = frames_alloc(
                &self.arena.c,
                largest if largest < left else left,
                FRAME_PENDING,
                self.number,
            )
            largest = frame_pages(self.arena.c.frames[page].word)
            region_add(&self.arena.c, self.c, page)
            left -= largest
            got += largest
        return got

    def shrink(self):
        """Give every wholly free region back to the arena.

        Time is linear in the pool's blocks.

        Returns
        -------
        int
            Pages given back.
        """
        cdef cursor_t cursor
        cdef block_info_t info
        cdef uint64_t given = 0
        cdef uint32_t page
        cdef uint64_t n_pages
        cdef arena_t* arena = &self.arena.c
        self.enter()
        if self.c.engine != ENGINE_TLSF:
            return 0
        checker_pause()
        end_quarantine(arena, self.c)
        quick_drain(arena, self.c, ~<uint64_t>0)
        checker_resume()
        self.raise_damage()
        self.c.spare = 0
        cursor_init(arena, &cursor)
        while self.see(&cursor, &info):
            if (
                info.used
                or info.kind == VISIT_WAITING
                or info.size < self.c.release_bytes
            ):
                continue
            page = region_inside(arena, block_of(info.offset), info.size)
            if page == 0:
                continue
            n_pages = frame_pages(arena.frames[page].word)
            checker_pause()
            freelists_remove(
                arena.base, &self.c.tlsf.bins, block_of(info.offset)
            )
            region_cut(arena, self.c, page, block_of(info.offset), info.size)
            checker_resume()
            given += n_pages
            if self.c.returned:
                self.settle()
                self.enter()
            # What was right of the region starts a stretch of its own; the
            # frames may have merged the free pages behind it with ours. If
            # put_mem made the pool grow, it may have joined that on the left.
            cursor.page = frames_head_of(arena, page + n_pages)
            while cursor.page != 0 and (
                frame_state(arena.frames[cursor.page].word) == FRAME_JOINED
            ):
                cursor.page = frames_head_of(
                    arena,
                    cursor.page + frame_pages(arena.frames[cursor.page].word),
                )
            if cursor.page == 0:
                break
            cursor.block = 0
            cursor.covered = 0
        return given

    cdef int refuse_live(self) except -1:
        """PoolInUse if a block is live."""
        self.enter()
        if self.live_blocks() == 0:
            return 0
        blocks = self.walk()
        live = _live_rows(blocks)
        raise PoolInUse(
            f"pool {self.name!r} has {len(live)} live blocks of "
            f"{int(live['size'].sum())} bytes: free them, or destroy it with "
            "force=True",
            live,
        )

    def destroy(self, *, force=False):
        """Give all pages of the pool back; it cannot be used afterwards.

        Regions that get_mem gave go to put_mem.

        Parameters
        ----------
        force : bool
            Also when blocks are live: their offsets are then void; and when
            the pool is corrupt, as long as the page frames are sound.

        Returns
        -------
        numpy.ndarray
            The blocks that were live, as `walk` gives them; empty without
            ``force``, and where corruption hides them.

        Raises
        ------
        PoolInUse
            Blocks are live and ``force`` is not given; the exception's
            ``live`` lists them, and nothing was changed.
        BufferError
            A view of a block is alive.
        """
        cdef uint32_t page, next_page
        cdef uint64_t word
        cdef arena_t* arena
        cdef entry_t* entry
        flag_argument(force, "force")
        try:
            blocks = self.walk()
        except HeapCorruption:
            if not force:
                raise
            # The blocks cannot be told, but the pages can, if these are sound.
            self.arena.check()
            blocks = _table(0)
        live = _live_rows(blocks)
        if not force:
            self.refuse_live()
        self.enter()
        arena = &self.arena.c
        if self.arena.holds.owned != NULL and self.arena.holds.n_lent[self.number]:
            raise BufferError(
                f"arrays or views of pool {self.name!r} are alive "
                f"({self.arena.holds.n_lent[self.number]}): they have to be gone "
                "before it is destroyed"
            )
        regions = []
        for offset in self.arena.exports:
            word = arena.frames[
                frames_head_of(arena, page_of(arena, offset))
            ].word
            if frame_owner(word) == self.number:
                self.arena.refuse_exported(offset)
        entry = &arena.directory[self.number - 1]
        entry.state = ENTRY_EMPTY
        store_barrier()
        memory_pool_destroyed(self.c)
        for offset in live["offset"].tolist():
            site_freed(arena, offset)
        page = arena.first_page
        while page != 0:
            word = arena.frames[page].word
            next_page = page + <uint32_t>frame_pages(word)
            if frame_owner(word) == self.number:
                memset(
                    &arena.start_bits[page_offset(arena, page) >> 10],
                    0,
                    frame_pages(word) << (arena.page_shift - 7),
                )
                hold_clear_pages(
                    &self.arena.holds,
                    page_offset(arena, page),
                    page_offset(arena, frame_pages(word)),
                )
                if self.put_mem is not None and is_region(word, self.number):
                    arena.frames[page].word = frame_pack(
                        FRAME_RUN,
                        ceil_log2(frame_pages(word)),
                        0,
                        frame_pages(word),
                    )
                    memory_open(
                        arena.base + page_offset(arena, page),
                        page_offset(arena, frame_pages(word)),
                    )
                    regions.append((page_offset(arena, page), frame_pages(word)))
                else:
                    frames_free(arena, page)
            # 0 behind the last page; a free neighbour may have been merged.
            page = frames_head_of(arena, next_page)
        for start, n_pages in regions:
            self.put_away(start, n_pages)
        return live

    # Looking at it

    cdef uint64_t live_blocks(self) noexcept:
        """Blocks and page runs in use."""
        if self.c.engine == ENGINE_TLSF:
            return self.c.tlsf.n_used + self.c.n_runs - self.waiting()
        return self.c.firstfit.n_used + self.c.n_runs

    cdef uint64_t waiting(self) noexcept:
        """Freed blocks that the engine still holds in use."""
        return (
            self.c.hard.n_waiting
            + self.c.hard.n_lost
            + quick_count(&self.arena.c, self.c)
        )

    cdef int audit(self, census_t* census) except -1:
        """Check frames and pool, without the GIL, and fill ``census``."""
        cdef finding_t finding
        cdef arena_t* arena
        cdef bint sound
        self.enter()
        arena = &self.arena.c
        self.arena.begin_long()
        try:
            _refuse_gone(self)      # while we waited
            with nogil:
                checker_pause()
                sound = (
                    check_frames(arena, &finding)
                    and check_control(arena, self.number, &finding)
                    and check_pool(arena, self.c, census, &finding)
                )
                checker_resume()
        finally:
            self.arena.end_long()
        if not sound:
            raise self.damage(&finding)
        return 0

    cdef bint see(self, cursor_t* cursor, block_info_t* info) noexcept:
        """`next_block`; it looks at headers, which is no mistake."""
        cdef bint found
        checker_pause()
        found = next_block(&self.arena.c, self.c, cursor, info)
        checker_resume()
        return found

    def check(self):
        """Verify every numbered invariant of the page frames and this pool.

        Walks everything; the GIL is released.

        Raises
        ------
        HeapCorruption
            With the first invariant that does not hold.
        """
        cdef census_t census
        self.audit(&census)

    def check_step(self, n_blocks, /):
        """Verify a slice of the pool, and go on there with the next call.

        For programs that have no time for `check`. Between two calls the pool
        may be used in any way; a round sees every block that is live from its
        beginning to its end, and all that lies beside these.

        Parameters
        ----------
        n_blocks : int
            How many blocks to verify, at least 1; a run of page frames that
            holds none, or a KiB in which none starts, counts as a block. Up
            to 20 more follow, until a live block or the end is reached.

        Returns
        -------
        bool
            Whether this call ended a round; the next one begins anew.

        Raises
        ------
        HeapCorruption
            With the first invariant that does not hold. The next call looks
            at the same place again.
        """
        cdef finding_t finding
        cdef uint64_t left = count_argument(n_blocks, "n_blocks", 1)
        cdef slice_t came
        self.enter()
        checker_pause()
        came = check_slice(&self.arena.c, self.c, &self.step_at, left, &finding)
        checker_resume()
        if came == SLICE_DAMAGE:
            raise self.damage(&finding)
        return came == SLICE_END

    def stats(self):
        """Figures of the pool, counted by walking it.

        Returns
        -------
        PoolStats

        Raises
        ------
        HeapCorruption
            An invariant does not hold, so that figures would mean nothing.
        """
        cdef census_t census
        cdef uint64_t live, used, header, overhead, largest
        cdef uint64_t run_bytes
        self.audit(&census)
        run_bytes = self.c.run_pages << self.arena.c.page_shift
        live = self.live_blocks()
        if self.c.engine == ENGINE_TLSF:
            header = BLOCK_HEADER_BYTES
            used = self.c.tlsf.used_bytes + run_bytes
            overhead = header * (
                self.c.tlsf.n_used + census.n_free + 2 * census.n_stretches
            )
        else:
            header = FIRSTFIT_LINE
            used = self.c.firstfit.used_bytes + run_bytes
            overhead = header * (live + census.n_free)
        largest = census.largest_free - header if census.largest_free else 0
        return PoolStats(
            live_blocks=live,
            used_bytes=used,
            free_bytes=census.free_bytes,
            free_blocks=census.n_free,
            largest_free_bytes=largest,
            n_regions=self.c.n_regions,
            n_pages=self.c.n_pages,
            peak_pages=self.c.peak_pages,
            region_pages=self.c.region_pages,
            run_pages=self.c.run_pages,
            control_pages=self.arena.c.directory[self.number - 1].control_pages,
            overhead_bytes=overhead,
            fragmentation=(
                1.0 - census.largest_free / <double>census.free_bytes
                if census.free_bytes
                else 0.0
            ),
            waiting_blocks=self.waiting() - self.c.hard.n_lost,
            lost_blocks=self.c.hard.n_lost,
        )

    def walk(self):
        """Every block and page run of the pool in address order.

        Returns
        -------
        numpy.ndarray
            Structured: ``offset`` of the payload, ``size`` of the block in
            bytes with its header, ``capacity`` of the payload in bytes,
            ``used``, ``region`` (page where the region or run starts),
            ``kind`` (0 a block, 1 a block of whole pages, 2 pages of a heap's
            page_alloc, 3 a freed block in quarantine or in the quick lists).

        Raises
        ------
        HeapCorruption
            An invariant does not hold.
        """
        cdef census_t census
        cdef cursor_t cursor
        cdef block_info_t info
        cdef row_t[::1] rows
        cdef uint64_t i = 0
        self.audit(&census)
        found = _table(census.n_used + census.n_free + self.c.n_runs)
        if len(found) == 0:
            return found
        rows = found
        self.enter()        # making an array can run a finaliser
        cursor_init(&self.arena.c, &cursor)
        while i < <uint64_t>len(found) and self.see(&cursor, &info):
            rows[i].offset = info.offset
            rows[i].size = info.size
            rows[i].capacity = info.capacity
            rows[i].used = info.used
            rows[i].region = <uint32_t>info.region
            rows[i].kind = info.kind
            i += 1
        return found[:i]
