# SPDX-License-Identifier: BSD-3-Clause
"""The face of the checkers: what the objects above need of them, in one cimport."""

from xmem.check.census cimport census_t
from xmem.check.control cimport check_control
from xmem.check.diagnosis cimport diagnose, explain_refusal
from xmem.check.pool cimport check_own, check_pool
from xmem.check.slices cimport SLICE_DAMAGE, SLICE_END, check_slice, slice_t
from xmem.check.visit cimport block_info_t, cursor_init, cursor_t, next_block
