# SPDX-License-Identifier: BSD-3-Clause
"""Compression of pages, and patches between them, by libraries."""

from collections.abc import Callable
from typing import Protocol

from xmem.base.errors import BadArgument

try:
    import lz4.block
    import zstandard
except ImportError:
    raise ImportError(
        "the stores need lz4, zstandard and xxhash: pip install 'xmem-tlsf[stores]'"
    ) from None

__all__ = ["CODECS", "Codec", "apply_patch", "codec_named", "make_patch"]


class Codec(Protocol):
    """A codec for pages."""

    name: str

    def compress(self, page: bytes) -> bytes:
        """Return the page compressed."""

    def expand(self, data: bytes, n_bytes: int) -> bytes:
        """Return the page of ``n_bytes`` that was compressed."""


class Lz4:
    """LZ4's block format: faster, compresses less."""

    name = "lz4"

    def compress(self, page: bytes) -> bytes:
        """Return the page compressed."""
        return bytes(lz4.block.compress(page, store_size=False))

    def expand(self, data: bytes, n_bytes: int) -> bytes:
        """Return the page of ``n_bytes`` that was compressed."""
        return bytes(lz4.block.decompress(data, uncompressed_size=n_bytes))


class Zstd:
    """Zstandard, level 1: slower, compresses more."""

    name = "zstd"

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
        self._expander = zstandard.ZstdDecompressor()

    def compress(self, page: bytes) -> bytes:
        """Return the page compressed."""
        return self._compressor.compress(page)

    def expand(self, data: bytes, n_bytes: int) -> bytes:
        """Return the page of ``n_bytes`` that was compressed."""
        return self._expander.decompress(data, max_output_size=n_bytes)


CODECS: dict[str, Callable[[], Codec]] = {"lz4": Lz4, "zstd": Zstd}


def codec_named(name: str) -> Codec:
    """Return a new codec of a name in `CODECS`.

    Raises
    ------
    BadArgument
        There is no such codec.
    """
    if name not in CODECS:
        raise BadArgument(
            f"compression must be one of {', '.join(map(repr, CODECS))}, not {name!r}"
        )
    return CODECS[name]()


def make_patch(base: bytes, page: bytes) -> bytes:
    """Return the patch that turns one page into another.

    It is the page compressed by Zstandard with the base as dictionary, so common
    parts become copy instructions.
    """
    dictionary = zstandard.ZstdCompressionDict(
        base, dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    return zstandard.ZstdCompressor(
        level=3, dict_data=dictionary, write_content_size=False, write_dict_id=False
    ).compress(page)


def apply_patch(base: bytes, patch: bytes) -> bytes:
    """Apply a patch to its base; return the page, which has the base's length."""
    dictionary = zstandard.ZstdCompressionDict(
        base, dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(
        patch, max_output_size=len(base)
    )
