# SPDX-License-Identifier: BSD-3-Clause
"""The heap: one interface of the 2008 proposal, checked, for Python callers.

What each interface allows is decided in interfaces.pxd; here arguments become
words, integers are proved live, and refusals become exceptions that name the
routine to use. Threading: as in arena.pyx.
"""

from xmem.base.errors import (
    BadArgument,
    BadArgumentType,
    MismatchedFree,
    NotInInterface,
    OutOfMemory,
    SizeLimitError,
)
from xmem.pool import Pool as _Pool
from xmem.stats import HeapStats

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from xmem.allocator cimport Allocator, Block
from xmem.arena.arena cimport Arena, View, arena_refuse_held, pages_of_order
from xmem.arena.sites cimport site_allocated, site_freed
from xmem.arena.superblock cimport page_offset
from xmem.base cimport (
    ENGINE_TLSF,
    align_argument,
    count_argument,
    flag_argument,
    likely,
    offset_argument,
    offset_t,
    size_argument,
    text_argument,
    unlikely,
)
from xmem.core cimport POOL_HARDENED, pool_alignment
from xmem.doors cimport Door
from xmem.engine cimport BLOCK_GRAIN, FIRSTFIT_LINE
from xmem.interfaces cimport (
    HEAP_ARRAY,
    HEAP_LEGACY,
    HEAP_MERGED,
    HEAP_STRICT,
    HEAP_SUBPAGE,
    ROLE_MAIN,
    ROLE_SUBPAGE,
    array_bytes,
    heap_alloc,
    heap_frees_pages,
    heap_has_whole,
    heap_lends,
    heap_owns,
    heap_owns_subpage,
    heap_page_alloc,
    heap_page_alloc_order,
    heap_page_free,
    heap_resize,
    heap_run_bytes,
    heap_small_max,
    heap_xfree,
    heap_xfree_subpage,
    heap_xmalloc_subpage,
    heap_zeroed,
)
from xmem.pool cimport Pool
from xmem.verbs cimport pool_capacity

INTERFACES = {
    "strict": HEAP_STRICT,
    "array": HEAP_ARRAY,
    "subpage": HEAP_SUBPAGE,
    "legacy": HEAP_LEGACY,
    "merged": HEAP_MERGED,
}
_NAMES = {number: name for name, number in INTERFACES.items()}


cdef str _interface_argument(object interface):
    """The name of an interface, as a str and no subclass."""
    cdef str text = text_argument(interface, "interface")
    if text not in INTERFACES:
        raise BadArgument(
            f"interface must be one of {', '.join(map(repr, INTERFACES))}, "
            f"not {text!r}"
        )
    return text


@cython.no_gc_clear     # blocks use it until they are gone, in a cycle too
cdef class Heap(Allocator):
    """The routines of Xen's ``xmalloc.h`` under one of five contracts.

    Parameters
    ----------
    arena : Arena
    interface : {"strict", "array", "subpage", "legacy", "merged"}
        ``strict``: xmalloc fails above `XMALLOC_MAX`; larger memory comes
        from page_alloc. ``array``: the same, but xmalloc_array takes whole
        pages above the limit. ``subpage``: the legacy engine behind xmalloc,
        TLSF behind xmalloc_subpage. ``legacy``: the legacy engine alone.
        ``merged``: TLSF below a page and whole pages above, as Xen has it
        since.
    name : str, optional
        By which `Heap.open` finds it again.
    grow_pages : int
        Pages that a TLSF pool obtains at a time: 1 in the proposal. It does not
        change the limit on a request, which is that of a page.
    max_pages : int, optional
        Exact limit on the pages that each pool of the heap holds.
    join_regions : bool
        As in `Pool`.
    hardened : bool or collection of str
        As in `Pool`, for the TLSF pool; not under ``legacy``. `XMALLOC_MAX` is
        8 bytes less with ``"canaries"`` or ``"checksums"``.

    Notes
    -----
    Memory is freed by the routine that matches the one that allocated it: a
    mismatch raises an error that names the right one, and changes nothing. In
    ``merged`` and ``legacy`` xfree takes everything. Source: the proposal of
    October 2008 on the Xen developers' list and Xen's
    ``xen/include/xen/xmalloc.h``.
    """

    def __init__(
        self,
        arena,
        interface="strict",
        *,
        name=None,
        grow_pages=1,
        max_pages=None,
        join_regions=False,
        hardened=False,
    ):
        cdef Pool main
        cdef Pool subpage = None
        self.refuse_again()
        interface = _interface_argument(interface)
        if max_pages is not None:
            max_pages = count_argument(max_pages, "max_pages", 1)
        settings = {
            "grow_pages": count_argument(grow_pages, "grow_pages", 1),
            "max_pages": max_pages,
            "join_regions": join_regions,
            "engine": "firstfit" if interface in ("legacy", "subpage") else "tlsf",
        }
        if isinstance(arena, Arena) and (<Arena>arena).member != NULL:
            self.create_shared(arena, interface, name, hardened, settings)
            return
        main = _Pool(
            arena,
            name=name,
            hardened=False if interface == "subpage" else hardened,
            **settings,
        )
        try:
            if interface == "subpage":
                subpage = _Pool(
                    arena,
                    name=f"{main.name}.subpage",
                    hardened=hardened,
                    **{**settings, "engine": "tlsf"},
                )
            self.found(main, subpage, INTERFACES[interface])
        except BaseException:
            for pool in (main, subpage):
                if pool is not None and not pool.closed:
                    pool.destroy()
            raise

    cdef int create_shared(
        self, Arena arena, str interface, object name, object hardened, dict settings
    ) except -1:
        """Become a new heap in a shared arena, which others see whole or not at all."""
        cdef Pool main
        Door.begin(arena)
        try:
            main = _Pool(arena, name=name, hardened=hardened, **settings)
            main.door.set_heap(INTERFACES[interface], ROLE_MAIN)
        finally:
            Door.commit(arena)
        try:
            self.refuse_again()     # what converted the arguments may have done it
        except BadArgument:
            main.destroy()
            raise
        self.attach(main, None, INTERFACES[interface])
        return 0

    cdef int refuse_again(self) except -1:
        """Refuse to be initialised a second time."""
        if self.main is not None:
            raise BadArgument("a heap cannot be initialised twice")
        return 0

    cdef int found(self, Pool main, Pool subpage, unsigned interface) except -1:
        """Become the heap of one or two new pools."""
        main.enter()
        if subpage is not None:
            subpage.enter()
        self.refuse_again()     # what converted the arguments may have done it
        self.attach(main, subpage, interface)
        main.c.interface = interface
        main.c.role = ROLE_MAIN
        if subpage is not None:
            subpage.c.interface = interface
            subpage.c.role = ROLE_SUBPAGE
        return 0

    cdef int attach(self, Pool main, Pool subpage, unsigned interface) except -1:
        """Become the heap of one or two pools."""
        self.c.arena = &main.arena.c
        self.c.main = main.c
        self.c.interface = interface
        if subpage is not None:
            self.c.subpage = subpage.c
        elif interface == HEAP_LEGACY:
            self.c.subpage = NULL
        else:
            self.c.subpage = main.c
        self.subpage = subpage
        self.main = main
        self.arena = main.arena
        self.number = main.number
        return 0

    @staticmethod
    def open(arena, name, *, verify=True):
        """The heap that was made under ``name``, with its blocks.

        Parameters
        ----------
        arena : Arena
        name : str
        verify : bool
            Check every invariant of page frames and pools first.

        Raises
        ------
        BadArgument
            The arena has no such heap.
        HeapCorruption
            An invariant does not hold.
        """
        cdef Heap heap
        cdef Pool main = _Pool.open(arena, name, verify=verify)
        cdef Pool subpage = None
        cdef unsigned interface
        main.enter()
        interface = main.control.interface
        if main.control.role != ROLE_MAIN or interface not in _NAMES:
            raise BadArgument(f"{main.name!r} is a pool, not a heap: use Pool.open")
        if interface == HEAP_SUBPAGE:
            subpage = _Pool.open(arena, f"{main.name}.subpage", verify=verify)
            subpage.enter()
            if subpage.c.role != ROLE_SUBPAGE:
                raise BadArgument(
                    f"{subpage.name!r} is no part of the heap {main.name!r}, whose "
                    "own has been destroyed"
                )
        heap = Heap.__new__(Heap)
        heap.attach(main, subpage, interface)
        return heap

    def __reduce__(self):
        raise BadArgumentType(
            "a heap cannot be pickled; open its arena's file and Heap.open it"
        )

    def __repr__(self):
        if self.closed:
            return "<xmem.Heap, closed>"
        return f"<xmem.Heap {self.name!r}, {self.interface}>"

    # Properties

    @property
    def name(self):
        """Name of the heap, and of its main pool."""
        return None if self.main is None else self.main.name

    @property
    def closed(self):
        """Whether the heap can no longer be used."""
        return (
            self.main is None
            or self.main.closed
            or (self.subpage is not None and self.subpage.closed)
        )

    @property
    def interface(self):
        """One of the five interfaces, as given when the heap was made."""
        self.enter()
        return _NAMES[self.c.interface]

    @property
    def pools(self):
        """The one or two pools that the heap draws on."""
        self.enter()
        return (self.main,) if self.subpage is None else (self.main, self.subpage)

    @property
    def PAGE_SIZE(self):
        """Bytes of a page frame."""
        self.enter()
        return self.c.arena.page_bytes

    @property
    def XMALLOC_MAX(self):
        """Greatest request that is served from within one page, in bytes.

        The interface decides what happens to larger requests: they are refused,
        or get whole pages. In ``subpage`` it is the limit of xmalloc_subpage.
        """
        self.enter()
        if self.c.interface == HEAP_LEGACY:
            return self.c.arena.page_bytes - 2 * FIRSTFIT_LINE
        return heap_small_max(&self.c, BLOCK_GRAIN)

    @property
    def DELTA(self):
        """``PAGE_SIZE - XMALLOC_MAX``: the block format's share of a page."""
        return self.PAGE_SIZE - self.XMALLOC_MAX

    def xmalloc_max(self, align=16, /):
        """Greatest size in bytes of a small request at an alignment.

        Parameters
        ----------
        align : int
            Power of two, in bytes.

        Returns
        -------
        int
            0 when no small block has that alignment: whole pages have.
        """
        cdef uint64_t alignment = align_argument(align)
        self.enter()
        return heap_small_max(&self.c, alignment)

    # Refusals and proof

    cdef int enter(self) except -1:
        """Begin a method: see `Pool.enter`."""
        if self.main is None:
            raise BadArgument("the heap was never initialised")
        self.main.enter()
        if self.subpage is not None:
            self.subpage.enter()
        return 0

    cdef bint is_destroyed(self) noexcept:
        return self.main.is_destroyed()

    cdef object limit_error(self, uint64_t n_bytes, uint64_t alignment, str verb):
        """The error for a request that the interface forbids."""
        cdef uint64_t most = heap_small_max(&self.c, alignment)
        where = "" if alignment <= BLOCK_GRAIN else f" at alignment {alignment}"
        also = (
            ", or an array from xmalloc_array"
            if self.c.interface == HEAP_ARRAY
            else ""
        )
        return SizeLimitError(
            f"{verb}: {n_bytes} bytes are more than the {most} that the "
            f"{self.interface!r} interface serves{where} (XMALLOC_MAX is "
            f"PAGE_SIZE - DELTA = {self.PAGE_SIZE} - {self.DELTA}): take whole "
            f"pages from page_alloc or page_alloc_exact{also}"
        )

    cdef object refusal(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ):
        """Why a request of xmalloc's kind got nothing."""
        if (
            self.c.main.engine == ENGINE_TLSF
            and n_bytes > heap_small_max(&self.c, alignment)
            and not heap_has_whole(&self.c, is_array)
        ):
            return self.limit_error(n_bytes, alignment, verb)
        return self.main.no_room(n_bytes, verb)

    cdef int refuse(self, Pool pool, offset_t offset, str verb) except -1:
        """Say which routine frees ``offset``, or why none of ``pool`` does."""
        call = f"{verb}({offset:#x})"
        self.enter()        # making a text can run a finaliser
        if self.subpage is not None and heap_owns_subpage(&self.c, offset):
            raise MismatchedFree(
                f"{call}: memory of xmalloc_subpage: free it with xfree_subpage"
            )
        if heap_owns(&self.c, offset):
            raise MismatchedFree(f"{call}: memory of xmalloc: free it with xfree")
        if heap_lends(&self.c, offset):
            raise MismatchedFree(
                f"{call}: pages of page_alloc: free them with page_free"
            )
        pool.refuse(offset, verb)

    cdef offset_t require_live(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of xmalloc, or the error.

        As in `Pool.require_live`: after it no Python code may run.
        """
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                return self.main.require_live(payload, verb)
        if unlikely(not heap_owns(&self.c, payload)):
            self.refuse(self.main, payload, verb)
        if self.c.main.flags & POOL_HARDENED:
            self.main.require_sound(payload)
        return payload

    cdef offset_t require_subpage(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of xmalloc_subpage, or the error.

        The interface has been asked whether it has such blocks.
        """
        if unlikely(not heap_owns_subpage(&self.c, payload)):
            self.refuse(self.subpage, payload, verb)
        if self.c.subpage.flags & POOL_HARDENED:
            self.subpage.require_sound(payload)
        return payload

    cdef Pool pool_of_subpage(self):
        """The pool on which xmalloc_subpage draws."""
        return self.main if self.subpage is None else self.subpage

    cdef offset_t require_run(self, offset_t offset, str verb) except 0:
        """``offset``, proved to be a live run of page_alloc, or the error."""
        if unlikely(not heap_is_ready(self)):
            self.enter()
        if unlikely(not heap_lends(&self.c, offset)):
            self.refuse(self.main, offset, verb)
        return offset

    cdef int require_subpage_interface(self, str verb) except -1:
        """Refuse the subpage routines where they are absent."""
        if unlikely(not heap_is_ready(self)):
            self.enter()
        if unlikely(self.c.subpage == NULL):
            raise NotInInterface(
                f"the 'legacy' interface has no {verb}; it came with 'subpage'"
            )
        return 0

    # In a shared arena: what is proved still holds when the verb works

    cdef int hold(self) except -1:
        """Begin a method, and own the lock of a shared arena until its `unhold`."""
        self.enter()
        self.arena.hold()
        if not self.main.is_gone():
            return 0
        self.arena.unhold()         # it was destroyed while we waited
        return self.enter()

    cdef offset_t allocate_shared(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """`allocate` in a shared arena."""
        cdef offset_t payload
        self.main.require_alignment(alignment)
        self.hold()
        payload = heap_alloc(&self.c, n_bytes, alignment, is_array)
        self.arena.unhold()
        if payload == 0:
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_allocated(self.c.arena, payload, n_bytes)
        return payload

    cdef offset_t resize_shared(
        self,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
        str verb,
    ) except 0:
        """`resize` in a shared arena. What moves is copied without the lock."""
        cdef offset_t moved
        moved = self.main.door.resize(&self.c, payload, n_bytes, alignment, is_array)
        if moved == 0:
            self.hold()
            try:
                self.require_live(payload, verb)
                alignment = max(
                    alignment,
                    pool_alignment(self.c.arena, self.main.control, payload),
                )
            finally:
                self.arena.unhold()
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_freed(self.c.arena, payload)
        site_allocated(self.c.arena, moved, n_bytes)
        return moved

    cdef int free_shared(self, offset_t payload, str verb) except -1:
        """`xfree` in a shared arena."""
        self.hold()
        try:
            if not heap_owns(&self.c, payload) and not (
                heap_frees_pages(&self.c)
                and verb == "xfree"
                and heap_lends(&self.c, payload)
            ):
                self.refuse(self.main, payload, verb)
            arena_refuse_held(self.arena, payload)
            site_freed(self.c.arena, payload)
            heap_xfree(&self.c, payload)
        finally:
            self.arena.unhold()
        return 0

    cdef int page_free_shared(self, offset_t offset) except -1:
        """`page_free` in a shared arena."""
        self.hold()
        try:
            if not heap_lends(&self.c, offset):
                self.refuse(self.main, offset, "page_free")
            arena_refuse_held(self.arena, offset)
            site_freed(self.c.arena, offset)
            heap_page_free(&self.c, offset)
        finally:
            self.arena.unhold()
        return 0

    cdef uint64_t capacity_shared(self, offset_t payload, str verb) except? 0:
        """`capacity` in a shared arena."""
        self.hold()
        try:
            if heap_lends(&self.c, payload):
                return heap_run_bytes(&self.c, payload)
            self.require_live(payload, verb)
            return pool_capacity(self.c.arena, self.main.control, payload)
        finally:
            self.arena.unhold()

    # What Allocator asks of a heap

    cdef offset_t allocate(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """Serve a request of xmalloc or its kin whose arguments are converted."""
        cdef offset_t payload
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                return self.allocate_shared(n_bytes, alignment, is_array, verb)
        if unlikely(alignment > BLOCK_GRAIN):
            self.main.require_alignment(alignment)
        payload = heap_alloc(&self.c, n_bytes, alignment, is_array)
        if unlikely(payload == 0):
            self.main.raise_damage()
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_allocated(self.c.arena, payload, n_bytes)
        return payload

    cdef offset_t resize(
        self,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
        str verb,
    ) except 0:
        """Resize a block of xmalloc that was proved live."""
        cdef offset_t moved
        self.main.require_alignment(alignment)
        if self.main.door is not None:
            return self.resize_shared(payload, n_bytes, alignment, is_array, verb)
        moved = heap_resize(&self.c, payload, n_bytes, alignment, is_array)
        if moved == 0:
            self.main.raise_damage()
            # The block keeps its own alignment, and with it the limit.
            alignment = max(
                alignment, pool_alignment(self.c.arena, self.c.main, payload)
            )
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_freed(self.c.arena, payload)
        site_allocated(self.c.arena, moved, n_bytes)
        return moved

    cdef int free_live(self, offset_t payload) except -1:
        """Free memory that was proved xfree's and that nobody holds."""
        if self.main.door is not None:
            return self.free_shared(payload, "xfree")
        site_freed(self.c.arena, payload)
        heap_xfree(&self.c, payload)
        if self.c.main.flags & POOL_HARDENED:
            self.main.raise_damage()
        return 0

    cdef uint64_t capacity(self, offset_t payload, str verb) except? 0:
        """Usable bytes of any live memory of the heap, or the error."""
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                return self.capacity_shared(payload, verb)
        if heap_lends(&self.c, payload):
            return heap_run_bytes(&self.c, payload)
        if self.subpage is not None and heap_owns_subpage(&self.c, payload):
            self.require_subpage(payload, verb)
            return pool_capacity(self.c.arena, self.c.subpage, payload)
        self.require_live(payload, verb)
        return pool_capacity(self.c.arena, self.c.main, payload)

    # Allocation

    def xmalloc(self, n, /, align=16):
        """Allocate ``n`` bytes; their contents are undefined.

        Parameters
        ----------
        n : int
            Bytes; 0 gives a block as well, which must be freed like any other.
        align : int
            Power of two, in bytes; at least 16 is always given.

        Returns
        -------
        int
            Offset of the payload in the arena.

        Raises
        ------
        SizeLimitError
            The interface does not serve such a large request; the message gives
            the limit and the routine that serves it.
        OutOfMemory
            No room.
        BadArgument, BadArgumentType
            A negative size, an alignment that is no power of two or greater
            than `Arena.max_align`, or not integers.
        """
        return self.allocate(
            size_argument(n), align_argument(align), False, "xmalloc"
        )

    def xzalloc(self, n, /, align=16):
        """Allocate ``n`` bytes of zeros; otherwise as `xmalloc`."""
        cdef uint64_t n_bytes = size_argument(n)
        return heap_zeroed(
            &self.c,
            self.allocate(n_bytes, align_argument(align), False, "xzalloc"),
            n_bytes,
        )

    def xmalloc_bytes(self, n, /, align=16):
        """Allocate ``n`` bytes of no type: another name of `xmalloc`."""
        return self.allocate(
            size_argument(n), align_argument(align), False, "xmalloc_bytes"
        )

    cdef uint64_t total(
        self, uint64_t header, uint64_t count, uint64_t size, str verb
    ) except? 0:
        """``header + count * size``, or the error when it overflows."""
        cdef uint64_t bytes
        if not array_bytes(header, count, size, &bytes):
            raise OutOfMemory(
                f"{verb}: {header} + {count} x {size} bytes overflow 64 bits"
            )
        return bytes

    def xmalloc_array(self, count, size, /, align=16):
        """Allocate ``count`` elements of ``size`` bytes.

        In the ``array`` interface this is the routine that crosses pages:
        above `XMALLOC_MAX` it takes whole ones.

        Raises
        ------
        OutOfMemory
            No room, or ``count * size`` overflows.
        SizeLimitError, BadArgument, BadArgumentType
            As in `xmalloc`.
        """
        cdef uint64_t n_bytes = self.total(
            0,
            count_argument(count, "count", 0),
            count_argument(size, "size", 0),
            "xmalloc_array",
        )
        return self.allocate(n_bytes, align_argument(align), True, "xmalloc_array")

    def xzalloc_array(self, count, size, /, align=16):
        """Allocate ``count`` zeroed elements; otherwise as `xmalloc_array`."""
        cdef uint64_t n_bytes = self.total(
            0,
            count_argument(count, "count", 0),
            count_argument(size, "size", 0),
            "xzalloc_array",
        )
        return heap_zeroed(
            &self.c,
            self.allocate(n_bytes, align_argument(align), True, "xzalloc_array"),
            n_bytes,
        )

    def xmalloc_flex_struct(self, header, size, count, /, align=16):
        """Allocate a structure that ends in an array of ``count`` elements.

        Parameters
        ----------
        header : int
            Bytes of the structure without its elements.
        size : int
            Bytes of an element.
        count : int
            Number of elements.
        align : int
            As in `xmalloc`.

        Raises
        ------
        OutOfMemory
            No room, or ``header + count * size`` overflows.
        SizeLimitError, BadArgument, BadArgumentType
            As in `xmalloc_array`.
        """
        cdef uint64_t n_bytes = self.total(
            count_argument(header, "header", 0),
            count_argument(count, "count", 0),
            count_argument(size, "size", 0),
            "xmalloc_flex_struct",
        )
        return self.allocate(
            n_bytes, align_argument(align), True, "xmalloc_flex_struct"
        )

    def xmemdup(self, data, /, align=16):
        """Allocate a copy of a bytes-like object.

        Raises
        ------
        BadArgumentType
            ``data`` has no buffer.
        BadArgument
            Its bytes are not one C-contiguous stretch.
        SizeLimitError, OutOfMemory, BadArgument
            As in `xmalloc`.
        """
        cdef Py_buffer buffer
        cdef offset_t payload
        cdef uint64_t alignment = align_argument(align)
        if not PyObject_CheckBuffer(data):
            raise BadArgumentType(
                f"xmemdup copies a bytes-like object, not {type(data).__name__}"
            )
        try:
            PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        except (BufferError, ValueError) as error:
            raise BadArgument(
                f"xmemdup copies C-contiguous bytes ({error}): make a copy first"
            ) from None
        try:
            payload = self.allocate(
                <uint64_t>buffer.len, alignment, False, "xmemdup"
            )
            memcpy(self.c.arena.base + payload, buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        return payload

    def xmalloc_subpage(self, n, /, align=16):
        """Allocate ``n`` bytes within a page.

        In the ``subpage`` interface from TLSF, failing above `XMALLOC_MAX`;
        elsewhere another name of `xmalloc`, absent from ``legacy``.

        Raises
        ------
        NotInInterface
            The heap's interface is ``legacy``.
        SizeLimitError, OutOfMemory, BadArgument, BadArgumentType
            As in `xmalloc`.
        """
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        cdef offset_t payload
        self.require_subpage_interface("xmalloc_subpage")
        if self.subpage is None:
            return self.allocate(n_bytes, alignment, False, "xmalloc_subpage")
        self.subpage.require_alignment(alignment)
        payload = heap_xmalloc_subpage(&self.c, n_bytes, alignment)
        if payload == 0:
            self.subpage.raise_damage()
            if n_bytes > heap_small_max(&self.c, alignment):
                raise self.limit_error(n_bytes, alignment, "xmalloc_subpage")
            raise self.subpage.no_room(n_bytes, "xmalloc_subpage")
        site_allocated(self.c.arena, payload, n_bytes)
        return payload

    # Resizing and freeing

    def xrealloc(self, offset, n, /, align=16):
        """Resize a block of xmalloc to ``n`` bytes, keeping its contents.

        The alignment of its allocation is kept, or raised to ``align``. Where
        the interface has both, a block can move from the inside of a page to
        whole pages and back; a run that shrinks gives its tail back.

        Returns
        -------
        int
            The payload's offset after resizing.

        Raises
        ------
        SizeLimitError, OutOfMemory, BadArgument, BadArgumentType
            As in `xmalloc`; the block is as it was.
        InvalidFree
            No live block of xmalloc starts at ``offset``.
        BufferError
            A view of the block is alive.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        self.require_live(payload, "xrealloc")
        arena_refuse_held(self.arena, payload)
        return self.resize(payload, n_bytes, alignment, False, "xrealloc")

    def xrealloc_array(self, offset, count, size, /, align=16):
        """Resize a block to ``count`` elements of ``size`` bytes.

        As `xrealloc`, with the limits and the overflow check of
        `xmalloc_array`.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef uint64_t n_bytes = self.total(
            0,
            count_argument(count, "count", 0),
            count_argument(size, "size", 0),
            "xrealloc_array",
        )
        cdef uint64_t alignment = align_argument(align)
        self.require_live(payload, "xrealloc_array")
        arena_refuse_held(self.arena, payload)
        return self.resize(payload, n_bytes, alignment, True, "xrealloc_array")

    def xfree(self, offset, /):
        """Free memory of xmalloc and its kin.

        In the interfaces ``merged`` and ``legacy`` also pages of page_alloc.

        Raises
        ------
        MismatchedFree
            The memory is another routine's, another heap's or another
            pool's; the message names the routine to use.
        DoubleFree, NotABlock
            No live block starts there.
        BufferError
            A view of the block is alive.
        """
        cdef offset_t payload = offset_argument(offset)
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                self.free_shared(payload, "xfree")
                return
        if likely(heap_owns(&self.c, payload)):
            if self.c.main.flags & POOL_HARDENED:
                self.main.require_sound(payload)
        elif not (heap_frees_pages(&self.c) and heap_lends(&self.c, payload)):
            self.refuse(self.main, payload, "xfree")
        arena_refuse_held(self.arena, payload)
        Heap.free_live(self, payload)

    def xfree_subpage(self, offset, /):
        """Free memory of xmalloc_subpage.

        Raises
        ------
        NotInInterface
            The heap's interface is ``legacy``.
        InvalidFree, BufferError
            As in `xfree`.
        """
        cdef offset_t payload = offset_argument(offset)
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                self.free_shared(payload, "xfree_subpage")
                return
        if unlikely(self.c.subpage == NULL):
            self.require_subpage_interface("xfree_subpage")
        if unlikely(not heap_owns_subpage(&self.c, payload)):
            self.refuse(self.pool_of_subpage(), payload, "xfree_subpage")
        if self.c.subpage.flags & POOL_HARDENED:
            self.pool_of_subpage().require_sound(payload)
        arena_refuse_held(self.arena, payload)
        site_freed(self.c.arena, payload)
        heap_xfree_subpage(&self.c, payload)
        if self.c.subpage.flags & POOL_HARDENED:
            self.pool_of_subpage().raise_damage()

    # Pages

    def page_alloc(self, order=0, /):
        """``2**order`` contiguous pages, aligned to their size.

        Returns
        -------
        int
            Offset of the first page in bytes.

        Raises
        ------
        OutOfMemory, BadArgument, BadArgumentType
            As in `Arena.page_alloc`.
        """
        cdef uint64_t word = count_argument(order, "order", 0)
        self.hold()
        try:
            return self.lent(
                heap_page_alloc_order(&self.c, word),
                pages_of_order(word),
                word,
                "page_alloc",
            )
        finally:
            self.arena.unhold()

    def page_alloc_exact(self, n_pages, /):
        """Exactly ``n_pages`` contiguous pages, which start at any page.

        Returns
        -------
        int
            Offset of the first page in bytes.
        """
        cdef uint64_t count = count_argument(n_pages, "n_pages", 1)
        self.hold()
        try:
            return self.lent(
                heap_page_alloc(&self.c, count), count, count, "page_alloc_exact"
            )
        finally:
            self.arena.unhold()

    cdef object lent(self, offset_t offset, uint64_t n_pages, object n, str verb):
        """Offset of a new run of page_alloc, or the error if it is 0."""
        if offset == 0:
            self.main.raise_damage()
            raise self.main.no_room(n, verb)
        site_allocated(self.c.arena, offset, page_offset(self.c.arena, n_pages))
        return offset

    def page_free(self, offset, /):
        """Free a run of `page_alloc` or `page_alloc_exact`.

        Raises
        ------
        MismatchedFree, DoubleFree, NotABlock
            No run of this heap's page_alloc starts there; nothing was changed.
        BufferError
            A view of the run is alive.
        """
        cdef offset_t where = offset_argument(offset)
        if unlikely(not heap_is_ready(self)):
            self.enter()
            if self.main.door is not None:
                self.page_free_shared(where)
                return
        self.require_run(where, "page_free")
        arena_refuse_held(self.arena, where)
        site_freed(self.c.arena, where)
        heap_page_free(&self.c, where)

    # The object form

    def XFREE(self, block, /):
        """Free a block object's memory and clear the object.

        A cleared object is accepted, as Xen's XFREE accepts NULL, so a second
        XFREE does nothing.

        Raises
        ------
        BadArgumentType
            Not a `Block`.
        MismatchedFree
            A block of another heap.
        """
        cdef Block owner
        if not isinstance(block, Block):
            raise BadArgumentType(
                f"XFREE takes a Block, not {type(block).__name__}; an offset "
                "goes to xfree"
            )
        owner = block
        self.enter()
        if owner.offset == 0:
            return
        if (
            owner.allocator.arena is not self.arena
            or owner.allocator.number != self.number
        ):
            raise MismatchedFree(
                f"XFREE: the block at {owner.offset:#x} is one of "
                f"{owner.allocator!r}: use that"
            )
        owner.release()

    # Inspection

    def usable_size(self, offset, /):
        """Bytes that may be used at live memory of the heap, from any routine."""
        return self.capacity(offset_argument(offset), "usable_size")

    def view(self, offset, n_bytes=None, /):
        """Memory of a live block or run of the heap, from any routine.

        While the view is alive, freeing or resizing it and closing the arena
        are refused.

        Returns
        -------
        memoryview
            Writable bytes.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef View view = View.of(n_bytes)
        return view.export(self.arena, payload, self.capacity(payload, "view"))

    def check(self):
        """Verify every invariant of the page frames and the heap's pools."""
        self.enter()
        self.main.check()
        if self.subpage is not None:
            self.subpage.check()

    def stats(self):
        """Figures of the heap, counted by walking its pools.

        Returns
        -------
        HeapStats
        """
        self.enter()
        parts = [self.main.stats()]
        if self.subpage is not None:
            parts.append(self.subpage.stats())
        return HeapStats(
            interface=_NAMES[self.c.interface],
            live_blocks=sum(part.live_blocks for part in parts),
            used_bytes=sum(part.used_bytes for part in parts),
            free_bytes=sum(part.free_bytes for part in parts),
            n_pages=sum(part.n_pages for part in parts),
            region_pages=sum(part.region_pages for part in parts),
            run_pages=sum(part.run_pages for part in parts),
            control_pages=sum(part.control_pages for part in parts),
            pools=tuple(parts),
        )

    def shrink(self):
        """Give every wholly free region back; returns the number of pages."""
        self.enter()
        given = self.main.shrink()
        if self.subpage is not None:
            given += self.subpage.shrink()
        return given

    def destroy(self, *, force=False):
        """Give all pages of the heap back; as `Pool.destroy`, for each pool.

        What `Pool.destroy` refuses for one of the pools is refused for both.

        Returns
        -------
        tuple of numpy.ndarray
            Per pool, the blocks that were live.
        """
        flag_argument(force, "force")
        self.enter()
        if self.subpage is None:
            return (self.main.destroy(force=force),)
        live = self.main.walk_live(force), self.subpage.walk_live(force)
        main_offsets = live[0]["offset"].tolist()
        subpage_offsets = live[1]["offset"].tolist()
        regions = []        # none: a heap's pools have no put_mem
        self.enter()
        self.main.refuse_end(force)
        self.subpage.refuse_end(force)
        self.main.end(main_offsets, regions)
        self.subpage.end(subpage_offsets, regions)
        return live
