# SPDX-License-Identifier: BSD-3-Clause
"""Conversion of sizes, counts and offsets from Python callers, with exact errors.

What is read more than once is copied first into an object of Python's own class: a
subclass may lie about its length or what it is equal to, and a list may change while
its items are converted.
"""

import numpy as np

from xmem.base.errors import BadArgument, BadArgumentType, NotABlock

cimport numpy as cnp
from cpython.unicode cimport PyUnicode_FromObject
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from xmem.base.bits cimport is_power_of_two

cnp.import_array()


cdef uint64_t refused_count(object value, str what, uint64_t least) except? 0:
    """The value of a count that is not a short integer, or the error."""
    cdef fit_t fit
    cdef uint64_t word
    try:
        word = word_of(value, &fit)
    except TypeError:
        raise BadArgumentType(
            f"{what} must be an integer, not {type(value).__name__}"
        ) from None
    if fit == NEGATIVE or word < least:
        raise BadArgument(f"{what} must be at least {least}, not {value}")
    return word


cdef int flag_argument(object value, str what) except -1:
    """A switch given by the caller: True or False, and nothing else."""
    if not isinstance(value, (bool, np.bool_)):
        raise BadArgumentType(
            f"{what} must be True or False, not {type(value).__name__}"
        )
    return 1 if value else 0


cdef str text_argument(object value, str what):
    """Text given by the caller, as a str whose methods are Python's own."""
    if not isinstance(value, str):
        raise BadArgumentType(f"{what} must be str, not {type(value).__name__}")
    return <str>PyUnicode_FromObject(value)


cdef uint64_t refused_size(object value) except? 0:
    """The value of a size that is not a short integer, or the error."""
    return refused_count(value, "a size", 0)


cdef uint64_t refused_offset(object value) except? 0:
    """The value of an offset that is not a short integer, or the error."""
    cdef fit_t fit
    cdef uint64_t word
    try:
        word = word_of(value, &fit)
    except TypeError:
        raise BadArgumentType(
            f"an offset must be an integer, not {type(value).__name__}"
        ) from None
    if fit != FITS:
        raise NotABlock(f"{value} is not an offset in any arena")
    return word


cdef bint _are_words(cnp.ndarray values) noexcept:
    """Whether an array is a row of words as C has them."""
    return (
        cnp.PyArray_NDIM(values) == 1
        and cnp.PyArray_ISCARRAY_RO(values)
        and cnp.PyArray_TYPE(values) in (cnp.NPY_INT64, cnp.NPY_UINT64)
    )


cdef cnp.ndarray _copy_of(cnp.ndarray values):
    """A copy of a row of words; None where something has to be asked or refused."""
    cdef cnp.npy_intp i, n
    cdef int64_t signs = 0
    cdef int64_t* cells
    cdef cnp.ndarray words
    if not _are_words(values):
        return None
    n = cnp.PyArray_DIM(values, 0)
    words = cnp.PyArray_EMPTY(1, &n, cnp.NPY_UINT64, 0)
    if not _are_words(values) or cnp.PyArray_DIM(values, 0) != n:
        return None             # NumPy's memory can come from a caller's function
    cells = <int64_t*>cnp.PyArray_DATA(words)
    memcpy(cells, cnp.PyArray_DATA(values), n * sizeof(int64_t))
    if cnp.PyArray_TYPE(values) == cnp.NPY_INT64:
        for i in range(n):
            signs |= cells[i]
    return None if signs < 0 else words


cdef object words_argument(object values, str what, bint are_offsets):
    """Sizes or offsets given by the caller, copied into a new array.

    Each integer in a list is converted as it would be alone.
    """
    cdef uint64_t[::1] cells
    cdef tuple items
    cdef Py_ssize_t i
    if not isinstance(values, cnp.ndarray):
        try:
            items = tuple(values)
        except TypeError:
            raise BadArgumentType(
                f"{what} must be an array or a list of integers, not "
                f"{type(values).__name__}"
            ) from None
        words = np.zeros(len(items), dtype=np.uint64)
        cells = words
        for i in range(cells.shape[0]):
            cells[i] = (
                offset_argument(items[i]) if are_offsets else size_argument(items[i])
            )
        return words
    words = _copy_of(values)
    if words is not None:
        return words
    values = np.asarray(values)
    if values.ndim != 1:
        raise BadArgument(f"{what} must have one dimension, not {values.ndim}")
    if values.dtype.kind == "u" or not len(values):
        return np.array(values, dtype=np.uint64, order="C", copy=True)
    if values.dtype.kind != "i":
        raise BadArgumentType(f"{what} must be integers, not {values.dtype.name}")
    words = np.array(values, dtype=np.int64, order="C", copy=True)
    if (words < 0).any():
        if are_offsets:
            raise NotABlock(f"{words.min()} is not an offset in any arena")
        raise BadArgument(f"{what} must not be negative, as {words.min()} is")
    return words.view(np.uint64)


cdef uint64_t refused_align(object value) except? 0:
    """The value of an alignment that is no short power of two, or the error."""
    cdef uint64_t word = refused_count(value, "align", 1)
    if not is_power_of_two(word):
        raise BadArgument(f"align must be a power of two in bytes, not {value}")
    return word
