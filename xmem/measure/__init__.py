# SPDX-License-Identifier: BSD-3-Clause
"""The laboratory: traces replayed, timed, counted and compared.

One idea a file, imports go down only::

    versus, waste            allocators compared; pages taken by size
    replay, peers, insn, cycles     what measures, compiled
    scenarios                heaps built for one call
    child, tracer, tracee    a child that is stepped, and its parent
    calls, paths             one call of a verb; what it did
    player, routines         one operation of a trace, on a pool or a heap
    counts, trace            results; the format of traces
    codes, clock, caches, pattern   numbers, ticks, cold caches, contents
"""
