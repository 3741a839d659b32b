# SPDX-License-Identifier: BSD-3-Clause
"""The two stores that the proposal of 2008 was written for, on xmem.

`xmem.stores.tmem` is transcendent memory, a store of whole pages that a client
cannot address; `xmem.stores.difference_engine` shares, patches and compresses
the pages of several machines. Both keep their pages in an arena, through a heap
of any interface or a pool of either engine. Their requests are near-page-sized.

Needs the extra ``stores`` (lz4, zstandard, xxhash).
"""
