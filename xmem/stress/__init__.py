# SPDX-License-Identifier: BSD-3-Clause
"""Stress tests: endless operations, all verified, and a trace of each fault.

One idea a file, imports go down only::

    hunt                sessions: look for a fault, find the shortest prefix that has it
    store_workloads     workloads for the two stores
    workloads           workloads for a pool, a heap, page frames
    loads               distributions of sizes and lifetimes, by name
    generator, target   what generates operations and what carries them out, compiled
"""
