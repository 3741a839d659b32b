# SPDX-License-Identifier: BSD-3-Clause
"""The commands: Python over the public API, nothing that allocates.

One idea to a file, and imports go down only::

    main                            entry points
    group                           the command `xmem`, which imports what it needs
    demo insn replay versus waste   its subcommands
    stress/heaps stress/stores      the four stress commands
    stress/session stress/options   a stress session; the options of all four
    options                         arguments and options that commands share
    plots/                          pictures: distributions live paths growth
                                    versus waste, and their style
    tables/                         what is printed: replay insn versus waste, and
                                    printing
    hgrm                            histograms in HdrHistogram's format
    founding                        the load behind the demo's picture
    runs                            traces on contenders, one replay each
    progress                        what is shown meanwhile
    outputs                         files that are written
    extras exits                    missing libraries; exit statuses

`extras` says which extra of the package each command needs. The library itself
needs NumPy alone.
"""
