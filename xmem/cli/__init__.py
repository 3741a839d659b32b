# SPDX-License-Identifier: BSD-3-Clause
"""The command `xmem`: Python over the public API, nothing that allocates.

One idea a file, imports go down only::

    main        entry point: are the tools there?
    group       the command and its subcommands
    replay demo waste   the subcommands
    founding    the load of the demo's picture
    runs        traces x engines or interfaces, one replay each
    table plot  what a person reads
    waste_table waste_plot   the same for waste
    progress    what is seen meanwhile
    outputs     the files that are written
    size exits  an option type; exit statuses

Needs the extra ``tools`` (click, rich, matplotlib); the library itself does not.
"""
