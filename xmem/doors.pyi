# SPDX-License-Identifier: BSD-3-Clause
"""What Python's pools do in a shared arena: each step under its lock, and routed."""

class Door: ...
