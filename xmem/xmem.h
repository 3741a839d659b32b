/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The C interface of xmem, for extension modules without Cython.
 *
 *     const xmem_api *xmem = xmem_import();        once, with the GIL
 *     xmem_pool *pool = xmem->borrow(object);      object: an xmem.Pool
 *     void *memory = xmem->alloc(pool, 100, 16);
 *     xmem->release(pool, memory);
 *     xmem->give_back(pool);
 *
 * Compile with the folder that xmem.get_include() returns; nothing is linked.
 *
 * Memory is named by pointers here, or by offsets in bytes from the arena's base,
 * which are valid in every process: offset_of() and at() convert between the two.
 *
 * As long as a pool is borrowed, neither it nor its arena can be closed or
 * destroyed (BufferError in Python). give_back() does not free memory allocated
 * here. Python's pool.xfree(offset) can free it too, and these functions can free
 * what Python allocated.
 *
 * The GIL. Functions marked [GIL] must be called with the GIL held and no exception
 * pending. The others take no lock and check nothing: call them with the GIL held,
 * or between enter() and leave(). These two make other threads' Python calls on the
 * arena wait, so the thread may release the GIL in between. Pools of one arena share
 * its page frames: only one thread at a time may work in an arena.
 */
#ifndef XMEM_H
#define XMEM_H

#include <Python.h>
#include <stdint.h>

#define XMEM_API_VERSION 1
#define XMEM_API_NAME "xmem._C_API"

typedef struct xmem_pool xmem_pool;

typedef struct {
    uint32_t version;           /* XMEM_API_VERSION of the library */
    uint32_t n_bytes;           /* of this record; later versions append to it */

    /* Checked, by offset; a Python exception says what was wrong. [GIL] */
    uint64_t (*xmalloc)(PyObject *pool, uint64_t n_bytes, uint64_t align);  /* 0: raised */
    uint64_t (*xrealloc)(PyObject *pool, uint64_t offset, uint64_t n_bytes,
                         uint64_t align);                                   /* 0: raised */
    int (*xfree)(PyObject *pool, uint64_t offset);                          /* -1: raised */

    /* A pool to work in. NULL or -1: raised. [GIL] */
    xmem_pool *(*borrow)(PyObject *pool);
    void (*give_back)(xmem_pool *pool);
    int (*enter)(xmem_pool *pool);
    void (*leave)(xmem_pool *pool);

    /* Bounded time, no Python; NULL when there is no room. */
    void *(*alloc)(xmem_pool *pool, uint64_t n_bytes, uint64_t align);
    void *(*resize)(xmem_pool *pool, void *at, uint64_t n_bytes, uint64_t align);
    void (*release)(xmem_pool *pool, void *at);             /* a live block of alloc */
    int (*release_if_owned)(xmem_pool *pool, uint64_t offset);  /* any integer; 1: freed */
    uint64_t (*capacity)(xmem_pool *pool, const void *at);  /* bytes of a live block */
    uint64_t (*offset_of)(xmem_pool *pool, const void *at);
    void *(*at)(xmem_pool *pool, uint64_t offset);          /* no check */
} xmem_api;

/* The library's functions, or NULL with an exception. [GIL] */
static inline const xmem_api *
xmem_import(void)
{
    const xmem_api *api = (const xmem_api *)PyCapsule_Import(XMEM_API_NAME, 0);
    if (api != NULL && (api->version != XMEM_API_VERSION
                        || api->n_bytes < sizeof(xmem_api))) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled for version %d of xmem's C interface, "
                     "the xmem that is installed has version %d",
                     XMEM_API_VERSION, (int)api->version);
        return NULL;
    }
    return api;
}

#endif
