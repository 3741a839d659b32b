# SPDX-License-Identifier: BSD-3-Clause
"""The heap: one interface of the 2008 proposal, checked, for Python callers.

What each interface allows is decided in heap.pxd; here arguments become words,
integers are proved live, and refusals become exceptions that name the routine
to use. Threading: as in arena.pyx.
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
from xmem.arena.arena cimport View, pages_of_order
from xmem.arena.frames cimport frame_pages
from xmem.arena.sites cimport site_allocated, site_freed
from xmem.arena.superblock cimport page_of
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    flag_argument,
    offset_argument,
    size_argument,
)
from xmem.base.offset cimport offset_t
from xmem.core.control cimport ENGINE_TLSF, POOL_HARDENED
from xmem.core.plain cimport pool_alignment
from xmem.engine.block cimport BLOCK_GRAIN
from xmem.engine.firstfit cimport FIRSTFIT_LINE
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
        Pages that a TLSF pool obtains at a time: 1 in the proposal. The
        limit on a request stays that of a page.
    max_pages : int, optional
        Exact limit on the pages that each pool of the heap holds.
    join_regions : bool
        As in `Pool`.
    hardened : bool or collection of str
        As in `Pool`, for the TLSF pool; not under ``legacy``. `XMALLOC_MAX` is
        8 bytes less with ``"canaries"`` or ``"checksums"``.

    Notes
    -----
    Memory goes back by the routine that matches the one it came from: what is
    mismatched is refused by name, and nothing is changed. In ``merged`` and
    ``legacy`` xfree takes everything. Source: the proposal of October 2008 on
    the Xen developers' list and Xen's ``xen/include/xen/xmalloc.h``.
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
        if self.main is not None:
            raise BadArgument("a heap is initialised once")
        if not isinstance(interface, str):
            raise BadArgumentType(
                f"interface must be str, not {type(interface).__name__}"
            )
        if interface not in INTERFACES:
            raise BadArgument(
                f"interface must be one of {', '.join(map(repr, INTERFACES))}, "
                f"not {interface!r}"
            )
        settings = {
            "grow_pages": count_argument(grow_pages, "grow_pages", 1),
            "max_pages": max_pages,
            "join_regions": join_regions,
        }
        legacy = interface in ("legacy", "subpage")
        main = _Pool(
            arena,
            name=name,
            engine="firstfit" if legacy else "tlsf",
            hardened=False if interface == "subpage" else hardened,
            **settings,
        )
        subpage = None
        if interface == "subpage":
            try:
                subpage = _Pool(
                    arena,
                    name=f"{main.name}.subpage",
                    engine="tlsf",
                    hardened=hardened,
                    **settings,
                )
            except BaseException:
                main.destroy()
                raise
        self.attach(main, subpage, INTERFACES[interface])
        self.main.c.interface = self.c.interface
        self.main.c.role = ROLE_MAIN
        if subpage is not None:
            (<Pool>subpage).c.interface = self.c.interface
            (<Pool>subpage).c.role = ROLE_SUBPAGE

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
        cdef unsigned interface = main.c.interface
        subpage = None
        if main.c.role != ROLE_MAIN or interface not in _NAMES:
            raise BadArgument(f"{name!r} is a pool and no heap: use Pool.open")
        if interface == HEAP_SUBPAGE:
            subpage = _Pool.open(arena, f"{name}.subpage", verify=verify)
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

    # What it is

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

        What happens above it is the interface's matter: a refusal, or whole
        pages. In the ``subpage`` interface it is xmalloc_subpage's limit.
        """
        self.enter()
        if self.c.interface == HEAP_LEGACY:
            return self.c.arena.page_bytes - 2 * FIRSTFIT_LINE
        return heap_small_max(&self.c, BLOCK_GRAIN)

    @property
    def DELTA(self):
        """``PAGE_SIZE - XMALLOC_MAX``: what the block format takes of a page."""
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

    # Beginnings and refusals

    cdef int enter(self) except -1:
        """Begin a method: see `Pool.enter`."""
        if self.main is None:
            raise BadArgument("the heap was never initialised")
        self.main.enter()
        if self.subpage is not None:
            self.subpage.enter()
        return 0

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

    cdef offset_t allocate(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """Serve a request of xmalloc's kind whose arguments are converted."""
        cdef offset_t payload
        self.enter()
        self.main.admit_alignment(alignment)
        payload = heap_alloc(&self.c, n_bytes, alignment, is_array)
        if payload == 0:
            self.main.raise_damage()
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_allocated(self.c.arena, payload, n_bytes)
        return payload

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

    cdef offset_t own(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of xmalloc's, or the error.

        As in `Pool.live`: after it no Python code may run.
        """
        self.enter()
        if heap_owns(&self.c, payload):
            if self.c.main.flags & POOL_HARDENED:
                self.main.prove(payload)
            return payload
        if self.subpage is not None and heap_owns_subpage(&self.c, payload):
            raise MismatchedFree(
                f"{verb}({payload:#x}): memory of xmalloc_subpage: free it with "
                "xfree_subpage"
            )
        if heap_lends(&self.c, payload):
            raise MismatchedFree(
                f"{verb}({payload:#x}): pages of page_alloc: free them with "
                "page_free"
            )
        self.main.refuse(payload, verb)

    cdef offset_t own_subpage(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block of xmalloc_subpage's."""
        self.enter()
        if heap_owns_subpage(&self.c, payload):
            if self.c.subpage.flags & POOL_HARDENED:
                self.subpage.prove(payload)
            return payload
        if heap_owns(&self.c, payload):
            raise MismatchedFree(
                f"{verb}({payload:#x}): memory of xmalloc: free it with xfree"
            )
        if heap_lends(&self.c, payload):
            raise MismatchedFree(
                f"{verb}({payload:#x}): pages of page_alloc: free them with "
                "page_free"
            )
        self.subpage.refuse(payload, verb)

    cdef offset_t own_pages(self, offset_t offset, str verb) except 0:
        """``offset``, proved to be a live run of page_alloc's."""
        self.enter()
        if heap_lends(&self.c, offset):
            return offset
        if heap_owns(&self.c, offset):
            raise MismatchedFree(
                f"{verb}({offset:#x}): memory of xmalloc: free it with xfree"
            )
        if self.subpage is not None and heap_owns_subpage(&self.c, offset):
            raise MismatchedFree(
                f"{verb}({offset:#x}): memory of xmalloc_subpage: free it with "
                "xfree_subpage"
            )
        self.main.refuse(offset, verb)

    cdef int need_subpage(self, str verb) except -1:
        """Refuse the subpage routines where they are absent."""
        self.enter()
        if self.c.subpage == NULL:
            raise NotInInterface(
                f"the 'legacy' interface has no {verb}; it came with 'subpage'"
            )
        return 0

    # What an allocator of owned blocks needs

    cdef bint is_lost(self) noexcept:
        return self.main.is_lost()

    cdef int begin(self) except -1:
        return self.enter()

    cdef offset_t take(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        return self.allocate(n_bytes, alignment, is_array, verb)

    cdef offset_t move(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        self.own(payload, verb)
        return self.resize(payload, n_bytes, alignment, False, verb)

    cdef int give(self, offset_t payload, str verb) except -1:
        self.own(payload, verb)
        return self.free_proved(payload)

    cdef uint64_t room_at(self, offset_t payload, str verb) except? 0:
        return self.room(payload, verb)

    # Allocation

    def xmalloc(self, n, /, align=16):
        """Allocate ``n`` bytes; their contents are undefined.

        Parameters
        ----------
        n : int
            Bytes; 0 gives a block as well, which is to be freed.
        align : int
            Power of two, in bytes; at least 16 is always given.

        Returns
        -------
        int
            Offset of the payload in the arena.

        Raises
        ------
        SizeLimitError
            The interface does not serve so large a request; the message gives
            the limit and the routine that does.
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
        self.need_subpage("xmalloc_subpage")
        if self.subpage is None:
            return self.allocate(n_bytes, alignment, False, "xmalloc_subpage")
        self.subpage.admit_alignment(alignment)
        payload = heap_xmalloc_subpage(&self.c, n_bytes, alignment)
        if payload == 0:
            self.subpage.raise_damage()
            if n_bytes > heap_small_max(&self.c, alignment):
                raise self.limit_error(n_bytes, alignment, "xmalloc_subpage")
            raise self.subpage.no_room(n_bytes, "xmalloc_subpage")
        site_allocated(self.c.arena, payload, n_bytes)
        return payload

    # Resizing and freeing

    cdef offset_t resize(
        self,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
        str verb,
    ) except 0:
        """Resize a block of xmalloc's that was proved live."""
        cdef offset_t moved
        self.main.admit_alignment(alignment)
        moved = heap_resize(&self.c, payload, n_bytes, alignment, is_array)
        if moved == 0:
            self.main.raise_damage()
            # The block keeps the alignment of its birth, and with it the limit.
            alignment = max(
                alignment, pool_alignment(self.c.arena, self.c.main, payload)
            )
            raise self.refusal(n_bytes, alignment, is_array, verb)
        site_freed(self.c.arena, payload)
        site_allocated(self.c.arena, moved, n_bytes)
        return moved

    def xrealloc(self, offset, n, /, align=16):
        """Resize a block of xmalloc's to ``n`` bytes, keeping its contents.

        The alignment asked for at birth is kept, or raised to ``align``.
        Where the interface has both, a block crosses between a page's inside
        and whole pages; a shrunken run gives its tail back.

        Returns
        -------
        int
            Offset of the payload now.

        Raises
        ------
        SizeLimitError, OutOfMemory, BadArgument, BadArgumentType
            As in `xmalloc`; the block is as it was.
        InvalidFree
            No live block of xmalloc's starts at ``offset``.
        BufferError
            A view of the block is alive.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        self.own(payload, "xrealloc")
        self.arena.refuse_exported(payload)
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
        self.own(payload, "xrealloc_array")
        self.arena.refuse_exported(payload)
        return self.resize(payload, n_bytes, alignment, True, "xrealloc_array")

    def xfree(self, offset, /):
        """Give back memory of xmalloc and its kin.

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
        self.enter()
        if not (heap_frees_pages(&self.c) and heap_lends(&self.c, payload)):
            self.own(payload, "xfree")
        self.arena.refuse_exported(payload)
        self.free_proved(payload)

    cdef int free_proved(self, offset_t payload) except -1:
        """Free memory that was proved xfree's and that nobody holds."""
        site_freed(self.c.arena, payload)
        heap_xfree(&self.c, payload)
        return self.main.raise_damage()

    def xfree_subpage(self, offset, /):
        """Give back memory of xmalloc_subpage.

        Raises
        ------
        NotInInterface
            The heap's interface is ``legacy``.
        InvalidFree, BufferError
            As in `xfree`.
        """
        cdef offset_t payload = offset_argument(offset)
        self.need_subpage("xfree_subpage")
        if self.subpage is None:
            self.own(payload, "xfree_subpage")
            self.arena.refuse_exported(payload)
            self.free_proved(payload)
            return
        self.own_subpage(payload, "xfree_subpage")
        self.arena.refuse_exported(payload)
        site_freed(self.c.arena, payload)
        heap_xfree_subpage(&self.c, payload)
        self.subpage.raise_damage()

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
        return self.take_pages(pages_of_order(word), word, "page_alloc")

    def page_alloc_exact(self, n_pages, /):
        """Exactly ``n_pages`` contiguous pages; the tail is given back.

        Returns
        -------
        int
            Offset of the first page in bytes.
        """
        cdef uint64_t count = count_argument(n_pages, "n_pages", 1)
        return self.take_pages(count, count, "page_alloc_exact")

    cdef object take_pages(self, uint64_t n_pages, object n, str verb):
        """Offset of a run that the heap lends."""
        cdef offset_t offset
        self.enter()
        offset = heap_page_alloc(&self.c, n_pages)
        if offset == 0:
            raise self.main.no_room(n, verb)
        site_allocated(self.c.arena, offset, page_offset(self.c.arena, n_pages))
        return offset

    def page_free(self, offset, /):
        """Give back a run of `page_alloc` or `page_alloc_exact`.

        Raises
        ------
        MismatchedFree, DoubleFree, NotABlock
            No run of this heap's page_alloc starts there; nothing was changed.
        BufferError
            A view of the run is alive.
        """
        cdef offset_t where = offset_argument(offset)
        self.own_pages(where, "page_free")
        self.arena.refuse_exported(where)
        site_freed(self.c.arena, where)
        heap_page_free(&self.c, where)

    # The object form

    def XFREE(self, block, /):
        """Free a block object's memory and clear the object.

        A cleared object is let pass, as Xen's XFREE lets NULL pass, so that a
        second XFREE does nothing.

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

    # Looking at it

    cdef uint64_t room(self, offset_t payload, str verb) except? 0:
        """Usable bytes of any live memory of the heap, or the error."""
        self.enter()
        if heap_lends(&self.c, payload):
            return frame_pages(
                self.c.arena.frames[page_of(self.c.arena, payload)].word
            ) << self.c.arena.page_shift
        if self.subpage is not None and heap_owns_subpage(&self.c, payload):
            self.own_subpage(payload, verb)
            return pool_capacity(self.c.arena, self.c.subpage, payload)
        self.own(payload, verb)
        return pool_capacity(self.c.arena, self.c.main, payload)

    def usable_size(self, offset, /):
        """Bytes that may be used at live memory of the heap, of any routine."""
        return self.room(offset_argument(offset), "usable_size")

    def view(self, offset, n_bytes=None, /):
        """Memory of a live block or run of the heap, of any routine.

        While the view is alive, freeing or resizing it and closing the arena
        are refused.

        Returns
        -------
        memoryview
            Writable bytes.
        """
        cdef offset_t payload = offset_argument(offset)
        cdef View view = View.of(n_bytes)
        return view.export(self.main.arena, payload, self.room(payload, "view"))

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
        """Give every wholly free region back; answers the pages given."""
        self.enter()
        given = self.main.shrink()
        if self.subpage is not None:
            given += self.subpage.shrink()
        return given

    def destroy(self, *, force=False):
        """Give all pages of the heap back; as `Pool.destroy`, for each pool.

        Returns
        -------
        tuple of numpy.ndarray
            Per pool, the blocks that were live.
        """
        flag_argument(force, "force")
        self.enter()
        if self.subpage is None:
            return (self.main.destroy(force=force),)
        if not force:
            # Either all or nothing: the first pool would not come back.
            self.subpage.refuse_live()
        return (
            self.main.destroy(force=force),
            self.subpage.destroy(force=force),
        )
