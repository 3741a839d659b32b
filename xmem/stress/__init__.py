# SPDX-License-Identifier: BSD-3-Clause
"""Stress: operations without end, all verified, and what led to a fault.

One idea a file, imports go down only::

    hunt                run, look for a fault, find the shortest prefix that has it
    trials              a heap, a pool, page frames: what operations run on
    store_trials        the two stores
    loads               distributions of sizes and lifetimes, by name

What makes up and carries out the operations of heaps is compiled: `xmem.stress.load`.
"""
