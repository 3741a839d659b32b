# SPDX-License-Identifier: BSD-3-Clause
"""What Python's pools do in a shared arena: each step under its lock, and routed.

A `Door` stands for a pool that other processes use as well. Between two holds of the
lock they may change everything, even destroy the pool: each method proves again what it
rests on, and says by an exception why it did nothing. No hold is longer than the work
of SLICE blocks.
"""

from xmem.base.errors import BadArgument, PoolDestroyed

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from xmem.arena.arena cimport Arena
from xmem.base cimport ENGINE_TLSF, offset_t
from xmem.core cimport (
    POOL_HARDENED,
    creation_t,
    pool_numbered,
    pool_t,
    released_t,
    settings_t,
)
from xmem.core.routes cimport door_init, door_t
from xmem.interfaces cimport heap_resize, heap_t
from xmem.journalled cimport (
    last_cause,
    limit_wait,
    shared_begin,
    shared_commit,
    shared_create,
    shared_give_waiting,
    shared_put,
    shared_release_next,
    shared_reserve,
    shared_retire,
    shared_shrink_next,
)
from xmem.shared.lock cimport LOCK_GONE
from xmem.verbs cimport (
    pool_alloc,
    pool_free_if_owned,
    pool_resize_patiently,
)

cdef enum:
    SLICE = 1000                # blocks of a batch in one hold of the lock


cdef class Door:
    """The way from this process to a pool that others use as well."""

    @staticmethod
    cdef int refuse(settings_t* settings, object hooks) except -1:
        """Refuse what a pool of a shared arena cannot be."""
        if settings.engine != ENGINE_TLSF:
            raise BadArgument(
                "only the tlsf engine can be in a shared arena: a call of the legacy "
                "engine holds the lock without bound"
            )
        if hooks is not None:
            raise BadArgument(
                "get_mem and put_mem cannot be in a shared arena: they are functions "
                "of one process"
            )
        if settings.flags & POOL_HARDENED:
            raise BadArgument(
                "hardened pools cannot be in a shared arena: what they fill is not in "
                "its journal"
            )
        return 0

    @staticmethod
    cdef creation_t create(
        Arena arena, bytes name, settings_t* settings, uint32_t* number
    ) except *:
        """`pool_create` in a shared arena."""
        cdef creation_t reason = shared_create(
            &arena.c, <char*>name, len(name), settings, number
        )
        arena.refuse_cause(last_cause())
        return reason

    @staticmethod
    cdef Door to(Arena arena, uint32_t number, str name):
        """The door to a pool, by its number."""
        cdef Door door = Door.__new__(Door)
        door.c = <door_t*>malloc(sizeof(door_t))
        if door.c == NULL:
            raise MemoryError("no memory for a pool of a shared arena")
        door_init(
            door.c, pool_numbered(&arena.c, number), &arena.c.directory[number - 1]
        )
        door.arena = arena
        door.number = number
        door.name = name
        return door

    def __dealloc__(self):
        free(self.c)

    @staticmethod
    cdef int begin(Arena arena) except -1:
        """Begin a transaction: until `commit` nothing has happened."""
        arena.hold()
        shared_begin(&arena.c)      # by the owner of the lock: it cannot fail
        return 0

    @staticmethod
    cdef int commit(Arena arena) noexcept:
        """End what `begin` began."""
        shared_commit(&arena.c)
        arena.unhold()
        return 0

    cdef int set_heap(self, unsigned interface, unsigned role) noexcept:
        """Say in the pool's control block of which heap it is, in a transaction."""
        cdef pool_t* pool = self.c.pool
        shared_put(
            &self.arena.c,
            <uint64_t*>&pool.interface,     # one word with the role
            interface | <uint64_t>role << 32,
        )
        return 0

    cdef pool_t* stub(self) noexcept:
        """What verbs take for the pool."""
        return &self.c.stub

    cdef int refuse_cause(self) except -1:
        """The error for a verb that did nothing because of lock or pool, if any."""
        cdef int cause = last_cause()
        if cause == LOCK_GONE:
            raise PoolDestroyed(f"pool {self.name!r} has been destroyed")
        return self.arena.refuse_cause(cause)

    # Blocks

    cdef offset_t alloc(self, uint64_t n_bytes, uint64_t alignment) except? 0:
        """A new block, or 0 without room."""
        cdef offset_t payload
        self.arena.hold()
        payload = pool_alloc(&self.arena.c, &self.c.stub, n_bytes, alignment)
        self.arena.unhold()
        if payload == 0:
            self.refuse_cause()
        return payload

    cdef bint give(self, offset_t payload) except -1:
        """Free a block; False if it is none of the pool's any more."""
        cdef bint is_freed
        self.arena.hold()
        is_freed = pool_free_if_owned(&self.arena.c, &self.c.stub, payload)
        self.arena.unhold()
        if not is_freed:
            self.refuse_cause()
        return is_freed

    cdef offset_t resize(
        self,
        heap_t* heap,
        offset_t payload,
        uint64_t n_bytes,
        uint64_t alignment,
        bint is_array,
    ) except? 0:
        """A block resized, by the rules of a heap unless that is NULL; or 0.

        What moves is copied without the lock.
        """
        cdef offset_t moved
        self.arena.begin_long()
        try:
            with nogil:
                limit_wait(self.arena.timeout_ns)
                if heap != NULL:
                    moved = heap_resize(heap, payload, n_bytes, alignment, is_array)
                else:
                    moved = pool_resize_patiently(
                        &self.arena.c, &self.c.stub, payload, n_bytes, alignment
                    )
                limit_wait(~<uint64_t>0)
        finally:
            self.arena.end_long()
        if moved == 0:
            self.refuse_cause()
        return moved

    cdef uint64_t alloc_each(
        self, uint64_t* sizes, uint64_t n, uint64_t alignment, offset_t* payloads
    ) except? 0:
        """New blocks of these sizes until there is no room; how many."""
        cdef uint64_t done = 0
        cdef uint64_t end
        while done < n:
            end = n if n - done < SLICE else done + SLICE
            self.arena.hold()
            while done < end:
                payloads[done] = pool_alloc(
                    &self.arena.c, &self.c.stub, sizes[done], alignment
                )
                if payloads[done] == 0:
                    break
                done += 1
            self.arena.unhold()
            if done < end:
                self.refuse_cause()
                break
        return done

    cdef offset_t free_each(self, offset_t* payloads, uint64_t n) except? 0:
        """Free blocks; 0, or the last that was none of the pool's any more."""
        cdef offset_t gone = 0
        cdef uint64_t done = 0
        cdef uint64_t end
        while done < n:
            end = n if n - done < SLICE else done + SLICE
            self.arena.hold()
            while done < end:
                if not pool_free_if_owned(
                    &self.arena.c, &self.c.stub, payloads[done]
                ):
                    gone = payloads[done]
                done += 1
            self.arena.unhold()
        if gone != 0:
            self.refuse_cause()
        return gone

    # Pages

    cdef uint64_t reserve(self, uint64_t n_pages, bint keeps) except? 0:
        """`pool_reserve`, or with ``keeps`` `pool_keep`."""
        cdef uint64_t taken
        self.arena.hold()
        taken = shared_reserve(&self.arena.c, &self.c.stub, n_pages, keeps)
        self.arena.unhold()
        if taken == 0:
            self.refuse_cause()
        return taken

    cdef uint64_t drain(self, uint64_t n_most) except? 0:
        """`waiting_give`."""
        cdef uint64_t done = 0
        cdef uint64_t n, given
        while done < n_most:
            n = n_most - done if n_most - done < SLICE else SLICE
            self.arena.hold()
            given = shared_give_waiting(&self.arena.c, &self.c.stub, n)
            self.arena.unhold()
            done += given
            if given < n:
                self.refuse_cause()
                break
        return done

    cdef uint64_t shrink(self) except? 0:
        """`pool_shrink`; pages given back."""
        cdef uint64_t page = self.arena.c.first_page
        cdef uint64_t total = 0
        cdef uint64_t n_pages = 1
        self.drain(~<uint64_t>0)
        while n_pages != 0:
            self.arena.hold()
            n_pages = shared_shrink_next(&self.arena.c, &self.c.stub, &page)
            self.arena.unhold()
            total += n_pages
        self.refuse_cause()
        return total

    # The end

    cdef bint retire(self) noexcept:
        """Take the pool out of the directory; the caller owns the lock."""
        return shared_retire(&self.arena.c, &self.c.stub)

    cdef bint release_next(self, uint32_t* page, released_t* released) noexcept:
        """`pool_release_next`; the caller owns the lock."""
        return shared_release_next(
            &self.arena.c, self.number, self.c.serial, page, released
        )
