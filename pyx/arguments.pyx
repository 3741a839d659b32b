# SPDX-License-Identifier: BSD-3-Clause
"""Sizes, counts and offsets from Python callers, or the error that says why not."""

import numpy as np

from xmem.errors import BadArgument, BadArgumentType, NotABlock

from libc.stdint cimport uint64_t

from xmem.bits cimport is_power_of_two


cdef uint64_t count_argument(object value, str what, uint64_t least) except? 0:
    """A count or size given by the caller, at least ``least``."""
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
    """A switch given by the caller: a truth value and nothing that resembles one."""
    if not isinstance(value, (bool, np.bool_)):
        raise BadArgumentType(
            f"{what} must be True or False, not {type(value).__name__}"
        )
    return 1 if value else 0


cdef uint64_t refused_size(object value) except? 0:
    """A size that is no plain word: what it is, or the error."""
    return count_argument(value, "a size", 0)


cdef uint64_t refused_offset(object value) except? 0:
    """An offset that is no plain word: what does not fit is no block."""
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


cdef uint64_t refused_align(object value) except? 0:
    """An alignment that is no plain power of two: what it is, or the error."""
    cdef uint64_t word = count_argument(value, "align", 1)
    if not is_power_of_two(word):
        raise BadArgument(f"align must be a power of two in bytes, not {value}")
    return word
