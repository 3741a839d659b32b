# SPDX-License-Identifier: BSD-3-Clause
"""Conversion of Python integers to unsigned words.

``word_of`` never raises for an integer; it reports in ``fit`` why one does not fit,
because a size that is too large means out of memory and an offset that is too large
is not a block.

``size_argument``, ``offset_argument``, ``align_argument`` and ``count_argument`` are
the fast paths of every verb: they read a short integer where it lies. They pass all
others to ``refused_*``, which converts them the slow way or raises the exact error.
"""

from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.long cimport PyLong_Check
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t

from xmem.base.bits cimport is_power_of_two
from xmem.base.checks cimport likely

cdef extern from "Python.h":
    unsigned long long _as_word "PyLong_AsUnsignedLongLong"(object value) noexcept

cdef extern from *:
    """
    #include <stdint.h>
    /* The value of an integer whose digits can be read where they lie; false for
       all others, which may still fit. */
    static CYTHON_INLINE int xmem_short_int(PyObject *value, uint64_t *word) {
    #if CYTHON_COMPILING_IN_CPYTHON
        if (!PyLong_Check(value)) return 0;
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)value)) return 0;
        *word = (uint64_t)PyUnstable_Long_CompactValue((PyLongObject *)value);
        return (int64_t)*word >= 0;
    #else
        const digit *digits = ((PyLongObject *)value)->ob_digit;
        switch (Py_SIZE(value)) {
        case 0: *word = 0; return 1;
        case 1: *word = digits[0]; return 1;
        case 2: *word = digits[0] | (uint64_t)digits[1] << PyLong_SHIFT; return 1;
        }
    #endif
    #endif
        return 0;
    }
    """
    bint _short_int "xmem_short_int"(object value, uint64_t* word) noexcept

cdef int flag_argument(object value, str what) except -1
cdef str text_argument(object value, str what)
cdef uint64_t refused_count(object value, str what, uint64_t least) except? 0
cdef uint64_t refused_size(object value) except? 0
cdef uint64_t refused_offset(object value) except? 0
cdef uint64_t refused_align(object value) except? 0
cdef object words_argument(object values, str what, bint are_offsets)


cdef enum fit_t:
    FITS = 0
    NEGATIVE = 1
    TOO_LARGE = 2


cdef inline uint64_t word_of(object value, fit_t* fit) except? 0:
    """``value`` as 64 bits; raises TypeError when it is not an integer.

    Of an integer that does not fit, returns the greatest word, and the reason in
    ``fit``.
    """
    cdef uint64_t word
    if not PyLong_Check(value):
        value = PyNumber_Index(value)
    fit[0] = FITS
    word = _as_word(value)
    if word == ~<uint64_t>0 and PyErr_Occurred() != NULL:
        PyErr_Clear()
        fit[0] = NEGATIVE if value < 0 else TOO_LARGE
    return word


cdef inline uint64_t size_argument(object value) except? 0:
    """A size in bytes; one that exceeds a word becomes the greatest word."""
    cdef uint64_t word
    if likely(_short_int(value, &word)):
        return word
    return refused_size(value)


cdef inline uint64_t offset_argument(object value) except? 0:
    """An offset in bytes."""
    cdef uint64_t word
    if likely(_short_int(value, &word)):
        return word
    return refused_offset(value)


cdef inline uint64_t align_argument(object value) except? 0:
    """An alignment in bytes: a power of two."""
    cdef uint64_t word
    if likely(_short_int(value, &word) and is_power_of_two(word)):
        return word
    return refused_align(value)


cdef inline uint64_t count_argument(
    object value, str what, uint64_t least
) except? 0:
    """A count or size given by the caller, at least ``least``."""
    cdef uint64_t word
    if likely(_short_int(value, &word) and word >= least):
        return word
    return refused_count(value, what, least)
