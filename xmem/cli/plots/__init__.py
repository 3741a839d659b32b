# SPDX-License-Identifier: BSD-3-Clause
"""The pictures that commands draw: a module each, and their common style.

They alone import matplotlib; commands import them when a picture is to be drawn.
"""
