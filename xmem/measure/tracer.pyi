# SPDX-License-Identifier: BSD-3-Clause
"""The parent of a stepped child; nothing for Python callers."""

class Tracer: ...
