# SPDX-License-Identifier: BSD-3-Clause
"""Codecs and patches: what they make of a page is turned back into the page."""

import numpy as np
import pytest

import xmem
from xmem.stores.codec import CODECS, apply_patch, codec_named, make_patch
from xmem.stores.images import mutated

PAGES = {
    "zeros": bytes(4096),
    "text": (b"some words of a page, " * 200)[:4096],
    "noise": np.random.default_rng(1).integers(0, 256, 4096, np.uint8).tobytes(),
    "byte": b"x",
}


@pytest.mark.parametrize("content", PAGES)
@pytest.mark.parametrize("name", CODECS)
def test_a_page_comes_back(name, content):
    codec = codec_named(name)
    assert codec.name == name
    page = PAGES[content]
    compressed = codec.compress(page)
    assert codec.expand(compressed, len(page)) == page
    if content in ("zeros", "text"):
        assert len(compressed) < len(page) // 8


def test_an_unknown_codec_is_refused():
    with pytest.raises(xmem.BadArgument, match="'lz4', 'zstd', not 'zip'"):
        codec_named("zip")


@pytest.mark.parametrize("base", PAGES)
@pytest.mark.parametrize("page", PAGES)
def test_a_patch_turns_one_page_into_the_other(base, page):
    if len(PAGES[base]) == len(PAGES[page]):
        patch = make_patch(PAGES[base], PAGES[page])
        assert apply_patch(PAGES[base], patch) == PAGES[page]


def test_a_patch_of_similar_pages_is_short(seed):
    base = np.frombuffer(PAGES["noise"], np.uint8)
    page = mutated(base, np.random.default_rng(seed)).tobytes()
    assert page != PAGES["noise"]
    patch = make_patch(PAGES["noise"], page)
    assert len(patch) < 400
    assert apply_patch(PAGES["noise"], patch) == page
