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
from libc.stdint cimport uint64_t

from xmem.base.bits cimport is_power_of_two


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
