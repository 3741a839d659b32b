# SPDX-License-Identifier: BSD-3-Clause
"""The two engines: their numbers, as arenas store them, and their names."""

#: From an engine's name to its number.
ENGINES = {"tlsf": ENGINE_TLSF, "firstfit": ENGINE_FIRSTFIT}

engine_names = {number: name for name, number in ENGINES.items()}
