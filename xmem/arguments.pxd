# SPDX-License-Identifier: BSD-3-Clause
"""Python integers to unsigned words, without losing what was wrong with them.

``word_of`` never raises for an integer: what does not fit is reported by
``fit``, because a size that is too large is out of memory and an offset that
is too large is no block, and only the caller knows which it has.
"""

from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.long cimport PyLong_Check
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t

cdef extern from "Python.h":
    unsigned long long _as_word "PyLong_AsUnsignedLongLong"(object value) noexcept

cdef enum fit_t:
    FITS = 0
    NEGATIVE = 1
    TOO_LARGE = 2


cdef inline uint64_t word_of(object value, fit_t* fit) except? 0:
    """``value`` as 64 bits; raises TypeError when it is no integer.

    What does not fit gives the greatest word and says in ``fit`` why.
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
