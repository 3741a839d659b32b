# SPDX-License-Identifier: BSD-3-Clause
"""Difference Engine: pages of several machines, shared, patched and compressed.

Three mechanisms, in this order (Gupta et al., OSDI 2008):

- *share*: pages with equal contents, found by hash and compared byte by byte, are
  kept once; a write makes a copy of its own;
- *patch*: a page that resembles another is kept as the difference to it. Candidates
  are found by hashes of blocks of 64 bytes at fixed random places: `k` signatures of
  `s` blocks each, of which one that is equal makes a candidate; `c` of them are kept
  for each signature. A patch of more than `patch_max` bytes is not worth keeping;
- *compress*: what is neither, and shrinks enough.

A clock decides: what was written since its hand came by is left alone; what was not
may be shared or be a reference; what was not even read is patched or compressed.
Reading a page restores it whole.
"""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from operator import index as as_integer
from typing import NamedTuple

import numpy as np
import xxhash

from xmem.base.errors import BadArgument, BadArgumentType, OutOfMemory, XmemError
from xmem.heap import Heap
from xmem.pool import Pool
from xmem.stores.codec import apply_patch, codec_named, make_patch
from xmem.stores.memory import Memory

__all__ = ["DifferenceEngine", "EngineStats"]

SAMPLE_BYTES = 64
Name = tuple[int, int]


class Form(Enum):
    """How contents are kept."""

    WHOLE = "whole"
    PATCHED = "patched"
    COMPRESSED = "compressed"


@dataclass(eq=False)
class Content:
    """The bytes of one or more pages, and how they are kept."""

    offset: int
    n_bytes: int
    pages: set[Name]
    form: Form = Form.WHOLE
    base: "Content | None" = None  # of a patch
    n_patches: int = 0  # that have this as their base
    was_written: bool = True  # since the hand came by
    was_read: bool = True
    digest: int | None = None  # once it may be shared
    signatures: tuple[int, ...] = ()  # while it may be a base


class EngineStats(NamedTuple):
    """What a store holds and saves.

    Attributes
    ----------
    pages : int
        Pages of the machines.
    whole, patched, compressed : int
        Contents kept in each way; ``whole`` counts references that no page uses
        any more.
    shared : int
        Pages beyond the first of each content.
    saved_by_sharing, saved_by_patching, saved_by_compression : int
        Bytes, against a page for each page.
    held_bytes : int
        Kept for all contents.
    arena_pages : int
        Pages of the arena that the heap holds.
    patch_bytes : float
        Mean length of a patch; 0 without one.
    """

    pages: int
    whole: int
    patched: int
    compressed: int
    shared: int
    saved_by_sharing: int
    saved_by_patching: int
    saved_by_compression: int
    held_bytes: int
    arena_pages: int
    patch_bytes: float

    @property
    def saved(self) -> float:
        """Share of the pages' bytes that the arena does not need."""
        return 1.0 - self.arena_pages / self.pages if self.pages else 0.0


@dataclass
class Index:
    """Contents by hash, and candidates by signature."""

    by_digest: dict[int, list[Content]] = field(default_factory=dict)
    by_signature: dict[int, list[Content]] = field(default_factory=dict)


class DifferenceEngine:
    """Pages of machines in an arena, each kept in the least way that fits it.

    Parameters
    ----------
    heap : Heap, Pool or Memory
        Where contents lie; nobody else is to free them.
    compression : {"lz4", "zstd"}
        How pages are compressed that can be neither shared nor patched.
    k, s, c : int
        Signatures of a page, blocks of a signature, candidates of a signature.
    patch_max : int, optional
        Bytes of the longest patch; by default half a page.
    compressed_max : int, optional
        Bytes that a compressed page may have; by default three quarters of a page.
    seed : int
        Of the places that are sampled.

    Notes
    -----
    Every method may be called by any thread; one lock serves them in turn.
    """

    def __init__(
        self,
        heap: Heap | Pool | Memory,
        *,
        compression: str = "zstd",
        k: int = 2,
        s: int = 1,
        c: int = 1,
        patch_max: int | None = None,
        compressed_max: int | None = None,
        seed: int = 2008,
    ) -> None:
        self._memory = Memory.of(heap)
        self._codec = codec_named(compression)
        page = self._memory.page_bytes
        self._n_candidates = _count(c, "c", 1)
        self._patch_max = page // 2 if patch_max is None else _count(patch_max, "", 0)
        self._compressed_max = (
            page * 3 // 4
            if compressed_max is None
            else _count(compressed_max, "compressed_max", 0)
        )
        places = np.random.default_rng(seed).integers(
            0, page - SAMPLE_BYTES + 1, (_count(k, "k", 1), _count(s, "s", 1))
        )
        self._places: list[list[int]] = places.tolist()
        self._lock = threading.RLock()
        self._pages: dict[Name, Content] = {}
        self._clock: deque[Content] = deque()
        self._index = Index()

    @property
    def page_bytes(self) -> int:
        """Bytes of a page, those of the arena's."""
        return self._memory.page_bytes

    # Pages

    def write_page(self, machine: int, number: int, page: bytes) -> None:
        """Set a page's contents; others that shared them keep theirs.

        Parameters
        ----------
        machine, number : int
            Which page.
        page : bytes-like
            `page_bytes` of them.

        Raises
        ------
        OutOfMemory
            No room for a copy; nothing has changed.
        BadArgument, BadArgumentType
            No page; nothing has changed.
        """
        name = _name(machine, number)
        data = self._page(page)
        with self._lock:
            old = self._pages.get(name)
            if old is not None and self._is_own(old):
                self._forget(old)
                self._memory.write(old.offset, data)
                old.was_written = old.was_read = True
                return
            new = Content(self._memory.put(data), len(data), {name})
            if old is not None:
                self._leave(old, name)
            self._pages[name] = new
            self._clock.append(new)

    def read_page(self, machine: int, number: int) -> bytes:
        """Return a page's contents; patched or compressed, it is whole then.

        Raises
        ------
        BadArgument
            There is no such page.
        """
        with self._lock:
            content = self._content(machine, number)
            content.was_read = True
            data = self._bytes(content)
            if content.form is not Form.WHOLE:
                self._restore(content, data)
            return data

    def free_page(self, machine: int, number: int) -> None:
        """Forget a page.

        Raises
        ------
        BadArgument
            There is no such page.
        """
        with self._lock:
            content = self._content(machine, number)
            name = _name(machine, number)
            del self._pages[name]
            self._leave(content, name)

    def free_machine(self, machine: int) -> int:
        """Forget all pages of a machine; answers how many there were."""
        with self._lock:
            names = [name for name in self._pages if name[0] == as_integer(machine)]
            for name in names:
                self.free_page(*name)
            return len(names)

    def scan(self, n_contents: int | None = None) -> int:
        """Move the clock's hand: share, patch, compress.

        Parameters
        ----------
        n_contents : int, optional
            How far; by default once around.

        Returns
        -------
        int
            Contents that were passed.
        """
        with self._lock:
            left = (
                len(self._clock)
                if n_contents is None
                else min(_count(n_contents, "n_contents", 0), len(self._clock))
            )
            done = 0
            while done < left and self._clock:
                content = self._clock.popleft()
                done += 1
                if content.offset and self._pass(content):
                    self._clock.append(content)
            return done

    def pages(self) -> list[Name]:
        """Return machine and number of every page."""
        with self._lock:
            return list(self._pages)

    # Looking at it

    def stats(self) -> EngineStats:
        """Return what the store holds and saves; linear in its contents."""
        with self._lock:
            contents = list(self._contents())
            page = self.page_bytes
            of = {form: [c for c in contents if c.form is form] for form in Form}
            shared = sum(max(len(content.pages) - 1, 0) for content in contents)
            lengths = [content.n_bytes for content in of[Form.PATCHED]]
            return EngineStats(
                len(self._pages),
                len(of[Form.WHOLE]),
                len(of[Form.PATCHED]),
                len(of[Form.COMPRESSED]),
                shared,
                shared * page,
                sum(page - n_bytes for n_bytes in lengths),
                sum(page - content.n_bytes for content in of[Form.COMPRESSED]),
                sum(content.n_bytes for content in contents),
                self._memory.n_pages,
                sum(lengths) / len(lengths) if lengths else 0.0,
            )

    def check(self) -> None:
        """Verify that pages, contents, patches and index agree, and the heap.

        Raises
        ------
        XmemError
            They do not.
        HeapCorruption
            An invariant of the heap does not hold.
        """
        with self._lock:
            self._memory.heap.check()
            n_patches: dict[int, int] = {}
            contents = list(self._contents())
            for content in contents:
                if any(self._pages.get(name) is not content for name in content.pages):
                    raise XmemError("a page is not where its contents are")
                if (content.base is not None) != (content.form is Form.PATCHED):
                    raise XmemError("a patch has no base")
                if content.base is not None:
                    if content.base.form is not Form.WHOLE or not content.base.offset:
                        raise XmemError("the base of a patch is not whole")
                    key = id(content.base)
                    n_patches[key] = n_patches.get(key, 0) + 1
                if not content.pages and not content.n_patches:
                    raise XmemError("contents are kept that nobody needs")
            if any(c.n_patches != n_patches.get(id(c), 0) for c in contents):
                raise XmemError("a base does not know its patches")
            if sum(len(content.pages) for content in contents) != len(self._pages):
                raise XmemError("contents have pages that there are not")

    # What they are made of

    def _contents(self) -> Iterator[Content]:
        """Every content: the clock has all that are kept, each once."""
        return (content for content in self._clock if content.offset)

    def _content(self, machine: int, number: int) -> Content:
        """Contents of a page."""
        name = _name(machine, number)
        if name not in self._pages:
            raise BadArgument(f"machine {name[0]} has no page {name[1]}")
        return self._pages[name]

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

    def _bytes(self, content: Content) -> bytes:
        """Contents, whole."""
        kept = self._memory.get(content.offset, content.n_bytes)
        if content.form is Form.COMPRESSED:
            return self._codec.expand(kept, self.page_bytes)
        if content.base is not None:
            base = content.base
            return apply_patch(self._memory.get(base.offset, base.n_bytes), kept)
        return kept

    @staticmethod
    def _is_own(content: Content) -> bool:
        """Whether contents can be overwritten: whole, of one page, no base."""
        return (
            content.form is Form.WHOLE
            and len(content.pages) == 1
            and not content.n_patches
        )

    def _leave(self, content: Content, name: Name) -> None:
        """Take a page off its contents, which end when nobody needs them."""
        content.pages.discard(name)
        self._end_if_unused(content)

    def _end_if_unused(self, content: Content) -> None:
        """Free contents that are no page's and no patch's base."""
        if content.pages or content.n_patches:
            return
        self._forget(content)
        self._memory.free(content.offset, content.n_bytes)
        content.offset = 0  # the clock's hand lets go of it
        self._part(content)

    def _part(self, content: Content) -> None:
        """Part a patch from its base."""
        base, content.base = content.base, None
        if base is not None:
            base.n_patches -= 1
            self._end_if_unused(base)

    def _become(
        self, content: Content, form: Form, data: bytes, base: Content | None = None
    ) -> bool:
        """Keep contents in another form; False, and nothing changed, without room."""
        try:
            offset = self._memory.put(data)
        except OutOfMemory:
            return False
        self._memory.free(content.offset, content.n_bytes)
        content.offset, content.n_bytes, content.form = offset, len(data), form
        if base is not None:
            base.n_patches += 1
        self._part(content)
        content.base = base
        return True

    def _restore(self, content: Content, data: bytes) -> None:
        """Make contents whole, if there is room."""
        if self._become(content, Form.WHOLE, data):
            self._index_signatures(content, data)

    # The clock

    def _pass(self, content: Content) -> bool:
        """Do for contents what their age allows; False if they have ended."""
        if content.was_written:
            content.was_written = False
            return True
        if content.form is not Form.WHOLE:
            return True
        data = self._bytes(content)
        if content.digest is None and self._share(content, data):
            return False
        if content.was_read:
            content.was_read = False
        elif not (
            content.n_patches or self._patch(content, data) or self._is_wanted(content)
        ):
            self._compress(content, data)
        return True

    def _share(self, content: Content, data: bytes) -> bool:
        """Let the pages of equal contents have these instead, if there are any."""
        digest = xxhash.xxh3_64_intdigest(data)
        same = self._index.by_digest.setdefault(digest, [])
        for other in same:
            if self._bytes(other) == data:
                for name in content.pages:
                    self._pages[name] = other
                other.pages |= content.pages
                content.pages.clear()
                self._end_if_unused(content)
                return not content.offset
        same.append(content)
        content.digest = digest
        self._index_signatures(content, data)
        return False

    def _signatures(self, data: bytes) -> tuple[int, ...]:
        """Return the k signatures of a page."""
        return tuple(
            xxhash.xxh3_64_intdigest(
                b"".join(data[at : at + SAMPLE_BYTES] for at in places), seed=i
            )
            for i, places in enumerate(self._places)
        )

    def _index_signatures(self, content: Content, data: bytes) -> None:
        """List whole contents; the first c of a list are candidates for the rest."""
        content.signatures = self._signatures(data)
        for signature in content.signatures:
            found = self._index.by_signature.setdefault(signature, [])
            if content not in found:
                found.append(content)

    def _forget_signatures(self, content: Content) -> None:
        """Let contents be no candidate any more."""
        for signature in content.signatures:
            found = self._index.by_signature.get(signature, [])
            if content in found:
                found.remove(content)
            if not found:
                self._index.by_signature.pop(signature, None)
        content.signatures = ()

    def _forget(self, content: Content) -> None:
        """Take contents out of the index: they change or end."""
        self._forget_signatures(content)
        if content.digest is not None:
            same = self._index.by_digest[content.digest]
            same.remove(content)
            if not same:
                del self._index.by_digest[content.digest]
            content.digest = None

    def _patch(self, content: Content, data: bytes) -> bool:
        """Keep contents as a patch, if a short one exists."""
        best: tuple[int, bytes, Content] | None = None
        tried: list[Content] = [content]
        for signature in content.signatures:
            for base in self._index.by_signature[signature][: self._n_candidates]:
                if base is content:
                    break
                if base in tried:
                    continue
                tried.append(base)
                patch = make_patch(self._bytes(base), data)
                if len(patch) <= self._patch_max and (
                    best is None or len(patch) < best[0]
                ):
                    best = len(patch), patch, base
        if best is None:
            return False
        if not self._become(content, Form.PATCHED, best[1], best[2]):
            return False
        self._forget_signatures(content)
        return True

    def _is_wanted(self, content: Content) -> bool:
        """Whether whole contents are a candidate that others have not tried yet."""
        for signature in content.signatures:
            found = self._index.by_signature[signature]
            if len(found) > 1 and content in found[: self._n_candidates]:
                return True
        return False

    def _compress(self, content: Content, data: bytes) -> None:
        """Keep contents compressed, if they shrink enough."""
        packed = self._codec.compress(data)
        most = min(self._compressed_max, self._memory.small_max)
        if len(packed) <= most and self._become(content, Form.COMPRESSED, packed):
            self._forget_signatures(content)


def _count(value: int, name: str, least: int) -> int:
    """Convert an integer of at least ``least``."""
    try:
        number = as_integer(value)
    except TypeError:
        raise BadArgumentType(
            f"{name} must be an integer, not {type(value).__name__}"
        ) from None
    if number < least:
        raise BadArgument(f"{name} must be at least {least}, not {number}")
    return number


def _name(machine: int, number: int) -> Name:
    """Convert a page's name."""
    return _count(machine, "machine", 0), _count(number, "number", 0)
