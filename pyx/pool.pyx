# SPDX-License-Identifier: BSD-3-Clause
"""The pool: a heap in an arena, for Python callers.

Arguments become words, every integer is proved to be a live block of this very
pool (``pool_owns``), one C verb does the work, and what went wrong becomes an
exception. A refused call changes nothing. There is no header arithmetic here: the
verbs are in verbs.pxd, creation and destruction in core/creation.pxd, reserving
and shrinking in core/reserve.pxd; check/diagnosis explains a refusal.

Threading: as in arena.pyx; the GIL excludes one method from another.
"""

import numpy as np

from xmem.base.engines import ENGINES
from xmem.base.errors import (
    BadArgument,
    BadArgumentType,
    DoubleFree,
    HeapCorruption,
    OutOfMemory,
    PoolDestroyed,
    PoolInUse,
    corruption,
)
from xmem.stats import PoolStats

cimport cython
cimport numpy as cnp
from cpython.long cimport PyLong_FromLongLong
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from xmem.allocator cimport Allocator
from xmem.arena cimport (
    ENTRY_NAME_BYTES,
    arena_t,
    check_frames,
    check_heads,
    directory_find,
    directory_name,
    directory_vacant,
    entry_t,
)
from xmem.arena.arena cimport (
    Arena,
    View,
    arena_enter,
    arena_is_ready,
    arena_is_viewed,
    arena_refuse_held,
)
from xmem.arena.holds cimport (
    hold_clear,
    hold_clear_pages,
    hold_set,
    hold_test,
    holds_t,
)
from xmem.arena.sites cimport site_allocated, site_freed, sites_on
from xmem.base cimport (
    ENGINE_TLSF,
    align_argument,
    bit,
    checker_pause,
    checker_resume,
    count_argument,
    engine_names,
    find_last_set,
    finding_t,
    flag_argument,
    likely,
    offset_argument,
    offset_t,
    size_argument,
    text_argument,
    unlikely,
    words_argument,
)
from xmem.check cimport (
    SLICE_DAMAGE,
    SLICE_END,
    block_info_t,
    census_t,
    check_control,
    check_own,
    check_pool,
    check_slice,
    cursor_init,
    cursor_t,
    diagnose,
    explain_refusal,
    next_block,
    slice_t,
)
from xmem.core cimport (
    CREATION_DONE,
    CREATION_NAME_TAKEN,
    CREATION_NO_ENTRY,
    HARD_RING,
    POOL_CANARY,
    POOL_CHECKSUM,
    POOL_HARDENED,
    POOL_HOOKED,
    POOL_JOINS,
    POOL_POISON,
    POOL_QUARANTINE,
    POOL_SAFE_LINKS,
    check_payload,
    creation_pages,
    creation_t,
    hard_overhead,
    owns_unshared,
    owner_at,
    pool_create,
    pool_keep,
    pool_numbered,
    pool_owns,
    pool_release_next,
    pool_reserve,
    pool_retire,
    pool_t,
    released_t,
    settings_t,
    shrink_begin,
    shrink_next,
    starts_repeated,
    waiting_give,
)
from xmem.engine cimport (
    BLOCK_GRAIN,
    BLOCK_HEADER_BYTES,
    FIRSTFIT_LINE,
    PAGE_RULE_BYTES,
    REGION_OVERHEAD_BYTES,
)
from xmem.hooks cimport Hooks, hooks_from
from xmem.verbs cimport (
    pool_alloc,
    pool_alloc_patiently,
    pool_capacity,
    pool_free,
    pool_resize_patiently,
    pool_try_again,
)

cnp.import_array()

#: The ways in which a pool can be hardened, by name.
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
    SMALL_ARENA_PAGES = 1 << 14     # whose tables `stats` verifies


cdef packed struct row_t:
    uint64_t offset
    uint64_t size
    uint64_t capacity
    uint8_t used
    uint32_t region
    uint8_t kind


# Creation --------------------------------------------------------------------

cdef bytes _encode_name(object name):
    """A pool's name as the directory stores it."""
    cdef bytes encoded
    try:
        encoded = text_argument(name, "a pool's name").encode()
    except UnicodeEncodeError:
        raise BadArgument(f"the name {name!r} cannot be encoded as UTF-8") from None
    if not encoded or b"\0" in encoded or len(encoded) > ENTRY_NAME_BYTES:
        raise BadArgument(
            f"a pool's name has 1 to {ENTRY_NAME_BYTES} bytes in UTF-8 and no "
            f"NUL, not {name!r}"
        )
    return encoded


cdef int _read_engine(settings_t* settings, object engine) except -1:
    """Set the engine by its name."""
    engine = text_argument(engine, "engine")
    if engine not in ENGINES:
        raise BadArgument(
            f"engine must be {' or '.join(map(repr, ENGINES))}, not {engine!r}"
        )
    settings.engine = ENGINES[engine]
    if settings.engine != ENGINE_TLSF and settings.flags & POOL_HARDENED:
        raise BadArgument("only the tlsf engine can be hardened")
    return 0


cdef int _read_quick(settings_t* settings, object quick) except -1:
    """Set whether the pool has quick lists."""
    settings.has_quicklists = flag_argument(quick, "quick")
    if not settings.has_quicklists:
        return 0
    if settings.engine != ENGINE_TLSF:
        raise BadArgument("only the tlsf engine can have quick lists")
    if settings.flags & POOL_HARDENED:
        raise BadArgument(
            "a hardened pool has no quick lists: use the quarantine, or do without one"
        )
    return 0


cdef int _read_pages(
    settings_t* settings, object grow_pages, object max_pages
) except -1:
    """Set how many pages the pool obtains at a time, and its limit."""
    if grow_pages is not None:
        settings.grow_pages = count_argument(grow_pages, "grow_pages", 1)
    if max_pages is not None:
        settings.max_pages = count_argument(max_pages, "max_pages", 1)
    return 0


cdef object _creation_error(
    Arena arena, creation_t reason, settings_t* settings, bytes name
):
    """Why there is no pool."""
    if reason == CREATION_NO_ENTRY:
        return OutOfMemory(
            f"the arena is full: it has {arena.c.super.max_pools} pools; set "
            "max_pools= when you create it"
        )
    if reason == CREATION_NAME_TAKEN:
        if not name:
            name = b"pool-%d" % directory_vacant(&arena.c)
        return BadArgument(f"the arena has a pool named {name.decode()!r}")
    return OutOfMemory(
        f"a pool's control block needs {creation_pages(&arena.c, settings)} adjacent "
        f"pages; {arena.c.super.frames.n_free_pages} are free"
    )


cdef object _say_repair(Arena arena, object error):
    """The error of a pool that does not open, with what may help."""
    if arena.path is None:
        return error
    return HeapCorruption(
        error.invariant,
        error.offset,
        f"{error.detail} (if a process died while it used the pool, "
        "Arena.open(path, repair=True) repairs it)",
        error.around,
    )


cdef uint32_t _create(Arena arena, bytes name, settings_t* settings) except 0:
    """Number of a new pool; if anything is refused nothing has changed."""
    cdef uint32_t number = 0
    cdef creation_t reason
    if settings.grow_pages > arena.c.n_pages:
        raise BadArgument(
            f"grow_pages is {settings.grow_pages}; the arena has {arena.c.n_pages} "
            "pages"
        )
    if arena.member != NULL:
        reason = Door.create(arena, name, settings, &number)
    else:
        reason = pool_create(&arena.c, <char*>name, len(name), settings, &number)
    if reason != CREATION_DONE:
        raise _creation_error(arena, reason, settings, name)
    return number


cdef unsigned _hardening_flags(object hardened) except? 0xFFFF:
    """Flags of a pool for the argument ``hardened``."""
    cdef unsigned flags = 0
    if isinstance(hardened, (bool, np.bool_)):
        return POOL_HARDENED if hardened else 0
    if isinstance(hardened, str):
        raise BadArgumentType(
            f"hardened must be a truth value or a collection of names, not the "
            f"text {hardened!r}"
        )
    try:
        names = tuple(hardened)
    except TypeError:
        raise BadArgumentType(
            "hardened must be a truth value or a collection of names, not "
            f"{type(hardened).__name__}"
        ) from None
    for name in names:
        if isinstance(name, str):
            name = text_argument(name, "a name in hardened")
        if not isinstance(name, str) or name not in HARDENING:
            raise BadArgument(
                f"hardened may name {', '.join(map(repr, HARDENING))}, not {name!r}"
            )
        flags |= HARDENING[name]
    return flags


cdef object _table(uint64_t n):
    """A zeroed table of ``n`` blocks.

    Its memory is Python's, because NumPy's may come from this very pool.
    """
    return np.frombuffer(bytearray(n * sizeof(row_t)), dtype=BLOCK_DTYPE)


cdef object _live_rows(object blocks):
    """The rows of ``blocks`` that are in use."""
    chosen = blocks[blocks["used"]]
    live = _table(len(chosen))
    live[:] = chosen
    return live


cdef int _refuse_destroyed(Pool pool) except -1:
    """PoolDestroyed if the directory no longer has this pool."""
    if pool_is_destroyed(pool):
        raise PoolDestroyed(f"pool {pool.name!r} has been destroyed")
    return 0


cdef inline bint _is_live(Pool pool, offset_t payload) noexcept:
    """Whether this is a live block of an ordinary pool, in an arena without views.

    False does not say that it is none.
    """
    return (
        pool_is_ordinary(pool)
        and owns_unshared(&pool.arena.c, pool.c, payload)
        and not arena_is_viewed(pool.arena)
    )


# Many blocks -----------------------------------------------------------------

cdef object _allocate_hooked(
    Pool pool, uint64_t[::1] sizes, uint64_t alignment, object offsets
):
    """As `Pool.xmalloc_many`, while the caller's functions may run."""
    cdef uint64_t[::1] blocks = offsets
    cdef Py_ssize_t i, j
    for i in range(sizes.shape[0]):
        try:
            blocks[i] = pool.allocate(sizes[i], alignment, False, "xmalloc_many")
        except BaseException:
            for j in range(i):
                Pool.xfree(pool, blocks[j])
            raise
    return offsets


cdef int _refuse_repeated_runs(object blocks) except -1:
    """DoubleFree if a block of whole pages, which has no start bit, is repeated."""
    found, counts = np.unique(
        blocks[blocks & (PAGE_RULE_BYTES - 1) == 0], return_counts=True
    )
    if (counts > 1).any():
        repeated = int(found[counts > 1][0])
        raise DoubleFree(f"xfree_many: {repeated:#x} occurs twice")
    return 0


cdef int _refuse_repeated(Pool pool, offset_t* blocks, uint64_t n) except -1:
    """DoubleFree if one of these live blocks is repeated."""
    cdef uint64_t i = starts_repeated(&pool.arena.c, blocks, n)
    if i < n:
        raise DoubleFree(f"xfree_many: {blocks[i]:#x} occurs twice")
    return 0


cdef bint _has_runs(offset_t* payloads, uint64_t n) noexcept nogil:
    """Whether one of these may be a block of whole pages."""
    cdef uint64_t i
    for i in range(n):
        if payloads[i] & (PAGE_RULE_BYTES - 1) == 0:
            return True
    return False


cdef uint64_t _count_up_to(uint64_t* sizes, uint64_t n, uint64_t most) noexcept nogil:
    """How many of these sizes, from the first, are at most ``most``."""
    cdef uint64_t i
    for i in range(n):
        if sizes[i] > most:
            return i
    return n


cdef uint64_t _count_free_to_go(
    arena_t* arena, pool_t* pool, holds_t* holds, offset_t* payloads, uint64_t n
) noexcept nogil:
    """How many of these, from the first, are live blocks that no object owns."""
    cdef uint64_t i
    for i in range(n):
        if unlikely(
            not pool_owns(arena, pool, payloads[i]) or hold_test(holds, payloads[i])
        ):
            return i
    return n


cdef uint64_t _allocate_each(
    arena_t* arena,
    pool_t* pool,
    uint64_t* sizes,
    uint64_t n,
    uint64_t alignment,
    offset_t* payloads,
) noexcept nogil:
    """Allocate blocks of these sizes until there is no room; returns how many."""
    cdef uint64_t i
    for i in range(n):
        payloads[i] = pool_alloc_patiently(arena, pool, sizes[i], alignment)
        if unlikely(payloads[i] == 0):
            return i
    return n


cdef void _free_each(
    arena_t* arena, pool_t* pool, offset_t* payloads, uint64_t n
) noexcept nogil:
    """Free live blocks, each once."""
    cdef uint64_t i
    for i in range(n):
        pool_free(arena, pool, payloads[i])


cdef int _refuse_reserve(settings_t* settings, uint64_t n_pages) except -1:
    """Refuse pages to reserve that the pool can never have."""
    if n_pages == 0:
        return 0
    if settings.engine != ENGINE_TLSF:
        raise BadArgument("only the tlsf engine can reserve pages")
    if settings.max_pages != 0 and n_pages > settings.max_pages:
        raise BadArgument(
            f"reserve={n_pages} is more than max_pages={settings.max_pages}"
        )
    return 0


# The class -------------------------------------------------------------------

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
        legacy first fit, for comparison.
    grow_pages : int, optional
        Pages obtained at a time. The default is 16 or, once that is more, an
        eighth of its regions' pages (with ``join_regions=False`` always 16); but
        the last region of the arena, if it is the pool's and ends in a free block,
        is extended by just the pages that the request needs.
        Larger requests take as many as they need; where the limit, or the free
        pages side by side, leave fewer, fewer are obtained.
        The legacy engine always takes single pages.
    max_pages : int, optional
        Exact limit on the pages held for blocks and runs.
    join_regions : bool
        Join regions that lie side by side into one stretch.
    hardened : bool or collection of str
        Which stray writes to look for, at a bounded cost in each call:
        True for all of `HARDENING`, or some of these names. ``"canaries"``: a
        pattern behind each block's bytes; ``"checksums"``: the word behind it
        is keyed by a secret of the arena and covers the header;
        ``"safe_links"``: headers and links next to a block are verified before
        they are followed; ``"poison"``: the first bytes of freed memory are
        overwritten, and verified when the memory is used again;
        ``"quarantine"``: a freed block waits until 16 others have been freed.
        For the tlsf engine; `usable_size` is then exactly the size requested.
    reserve : int
        Pages that the pool obtains now, and with fewer of which no `xfree` leaves its
        regions: while they suffice no call takes or gives back a region. Blocks that
        are aligned to more than 2048 are page runs, which come in addition. `shrink`,
        and requests that find no room otherwise, give empty regions back all the same.
        For the tlsf engine.
    quick : bool
        Whether freed blocks of up to 4096 bytes, header included, wait on quick lists
        to be used again as they are. That makes most calls much shorter, and the
        longest somewhat longer; waiting blocks do not merge with their neighbours, and
        keep their region in the pool. At most an eighth of the bytes live in regions
        and 16 KiB wait when a block joins them. Above that limit each xmalloc that the
        lists do not serve gives two waiting blocks to the engine, the largest first,
        and so does each xfree of a block that would exceed the limit, or that leaves
        more waiting than it admits; a request that finds no room gives a few and is
        tried again; `drain` gives as many as it is told. No region leaves the pool with
        them: `shrink` gives all blocks to the engine and then every empty region back.
        An xrealloc passes the lists by as long as the engine has room. For the tlsf
        engine, not hardened.
    get_mem, put_mem : callable, optional
        Where regions come from and go to, in place of the arena's own frames;
        both or neither. ``get_mem(n_pages)`` returns the offset of a run of at
        least ``n_pages`` pages from `Arena.page_alloc` or `page_alloc_exact`, or
        None; ``put_mem(offset, n_pages)`` takes such a run back, which is
        the caller's from then on. An exception of get_mem leaves the verb, and
        nothing has changed; one of put_mem goes to `sys.unraisablehook`, because
        the call that returned the region has been carried out.

    Raises
    ------
    BadArgument, BadArgumentType
        An invalid argument, or a name that is taken.
    OutOfMemory
        No room for the control block, or for the pages to reserve.
    ArenaClosed
        The arena has been closed.

    Notes
    -----
    Offsets are bytes from the arena's base. Every verb checks, exactly, that
    an offset is a live block of this pool; any other integer raises one of
    the `InvalidFree` errors and changes nothing.
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
        quick=False,
        reserve=0,
        get_mem=None,
        put_mem=None,
    ):
        cdef settings_t settings
        cdef uint64_t kept = count_argument(reserve, "reserve", 0)
        cdef uint32_t number
        cdef bytes encoded
        self.refuse_again()
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        memset(&settings, 0, sizeof(settings_t))
        if flag_argument(join_regions, "join_regions"):
            settings.flags = POOL_JOINS
        settings.flags |= _hardening_flags(hardened)
        _read_engine(&settings, engine)
        _read_pages(&settings, grow_pages, max_pages)
        _read_quick(&settings, quick)
        _refuse_reserve(&settings, kept)
        hooks = hooks_from(settings.engine, get_mem, put_mem)
        encoded = b"" if name is None else _encode_name(name)
        (<Arena>arena).enter()
        if (<Arena>arena).member != NULL:
            Door.refuse(&settings, hooks)
        # What converted the arguments may have initialised this pool; from here to
        # its end it cannot.
        self.refuse_again()
        (<Arena>arena).hold()
        try:
            number = _create(arena, encoded, &settings)
            self.attach(arena, directory_name(&(<Arena>arena).c, number), number)
        finally:
            (<Arena>arena).unhold()
        self.hook(hooks)
        if kept != 0:
            self.keep(kept)

    cdef int keep(self, uint64_t n_pages) except -1:
        """Obtain the pages that the pool keeps, or destroy it."""
        cdef uint64_t taken = 0
        try:
            if self.door is not None:
                taken = self.door.reserve(n_pages, True)
            elif self.hooks is None:
                taken = pool_keep(&self.arena.c, self.c, n_pages)
            else:
                # Before the caller's function, which can end pool and arena.
                self.control.kept_pages = n_pages
                taken = self.hooks.obtain(self, self.c, n_pages)
                self.enter()
        finally:
            if taken < n_pages and not self.is_gone():
                Pool.destroy(self)
        if taken < n_pages:
            raise OutOfMemory(
                f"{n_pages} pages cannot be reserved: there were only {taken}"
            )
        return 0

    cdef int refuse_again(self) except -1:
        """Refuse to be initialised a second time."""
        if self.arena is not None:
            raise BadArgument("a pool cannot be initialised twice")
        return 0

    cdef int hook(self, Hooks hooks) except -1:
        """Take regions from the caller's functions, or with None from the arena."""
        self.enter()        # making the hooks can have run a finaliser
        self.hooks = hooks
        self.ordinary = 0
        if self.door is not None:
            return 0
        if hooks is None:
            self.control.flags &= ~<uint32_t>POOL_HOOKED
        else:
            self.control.flags |= POOL_HOOKED
        return 0

    @staticmethod
    def open(arena, name, *, verify=True, get_mem=None, put_mem=None):
        """The pool that was made under ``name``, with its blocks.

        Parameters
        ----------
        arena : Arena
        name : str
        verify : bool
            Check every invariant of the pool first (time linear in its pages
            and blocks), and those of the page frames unless they have been
            checked since the arena was mapped, by `Arena.open`, `Arena.check`,
            `check`, or the opening of another pool. So opening many pools
            checks the frames once. Damage done to the frames in the meantime is
            found as far as it concerns this pool or the heads of the page runs;
            `check` finds all of it.
        get_mem, put_mem : callable, optional
            As in `Pool`; functions are not kept in the arena.

        Raises
        ------
        BadArgument
            The arena has no such pool.
        HeapCorruption
            An invariant does not hold: the pool is damaged, or a process died
            in the middle of a call; `Arena.open` with ``repair=True`` repairs
            what that left.
        """
        cdef Pool pool = Pool.__new__(Pool)
        cdef Arena owner
        cdef bytes encoded
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        owner = arena
        encoded = _encode_name(name)
        flag_argument(verify, "verify")
        if get_mem is not None or put_mem is not None:
            owner.refuse_shared("get_mem and put_mem cannot be")
        owner.hold()
        try:
            pool._find(owner, encoded, verify)
        finally:
            owner.unhold()
        pool.enter()        # a free that was deferred can have called put_mem
        pool.hook(hooks_from(pool.control.engine, get_mem, put_mem))
        return pool

    cdef int _find(self, Arena owner, bytes encoded, bint verify) except -1:
        """Become the handle of the pool of a name."""
        cdef finding_t finding
        cdef census_t census
        cdef uint32_t number
        cdef entry_t* entry = directory_find(&owner.c, encoded, len(encoded))
        if entry == NULL:
            known = ", ".join(map(repr, owner.pools())) or "none"
            raise BadArgument(
                f"no pool named {encoded.decode()!r}; the arena has: {known}"
            )
        number = <uint32_t>(entry - owner.c.directory) + 1
        if not check_control(&owner.c, number, &finding):
            raise _say_repair(
                owner,
                corruption(
                    finding.code, finding.offset, finding.found, finding.expected
                ),
            )
        self.attach(owner, encoded.decode(), number)
        if verify:
            try:
                self.verify(&census, not owner.frames_checked, False)
            except HeapCorruption as error:
                raise _say_repair(owner, error) from None
        return 0

    @staticmethod
    def open_or_create(
        arena,
        name,
        *,
        grow_pages=None,
        max_pages=None,
        join_regions=True,
        quick=False,
        reserve=0,
    ):
        """The pool of a name, which is made if there is none.

        Of processes that ask together one makes it, and all have the same.

        Parameters
        ----------
        arena, name, grow_pages, max_pages, join_regions, quick, reserve
            As in `Pool`. A pool that is there stays as it is.

        Raises
        ------
        BadArgument, OutOfMemory
            As in `Pool`.
        HeapCorruption
            As in `Pool.open`.
        """
        if not isinstance(arena, Arena):
            raise BadArgumentType(
                f"arena must be an Arena, not {type(arena).__name__}"
            )
        name = _encode_name(name).decode()
        (<Arena>arena).hold()
        try:
            if name in (<Arena>arena).pools():
                return Pool.open(arena, name)
            return Pool(
                arena,
                name=name,
                grow_pages=grow_pages,
                max_pages=max_pages,
                join_regions=join_regions,
                quick=quick,
                reserve=reserve,
            )
        finally:
            (<Arena>arena).unhold()

    cdef int attach(self, Arena arena, str name, uint32_t number) except -1:
        """Become the handle of an existing pool."""
        arena.enter()       # making an object can have run a finaliser
        self.name = name
        self.number = number
        self.serial = arena.c.directory[number - 1].serial
        self.c = self.control = pool_numbered(&arena.c, number)
        self.entry = &arena.c.directory[number - 1]
        if arena.member != NULL:
            self.door = Door.to(arena, number, name)
            self.c = self.door.stub()
        self.arena = arena
        return 0

    def __reduce__(self):
        raise BadArgumentType(
            "a pool cannot be pickled; open its arena's file and Pool.open it"
        )

    def __repr__(self):
        cdef uint64_t n_pages
        if self.is_gone():
            return f"<xmem.Pool {self.name!r}, closed>"
        n_pages = self.control.n_pages
        engine = engine_names.get(self.control.engine, "unknown")
        return f"<xmem.Pool {self.name!r}, {engine}, {n_pages} pages held>"

    # Properties

    @property
    def closed(self):
        """Whether the pool can no longer be used: destroyed, or its arena closed."""
        return self.is_gone()

    @property
    def id(self):
        """Number of the pool in the arena, from 1; ``owner`` in the frame table."""
        return self.number

    @property
    def engine(self):
        """``"tlsf"`` or ``"firstfit"``."""
        self.enter()
        return engine_names.get(self.control.engine, "unknown")

    @property
    def grow_pages(self):
        """Pages obtained at a time, at least."""
        self.enter()
        return self.control.grow_pages

    @property
    def kept_pages(self):
        """Pages of regions with fewer of which no `xfree` leaves the pool."""
        self.enter()
        return self.control.kept_pages

    @property
    def quick(self):
        """Whether freed blocks wait on quick lists to be used again."""
        self.enter()
        return self.control.quicklists != 0

    @property
    def max_pages(self):
        """Greatest number of pages held; 0 when only the arena limits it."""
        self.enter()
        return self.control.max_pages

    @property
    def join_regions(self):
        """Whether regions that lie side by side are joined."""
        self.enter()
        return (self.control.flags & POOL_JOINS) != 0

    @property
    def hardening(self):
        """Names of the ways in which the pool is hardened, from `HARDENING`."""
        cdef unsigned flags
        self.enter()
        flags = self.control.flags
        return tuple([name for name, flag in HARDENING.items() if flags & flag])

    @property
    def maxalloc(self):
        """Greatest request that one region of ``grow_pages`` serves, bytes."""
        self.enter()
        if self.control.engine != ENGINE_TLSF:
            return self.arena.c.page_bytes - 2 * FIRSTFIT_LINE
        return (
            (self.control.grow_pages << self.arena.c.page_shift)
            - REGION_OVERHEAD_BYTES
            - hard_overhead(self.control)
        )

    @property
    def used_size(self):
        """Bytes in use, headers included: blocks and runs."""
        self.enter()
        return self.control.run_pages * self.arena.c.page_bytes + (
            self.control.tlsf.used_bytes
            if self.control.engine == ENGINE_TLSF
            else self.control.firstfit.used_bytes
        )

    @property
    def total_size(self):
        """Bytes of all pages held: regions and runs."""
        self.enter()
        return self.control.n_pages << self.arena.c.page_shift

    # Proof

    cdef int enter(self) except -1:
        """Begin a method: see `Arena.enter`. An ordinary pool is recorded as such."""
        if self.arena is None:
            raise BadArgument("the pool was never initialised")
        arena_enter(self.arena)
        _refuse_destroyed(self)
        if (
            arena_is_ready(self.arena)      # not ours, in a finaliser of its thread
            and self.hooks is None
            and not self.c.flags & POOL_HARDENED
            and not sites_on
        ):
            self.ordinary = vm_changes
        return 0

    cdef bint is_destroyed(self) noexcept:
        return pool_is_destroyed(self)

    cdef bint is_gone(self) noexcept:
        """`closed`, whatever a subclass says."""
        return (
            self.arena is None
            or self.arena.c.base == NULL
            or pool_is_destroyed(self)
        )

    cdef offset_t require_live(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of this pool, or the error.

        The caller has converted all its arguments: from here to the C level
        no Python code may run, because it could free the block again.
        """
        if unlikely(not pool_is_ordinary(self)):
            self.enter()
            if self.door is not None:
                return self.require_shared(payload, verb)
        if unlikely(not pool_owns(&self.arena.c, self.c, payload)):
            self.refuse(payload, verb)
        if self.c.flags & POOL_HARDENED:
            self.require_sound(payload)
        return payload

    cdef offset_t require_shared(self, offset_t payload, str verb) except 0:
        """`require_live` in a shared arena, where others may free the block then."""
        self.arena.hold()
        try:
            _refuse_destroyed(self)
            if not pool_owns(&self.arena.c, self.control, payload):
                self.refuse(payload, verb)
        finally:
            self.arena.unhold()
        return payload

    cdef int refuse(self, offset_t payload, str verb) except -1:
        """Say why ``payload`` is no live block of this pool; always raises."""
        call = f"{verb}({payload:#x})"
        self.enter()        # making a text can run a finaliser
        raise explain_refusal(&self.arena.c, self.control, payload, call)

    cdef int require_sound(self, offset_t payload) except -1:
        """HeapCorruption if a hardened pool's live block is damaged."""
        cdef finding_t finding
        cdef bint is_sound
        if not self.control.flags & POOL_HARDENED:      # behind a door
            return 0
        checker_pause()
        is_sound = check_payload(&self.arena.c, self.control, payload, &finding)
        checker_resume()
        if not is_sound:
            raise self.damage(&finding)
        return 0

    cdef int raise_damage(self) except -1:
        """HeapCorruption for what a verb of a hardened pool found."""
        cdef finding_t finding
        if self.c.hard.damage.code == 0:
            return 0
        finding = self.c.hard.damage
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

    cdef int require_alignment(self, uint64_t alignment) except -1:
        """Refuse an alignment that addresses in this arena do not keep."""
        cdef uint64_t most = bit(find_last_set(self.arena.c.alignment))
        if alignment > most:
            raise BadArgument(
                f"align must be at most {most} bytes in this arena, not {alignment}"
            )
        return 0

    cdef object no_room(self, object n, str verb):
        """The error for a request that the pool cannot serve."""
        most = self.control.max_pages
        limit = f" of at most {most}" if most else ""
        if self.control.quick_count:
            limit += (
                f" ({self.control.quick_count} freed blocks of "
                f"{self.control.quick_bytes} bytes wait in the quick lists: drain() or "
                "shrink() gives them back)"
            )
        elif self.hooks is None and self.could_shrink_for(n):
            limit += (
                "; some of its regions may be wholly free: shrink() gives those back"
            )
        return self.arena.no_room(
            f"{verb}({n})", f"the pool holds {self.control.n_pages} pages{limit}; "
        )

    cdef bint could_shrink_for(self, object n_bytes) except -1:
        """Whether there would be room if no region kept its free bytes."""
        cdef pool_t* control = self.control
        if control.engine != ENGINE_TLSF:
            return False
        used = control.run_pages * self.arena.c.page_bytes + control.tlsf.used_bytes
        free = control.n_pages * self.arena.c.page_bytes - used
        more = self.arena.c.super.frames.n_free_pages * self.arena.c.page_bytes
        if control.max_pages:
            more = min(more, control.max_pages * self.arena.c.page_bytes - used - free)
        return free >= self.arena.c.page_bytes and n_bytes <= free + more

    # What Allocator asks of a pool

    cdef offset_t allocate(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """Serve a request whose arguments have been converted."""
        cdef offset_t payload
        if unlikely(not pool_is_ordinary(self)):
            self.enter()
            if self.door is not None:
                return self.allocate_shared(n_bytes, alignment, verb)
        if unlikely(alignment > BLOCK_GRAIN):
            self.require_alignment(alignment)
        payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
        if unlikely(payload == 0):
            payload = self.allocate_more(n_bytes, alignment, verb)
        site_allocated(&self.arena.c, payload, n_bytes)
        return payload

    cdef offset_t allocate_more(
        self, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """Serve a request that found no room: patiently, by get_mem, or not at all."""
        cdef offset_t payload
        payload = pool_try_again(&self.arena.c, self.c, n_bytes, alignment)
        if payload == 0 and self.hooks is not None:
            self.hooks.obtain_for(self, self.c, n_bytes, alignment)
            self.enter()
            payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
        if payload == 0:
            self.raise_damage()
            raise self.no_room(n_bytes, verb)
        return payload

    cdef offset_t allocate_shared(
        self, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """`allocate` in a shared arena."""
        cdef offset_t payload
        self.require_alignment(alignment)
        payload = self.door.alloc(n_bytes, alignment)
        if payload == 0:
            raise self.no_room(n_bytes, verb)
        site_allocated(&self.arena.c, payload, n_bytes)
        return payload

    cdef offset_t resize_shared(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """`resize` in a shared arena."""
        cdef offset_t moved = self.door.resize(NULL, payload, n_bytes, alignment, False)
        if moved == 0:
            self.require_live(payload, verb)
            raise self.no_room(n_bytes, verb)
        site_freed(&self.arena.c, payload)
        site_allocated(&self.arena.c, moved, n_bytes)
        return moved

    cdef int free_shared(self, offset_t payload) except -1:
        """`free_live` in a shared arena: another process may have been first."""
        if not self.door.give(payload):
            self.refuse(payload, "xfree")
        site_freed(&self.arena.c, payload)
        return 0

    cdef offset_t resize(
        self,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
        str verb,
    ) except 0:
        """Resize a block that was proved live and that nobody else holds."""
        cdef offset_t moved
        self.require_alignment(alignment)
        if self.door is not None:
            return self.resize_shared(payload, n_bytes, alignment, verb)
        moved = pool_resize_patiently(
            &self.arena.c, self.c, payload, n_bytes, alignment
        )
        if moved == 0:
            moved = self.resize_more(payload, n_bytes, alignment, verb)
        site_freed(&self.arena.c, payload)
        site_allocated(&self.arena.c, moved, n_bytes)
        if (
            self.c.returned
            and self.hooks is not None
            and not hold_test(&self.arena.holds, payload)
        ):
            self.hooks.put_returned(self, self.c)
        return moved

    cdef int settle(self) except -1:
        """Call put_mem, if a resize has returned a region."""
        if self.hooks is not None and not self.is_gone() and self.c.returned:
            self.hooks.put_returned(self, self.c)
        return 0

    cdef offset_t resize_more(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """Resize a block where there was no room, by get_mem or not at all."""
        cdef offset_t moved = 0
        cdef bint is_owned = hold_test(&self.arena.holds, payload)
        if self.hooks is not None:
            self.hooks.obtain_for(self, self.c, n_bytes, alignment)
            self.require_live(payload, verb)
            self.arena.refuse_viewed(payload)
            if hold_test(&self.arena.holds, payload) != is_owned:
                raise BufferError(
                    f"get_mem changed who owns the block at {payload:#x}"
                )
            moved = pool_resize_patiently(
                &self.arena.c, self.c, payload, n_bytes, alignment
            )
        if moved == 0:
            self.raise_damage()
            raise self.no_room(n_bytes, verb)
        return moved

    cdef int free_live(self, offset_t payload) except -1:
        """Free a block that was proved live and that nobody holds."""
        if self.door is not None:
            return self.free_shared(payload)
        site_freed(&self.arena.c, payload)
        pool_free(&self.arena.c, self.c, payload)
        if self.c.returned and self.hooks is not None:
            self.hooks.put_returned(self, self.c)
            if self.is_gone():      # by put_mem
                return 0
        if self.c.flags & POOL_HARDENED:
            self.raise_damage()
        return 0

    cdef offset_t allocate_owned(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """As `Allocator.allocate_owned`, with less to ask of an ordinary pool."""
        cdef offset_t payload
        if unlikely(
            not pool_is_ordinary(self)
            or self.arena.holds.owned == NULL
            or alignment > self.arena.c.alignment
        ):
            return Allocator.allocate_owned(
                self, n_bytes, alignment, is_array, verb
            )
        payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
        if unlikely(payload == 0):
            payload = Pool.allocate_more(self, n_bytes, alignment, verb)
        hold_set(&self.arena.holds, payload)
        return payload

    cdef bint free_at_once(self, offset_t payload) noexcept:
        """Free an owned block of an ordinary pool that nobody views."""
        if unlikely(
            not _is_live(self, payload)
            or not hold_test(&self.arena.holds, payload)
        ):
            return False
        hold_clear(&self.arena.holds, payload)
        pool_free(&self.arena.c, self.c, payload)
        return True

    cdef uint64_t capacity(self, offset_t payload, str verb) except? 0:
        """Bytes that may be used at a live block, or the error."""
        self.require_live(payload, verb)
        if self.door is not None:
            return self.capacity_shared(payload, verb)
        return pool_capacity(&self.arena.c, self.c, payload)

    cdef uint64_t capacity_shared(self, offset_t payload, str verb) except? 0:
        """`capacity` in a shared arena: proof and answer are one hold of the lock."""
        self.arena.hold()
        try:
            self.require_live(payload, verb)
            return pool_capacity(&self.arena.c, self.control, payload)
        finally:
            self.arena.unhold()

    # Verbs

    def xmalloc(self, n, /, align=16):
        """Allocate ``n`` bytes; their contents are undefined.

        Parameters
        ----------
        n : int
            Bytes; 0 gives a block as well, which must be freed like any other.
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
            The pool or the arena has no room.
        BadArgument, BadArgumentType
            A negative size, an alignment that is no power of two or greater
            than `Arena.max_align`, or not integers.
        HeapCorruption
            The pool is hardened, and a free block that the request needs is
            damaged, or one that left the quarantine to make room. Nothing was
            allocated; a block damaged in the quarantine is never used again,
            so the next request does without it.
        """
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        cdef offset_t payload
        if unlikely(alignment > BLOCK_GRAIN or not pool_is_ordinary(self)):
            payload = Pool.allocate(self, n_bytes, alignment, False, "xmalloc")
        else:
            payload = pool_alloc(&self.arena.c, self.c, n_bytes, alignment)
            if unlikely(payload == 0):
                payload = Pool.allocate_more(self, n_bytes, alignment, "xmalloc")
        return PyLong_FromLongLong(<long long>payload)

    def xzalloc(self, n, /, align=16):
        """Allocate ``n`` bytes of zeros; otherwise as `xmalloc`."""
        cdef uint64_t n_bytes = size_argument(n)
        cdef offset_t payload = self.allocate(
            n_bytes, align_argument(align), False, "xzalloc"
        )
        memset(self.arena.c.base + payload, 0, n_bytes)
        return payload

    def xrealloc(self, offset, n, /, align=16):
        """Resize a block to ``n`` bytes, keeping its contents.

        In place where there is room, else leftwards or moved. The alignment
        of its allocation is kept, or raised to ``align``.

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
            The payload's offset after resizing.

        Raises
        ------
        OutOfMemory
            No room; the block is as it was.
        InvalidFree
            ``offset`` is no live block of this pool.
        BufferError
            A view of the block is alive.
        HeapCorruption
            As in `xmalloc`, or the pool is hardened and the block is damaged;
            the block is as it was.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        self.require_live(payload, "xrealloc")
        arena_refuse_held(self.arena, payload)
        return self.resize(payload, n_bytes, alignment, False, "xrealloc")

    def xfree(self, offset, /):
        """Free a block.

        Parameters
        ----------
        offset : int
            As returned by an allocation of this pool.

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
            The pool is hardened, and the block is damaged: it stays live. Or a
            block freed earlier was damaged in the quarantine: this block
            has been freed, and that one is never used again.
        """
        cdef offset_t payload = offset_argument(offset)
        if (
            likely(_is_live(self, payload))
            and not hold_test(&self.arena.holds, payload)
        ):
            pool_free(&self.arena.c, self.c, payload)
        else:
            Pool.require_live(self, payload, "xfree")
            arena_refuse_held(self.arena, payload)
            Pool.free_live(self, payload)

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
            No room for one of them; those before it have been freed again.
        BadArgument, BadArgumentType
            As in `xmalloc`, or ``sizes`` is no array of one dimension.
        """
        cdef uint64_t alignment = align_argument(align)
        cdef cnp.ndarray wanted = words_argument(sizes, "sizes", False)
        cdef uint64_t* words = <uint64_t*>cnp.PyArray_DATA(wanted)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(wanted, 0)
        cdef cnp.ndarray offsets = cnp.PyArray_ZEROS(1, &n, cnp.NPY_UINT64, 0)
        cdef offset_t* blocks = <offset_t*>cnp.PyArray_DATA(offsets)
        cdef uint64_t i, done
        self.enter()
        self.require_alignment(alignment)
        done = _count_up_to(words, n, self.control.max_request)
        if done < <uint64_t>n:
            raise self.no_room(words[done], "xmalloc_many")
        if self.hooks is not None:
            return _allocate_hooked(self, wanted, alignment, offsets)
        if self.door is not None:
            done = self.door.alloc_each(words, n, alignment, blocks)
        else:
            done = _allocate_each(&self.arena.c, self.c, words, n, alignment, blocks)
        if done < <uint64_t>n:
            if self.door is not None:
                self.door.free_each(blocks, done)
            else:
                _free_each(&self.arena.c, self.c, blocks, done)
            self.raise_damage()
            raise self.no_room(words[done], "xmalloc_many")
        if sites_on:
            for i in range(done):
                site_allocated(&self.arena.c, blocks[i], words[i])
        return offsets

    def xfree_many(self, offsets, /):
        """Free blocks: all of them or, if one is not a live block, none.

        Parameters
        ----------
        offsets : array_like of int, shape (n,)
            As returned by allocations of this pool, each once.

        Raises
        ------
        InvalidFree
            As in `xfree`, for the first that is no live block, or is repeated.
            No block has been freed.
        BufferError
            A view of one of the blocks is alive; no block has been freed.
        HeapCorruption
            As in `xfree`. Damage to one of the blocks is found before any is freed.
        """
        cdef cnp.ndarray words = words_argument(offsets, "offsets", True)
        cdef offset_t* blocks = <offset_t*>cnp.PyArray_DATA(words)
        cdef uint64_t n = cnp.PyArray_DIM(words, 0)
        cdef uint64_t i, proved = 0
        if _has_runs(blocks, n):
            _refuse_repeated_runs(words)
        self.enter()
        if (
            self.door is None
            and not self.control.flags & POOL_HARDENED
            and not arena_is_viewed(self.arena)
        ):
            proved = _count_free_to_go(
                &self.arena.c, self.c, &self.arena.holds, blocks, n
            )
        for i in range(proved, n):
            self.require_live(blocks[i], "xfree_many")
            arena_refuse_held(self.arena, blocks[i])
        _refuse_repeated(self, blocks, n)
        if self.hooks is not None:
            for i in range(n):
                Pool.xfree(self, blocks[i])
            return
        if sites_on:
            for i in range(n):
                site_freed(&self.arena.c, blocks[i])
        if self.door is not None:
            self.refuse_gone(self.door.free_each(blocks, n), "xfree_many")
            return
        _free_each(&self.arena.c, self.c, blocks, n)
        if self.control.flags & POOL_HARDENED:
            self.raise_damage()

    cdef int refuse_gone(self, offset_t payload, str verb) except -1:
        """InvalidFree for a block that another process has freed, unless it is 0."""
        if payload != 0:
            self.refuse(payload, verb)
        return 0

    def usable_size(self, offset, /):
        """Bytes that may be used at a live block: at least those requested.

        Raises
        ------
        InvalidFree
            As in `xfree`.
        """
        cdef offset_t payload = self.require_live(
            offset_argument(offset), "usable_size"
        )
        if unlikely(self.door is not None):
            return self.capacity_shared(payload, "usable_size")
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
        return view.export(self.arena, payload, self.capacity(payload, "view"))

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
        cdef uint64_t count = count_argument(n_pages, "n_pages", 0)
        self.enter()
        if self.control.engine != ENGINE_TLSF:
            raise BadArgument("only the tlsf engine can reserve pages")
        if self.door is not None:
            return self.door.reserve(count, False)
        if self.hooks is None:
            return pool_reserve(&self.arena.c, self.c, count)
        if self.control.max_pages:
            count = min(count, self.control.max_pages - self.control.n_pages)
        return self.hooks.obtain(self, self.c, count) if count else 0

    def drain(self, n_blocks, /):
        """Give freed blocks that wait to the engine, which merges them.

        Of the quick lists the largest, of a hardened pool's quarantine those that have
        waited longest. No region leaves the pool: see `shrink`. Time is linear in the
        blocks given.

        Parameters
        ----------
        n_blocks : int
            How many at most.

        Returns
        -------
        int
            Blocks that left: fewer where no more wait.

        Raises
        ------
        HeapCorruption
            A block was damaged in the quarantine: it is never used again.
        """
        cdef uint64_t count = count_argument(n_blocks, "n_blocks", 0)
        self.enter()
        if self.door is not None:
            return self.door.drain(count)
        count = waiting_give(&self.arena.c, self.c, count)
        self.raise_damage()
        return count

    def shrink(self):
        """Give every wholly free region back to the arena.

        Time is linear in the pool's blocks.

        Returns
        -------
        int
            Pages given back.
        """
        cdef uint64_t total = 0
        cdef uint64_t page, n_pages
        self.enter()
        if self.control.engine != ENGINE_TLSF:
            return 0
        page = self.arena.c.first_page
        if self.door is not None:
            return self.door.shrink()
        shrink_begin(&self.arena.c, self.c)
        self.raise_damage()
        while True:
            n_pages = shrink_next(&self.arena.c, self.c, &page)
            if n_pages == 0:
                return total
            total += n_pages
            if self.hooks is not None:
                self.hooks.put_returned(self, self.c)
                self.enter()

    cdef int refuse_live(self) except -1:
        """PoolInUse if a block is live."""
        self.enter()
        if self.live_blocks() == 0:
            return 0
        live = _live_rows(Pool.walk(self))
        raise PoolInUse(
            f"pool {self.name!r} has {len(live)} live blocks of "
            f"{int(live['size'].sum())} bytes: free them, or destroy it with "
            "force=True",
            live,
        )

    def destroy(self, *, force=False):
        """Give all pages of the pool back; it cannot be used afterwards.

        Nor can a heap of two pools that has lost one: destroy the heap instead.
        Regions that came from get_mem go to put_mem.

        Parameters
        ----------
        force : bool
            Also when blocks are live, whose offsets are then void; and when
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
        flag_argument(force, "force")
        self.enter()
        self.arena.hold()
        try:
            live = self.walk_live(force)
            offsets = live["offset"].tolist()
            regions = []
            self.enter()
            self.refuse_end(force)
            self.end(offsets, regions)
        finally:
            self.arena.unhold()
        given = tuple(regions)          # the collector shows lists to put_mem
        for i in range(0, len(given), 2):
            self.hooks.put(given[i], given[i + 1])
        return live

    cdef int refuse_end(self, bint force) except -1:
        """PoolInUse or BufferError if the pool, just entered, is still in use."""
        if not force:
            self.refuse_live()
        return self.refuse_exports()

    cdef int end(self, list offsets, list regions) except -1:
        """Give all pages back, and append the regions that put_mem is to have.

        ``offsets`` are those of the live blocks. Nothing refuses it, and no Python
        code runs, not even a finaliser: the only objects made are integers.
        """
        cdef released_t released
        cdef uint32_t page = self.arena.c.first_page
        if self.door is not None:
            self.door.retire()
        else:
            pool_retire(&self.arena.c, self.c)
        for offset in offsets:
            site_freed(&self.arena.c, offset)
        while (
            self.door.release_next(&page, &released)
            if self.door is not None
            else pool_release_next(
                &self.arena.c, self.number, self.hooks is not None, &page, &released
            )
        ):
            hold_clear_pages(
                &self.arena.holds, released.start, released.n_bytes
            )
            if released.is_kept:
                regions.append(released.start)
                regions.append(released.n_pages)
        return 0

    cdef object walk_live(self, bint force):
        """The live blocks; with ``force`` none if corruption hides them."""
        try:
            return _live_rows(Pool.walk(self))
        except HeapCorruption:
            if not force:
                raise
            # The blocks cannot be told, but the pages can, if the frames are sound.
            self.arena.check()
            return _table(0)

    cdef int refuse_exports(self) except -1:
        """BufferError if an array or a view of a block of the pool is alive."""
        if self.arena.holds.owned != NULL and self.arena.holds.n_lent[self.number]:
            raise BufferError(
                f"arrays or views of pool {self.name!r} are alive "
                f"({self.arena.holds.n_lent[self.number]}): release them before "
                "destroying it"
            )
        for offset in self.arena.exports:
            if owner_at(&self.arena.c, offset) == self.number:
                self.arena.refuse_exported(offset)
        return 0

    # Inspection

    cdef uint64_t live_blocks(self) noexcept:
        """Blocks and page runs in use."""
        if self.control.engine == ENGINE_TLSF:
            return self.control.tlsf.n_used + self.control.n_runs - self.waiting()
        return self.control.firstfit.n_used + self.control.n_runs

    cdef uint64_t waiting(self) noexcept:
        """Freed blocks that the engine still holds in use."""
        return (
            self.control.hard.n_waiting
            + self.control.hard.n_lost
            + self.control.quick_count
        )

    cdef uint64_t waiting_bytes(self) noexcept:
        """Size of the freed blocks that wait, headers included."""
        cdef uint64_t n_bytes = self.control.quick_bytes
        cdef unsigned slot
        for slot in range(HARD_RING):
            if self.control.hard.ring[slot] != 0:
                n_bytes += self.control.hard.sizes[slot]
        return n_bytes

    cdef int verify(
        self, census_t* census, bint all_frames, bint control
    ) except -1:
        """Check frames, control block and blocks without the GIL; fill ``census``.

        Without ``all_frames`` only the heads of the page runs are checked, so
        that the walk ends; without ``control`` the control block is trusted.
        """
        return self.verify_by(census, all_frames, control, True)

    cdef int verify_by(
        self, census_t* census, bint all_frames, bint control, bint everywhere
    ) except -1:
        """``verify``; without ``everywhere`` it is the pool's own pages alone.

        In a small arena it is everything all the same.
        """
        self.enter()
        self.arena.hold()
        try:
            return self.verify_held(census, all_frames, control, everywhere)
        finally:
            self.arena.unhold()

    cdef int verify_held(
        self, census_t* census, bint all_frames, bint control, bint everywhere
    ) except -1:
        """``verify_by`` under the lock, where the arena is shared."""
        cdef finding_t finding
        cdef arena_t* arena = &self.arena.c
        cdef bint is_sound
        if not everywhere and arena.n_pages <= SMALL_ARENA_PAGES:
            all_frames = everywhere = True
        self.arena.begin_long()
        try:
            _refuse_destroyed(self)     # while we waited
            with nogil:
                checker_pause()
                is_sound = (
                    (
                        check_frames(arena, &finding)
                        if all_frames
                        else check_heads(arena, &finding)
                    )
                    and (not control or check_control(arena, self.number, &finding))
                    and (
                        check_pool(arena, self.control, census, &finding)
                        if everywhere
                        else check_own(arena, self.control, census, &finding)
                    )
                )
                checker_resume()
        finally:
            self.arena.end_long()
        if not is_sound:
            raise self.damage(&finding)
        self.arena.frames_checked |= all_frames
        return 0

    cdef bint see(self, cursor_t* cursor, block_info_t* info) noexcept:
        """`next_block`, whose reading of headers memory checkers ignore."""
        cdef bint found
        checker_pause()
        found = next_block(&self.arena.c, self.control, cursor, info)
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
        self.verify(&census, True, True)

    def check_step(self, n_blocks, /):
        """Verify a slice of the pool; the next call goes on where this one ends.

        For programs that have no time for `check`. Between two calls the pool
        may be used in any way. A round sees every block that is live from its
        beginning to its end, and the neighbours of these blocks.

        Parameters
        ----------
        n_blocks : int
            How many blocks to verify, at least 1. A run of page frames without
            blocks, or a KiB in which no block starts, counts as a block. Up to 64
            more follow, until a live block or the end is reached.

        Returns
        -------
        bool
            Whether this call ended a round; the next one starts a new round.

        Raises
        ------
        HeapCorruption
            With the first invariant that does not hold. The next call starts
            at the same place again.
        """
        cdef finding_t finding
        cdef uint64_t left = count_argument(n_blocks, "n_blocks", 1)
        cdef slice_t end
        self.enter()
        self.arena.hold()
        checker_pause()
        end = check_slice(&self.arena.c, self.control, &self.step_at, left, &finding)
        checker_resume()
        self.arena.unhold()
        if end == SLICE_DAMAGE:
            raise self.damage(&finding)
        return end == SLICE_END

    def stats(self):
        """Figures of the pool, counted by walking it.

        This takes time in proportion to the pool, and to the number of page runs in
        the arena, however long they are. Only in an arena of at most 2**14 pages are
        all its tables verified, as `check` does everywhere.

        Returns
        -------
        PoolStats

        Raises
        ------
        HeapCorruption
            An invariant does not hold, so figures would mean nothing.
        """
        self.enter()
        self.arena.hold()
        try:
            return self._stats()
        finally:
            self.arena.unhold()

    cdef object _stats(self):
        cdef census_t census
        cdef uint64_t live, used, header, overhead, largest, run_bytes
        self.verify_by(&census, False, True, False)
        run_bytes = self.control.run_pages << self.arena.c.page_shift
        live = self.live_blocks()
        if self.control.engine == ENGINE_TLSF:
            header = BLOCK_HEADER_BYTES
            used = self.control.tlsf.used_bytes + run_bytes
            overhead = header * (
                self.control.tlsf.n_used + census.n_free + 2 * census.n_stretches
            )
        else:
            header = FIRSTFIT_LINE
            used = self.control.firstfit.used_bytes + run_bytes
            overhead = header * (live + census.n_free)
        largest = census.largest_free
        if largest != 0:
            largest -= header + hard_overhead(self.control)
        return PoolStats(
            live_blocks=live,
            used_bytes=used,
            free_bytes=census.free_bytes,
            free_blocks=census.n_free,
            largest_free_bytes=largest,
            n_regions=self.control.n_regions,
            n_pages=self.control.n_pages,
            peak_pages=self.control.peak_pages,
            region_pages=self.control.region_pages,
            run_pages=self.control.run_pages,
            control_pages=self.arena.c.directory[self.number - 1].control_pages,
            overhead_bytes=overhead,
            fragmentation=(
                1.0 - census.largest_free / <double>census.free_bytes
                if census.free_bytes
                else 0.0
            ),
            waiting_blocks=self.waiting() - self.control.hard.n_lost,
            waiting_bytes=self.waiting_bytes(),
            lost_blocks=self.control.hard.n_lost,
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
            page_alloc, 3 a freed block in quarantine or in the quick lists, 4 a
            lost one, which was damaged in the quarantine).

        Raises
        ------
        HeapCorruption
            An invariant does not hold.
        """
        self.enter()
        self.arena.hold()
        try:
            return self._walk()
        finally:
            self.arena.unhold()

    cdef object _walk(self):
        cdef census_t census
        cdef cursor_t cursor
        cdef block_info_t info
        cdef row_t[::1] rows
        cdef uint64_t i = 0
        self.verify(&census, True, True)
        found = _table(census.n_used + census.n_free + self.control.n_runs)
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
