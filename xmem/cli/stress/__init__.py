# SPDX-License-Identifier: BSD-3-Clause
"""The four stress commands: their options, a session, what it shows and how it ends."""
