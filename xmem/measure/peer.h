/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What an allocator brings to `xmem versus --peer FILE.so`: a shared object that
 * exports one object,
 *
 *     struct peer PEER = {"name", create, allocate, release, NULL, NULL, destroy};
 *
 * Every pass over a trace creates a heap and destroys it. `create` gets zeroed or
 * used memory, aligned to a page, and answers a handle that is handed back to
 * every call; NULL says that the memory is too small. An allocator that gets its
 * memory from the system itself may ignore `mem` and `bytes`. `realloc` may be
 * NULL (the rig then allocates, copies and frees) and so may `memalign` (requests
 * aligned to more than 16 bytes then count as failed). `free` is never handed
 * NULL. Nothing is called by two threads at once.
 */
#ifndef XMEM_PEER_H
#define XMEM_PEER_H

#include <stddef.h>

struct peer {
    const char *name;
    void *(*create)(void *mem, size_t bytes);
    void *(*malloc)(void *h, size_t n);
    void (*free)(void *h, void *p);
    void *(*realloc)(void *h, void *p, size_t n);
    void *(*memalign)(void *h, size_t align, size_t n);
    void (*destroy)(void *h);
};

#endif
