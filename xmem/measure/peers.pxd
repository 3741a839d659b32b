# SPDX-License-Identifier: BSD-3-Clause
"""Peers: other allocators on one rig; nothing to cimport. See peer.h."""
