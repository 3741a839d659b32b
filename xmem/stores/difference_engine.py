# SPDX-License-Identifier: BSD-3-Clause
"""Difference Engine: pages of several machines, shared, patched and compressed.

Three mechanisms are tried in this order (Gupta et al., OSDI 2008):

- *share*: pages with equal contents, found by hash and compared byte by byte, are
  kept once; a write makes a private copy;
- *patch*: a page that resembles another is kept as its difference from it.
  Candidates are found by hashes of 64-byte blocks at fixed random places: each page
  has `k` signatures of `s` blocks, and a page that shares a signature is a candidate.
  `c` candidates are kept for each signature. A patch of more than `patch_max` bytes
  is not kept;
- *compress*: any other page that shrinks enough.

A clock chooses the pages. Pages written since its hand last passed are left alone;
the others may be shared or serve as a base for patches; those that were not even
read are patched or compressed. Reading a page restores it whole.
"""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
import xxhash

from xmem.base.errors import BadArgument, OutOfMemory, XmemError
from xmem.heap import Heap
from xmem.pool import Pool
from xmem.stores.arguments import integer_argument, page_argument
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
    was_written: bool = True  # since the hand last passed
    was_read: bool = True
    digest: int | None = None  # set once it may be shared
    signatures: tuple[int, ...] = ()  # empty unless it may be a base


class EngineStats(NamedTuple):
    """What a store holds, and the memory it saves.

    Attributes
    ----------
    pages : int
        Pages of the machines.
    whole, patched, compressed : int
        Contents kept in each way; ``whole`` includes bases that no page uses any
        more.
    shared : int
        Pages beyond the first of each content.
    saved_by_sharing, saved_by_patching, saved_by_compression : int
        Bytes saved, compared with keeping every page whole.
    held_bytes : int
        Bytes of all contents as they are kept.
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
        """Fraction of the pages' bytes that the arena does not need."""
        return 1.0 - self.arena_pages / self.pages if self.pages else 0.0


@dataclass
class Index:
    """Contents by hash, and candidates by signature."""

    by_digest: dict[int, list[Content]] = field(default_factory=dict)
    by_signature: dict[int, list[Content]] = field(default_factory=dict)


class DifferenceEngine:
    """Pages of several machines in an arena, each kept in the smallest form.

    Parameters
    ----------
    heap : Heap, Pool or Memory
        Where contents are kept; nothing else may free them.
    compression : {"lz4", "zstd"}
        Codec for pages that can be neither shared nor patched.
    k, s, c : int
        Signatures per page, blocks per signature, candidates per signature.
    patch_max : int, optional
        Greatest length of a patch in bytes; by default half a page.
    compressed_max : int, optional
        Greatest length of a compressed page; by default three quarters of a page.
    seed : int
        Seed of the places that are sampled.

    Notes
    -----
    Any thread may call any method; one lock serialises the calls.
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
        self._n_candidates = integer_argument(c, "c", least=1)
        self._patch_max = integer_argument(
            page // 2 if patch_max is None else patch_max, "patch_max"
        )
        self._compressed_max = integer_argument(
            page * 3 // 4 if compressed_max is None else compressed_max,
            "compressed_max",
        )
        n_places = integer_argument(k, "k", least=1), integer_argument(s, "s", least=1)
        places = np.random.default_rng(integer_argument(seed, "seed")).integers(
            0, page - SAMPLE_BYTES + 1, n_places
        )
        self._places: list[list[int]] = places.tolist()
        self._lock = threading.RLock()
        self._pages: dict[Name, Content] = {}
        self._clock: deque[Content] = deque()
        self._index = Index()

    @property
    def page_bytes(self) -> int:
        """Bytes of a page, as in the arena."""
        return self._memory.page_bytes

    # Pages

    def write_page(self, machine: int, number: int, page: bytes) -> None:
        """Set a page's contents; pages that shared the old contents keep them.

        Parameters
        ----------
        machine, number : int
            The page.
        page : bytes-like
            `page_bytes` bytes.

        Raises
        ------
        OutOfMemory
            There is no room for a copy; nothing has changed.
        BadArgument, BadArgumentType
            An argument is invalid; nothing has changed.
        """
        name = _name(machine, number)
        data = page_argument(page, self.page_bytes)
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
        """Return a page's contents; a patched or compressed page is made whole.

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
        """Forget all pages of a machine; return how many there were."""
        number = integer_argument(machine, "machine")
        with self._lock:
            names = [name for name in self._pages if name[0] == number]
            for name in names:
                self.free_page(*name)
            return len(names)

    def scan(self, n_contents: int | None = None) -> int:
        """Move the clock's hand: share, patch, compress.

        Parameters
        ----------
        n_contents : int, optional
            How far to move it; by default once around.

        Returns
        -------
        int
            Contents that the hand passed.
        """
        with self._lock:
            left = (
                len(self._clock)
                if n_contents is None
                else min(integer_argument(n_contents, "n_contents"), len(self._clock))
            )
            done = 0
            while done < left and self._clock:
                content = self._clock.popleft()
                done += 1
                if content.offset and self._visit(content):
                    self._clock.append(content)
            return done

    def pages(self) -> list[Name]:
        """Return machine and number of every page."""
        with self._lock:
            return list(self._pages)

    # Inspection

    def stats(self) -> EngineStats:
        """Return what the store holds and saves, in time linear in its contents."""
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
        """Verify the heap, and that pages, contents, patches and index agree.

        Raises
        ------
        XmemError
            They do not agree.
        HeapCorruption
            An invariant of the heap does not hold.
        """
        with self._lock:
            self._memory.heap.check()
            n_patches: dict[int, int] = {}
            contents = list(self._contents())
            for content in contents:
                if any(self._pages.get(name) is not content for name in content.pages):
                    raise XmemError("contents name a page that has other contents")
                if (content.base is not None) != (content.form is Form.PATCHED):
                    raise XmemError("a patch has no base")
                if content.base is not None:
                    if content.base.form is not Form.WHOLE or not content.base.offset:
                        raise XmemError("the base of a patch is not whole")
                    key = id(content.base)
                    n_patches[key] = n_patches.get(key, 0) + 1
                if not content.pages and not content.n_patches:
                    raise XmemError("contents are kept that no page and no patch needs")
            if any(c.n_patches != n_patches.get(id(c), 0) for c in contents):
                raise XmemError("a base has a wrong number of patches")
            if sum(len(content.pages) for content in contents) != len(self._pages):
                raise XmemError("contents name pages that do not exist")

    # Contents

    def _contents(self) -> Iterator[Content]:
        """Iterate over all contents: the clock has each of them once."""
        return (content for content in self._clock if content.offset)

    def _content(self, machine: int, number: int) -> Content:
        """Find the contents of a page."""
        name = _name(machine, number)
        if name not in self._pages:
            raise BadArgument(f"machine {name[0]} has no page {name[1]}")
        return self._pages[name]

    def _bytes(self, content: Content) -> bytes:
        """Return contents whole."""
        kept = self._memory.get(content.offset, content.n_bytes)
        if content.form is Form.COMPRESSED:
            return self._codec.expand(kept, self.page_bytes)
        if content.base is not None:
            base = content.base
            return apply_patch(self._memory.get(base.offset, base.n_bytes), kept)
        return kept

    @staticmethod
    def _is_own(content: Content) -> bool:
        """Whether contents can be overwritten: whole, of one page, and no base."""
        return (
            content.form is Form.WHOLE
            and len(content.pages) == 1
            and not content.n_patches
        )

    def _leave(self, content: Content, name: Name) -> None:
        """Take a page from its contents, which are freed if nothing needs them."""
        content.pages.discard(name)
        self._free_if_unused(content)

    def _free_if_unused(self, content: Content) -> None:
        """Free contents that have no page and are no patch's base."""
        if content.pages or content.n_patches:
            return
        self._forget(content)
        self._memory.free(content.offset, content.n_bytes)
        content.offset = 0  # the clock's hand drops it
        self._detach(content)

    def _detach(self, content: Content) -> None:
        """Detach a patch from its base."""
        base, content.base = content.base, None
        if base is not None:
            base.n_patches -= 1
            self._free_if_unused(base)

    def _convert(
        self, content: Content, form: Form, data: bytes, base: Content | None = None
    ) -> bool:
        """Keep contents in another form; False, with nothing changed, without room."""
        try:
            offset = self._memory.put(data)
        except OutOfMemory:
            return False
        self._memory.free(content.offset, content.n_bytes)
        content.offset, content.n_bytes, content.form = offset, len(data), form
        if base is not None:
            base.n_patches += 1
        self._detach(content)
        content.base = base
        return True

    def _restore(self, content: Content, data: bytes) -> None:
        """Make contents whole, if there is room."""
        if self._convert(content, Form.WHOLE, data):
            self._index_signatures(content, data)

    # The clock

    def _visit(self, content: Content) -> bool:
        """Share, patch or compress contents as their age allows; False if freed."""
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
        """Give the pages of these contents to equal ones, if there are any."""
        digest = xxhash.xxh3_64_intdigest(data)
        same = self._index.by_digest.setdefault(digest, [])
        for other in same:
            if self._bytes(other) == data:
                for name in content.pages:
                    self._pages[name] = other
                other.pages |= content.pages
                content.pages.clear()
                self._free_if_unused(content)
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
        """Enter whole contents in the index; the first c of a list are candidates."""
        content.signatures = self._signatures(data)
        for signature in content.signatures:
            found = self._index.by_signature.setdefault(signature, [])
            if content not in found:
                found.append(content)

    def _forget_signatures(self, content: Content) -> None:
        """Take contents out of the lists of candidates."""
        for signature in content.signatures:
            found = self._index.by_signature.get(signature, [])
            if content in found:
                found.remove(content)
            if not found:
                self._index.by_signature.pop(signature, None)
        content.signatures = ()

    def _forget(self, content: Content) -> None:
        """Take contents out of the index, because they change or are freed."""
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
        seen: list[Content] = [content]
        for signature in content.signatures:
            for base in self._index.by_signature[signature][: self._n_candidates]:
                if base is content:
                    break
                if base in seen:
                    continue
                seen.append(base)
                patch = make_patch(self._bytes(base), data)
                if len(patch) <= self._patch_max and (
                    best is None or len(patch) < best[0]
                ):
                    best = len(patch), patch, base
        if best is None:
            return False
        if not self._convert(content, Form.PATCHED, best[1], best[2]):
            return False
        self._forget_signatures(content)
        return True

    def _is_wanted(self, content: Content) -> bool:
        """Whether whole contents are a candidate that others may still use."""
        for signature in content.signatures:
            found = self._index.by_signature[signature]
            if len(found) > 1 and content in found[: self._n_candidates]:
                return True
        return False

    def _compress(self, content: Content, data: bytes) -> None:
        """Keep contents compressed, if they shrink enough."""
        packed = self._codec.compress(data)
        most = min(self._compressed_max, self._memory.small_max)
        if len(packed) <= most and self._convert(content, Form.COMPRESSED, packed):
            self._forget_signatures(content)


def _name(machine: int, number: int) -> Name:
    """Convert a page's name."""
    return integer_argument(machine, "machine"), integer_argument(number, "number")
