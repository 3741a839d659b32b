# SPDX-License-Identifier: BSD-3-Clause
"""The two engines: their numbers, as arenas store them, and their names."""

cdef enum engine_t:
    ENGINE_TLSF = 1
    ENGINE_FIRSTFIT = 2


cdef dict engine_names      # from number to name
