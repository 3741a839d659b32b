/* SPDX-License-Identifier: BSD-3-Clause
 *
 * An allocator for `xmem versus --peer FILE.so` is a shared object that exports
 * one object,
 *
 *     struct peer PEER = {"name", create, allocate, release, NULL, NULL, destroy};
 *
 * Every pass over a trace creates a heap and destroys it. `create` takes memory
 * aligned to a page, zeroed or used, and returns a handle that is passed to every
 * call, or NULL if the memory is too small. An allocator that gets its memory from
 * the system may ignore `mem` and `bytes`; its `destroy` has to free the blocks that
 * are still live, or the next pass pays for them. `realloc` may be NULL (the rig then
 * allocates, copies and frees) and so may `memalign` (requests aligned to more than
 * 16 bytes then count as failed). `free` is never passed NULL. No two threads call
 * functions at the same time.
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
