/* SPDX-License-Identifier: BSD-3-Clause */
/* The stores of journalled.pyx, each with a number: one of them may be a plain store.

   Included before everything else, in place of what xmem/base/journal.pxd defines with
   XMEM_LOGGED. See proofs/put_sites.py. */
#include <stdint.h>

#define XMEM_TLS static __thread __attribute__((tls_model("initial-exec")))
#define XMEM_IS_LOGGED 1
typedef volatile uint64_t __attribute__((may_alias)) xmem_word_t;

__attribute__((visibility("default"))) int xmem_plain_site = -1;
__attribute__((visibility("default"))) unsigned char xmem_sites_seen[1024];

XMEM_TLS xmem_word_t *xmem_journal;

static inline void xmem_log_to(uint64_t *journal)
{
    xmem_journal = (xmem_word_t *)journal;
}

static inline void xmem_commit(void)
{
    *xmem_journal = 2 * sizeof(uint64_t);
}

static inline void xmem_note_at(xmem_word_t *word, int site)
{
    xmem_word_t *journal = xmem_journal;
    uint64_t end = journal[0];
    xmem_word_t *entry = (xmem_word_t *)((volatile char *)journal + end);
    xmem_sites_seen[site] = 1;
    if (site == xmem_plain_site)
        return;
    entry[0] = (uint64_t)((volatile char *)word - (volatile char *)journal);
    entry[1] = *word;
    journal[0] = end + 16;
}

static inline void xmem_put_at(uint64_t *word, uint64_t value, int site)
{
    xmem_note_at((xmem_word_t *)word, site);
    *(volatile uint64_t *)word = value;
}

static inline void xmem_put32_at(uint32_t *word, uint32_t value, int site)
{
    xmem_note_at((xmem_word_t *)((uintptr_t)word & ~(uintptr_t)7), site);
    *(volatile uint32_t *)word = value;
}

#define XMEM_PUT(word, value) xmem_put_at((word), (value), __COUNTER__)
#define XMEM_PUT32(word, value) xmem_put32_at((word), (value), __COUNTER__)
