# SPDX-License-Identifier: BSD-3-Clause
"""The commands: Python over the public API, nothing that allocates.

One idea to a file, and imports go down only::

    main                                     entry points
    group                                    `xmem`, which imports what is asked for
    check demo insn replay versus waste      its subcommands
    stress/heaps stress/stores               the four stress commands
    stress/session stress/options            a session; the options of every session
    options                                  arguments and options, declared once
    plots/distributions plots/live           the pictures of replay
    plots/paths                              its heat map
    plots/growth plots/versus plots/waste    those of demo, versus and waste
    plots/style                              what pictures have in common
    tables/replay tables/insn                what is printed
    tables/versus tables/waste
    tables/printing                          how it is printed
    hgrm                                     histograms in HdrHistogram's format
    founding                                 the load behind the demo's picture
    contenders                               traces on contenders, a replay each
    progress                                 what is shown meanwhile
    outputs                                  files that are written
    extras exits                             missing libraries; exit statuses

`extras` says which extra of the package each library belongs to. xmem itself needs
NumPy alone.
"""
