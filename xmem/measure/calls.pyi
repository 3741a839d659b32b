# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of a verb, to be measured; nothing for Python callers."""
