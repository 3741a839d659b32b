# SPDX-License-Identifier: BSD-3-Clause
"""Transcendent memory: whole pages, copied in and out by key, some of which may vanish.

A *pool* is persistent or ephemeral, and an ephemeral one is private or shared. A
page's key is (pool, object, index). The effect of each verb on each kind of pool, and
the rules put-put-get and get-get, are those of tmem as published (Xen commit
6009f4ddb2 of 2009; Linux, Documentation/vm/cleancache.txt and frontswap):

- a persistent page stays until it is flushed; a put without room is refused;
- an ephemeral page may be evicted whenever there is no room for another, the least
  recently used first; a get of a private pool's page removes it;
- a put to a key that holds a page replaces it. If the new page cannot be stored,
  the old one is dropped: no get ever returns data that a later put replaced.

Pages are compressed in a heap, each with a descriptor of 32 bytes, like tmem's page
descriptors. A page that does not shrink is kept uncompressed; one of zeros takes no
memory but its descriptor.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from typing import NamedTuple

from xmem.base.errors import BadArgument, BadArgumentType, OutOfMemory, XmemError
from xmem.heap import Heap
from xmem.pool import Pool
from xmem.stores.arguments import integer_argument, page_argument
from xmem.stores.codec import codec_named
from xmem.stores.memory import Memory

__all__ = ["Put", "TmemStats", "TmemStore"]

Key = tuple[int, int, int]

#: A page's descriptor: object, offset of the data, index, bytes kept, form, pool.
DESCRIPTOR = Struct("<QQIIII")
RAW, COMPRESSED, ZEROS = range(3)
MAX_OBJECT = (1 << 64) - 1
MAX_INDEX = (1 << 32) - 1


class Put(Enum):
    """The outcome of a put."""

    #: The page is stored.
    STORED = "stored"
    #: It is stored, and replaces the page that the key had.
    REPLACED = "replaced"
    #: It is not stored; the key had no page.
    REFUSED = "refused"
    #: It is not stored, and the page that the key had is gone.
    DROPPED = "dropped"

    def __bool__(self) -> bool:
        """Whether the page is stored."""
        return self in (Put.STORED, Put.REPLACED)


class TmemStats(NamedTuple):
    """What a store holds and has done. Pages are those of the clients.

    Attributes
    ----------
    pools : int
    persistent_pages, ephemeral_pages : int
        Pages held.
    raw_pages, zero_pages : int
        Those of them that did not shrink, and those of zeros.
    data_bytes : int
        Bytes kept for all of them, not counting descriptors.
    arena_pages : int
        Pages of the arena that the heap holds.
    puts, refused, dropped : int
        Puts, those refused, and those that dropped the page held before.
    gets, found : int
        Gets, and those that found a page.
    evicted, flushed : int
        Pages evicted and flushed.
    """

    pools: int
    persistent_pages: int
    ephemeral_pages: int
    raw_pages: int
    zero_pages: int
    data_bytes: int
    arena_pages: int
    puts: int
    refused: int
    dropped: int
    gets: int
    found: int
    evicted: int
    flushed: int


@dataclass
class Client:
    """The owner of pools: a share of the ephemeral memory, a limit on the rest."""

    weight: int = 1
    limit: int | None = None  # persistent pages
    n_persistent: int = 0
    #: Keys of ephemeral pages, the least recently used first.
    recent: OrderedDict[Key, None] = field(default_factory=OrderedDict)


@dataclass
class Members:
    """A pool: its kind, its users, and its pages' descriptors by object."""

    client: Client
    is_persistent: bool
    uuid: str | None  # of a shared pool
    n_users: int = 1
    objects: dict[int, dict[int, int]] = field(default_factory=dict)


class TmemStore:
    """Transcendent memory in an arena.

    Parameters
    ----------
    heap : Heap, Pool or Memory
        Where pages and descriptors are kept; nothing else may free them.
    compression : {"lz4", "zstd"} or None
        Codec for the pages.

    Notes
    -----
    Any thread may call any method; one lock serialises the calls.
    """

    def __init__(
        self, heap: Heap | Pool | Memory, compression: str | None = "lz4"
    ) -> None:
        self._memory = Memory.of(heap)
        self._codec = None if compression is None else codec_named(compression)
        self._zeros = bytes(self._memory.page_bytes)
        self._lock = threading.RLock()
        self._pools: dict[int, Members] = {}
        self._shared: dict[str, int] = {}
        self._clients: dict[int, Client] = {}
        self._next_pool = 0
        self._is_frozen = False
        self._counts = dict.fromkeys(
            ("puts", "refused", "dropped", "gets", "found", "evicted", "flushed"), 0
        )

    @property
    def page_bytes(self) -> int:
        """Bytes of a page, as in the arena."""
        return self._memory.page_bytes

    @property
    def compression(self) -> str | None:
        """Name of the codec."""
        return None if self._codec is None else self._codec.name

    # Pools and clients

    def new_pool(self, kind: str, *, shared: str | None = None, client: int = 0) -> int:
        """Make a pool, or join a shared one.

        Parameters
        ----------
        kind : {"persistent", "ephemeral"}
            Whether its pages may vanish.
        shared : str, optional
            Name (in Xen a UUID) under which others join; ephemeral pools only.
        client : int
            The owner.

        Returns
        -------
        int
            The pool. Under a shared name it is the same each time, and lives until
            `destroy_pool` has been called as often.

        Raises
        ------
        BadArgument, BadArgumentType
            There is no such kind, or a shared pool is persistent.
        """
        if kind not in ("persistent", "ephemeral"):
            raise BadArgument(f"kind must be 'persistent' or 'ephemeral', not {kind!r}")
        if shared is not None and not isinstance(shared, str):
            raise BadArgumentType(f"shared must be str, not {type(shared).__name__}")
        if shared is not None and kind == "persistent":
            raise BadArgument("only an ephemeral pool can be shared")
        number = integer_argument(client, "client", most=MAX_INDEX)
        with self._lock:
            if shared is not None and shared in self._shared:
                pool = self._shared[shared]
                self._pools[pool].n_users += 1
                return pool
            pool = self._next_pool
            self._next_pool += 1
            self._pools[pool] = Members(
                self._clients.setdefault(number, Client()),
                kind == "persistent",
                shared,
            )
            if shared is not None:
                self._shared[shared] = pool
            return pool

    def destroy_pool(self, pool: int) -> int:
        """Flush and end a pool; leave a shared one that has other users.

        Returns
        -------
        int
            Pages flushed.
        """
        with self._lock:
            members = self._members(pool)
            members.n_users -= 1
            if members.n_users > 0:
                return 0
            n_pages = sum(self._flush_all(pool, o) for o in list(members.objects))
            del self._pools[pool]
            if members.uuid is not None:
                del self._shared[members.uuid]
            return n_pages

    def set_client(
        self, client: int, *, weight: int = 1, limit: int | None = None
    ) -> None:
        """Set a client's share and limit.

        Parameters
        ----------
        client : int
            The client.
        weight : int
            Its share of the ephemeral memory relative to others: the client that
            holds the most pages for its weight is the first to lose one.
        limit : int, optional
            Persistent pages that it may hold; those it holds already stay.
        """
        number = integer_argument(client, "client", most=MAX_INDEX)
        share = integer_argument(weight, "weight", least=1, most=MAX_INDEX)
        most = None
        if limit is not None:
            most = integer_argument(limit, "limit", most=MAX_OBJECT)
        with self._lock:
            found = self._clients.setdefault(number, Client())
            found.weight, found.limit = share, most

    def freeze(self, frozen: bool = True) -> None:
        """Refuse puts, or accept them again; gets and flushes are always served."""
        with self._lock:
            self._is_frozen = bool(frozen)

    # Pages

    def put_page(self, pool: int, object: int, index: int, page: bytes) -> Put:
        """Copy a page in.

        Parameters
        ----------
        pool, object, index : int
            Its key: a pool of `new_pool`, below 2**64, below 2**32.
        page : bytes-like
            `page_bytes` bytes.

        Returns
        -------
        Put
            True if the page is stored.

        Raises
        ------
        BadArgument, BadArgumentType
            An argument is invalid; nothing has changed.
        """
        data = page_argument(page, self.page_bytes)
        with self._lock:
            members, key = self._key(pool, object, index)
            self._counts["puts"] += 1
            was_held = self._remove(members, key)
            is_stored = not self._is_frozen and self._store(members, key, data)
            if is_stored:
                return Put.REPLACED if was_held else Put.STORED
            self._counts["dropped" if was_held else "refused"] += 1
            return Put.DROPPED if was_held else Put.REFUSED

    def get_page(self, pool: int, object: int, index: int) -> bytes | None:
        """Copy a page out; None if it is not there.

        The page is removed from a private ephemeral pool; in a shared one it becomes
        the most recently used.
        """
        with self._lock:
            members, key = self._key(pool, object, index)
            self._counts["gets"] += 1
            at = members.objects.get(key[1], {}).get(key[2])
            if at is None:
                return None
            self._counts["found"] += 1
            page = self._load(at)
            if members.uuid is not None:
                members.client.recent.move_to_end(key)
            elif not members.is_persistent:
                self._remove(members, key)
            return page

    def flush_page(self, pool: int, object: int, index: int) -> bool:
        """Remove a page; False if it was not there."""
        with self._lock:
            members, key = self._key(pool, object, index)
            was_held = self._remove(members, key)
            self._counts["flushed"] += was_held
            return was_held

    def flush_object(self, pool: int, object: int) -> int:
        """Remove all pages of an object; return how many there were."""
        with self._lock:
            self._members(pool)
            return self._flush_all(
                pool, integer_argument(object, "object", most=MAX_OBJECT)
            )

    # Inspection

    def keys(self, pool: int) -> list[tuple[int, int]]:
        """Return object and index of every page of a pool."""
        with self._lock:
            objects = self._members(pool).objects
            return [(o, i) for o, pages in objects.items() for i in pages]

    def stats(self) -> TmemStats:
        """Return what the store holds and has done, in time linear in its pages."""
        with self._lock:
            held = {True: 0, False: 0}
            kinds = dict.fromkeys((RAW, COMPRESSED, ZEROS), 0)
            n_bytes = 0
            for members, _, at in self._all():
                _, _, _, length, kind, _ = self._descriptor(at)
                held[members.is_persistent] += 1
                kinds[kind] += 1
                n_bytes += length
            return TmemStats(
                len(self._pools),
                held[True],
                held[False],
                kinds[RAW],
                kinds[ZEROS],
                n_bytes,
                self._memory.n_pages,
                **self._counts,
            )

    def check(self) -> None:
        """Verify the heap, and that index, descriptors, lists and counts agree.

        Raises
        ------
        XmemError
            They do not agree.
        HeapCorruption
            An invariant of the heap does not hold.
        """
        with self._lock:
            self._memory.heap.check()
            n_persistent = dict.fromkeys(map(id, self._clients.values()), 0)
            n_recent = dict(n_persistent)
            for members, key, at in self._all():
                found = self._descriptor(at)
                if (found[5], found[0], found[2]) != key:
                    raise XmemError(f"page {key} has the descriptor of another page")
                if members.is_persistent:
                    n_persistent[id(members.client)] += 1
                elif key not in members.client.recent:
                    raise XmemError(f"ephemeral page {key} is on no list")
                else:
                    n_recent[id(members.client)] += 1
            for client in self._clients.values():
                if (client.n_persistent, len(client.recent)) != (
                    n_persistent[id(client)],
                    n_recent[id(client)],
                ):
                    raise XmemError("a client's counts differ from its pages")

    # Parts of the verbs

    def _members(self, pool: int) -> Members:
        """Find a pool."""
        number = integer_argument(pool, "pool", most=MAX_OBJECT)
        if number not in self._pools:
            raise BadArgument(f"there is no pool {number}")
        return self._pools[number]

    def _key(self, pool: int, object: int, index: int) -> tuple[Members, Key]:
        """Convert a key."""
        number = integer_argument(pool, "pool", most=MAX_OBJECT)
        return self._members(number), (
            number,
            integer_argument(object, "object", most=MAX_OBJECT),
            integer_argument(index, "index", most=MAX_INDEX),
        )

    def _all(self) -> Iterator[tuple[Members, Key, int]]:
        """Iterate over all pages: pool, key and offset of the descriptor."""
        for pool, members in self._pools.items():
            for number, pages in members.objects.items():
                for index, at in pages.items():
                    yield members, (pool, number, index), at

    def _descriptor(self, at: int) -> tuple[int, int, int, int, int, int]:
        """Read a descriptor."""
        object, data, index, n_bytes, kind, pool = DESCRIPTOR.unpack(
            self._memory.get(at, DESCRIPTOR.size)
        )
        return object, data, index, n_bytes, kind, pool

    def _load(self, at: int) -> bytes:
        """Read the page of a descriptor."""
        _, data, _, n_bytes, kind, _ = self._descriptor(at)
        if kind == ZEROS:
            return self._zeros
        kept = self._memory.get(data, n_bytes)
        if kind == RAW:
            return kept
        assert self._codec is not None
        return self._codec.expand(kept, self.page_bytes)

    def _encode(self, page: bytes) -> tuple[int, bytes]:
        """Return the form in which a page is kept, and its bytes in that form."""
        if page == self._zeros:
            return ZEROS, b""
        if self._codec is not None:
            data = self._codec.compress(page)
            if len(data) <= self._memory.small_max and len(data) < len(page):
                return COMPRESSED, data
        return RAW, page

    def _store(self, members: Members, key: Key, page: bytes) -> bool:
        """Store a page under a key that has none; False if there is no room."""
        client = members.client
        if (
            members.is_persistent
            and client.limit is not None
            and client.n_persistent >= client.limit
        ):
            return False
        kind, data = self._encode(page)
        place = 0
        try:
            if kind != ZEROS:
                place = self._with_room(lambda: self._memory.put(data))
            descriptor = DESCRIPTOR.pack(key[1], place, key[2], len(data), kind, key[0])
            at = self._with_room(lambda: self._memory.put(descriptor))
        except OutOfMemory:
            if place:
                self._memory.free(place, len(data))
            return False
        members.objects.setdefault(key[1], {})[key[2]] = at
        if members.is_persistent:
            client.n_persistent += 1
        else:
            client.recent[key] = None
        return True

    def _with_room(self, allocate: Callable[[], int]) -> int:
        """Allocate, evicting ephemeral pages one by one while there is no room."""
        while True:
            try:
                return allocate()
            except OutOfMemory:
                if not self._evict():
                    raise

    def _evict(self) -> bool:
        """Remove an ephemeral page; False if there is none."""
        owners = [client for client in self._clients.values() if client.recent]
        if not owners:
            return False
        client = max(owners, key=lambda one: len(one.recent) / one.weight)
        key = next(iter(client.recent))
        self._remove(self._pools[key[0]], key)
        self._counts["evicted"] += 1
        return True

    def _remove(self, members: Members, key: Key) -> bool:
        """Take a page out of the store; False if it is not there."""
        pages = members.objects.get(key[1], {})
        at = pages.pop(key[2], None)
        if at is None:
            return False
        if not pages:
            del members.objects[key[1]]
        _, data, _, n_bytes, kind, _ = self._descriptor(at)
        if kind != ZEROS:
            self._memory.free(data, n_bytes)
        self._memory.free(at, DESCRIPTOR.size)
        if members.is_persistent:
            members.client.n_persistent -= 1
        else:
            del members.client.recent[key]
        return True

    def _flush_all(self, pool: int, object: int) -> int:
        """Remove all pages of an object."""
        members = self._pools[pool]
        indices = list(members.objects.get(object, {}))
        for index in indices:
            self._remove(members, (pool, object, index))
        self._counts["flushed"] += len(indices)
        return len(indices)
