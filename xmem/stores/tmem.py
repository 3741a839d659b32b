# SPDX-License-Identifier: BSD-3-Clause
"""Transcendent memory: whole pages, copied in and out by key, some of which may go.

A *pool* is persistent or ephemeral, an ephemeral one private or shared; a page's
key is (pool, object, index). What each verb does in each kind of pool, and the
rules put-put-get and get-get, are those of tmem as published (Xen commit
6009f4ddb2 of 2009; Linux, Documentation/vm/cleancache.txt and frontswap):

- a persistent page stays until it is flushed; a put that has no room is refused;
- an ephemeral page may be evicted, the least recently used first, whenever there
  is no room for another; a get of a private pool's page removes it;
- a put to a key that holds a page replaces it. If the new page cannot be stored,
  the old one is dropped: no get ever answers data that a later put replaced.

Pages lie compressed in a heap, beside a descriptor of 32 bytes each, as tmem's page
descriptors did; a page that does not shrink lies as it is, one of zeros takes none.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from operator import index as as_integer
from struct import Struct
from typing import NamedTuple

from xmem.base.errors import BadArgument, BadArgumentType, OutOfMemory, XmemError
from xmem.heap import Heap
from xmem.pool import Pool
from xmem.stores.codec import codec_named
from xmem.stores.memory import Memory

__all__ = ["Put", "TmemStats", "TmemStore"]

Key = tuple[int, int, int]

#: A page's descriptor: object, place of the data, index, bytes kept, how, pool.
DESCRIPTOR = Struct("<QQIIII")
RAW, COMPRESSED, ZEROS = range(3)
MAX_OBJECT = (1 << 64) - 1
MAX_INDEX = (1 << 32) - 1


class Put(Enum):
    """What became of a put."""

    #: The page is stored.
    STORED = "stored"
    #: It is stored, in the place of the one that the key had.
    REPLACED = "replaced"
    #: It is not stored; the key had none.
    REFUSED = "refused"
    #: It is not stored, and the one that the key had is gone.
    DROPPED = "dropped"

    def __bool__(self) -> bool:
        """Whether the page is stored."""
        return self in (Put.STORED, Put.REPLACED)


class TmemStats(NamedTuple):
    """What a store holds and did. Pages are those of the client.

    Attributes
    ----------
    pools : int
    persistent_pages, ephemeral_pages : int
        Held.
    raw_pages, zero_pages : int
        Of them, those that did not shrink, and those of zeros, which take none.
    data_bytes : int
        Kept for all of them, descriptors not counted.
    arena_pages : int
        Pages of the arena that the heap holds.
    puts, refused, dropped : int
        Puts, those refused, and those that lost the page held before.
    gets, found : int
    evicted, flushed : int
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
    """Whose pools they are: a share of the ephemeral memory, a limit of the rest."""

    weight: int = 1
    limit: int | None = None  # persistent pages
    n_persistent: int = 0
    #: Keys of ephemeral pages, the least recently used first.
    recent: OrderedDict[Key, None] = field(default_factory=OrderedDict)


@dataclass
class Members:
    """A pool: its kind, who uses it, and its pages' descriptors by object."""

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
        Where pages and descriptors lie; nobody else is to free them.
    compression : {"lz4", "zstd"} or None
        How pages are compressed.

    Notes
    -----
    Every method may be called by any thread; one lock serves them in turn.
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
        """Bytes of a page, those of the arena's."""
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
            Whose it is.

        Returns
        -------
        int
            The pool. Of a shared name the same each time; the pool lives until
            `destroy_pool` has been called as often.

        Raises
        ------
        BadArgument, BadArgumentType
            There is no such kind, or a persistent pool was to be shared.
        """
        if kind not in ("persistent", "ephemeral"):
            raise BadArgument(f"kind must be 'persistent' or 'ephemeral', not {kind!r}")
        if shared is not None and not isinstance(shared, str):
            raise BadArgumentType(f"shared must be str, not {type(shared).__name__}")
        if shared is not None and kind == "persistent":
            raise BadArgument("only an ephemeral pool can be shared")
        number = _integer(client, "client", MAX_INDEX)
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
        """Flush a pool and end it; of a shared one, leave it.

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
            Which.
        weight : int
            Its share of the ephemeral memory beside that of others: pages are
            evicted of the client that has most for its weight.
        limit : int, optional
            Persistent pages that it may hold; what it holds already stays.
        """
        number = _integer(client, "client", MAX_INDEX)
        share = _integer(weight, "weight", MAX_INDEX)
        if share == 0:
            raise BadArgument("weight must be at least 1")
        most = None if limit is None else _integer(limit, "limit", MAX_OBJECT)
        with self._lock:
            found = self._clients.setdefault(number, Client())
            found.weight, found.limit = share, most

    def freeze(self, frozen: bool = True) -> None:
        """Refuse puts, or take them again; gets and flushes are served."""
        with self._lock:
            self._is_frozen = bool(frozen)

    # Pages

    def put_page(self, pool: int, object: int, index: int, page: bytes) -> Put:
        """Copy a page in.

        Parameters
        ----------
        pool, object, index : int
            Its key: of `new_pool`, below 2**64, below 2**32.
        page : bytes-like
            `page_bytes` of them.

        Returns
        -------
        Put
            True when the page is stored.

        Raises
        ------
        BadArgument, BadArgumentType
            No such pool, or no page; nothing has changed.
        """
        data = self._page(page)
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

        Of a private ephemeral pool it is removed, of a shared one it becomes the
        most recently used.
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
        """Remove all pages of an object; answers how many there were."""
        with self._lock:
            self._members(pool)
            return self._flush_all(pool, _integer(object, "object", MAX_OBJECT))

    # Looking at it

    def keys(self, pool: int) -> list[tuple[int, int]]:
        """Return object and index of every page of a pool."""
        with self._lock:
            objects = self._members(pool).objects
            return [(o, i) for o, pages in objects.items() for i in pages]

    def stats(self) -> TmemStats:
        """Return what the store holds and did; time is linear in its pages."""
        with self._lock:
            held = {True: 0, False: 0}
            kinds = dict.fromkeys((RAW, COMPRESSED, ZEROS), 0)
            n_bytes = 0
            for members, _, at in self._all():
                kind, length = self._described(at)[4], self._described(at)[3]
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
        """Verify that index, descriptors, lists and counts agree, and the heap.

        Raises
        ------
        XmemError
            They do not.
        HeapCorruption
            An invariant of the heap does not hold.
        """
        with self._lock:
            self._memory.heap.check()
            n_persistent = dict.fromkeys(map(id, self._clients.values()), 0)
            n_recent = dict(n_persistent)
            for members, key, at in self._all():
                found = self._described(at)
                if (found[5], found[0], found[2]) != key:
                    raise XmemError(f"the descriptor of page {key} is that of another")
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
                    raise XmemError("a client's counts are not those of its pages")

    # What the verbs are made of

    def _members(self, pool: int) -> Members:
        """Find a pool."""
        number = _integer(pool, "pool", MAX_OBJECT)
        if number not in self._pools:
            raise BadArgument(f"there is no pool {number}")
        return self._pools[number]

    def _key(self, pool: int, object: int, index: int) -> tuple[Members, Key]:
        """Convert a key."""
        members = self._members(pool)
        return members, (
            as_integer(pool),
            _integer(object, "object", MAX_OBJECT),
            _integer(index, "index", MAX_INDEX),
        )

    def _page(self, page: bytes) -> bytes:
        """Convert a page."""
        try:
            data = bytes(memoryview(page))
        except TypeError:
            raise BadArgumentType(
                f"page must be bytes-like, not {type(page).__name__}"
            ) from None
        if len(data) != self.page_bytes:
            raise BadArgument(
                f"a page has {self.page_bytes} bytes; {len(data)} were given"
            )
        return data

    def _all(self) -> Iterator[tuple[Members, Key, int]]:
        """Every page: its pool, its key and its descriptor's offset."""
        for pool, members in self._pools.items():
            for number, pages in members.objects.items():
                for index, at in pages.items():
                    yield members, (pool, number, index), at

    def _described(self, at: int) -> tuple[int, int, int, int, int, int]:
        """Read a descriptor."""
        object, data, index, n_bytes, kind, pool = DESCRIPTOR.unpack(
            self._memory.get(at, DESCRIPTOR.size)
        )
        return object, data, index, n_bytes, kind, pool

    def _load(self, at: int) -> bytes:
        """Read the page of a descriptor."""
        _, data, _, n_bytes, kind, _ = self._described(at)
        if kind == ZEROS:
            return self._zeros
        kept = self._memory.get(data, n_bytes)
        if kind == RAW:
            return kept
        assert self._codec is not None
        return self._codec.expand(kept, self.page_bytes)

    def _encoded(self, page: bytes) -> tuple[int, bytes]:
        """How a page is kept, and as what bytes."""
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
        kind, data = self._encoded(page)
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
        """Allocate; where there is no room, evict ephemeral pages one by one."""
        while True:
            try:
                return allocate()
            except OutOfMemory:
                if not self._evict():
                    raise

    def _evict(self) -> bool:
        """Remove an ephemeral page; False if there is none."""
        having = [client for client in self._clients.values() if client.recent]
        if not having:
            return False
        client = max(having, key=lambda one: len(one.recent) / one.weight)
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
        _, data, _, n_bytes, kind, _ = self._described(at)
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


def _integer(value: int, name: str, most: int) -> int:
    """Convert an integer of at most ``most``."""
    try:
        number = as_integer(value)
    except TypeError:
        raise BadArgumentType(
            f"{name} must be an integer, not {type(value).__name__}"
        ) from None
    if not 0 <= number <= most:
        raise BadArgument(f"{name} must be from 0 to {most}, not {number}")
    return number
