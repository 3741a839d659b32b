# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3
"""A hash table from integers to integers whose nodes live in an arena.

Nodes are named by offsets, so a table in a file can be found again by the offset of
its head, whatever the address of the arena is then. Apart from the length of a chain
and from growing, each operation takes bounded time.

Between ``begin_long`` and ``end_long`` the arena belongs to this thread: other threads'
Python calls on it wait, and this thread may work without the GIL.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from xmem cimport Pool, offset_t, pool_alloc, pool_free, pool_t, arena_t

cdef struct node_t:
    offset_t below
    uint64_t key
    int64_t value

cdef struct head_t:
    offset_t chains
    uint64_t n_chains           # a power of two
    uint64_t n_nodes


cdef inline uint64_t mixed(uint64_t key) noexcept nogil:
    """Spread the bits of a key."""
    key ^= key >> 33
    key *= <uint64_t>0xFF51AFD7ED558CCD
    return key ^ (key >> 33)


cdef class Table:
    """A mapping of integers in a pool.

    Parameters
    ----------
    pool : xmem.Pool
    offset : int, optional
        Offset of an existing table; by default a new table is created.
    """

    cdef readonly Pool pool
    cdef readonly offset_t offset

    def __init__(self, Pool pool not None, offset=None):
        self.pool = pool
        if offset is None:
            offset = pool.xzalloc(sizeof(head_t))
            self.offset = offset
            try:
                self.head().chains = pool.xzalloc(8 * sizeof(offset_t))
            except BaseException:
                pool.xfree(offset)
                raise
            self.head().n_chains = 8
        else:
            pool.usable_size(offset)        # raises unless it is a live block
            self.offset = offset

    cdef head_t* head(self) noexcept nogil:
        return <head_t*>(self.pool.arena.c.base + self.offset)

    cdef int enter(self) except -1:
        """Prove that the head is alive; it stays so until the call ends."""
        self.pool.require_live(self.offset, "Table")
        return 0

    def __len__(self):
        self.enter()
        return self.head().n_nodes

    def __setitem__(self, key, value):
        cdef uint64_t its_key = key
        cdef int64_t its_value = value
        self.enter()
        if insert(
            &self.pool.arena.c, self.pool.c, self.head(), its_key, its_value
        ):
            raise MemoryError("the pool is full")

    def __getitem__(self, key):
        cdef uint64_t its_key = key
        cdef node_t* node
        self.enter()
        node = find(self.pool.arena.c.base, self.head(), its_key)
        if node == NULL:
            raise KeyError(key)
        return node.value

    def __delitem__(self, key):
        cdef uint64_t its_key = key
        self.enter()
        if not remove(&self.pool.arena.c, self.pool.c, self.head(), its_key):
            raise KeyError(key)

    def count(self, const uint64_t[::1] keys):
        """Add 1 to the value of each key, without the GIL.

        Raises
        ------
        MemoryError
            The pool is full; keys before that one have been counted.
        """
        cdef Py_ssize_t i
        cdef node_t* node
        cdef int failed = 0
        self.enter()
        self.pool.arena.begin_long()
        try:
            self.enter()        # another thread may have been here while we waited
            with nogil:
                for i in range(keys.shape[0]):
                    node = find(self.pool.arena.c.base, self.head(), keys[i])
                    if node != NULL:
                        node.value += 1
                        continue
                    failed = insert(
                        &self.pool.arena.c, self.pool.c, self.head(), keys[i], 1
                    )
                    if failed:
                        break
        finally:
            self.pool.arena.end_long()
        if failed:
            raise MemoryError("the pool is full")

    def clear(self):
        """Free every node."""
        cdef uint64_t i
        cdef offset_t at, below
        cdef offset_t* chains
        cdef head_t* head
        self.enter()
        head = self.head()
        chains = <offset_t*>(self.pool.arena.c.base + head.chains)
        for i in range(head.n_chains):
            at = chains[i]
            while at != 0:
                below = (<node_t*>(self.pool.arena.c.base + at)).below
                pool_free(&self.pool.arena.c, self.pool.c, at)
                at = below
            chains[i] = 0
        head.n_nodes = 0

    def destroy(self):
        """Free everything; the table cannot be used afterwards."""
        self.clear()
        self.pool.xfree(self.head().chains)
        self.pool.xfree(self.offset)


cdef node_t* find(char* base, head_t* head, uint64_t key) noexcept nogil:
    """Return the node of a key, or NULL."""
    cdef offset_t at = (<offset_t*>(base + head.chains))[
        mixed(key) & (head.n_chains - 1)
    ]
    while at != 0:
        if (<node_t*>(base + at)).key == key:
            return <node_t*>(base + at)
        at = (<node_t*>(base + at)).below
    return NULL


cdef int insert(
    arena_t* arena, pool_t* pool, head_t* head, uint64_t key, int64_t value
) noexcept nogil:
    """Set the value of a key; return -1 when the pool is full."""
    cdef node_t* node = find(arena.base, head, key)
    cdef offset_t* chain
    cdef offset_t at
    if node == NULL:
        if head.n_nodes >= head.n_chains:
            grow(arena, pool, head)
        at = pool_alloc(arena, pool, sizeof(node_t), 16)
        if at == 0:
            return -1
        node = <node_t*>(arena.base + at)
        chain = <offset_t*>(arena.base + head.chains) + (
            mixed(key) & (head.n_chains - 1)
        )
        node.below = chain[0]
        node.key = key
        chain[0] = at
        head.n_nodes += 1
    node.value = value
    return 0


cdef bint remove(
    arena_t* arena, pool_t* pool, head_t* head, uint64_t key
) noexcept nogil:
    """Free the node of a key; return whether there was one."""
    cdef offset_t* link = <offset_t*>(arena.base + head.chains) + (
        mixed(key) & (head.n_chains - 1)
    )
    cdef offset_t at
    while link[0] != 0:
        at = link[0]
        if (<node_t*>(arena.base + at)).key == key:
            link[0] = (<node_t*>(arena.base + at)).below
            pool_free(arena, pool, at)
            head.n_nodes -= 1
            return True
        link = &(<node_t*>(arena.base + at)).below
    return False


cdef void grow(arena_t* arena, pool_t* pool, head_t* head) noexcept nogil:
    """Double the number of chains, if there is room for them."""
    cdef uint64_t n_chains = 2 * head.n_chains
    cdef uint64_t i
    cdef offset_t at, below
    cdef offset_t new = pool_alloc(arena, pool, n_chains * sizeof(offset_t), 16)
    cdef offset_t* old
    cdef offset_t* chain
    if new == 0:
        return
    memset(arena.base + new, 0, n_chains * sizeof(offset_t))
    old = <offset_t*>(arena.base + head.chains)
    for i in range(head.n_chains):
        at = old[i]
        while at != 0:
            below = (<node_t*>(arena.base + at)).below
            chain = <offset_t*>(arena.base + new) + (
                mixed((<node_t*>(arena.base + at)).key) & (n_chains - 1)
            )
            (<node_t*>(arena.base + at)).below = chain[0]
            chain[0] = at
            at = below
    pool_free(arena, pool, head.chains)
    head.chains = new
    head.n_chains = n_chains
