# SPDX-License-Identifier: BSD-3-Clause
"""What lies around a place where an invariant does not hold."""
