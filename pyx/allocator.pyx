# SPDX-License-Identifier: BSD-3-Clause
"""Blocks that Python objects own, and arrays over them.

A block with an owner has its bit in ``holds.pxd``: verbs that take offsets
refuse it, so that an offset kept too long frees nobody else's memory. While it
has buffers it is neither freed nor moved, and its pool and arena stay. An owner
may be collected at any moment, so its deallocation never waits and never
raises: see ``free_collected``.

Threading: as in arena.pyx.
"""

from operator import index

import numpy as np

from xmem.base.errors import BadArgument, BadArgumentType, PoolDestroyed

cimport cython
cimport numpy as cnp
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memset

from xmem.arena.arena cimport Arena, View, arena_enter, arena_is_busy
from xmem.arena.holds cimport hold_clear, hold_set, hold_test, holds_defer
from xmem.arena.vm cimport vm_forks
from xmem.base.arguments cimport (
    align_argument,
    count_argument,
    offset_argument,
    size_argument,
    text_argument,
)
from xmem.base.offset cimport offset_t

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    # Without Cython's check: the caller looks for 0 and NULL.
    int PyArray_DescrConverter(object like, PyObject** found) noexcept
    bint PyDataType_REFCHK(cnp.dtype descr)
    PyObject* PyArray_NewFromDescr(
        PyObject* kind,
        cnp.dtype descr,        # a reference to it is taken
        int n_axes,
        const cnp.npy_intp* shape,
        const cnp.npy_intp* strides,
        void* data,
        int flags,
        PyObject* like,
    ) noexcept
    int PyArray_SetBaseObject(cnp.ndarray array, object base) except -1
    PyObject* _ARRAY_TYPE "((PyObject *)&PyArray_Type)"

cdef cnp.dtype _FLOAT = np.dtype(float)
cdef str _C_ORDER = "C"
cdef uint64_t MOST_BYTES = <uint64_t>1 << 62

cdef enum:
    MAX_AXES = 64
    ARRAY_ALIGN = 64        # of arrays where nothing is said: a cache line


cdef void _free_deferred(PyObject* allocator, offset_t payload) noexcept:
    """Free a block whose owner has been collected."""
    (<Allocator>allocator).free_collected(payload)


# Arrays: arguments and construction ------------------------------------------

cdef int _raise_pending() except -1:
    """Raise the exception that a C function has set."""
    return -1


cdef int _refuse_dtype() except -1:
    """Raise our error for what NumPy says of a dtype."""
    try:
        _raise_pending()
    except TypeError as error:
        raise BadArgumentType(f"dtype must be one of NumPy's: {error}") from None
    except (ValueError, SyntaxError) as error:
        raise BadArgument(f"dtype must be one of NumPy's: {error}") from None


cdef cnp.dtype _dtype_of(object dtype):
    """``dtype`` as NumPy's own object."""
    cdef cnp.dtype descr
    cdef PyObject* found = NULL
    if dtype is float:
        return _FLOAT
    if not isinstance(dtype, type) and isinstance(dtype, cnp.dtype):
        return <cnp.dtype>dtype
    if not PyArray_DescrConverter(dtype, &found):
        _refuse_dtype()
    descr = <cnp.dtype>found
    Py_DECREF(descr)                # the converter's reference
    return descr


cdef cnp.dtype _plain_dtype(object dtype):
    """``dtype`` as NumPy's own object; its elements are plain bytes."""
    cdef cnp.dtype descr = _dtype_of(dtype)
    if PyDataType_REFCHK(descr):
        raise BadArgument(
            f"dtype {descr} holds references to Python objects: the collector "
            "does not see them in an arena, and they mean nothing in another "
            "process"
        )
    if descr.itemsize == 0:
        raise BadArgument(
            f"dtype {descr!r} has no size: say how many bytes, as in 'S16'"
        )
    return descr


cdef tuple _as_tuple(object shape):
    """A shape as a tuple and no subclass; its items are yet to be checked."""
    if isinstance(shape, tuple):
        return tuple(shape)
    try:
        return (index(shape),)
    except TypeError:
        if hasattr(shape, "__len__"):
            return tuple(shape)
    raise BadArgumentType(
        "shape must be an integer or a sequence of them, not "
        f"{type(shape).__name__}"
    )


cdef cnp.npy_intp _length_of(object item, object shape) except -1:
    """A length in a shape as a word."""
    cdef uint64_t length = count_argument(item, "each length in shape", 0)
    if length >> 62:
        if not isinstance(shape, tuple):
            shape = (shape,)
        raise BadArgument(f"the shape {shape!r} is larger than any memory")
    return <cnp.npy_intp>length


cdef int _axes_of(object shape, cnp.npy_intp* axes) except -1:
    """Write a shape as words; returns the number of axes."""
    cdef int n = 0
    cdef tuple items
    if isinstance(shape, int):
        axes[0] = _length_of(shape, shape)
        return 1
    items = _as_tuple(shape)
    if len(items) > MAX_AXES:
        raise BadArgument(f"an array has at most {MAX_AXES} axes, not {len(items)}")
    for item in items:
        axes[n] = _length_of(item, items)
        n += 1
    return n


cdef uint64_t _bytes_of(
    int n_axes, cnp.npy_intp* axes, uint64_t n_bytes
) except? 0:
    """Bytes of an array whose elements have ``n_bytes``."""
    cdef int i
    cdef bint is_empty = False
    for i in range(n_axes):
        if axes[i] == 0:
            is_empty = True     # NumPy wants the product of the others to fit, too
            continue
        if (n_bytes | <uint64_t>axes[i]) >> 31 and (
            n_bytes > MOST_BYTES / <uint64_t>axes[i]
        ):
            raise BadArgument("shape and dtype make more bytes than any memory has")
        n_bytes *= <uint64_t>axes[i]
    return 0 if is_empty else n_bytes


cdef int _refuse_changed(
    cnp.dtype descr, int n_axes, cnp.npy_intp* axes, uint64_t n_bytes
) except -1:
    """Refuse a dtype that other code has changed since it was measured."""
    if PyDataType_REFCHK(descr) or _bytes_of(n_axes, axes, descr.itemsize) > n_bytes:
        raise BadArgument("the dtype has changed while the array was made")
    return 0


cdef int _order_of(object order) except -1:
    """1 for Fortran's order, 0 for C's."""
    cdef str text
    if order is _C_ORDER:
        return 0
    text = text_argument(order, "order")
    if text not in ("C", "F"):
        raise BadArgument(f"order must be 'C' or 'F', not {text!r}")
    return text == "F"


cdef int _refuse_array() except -1:
    """Raise our error for what NumPy says of an array that it does not make."""
    try:
        _raise_pending()
    except ValueError as error:
        raise BadArgument(str(error)) from None


cdef cnp.ndarray _array_over(
    object base,
    void* data,
    cnp.dtype descr,
    int n_axes,
    cnp.npy_intp* axes,
    bint is_fortran,
    uint64_t n_bytes,
):
    """An array of the ``n_bytes`` at ``data``, alive as long as ``base`` is."""
    cdef cnp.ndarray array
    cdef PyObject* made
    _refuse_changed(descr, n_axes, axes, n_bytes)
    Py_INCREF(descr)
    made = PyArray_NewFromDescr(
        _ARRAY_TYPE,
        descr,
        n_axes,
        axes,
        NULL,
        data,
        cnp.NPY_ARRAY_FARRAY if is_fortran else cnp.NPY_ARRAY_CARRAY,
        NULL,
    )
    if made == NULL:
        _refuse_array()
    array = <cnp.ndarray>made
    Py_DECREF(array)            # the reference of `made`
    Py_INCREF(base)             # SetBaseObject takes one
    PyArray_SetBaseObject(array, base)
    return array


cdef object _layout_of(cnp.ndarray array, object order):
    """Order for a copy; and the axes by stride, if it is neither C's nor Fortran's."""
    if order == "A":
        return ("F", None) if array.flags.fnc else ("C", None)
    if order != "K":
        return order, None
    if array.flags.c_contiguous:
        return "C", None
    if array.flags.f_contiguous:
        return "F", None
    strides = array.strides
    axes = sorted(range(array.ndim), key=lambda axis: -abs(strides[axis]))
    return "C", axes


# Allocators ------------------------------------------------------------------

@cython.no_gc_clear     # blocks use it until they are gone, in a cycle too
cdef class Allocator:
    """Blocks for objects and arrays: the base class of `Pool` and `Heap`."""

    def __init__(self):
        raise BadArgumentType("Allocator cannot be created; create a Pool or a Heap")

    def __reduce__(self):
        raise BadArgumentType("an allocator cannot be copied or pickled")

    cdef bint is_destroyed(self) noexcept:
        """Whether its pool has been destroyed; called while the arena is open."""
        return True

    cdef int enter(self) except -1:
        """Begin a method: initialised, open, not destroyed."""
        raise BadArgument("the allocator was never initialised")

    cdef offset_t require_live(self, offset_t payload, str verb) except 0:
        """``payload``, proved to be a live block that xfree takes, or the error."""
        self.enter()

    cdef offset_t allocate(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """A block, as xmalloc (or xmalloc_array) gives it."""
        self.enter()

    cdef offset_t resize(
        self,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
        str verb,
    ) except 0:
        """Resize a block that was proved live, as xrealloc does."""
        self.enter()

    cdef int free_live(self, offset_t payload) except -1:
        """Free a block that was proved live and that nobody holds."""
        self.enter()
        return 0

    cdef int settle(self) except -1:
        """Call what waits for the end of `resize_owned`, and may use its block."""
        return 0

    cdef uint64_t capacity(self, offset_t payload, str verb) except? 0:
        """Bytes that may be used at live memory of any kind, or the error."""
        self.enter()
        return 0

    # Blocks with an owner. Nothing runs between a proof and what rests on it.

    cdef int prepare_holds(self) except -1:
        """Begin a method that makes objects own blocks."""
        self.enter()
        return self.arena.prepare_holds(_free_deferred)

    cdef offset_t allocate_owned(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ) except 0:
        """A block, marked as owned."""
        cdef offset_t payload
        self.prepare_holds()
        payload = self.allocate(n_bytes, alignment, is_array, verb)
        hold_set(&self.arena.holds, payload)
        return payload

    cdef offset_t resize_owned(
        self, offset_t payload, uint64_t n_bytes, uint64_t alignment, str verb
    ) except 0:
        """An owned block resized; nobody has a buffer of it.

        The owner takes note of where it is now, and then calls `settle`.
        """
        cdef offset_t moved
        self.arena.refuse_viewed(payload)
        self.require_live(payload, verb)
        moved = self.resize(payload, n_bytes, alignment, False, verb)
        hold_clear(&self.arena.holds, payload)
        hold_set(&self.arena.holds, moved)
        return moved

    cdef int free_owned(self, offset_t payload, str verb) except -1:
        """Free an owned block that is not viewed."""
        hold_clear(&self.arena.holds, payload)
        self.require_live(payload, verb)
        return self.free_live(payload)

    cdef bint free_at_once(self, offset_t payload) noexcept:
        """Free an owned block if nothing stands in the way; False says to ask."""
        return False

    cdef int free_collected(self, offset_t payload) noexcept:
        """Free an owned block whose owner has been collected: never waits.

        Errors are reported by `sys.unraisablehook`. While another thread works in
        the arena the block is freed when that thread has finished; while a view
        by its offset is alive, when that view has ended.
        """
        cdef Arena arena = self.arena
        if self.free_at_once(payload):
            return 0
        if arena.c.base == NULL:
            return 0
        if arena.forks != vm_forks and arena.fd >= 0:
            return 0            # the file is our parent's
        if arena.forks == vm_forks and (
            arena_is_busy(arena) or not arena.hold_at_once()
        ):
            if holds_defer(&arena.holds, <PyObject*>self, payload):
                raise MemoryError(f"the block at {payload:#x} could not be freed")
            return 0
        try:
            self.free_unviewed(payload)
        finally:
            arena.unhold()
        return 0

    cdef int free_unviewed(self, offset_t payload) except -1:
        """Free the block of a collected owner, now or when the last view has ended."""
        cdef Arena arena = self.arena
        if self.is_destroyed() or not hold_test(&arena.holds, payload):
            return 0
        if arena.n_exports and payload in arena.exports:
            arena.orphans[payload] = self
            return 0
        self.free_owned(payload, "release")
        return 0

    cdef Block new_block(
        self, uint64_t n_bytes, uint64_t alignment, bint is_array, str verb
    ):
        """A Block of new memory; the object is made before the memory."""
        cdef Block block = Block.__new__(Block)
        block.offset = self.allocate_owned(n_bytes, alignment, is_array, verb)
        block.allocator = self
        block.n_bytes = <Py_ssize_t>n_bytes
        return block

    def block(self, n, /, align=16):
        """Allocate ``n`` bytes and return an object that owns them.

        Parameters
        ----------
        n : int
            Bytes; their contents are undefined.
        align : int
            Power of two, in bytes; at least 16 is always given.

        Returns
        -------
        Block
            Frees them when it is released or collected.

        Raises
        ------
        OutOfMemory, SizeLimitError, BadArgument, BadArgumentType
            As in ``xmalloc``.
        """
        return self.new_block(
            size_argument(n), align_argument(align), False, "block"
        )

    # Arrays

    cdef object new_array(
        self, object shape, object dtype, object order, object align, str verb
    ):
        """An array of new memory, and of undefined contents."""
        cdef cnp.npy_intp axes[MAX_AXES]
        cdef cnp.dtype descr = _plain_dtype(dtype)
        cdef int n_axes = _axes_of(shape, axes)
        cdef bint is_fortran = _order_of(order)
        cdef uint64_t n_bytes = _bytes_of(n_axes, axes, descr.itemsize)
        cdef uint64_t alignment = align_argument(align)
        cdef BlockExport base = BlockExport.__new__(BlockExport)
        base.own(self, n_bytes, alignment, verb)
        return _array_over(
            base,
            self.arena.c.base + base.offset,
            descr,
            n_axes,
            axes,
            is_fortran,
            n_bytes,
        )

    def empty(self, shape, dtype=float, order="C", *, align=ARRAY_ALIGN):
        """An array in the arena, of undefined contents.

        It owns its memory, which is freed with the last of the array and its
        views. Until then neither pool nor arena can be closed or destroyed.

        Parameters
        ----------
        shape : int or sequence of int
        dtype : dtype_like
            Of plain bytes: a dtype that holds Python objects is refused.
        order : {"C", "F"}
        align : int
            Alignment of the first byte: a power of two, in bytes.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        OutOfMemory, SizeLimitError
            As in ``xmalloc_array`` of a heap, or ``xmalloc`` of a pool.
        BadArgument, BadArgumentType
            An invalid shape, dtype, order or alignment.
        """
        return self.new_array(shape, dtype, order, align, "empty")

    def zeros(self, shape, dtype=float, order="C", *, align=ARRAY_ALIGN):
        """An array of zeros in the arena; otherwise as `empty`."""
        cdef cnp.ndarray array = self.new_array(shape, dtype, order, align, "zeros")
        memset(cnp.PyArray_DATA(array), 0, cnp.PyArray_NBYTES(array))
        return array

    def full(self, shape, fill_value, dtype=None, order="C", *, align=ARRAY_ALIGN):
        """An array in the arena filled with a value; otherwise as `empty`.

        Parameters
        ----------
        shape, order, align
            As in `empty`.
        fill_value : scalar or array_like
            What `numpy.full` takes.
        dtype : dtype_like, optional
            By default that of ``fill_value``.
        """
        if dtype is None:
            dtype = np.asarray(fill_value).dtype
        filled = self.new_array(shape, dtype, order, align, "full")
        np.copyto(filled, fill_value, casting="unsafe")
        return filled

    def array(self, object, dtype=None, order="K", *, align=ARRAY_ALIGN):
        """A copy in the arena of anything that NumPy can convert to an array.

        Parameters
        ----------
        object : array_like
        dtype : dtype_like, optional
            By default the one NumPy finds.
        order : {"K", "A", "C", "F"}
            Of the copy, as in `numpy.array`.
        align : int
            As in `empty`.
        """
        if dtype is not None:
            dtype = _plain_dtype(dtype)
        return self.copied(np.asarray(object, dtype=dtype), order, align, "array")

    def copy_of(self, a, /, order="K", *, align=ARRAY_ALIGN):
        """A copy in the arena of an array.

        Parameters
        ----------
        a : numpy.ndarray
        order, align
            As in `array`.

        Raises
        ------
        BadArgumentType
            Not an array; `array` takes everything that can become one.
        """
        if not isinstance(a, np.ndarray):
            raise BadArgumentType(
                f"copy_of copies a numpy.ndarray, not {type(a).__name__}: use array() "
                "for anything else that NumPy can convert to an array"
            )
        return self.copied(np.asarray(a), order, align, "copy_of")

    cdef object copied(
        self, object source, object order, object align, str verb
    ):
        """A copy of an array."""
        order = text_argument(order, "order")
        if order not in ("K", "A", "C", "F"):
            raise BadArgument(f"order must be 'K', 'A', 'C' or 'F', not {order!r}")
        order, axes = _layout_of(source, order)
        if axes is None:
            made = self.new_array(source.shape, source.dtype, order, align, verb)
        else:
            lengths = [source.shape[axis] for axis in axes]
            made = self.new_array(lengths, source.dtype, "C", align, verb)
            made = made.transpose(np.argsort(axes))
        np.copyto(made, source)
        return made

    def from_offset(self, offset, shape, dtype=float, order="C"):
        """An array over memory that is live already, and stays live after it.

        Memory that another process or an earlier run allocated by ``xmalloc`` or
        `empty` is found by its offset. While the array or a view of it is alive,
        freeing and resizing the memory are refused.

        Parameters
        ----------
        offset : int
            Of a live block or run, whoever owns it.
        shape, dtype, order
            As in `empty`. The arena does not store them: the caller has to
            know them.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        InvalidFree
            As in ``xfree``: no live memory starts there.
        BadArgument, BadArgumentType
            The memory is too short for the array; or as in `empty`.
        """
        cdef cnp.npy_intp axes[MAX_AXES]
        cdef View view = View.__new__(View)
        cdef offset_t payload = offset_argument(offset)
        cdef cnp.dtype descr = _plain_dtype(dtype)
        cdef int n_axes = _axes_of(shape, axes)
        cdef bint is_fortran = _order_of(order)
        cdef uint64_t n_bytes = _bytes_of(n_axes, axes, descr.itemsize)
        cdef uint64_t capacity = self.capacity(payload, "from_offset")
        view.pin(self.arena, payload, n_bytes, capacity)
        return _array_over(
            view,
            self.arena.c.base + payload,
            descr,
            n_axes,
            axes,
            is_fortran,
            n_bytes,
        )

    def block_of(self, array, /):
        """The Block that owns an array's memory.

        Parameters
        ----------
        array : numpy.ndarray
            Made by `empty` or a similar method, or a view of such an array.

        Returns
        -------
        Block
            It cannot be released while the array is alive; it can be detached.

        Raises
        ------
        BadArgument
            The memory is not owned by a Block of this allocator.
        BadArgumentType
            Not an array.
        """
        self.enter()
        base = array
        if not isinstance(base, cnp.ndarray):
            raise BadArgumentType(
                f"block_of looks at a numpy.ndarray, not {type(array).__name__}"
            )
        while isinstance(base, cnp.ndarray):
            base = cnp.get_array_base(base)
        if isinstance(base, BlockExport):
            base = (<BlockExport>base).to_block()
        elif isinstance(base, memoryview):
            base = base.obj             # numpy.frombuffer of a Block
        if (
            not isinstance(base, Block)
            or (<Block>base).allocator is None
            or (<Block>base).allocator.arena is not self.arena
            or (<Block>base).allocator.number != self.number
        ):
            raise BadArgument(
                "the array's memory belongs to no Block of this allocator"
            )
        return base


# Blocks ----------------------------------------------------------------------

@cython.freelist(32)
@cython.no_gc_clear     # __dealloc__ needs the block, in a cycle too
cdef class BlockExport:
    """The base of an array: a buffer of its Block that lives as long as this.

    A memoryview in its place could be released under the array. It owns the memory
    itself until somebody asks for the Block, which nearly nobody does.
    """

    def __init__(self):
        raise BadArgumentType("only the array methods make a BlockExport")

    def __dealloc__(self):
        if self.made is not None:
            self.made.end_export()
        elif self.offset != 0:
            count_exports(self.allocator, -1)
            self.allocator.free_collected(self.offset)

    cdef int own(
        self, Allocator allocator, uint64_t n_bytes, uint64_t alignment, str verb
    ) except -1:
        """Own and export new memory."""
        self.offset = allocator.allocate_owned(n_bytes, alignment, True, verb)
        self.allocator = allocator
        self.n_bytes = <Py_ssize_t>n_bytes
        count_exports(allocator, 1)
        return 0

    cdef Block to_block(self):
        """The Block, to which the memory passes when it is first asked for."""
        cdef Block block
        if self.made is not None or self.offset == 0:
            return self.made
        block = Block.__new__(Block)
        if self.made is None:           # making an object can run a finaliser
            block.allocator = self.allocator
            block.offset = self.offset
            block.n_bytes = self.n_bytes
            block.n_views = 1
            self.made = block
        return self.made

    @property
    def block(self):
        """The Block that owns the memory."""
        return self.to_block()

    def __reduce__(self):
        raise BadArgumentType(
            "an object that exports an arena's memory cannot be copied"
        )


@cython.freelist(32)
@cython.no_gc_clear     # __dealloc__ needs the allocator, in a cycle too
cdef class Block:
    """Memory in an arena that an object owns: freed when released or collected.

    Made by ``block`` of a `Pool` or `Heap`. It has the buffer protocol
    (writable), so that `memoryview`, `numpy.frombuffer` and ``readinto`` work
    on it. While any such view is alive, releasing and resizing it, destroying
    its pool and closing its arena raise BufferError. ``len`` is the size
    requested, in bytes; ``==`` and ``<`` compare contents, as with bytearray. As a
    context manager it is released at the end.

    The verbs that take an offset refuse its ``offset``: only the object frees it.
    """

    def __init__(self):
        raise BadArgumentType("a block is made by block() of a Pool or a Heap")

    def __dealloc__(self):
        if self.offset == 0:
            return
        if not self.detached:
            self.allocator.free_collected(self.offset)

    def __reduce__(self):
        raise BadArgumentType(
            "a block cannot be copied or pickled: only one object owns its memory"
        )

    cdef int enter(self) except -1:
        """Begin a method that needs the memory."""
        if self.allocator is None:
            raise BadArgument("the block was never initialised")
        if self.offset != 0:
            arena_enter(self.allocator.arena)   # where others may go first
        if self.offset == 0:
            raise BadArgument("the block has been released")
        if self.detached:
            raise BadArgument(
                f"the block has been detached: its memory is at {self.offset:#x}; "
                "free it with xfree"
            )
        if self.allocator.is_destroyed():
            raise PoolDestroyed(f"the memory of {self.allocator!r} is gone")
        return 0

    cdef bint is_alive(self) noexcept:
        """Whether the block still owns live memory."""
        return (
            self.offset != 0
            and not self.detached
            and self.allocator.arena.c.base != NULL
            and not self.allocator.is_destroyed()
        )

    cdef int begin_export(self) noexcept:
        """Count a buffer."""
        self.n_views += 1
        count_exports(self.allocator, 1)
        return 0

    cdef int end_export(self) noexcept:
        """Count a buffer that has been released."""
        self.n_views -= 1
        count_exports(self.allocator, -1)
        if self.detached and self.n_views == 0:
            self.allocator.arena.unpin(self.offset)
        return 0

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        self.enter()
        PyBuffer_FillInfo(
            buffer,
            self,
            self.allocator.arena.c.base + self.offset,
            self.n_bytes,
            False,
            flags,
        )
        self.begin_export()

    def __releasebuffer__(self, Py_buffer* buffer):
        self.end_export()

    def __bool__(self):
        return self.offset != 0 and not self.detached

    def __len__(self):
        return self.n_bytes

    def __enter__(self):
        self.enter()
        return self

    def __exit__(self, *exc_info):
        self.release()

    def __richcmp__(self, other, int how):
        cdef Py_buffer mine, theirs
        cdef Py_ssize_t shorter
        cdef int found
        if self is other:
            return how in (Py_EQ, Py_LE, Py_GE)
        if not self.is_alive() or not PyObject_CheckBuffer(other):
            return NotImplemented
        try:
            PyObject_GetBuffer(other, &theirs, PyBUF_SIMPLE)
        except (BufferError, ValueError):
            return NotImplemented       # no plain stretch of bytes
        try:
            PyObject_GetBuffer(self, &mine, PyBUF_SIMPLE)
            shorter = min(mine.len, theirs.len)
            found = memcmp(mine.buf, theirs.buf, shorter)
            if found == 0:
                found = (mine.len > theirs.len) - (mine.len < theirs.len)
            PyBuffer_Release(&mine)
        finally:
            PyBuffer_Release(&theirs)
        if how == Py_EQ:
            return found == 0
        if how == Py_NE:
            return found != 0
        if how == Py_LT:
            return found < 0
        if how == Py_LE:
            return found <= 0
        if how == Py_GT:
            return found > 0
        return found >= 0

    def __repr__(self):
        if self.offset == 0:
            return "<xmem.Block, released>"
        state = (
            ", detached" if self.detached else "" if self.is_alive() else ", gone"
        )
        return f"<xmem.Block of {self.n_bytes} bytes at {self.offset:#x}{state}>"

    @property
    def n_exports(self):
        """Buffers of the block that are alive: views, and arrays over it."""
        return self.n_views

    def view(self):
        """Memory of the block: ``memoryview(block)``.

        Returns
        -------
        memoryview
            Writable bytes.
        """
        return PyMemoryView_FromObject(self)

    def release(self):
        """Free the memory; a second release does nothing.

        Raises
        ------
        BufferError
            A view of the block is alive; it has not been released.
        HeapCorruption
            As in `Pool.xfree` of a hardened pool.
        """
        cdef offset_t payload
        if self.offset == 0:
            return
        if not self.detached and not self.is_alive():
            self.forget()
            return
        arena_enter(self.allocator.arena)
        if self.offset == 0:            # by another thread, while we waited
            return
        self.enter()
        self.refuse_exported("released")
        payload = self.offset
        self.allocator.arena.refuse_viewed(payload)
        self.allocator.require_live(payload, "release")
        self.forget()
        self.allocator.free_owned(payload, "release")

    def resize(self, n, /, align=16):
        """Change its length to ``n`` bytes, keeping what fits of its contents.

        Parameters
        ----------
        n : int
            Bytes; those beyond the old length are undefined.
        align : int
            As in ``xrealloc``: the block's alignment is kept, or raised.

        Raises
        ------
        BufferError
            A view of the block is alive; nothing has changed.
        OutOfMemory, SizeLimitError, BadArgument, BadArgumentType
            As in ``xrealloc``; nothing has changed.
        """
        cdef uint64_t n_bytes = size_argument(n)
        cdef uint64_t alignment = align_argument(align)
        cdef offset_t moved
        self.enter()
        self.refuse_exported("resized")
        self.begin_export()     # so that it stays if get_mem is asked for pages
        try:
            moved = self.allocator.resize_owned(
                self.offset, n_bytes, alignment, "resize"
            )
        finally:
            self.end_export()
        self.offset = moved
        self.n_bytes = <Py_ssize_t>n_bytes
        self.allocator.settle()

    def detach(self):
        """Give up the memory without freeing it: it outlives the object.

        Views and arrays over the block stay valid, and keep it from being
        freed as long as they are alive.

        Returns
        -------
        int
            Its offset, for ``xfree``, or for another run to find.
        """
        self.enter()
        if self.n_views:
            self.allocator.arena.pin(self.offset)
        hold_clear(&self.allocator.arena.holds, self.offset)
        self.detached = True
        return self.offset

    cdef int refuse_exported(self, str what) except -1:
        """BufferError if a buffer of the block is alive."""
        if self.n_views:
            raise BufferError(
                f"views of the block are alive ({self.n_views}): release them "
                f"before it is {what}"
            )
        return 0

    cdef int forget(self) noexcept:
        """Stop owning the memory."""
        self.offset = 0
        self.n_bytes = 0
        return 0
