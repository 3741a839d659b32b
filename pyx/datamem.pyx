# SPDX-License-Identifier: BSD-3-Clause
"""NumPy's data memory from an arena: the handler and its context manager.

A handler is a record of four functions that NumPy calls, in a capsule that each
array keeps until its data has been freed. So an array made under a handler is
freed by that handler, wherever and whenever. Each allocation is a block that
its array owns, and counts as a buffer of it: see ``holds.pxd``.

NumPy calls the four functions from any thread and does not promise to hold the
GIL. It nearly always does, so malloc and free look first; otherwise they acquire it
themselves. They cannot raise: they return NULL when there
is no room, which NumPy turns into a MemoryError, and report any other error by
`sys.unraisablehook`. An array may be freed while an exception is pending, which
has to survive that.

References to Python objects are counted by each process for itself, so a table of
them must not lie where another process sees it. A handler does not learn the dtype
of an array, but NumPy asks for zeroed memory where references are to lie. So in an
arena in a file zeroed memory is the C library's; see ``_calloc``.
"""

from contextvars import ContextVar

from xmem.base.errors import BadArgument, BadArgumentType, SizeLimitError

cimport numpy as cnp
from cpython.exc cimport (
    PyErr_Fetch,
    PyErr_Restore,
    PyErr_SetObject,
    PyErr_WriteUnraisable,
)
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset, strcpy

from xmem.allocator cimport Allocator, count_exports
from xmem.arena.arena cimport Arena
from xmem.base.arguments cimport align_argument, flag_argument
from xmem.base.offset cimport offset_t

cdef extern from *:
    """
    /* Whether this thread holds the GIL. The state of the thread that holds it is
       compared, never read: it may be another's. */
    static CYTHON_INLINE int xmem_holds_gil(void) {
    #if CYTHON_COMPILING_IN_CPYTHON
    #if PY_VERSION_HEX >= 0x030D0000
        PyThreadState *state = PyThreadState_GetUnchecked();
    #else
        PyThreadState *state = _PyThreadState_UncheckedGet();
    #endif
        return state != NULL && state == PyGILState_GetThisThreadState();
    #else
        return 0;
    #endif
    }
    """
    bint holds_gil "xmem_holds_gil"() noexcept nogil

cnp.import_array()

cdef const char* CAPSULE_NAME = "mem_handler"       # NumPy's choice

# What a context has entered and not left: None or, the last first, a manager, the
# handler that was in force before it, the rest, and the token that proves the context.
_entered = ContextVar("xmem.numpy_memory", default=None)
# Its tokens can be used only in the context that made them, not in a copy of it.
_place = ContextVar("xmem.numpy_memory.place", default=None)


cdef struct handler_t:
    cnp.PyDataMem_Handler numpy     # first: what the capsule points to
    PyObject* allocator             # a reference of the handler's
    uint64_t alignment
    bint falls_back


# Functions that need the GIL, as code calls them that has made sure that it is held.
ctypedef void* (*take_t)(handler_t*, size_t) noexcept nogil
ctypedef void (*give_t)(handler_t*, void*) noexcept nogil


cdef inline bint _is_inside(Arena arena, void* at) noexcept:
    """Whether memory of a handler is the arena's, and not the C library's."""
    return (
        arena.c.base != NULL
        and <uint64_t>at - <uint64_t>arena.c.base < arena.c.n_bytes
    )


cdef inline bint _is_shared(Arena arena) noexcept:
    """Whether another process may see the arena's pages: a child that was forked."""
    return arena.fd >= 0


cdef void _report(object error, object where) noexcept:
    """Call `sys.unraisablehook` with an exception that was caught."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


cdef void* _obtain(handler_t* handler, uint64_t n_bytes) noexcept:
    """A block for an array, or NULL."""
    cdef Allocator allocator = <Allocator>handler.allocator
    cdef offset_t payload
    try:
        payload = allocator.allocate_owned(
            n_bytes, handler.alignment, True, "numpy_memory"
        )
    except (MemoryError, SizeLimitError):
        return NULL
    except BaseException as error:
        _report(error, allocator)
        return NULL
    count_exports(allocator, 1)
    return allocator.arena.c.base + payload


cdef void* _take(handler_t* handler, size_t n_bytes) noexcept:
    """Memory for an array, or NULL."""
    cdef void* at = _obtain(handler, n_bytes)
    if at == NULL and handler.falls_back:
        return malloc(n_bytes)
    return at


cdef void* _take_with_gil(handler_t* handler, size_t n_bytes) noexcept with gil:
    return _take(handler, n_bytes)


cdef void* _malloc(void* context, size_t n_bytes) noexcept nogil:
    if holds_gil():
        return (<take_t>_take)(<handler_t*>context, n_bytes)
    return _take_with_gil(<handler_t*>context, n_bytes)


cdef void* _calloc(void* context, size_t count, size_t n_bytes) noexcept with gil:
    cdef handler_t* handler = <handler_t*>context
    cdef void* at
    if n_bytes and count > ~<size_t>0 / n_bytes:
        return NULL
    if _is_shared((<Allocator>handler.allocator).arena):
        return calloc(count, n_bytes)       # it may be for references
    at = _obtain(handler, count * n_bytes)
    if at != NULL:
        memset(at, 0, count * n_bytes)
    elif handler.falls_back:
        return calloc(count, n_bytes)
    return at


cdef void* _realloc(void* context, void* at, size_t n_bytes) noexcept with gil:
    cdef handler_t* handler = <handler_t*>context
    cdef Allocator allocator = <Allocator>handler.allocator
    cdef Arena arena = allocator.arena
    cdef offset_t payload
    cdef void* moved
    cdef uint64_t capacity
    if at == NULL:
        return _take(handler, n_bytes)
    if not _is_inside(arena, at):
        return realloc(at, n_bytes)
    payload = <char*>at - arena.c.base
    try:
        payload = allocator.resize_owned(
            payload, n_bytes, handler.alignment, "numpy_memory"
        )
        allocator.settle()
        return arena.c.base + payload
    except (MemoryError, SizeLimitError, BufferError):
        pass
    except BaseException as error:
        _report(error, allocator)
        return NULL
    if not handler.falls_back:
        return NULL
    try:
        capacity = allocator.capacity(payload, "numpy_memory")
    except BaseException as error:
        _report(error, allocator)
        return NULL
    moved = malloc(n_bytes)
    if moved != NULL:
        memcpy(moved, at, min(capacity, n_bytes))
        count_exports(allocator, -1)
        allocator.free_collected(payload)
    return moved


cdef void _give(handler_t* handler, void* at) noexcept:
    """Free the memory of an array."""
    cdef Allocator allocator = <Allocator>handler.allocator
    cdef offset_t payload
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* traceback
    if at == NULL:
        return
    if not _is_inside(allocator.arena, at):
        free(at)
        return
    payload = <char*>at - allocator.arena.c.base
    count_exports(allocator, -1)
    if not allocator.free_at_once(payload):
        PyErr_Fetch(&kind, &value, &traceback)
        allocator.free_collected(payload)
        PyErr_Restore(kind, value, traceback)


cdef void _give_with_gil(handler_t* handler, void* at) noexcept with gil:
    _give(handler, at)


cdef void _free(void* context, void* at, size_t n_bytes) noexcept nogil:
    if holds_gil():
        (<give_t>_give)(<handler_t*>context, at)
    else:
        _give_with_gil(<handler_t*>context, at)


cdef void _end(object capsule) noexcept:
    """Free the handler: the last array and the manager have been deallocated."""
    cdef handler_t* handler = <handler_t*>PyCapsule_GetPointer(capsule, CAPSULE_NAME)
    Py_DECREF(<object>handler.allocator)
    free(handler)


cdef tuple _without(tuple own, tuple entered):
    """What a context has entered but for one of these, which is not the last.

    The one that was entered after it is then left to the handler before it.
    """
    cdef list later = []
    while entered is not own:
        later.append(entered)
        entered = entered[2]
    outer, rest = own[1], own[2]
    while later:
        other = later.pop()
        rest = (other[0], other[1] if outer is None else outer, rest, other[3])
        outer = None
    return rest


cdef class numpy_memory:
    """Have NumPy take the data of new arrays from a pool (NEP 49).

    Parameters
    ----------
    pool : Pool or Heap
        Where the data comes from.
    align : int
        Alignment of each array's first byte: a power of two, in bytes.
    fallback : bool
        When there is no room: False, NumPy raises MemoryError; True, the
        array's data comes from the C library, as without the manager.

    Raises
    ------
    BadArgument, BadArgumentType
        Not a pool, an invalid alignment, or not a truth value.

    Notes
    -----
    A context manager. It applies to the current context (`contextvars`): the
    thread or the task that entered it, and tasks started there; other threads
    are not affected. It can be entered again, nested, and by any number of
    threads and tasks at once; each leaves it in the context in which it entered
    it. It covers all of NumPy: results, temporaries, copies, arrays that grow in
    place.

    In an arena in a file, what NumPy requests zeroed comes from the C library:
    all tables of references to objects, which no other process may see, and with
    them `numpy.zeros`.

    An array made inside stays valid afterwards, and is freed to its own pool,
    by whichever thread drops it last. As long as one is alive, pool and arena
    cannot be closed or destroyed, and no verb frees its memory. While another
    thread checks the arena, making an array waits, but freeing one does not.

    With `xmem.trace_sites` the memory is recorded in xmem's domain of
    `tracemalloc`, in addition to NumPy's own. Source: NEP 49, "Data allocation
    strategies".
    """

    cdef readonly Allocator allocator
    cdef readonly bint fallback
    cdef object capsule             # of the handler

    def __init__(self, pool, *, align=64, fallback=False):
        cdef handler_t* handler
        cdef uint64_t alignment
        self.refuse_again()
        if not isinstance(pool, Allocator):
            raise BadArgumentType(
                f"pool must be a Pool or a Heap, not {type(pool).__name__}"
            )
        alignment = align_argument(align)
        falls_back = flag_argument(fallback, "fallback")
        (<Allocator>pool).enter()
        if alignment > (<Allocator>pool).arena.c.alignment:
            raise BadArgument(
                f"align must be at most {(<Allocator>pool).arena.max_align} bytes in "
                f"this arena, not {alignment}"
            )
        handler = <handler_t*>calloc(1, sizeof(handler_t))
        if handler == NULL:
            raise MemoryError("cannot allocate a handler for NumPy")
        strcpy(handler.numpy.name, "xmem")
        handler.numpy.version = 1
        handler.numpy.allocator.ctx = handler
        handler.numpy.allocator.malloc = _malloc
        handler.numpy.allocator.calloc = _calloc
        handler.numpy.allocator.realloc = _realloc
        handler.numpy.allocator.free = _free
        handler.alignment = alignment
        handler.falls_back = falls_back
        handler.allocator = <PyObject*>pool
        Py_INCREF(pool)
        try:
            capsule = PyCapsule_New(handler, CAPSULE_NAME, _end)
        except BaseException:
            Py_DECREF(pool)
            free(handler)
            raise
        self.refuse_again()     # what converted the arguments may have done it
        self.allocator = pool
        self.fallback = falls_back
        self.capsule = capsule

    cdef int refuse_again(self) except -1:
        """Refuse to be initialised a second time."""
        if self.capsule is not None:
            raise BadArgument("a manager cannot be initialised twice")
        return 0

    def __reduce__(self):
        raise BadArgumentType("a memory handler cannot be copied or pickled")

    def __repr__(self):
        return f"<xmem.numpy_memory of {self.allocator!r}>"

    def __enter__(self):
        if self.capsule is None:
            raise BadArgument("the manager was never initialised")
        self.allocator.enter()
        entered = _entered.get()
        handler = cnp.PyDataMem_GetHandler()
        place = _place.set(None)
        try:
            _entered.set((self, handler, entered, place))
            cnp.PyDataMem_SetHandler(self.capsule)
        except BaseException:
            # Python sets a variable even if it finds no memory for the token.
            cnp.PyDataMem_SetHandler(handler)
            _entered.set(entered)
            raise
        return self

    def __exit__(self, *exc_info):
        cdef tuple entered = _entered.get()
        cdef tuple own = entered
        while own is not None and own[0] is not self:
            own = own[2]
        if own is None:
            raise BadArgument("the manager has not been entered in this context")
        try:
            _place.reset(own[3])
        except (ValueError, RuntimeError):
            raise BadArgument(
                "the manager was entered in another context: leave it there"
            ) from None
        if own is entered:
            cnp.PyDataMem_SetHandler(own[1])
            _entered.set(own[2])
        else:
            _entered.set(_without(own, entered))
