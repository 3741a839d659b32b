# SPDX-License-Identifier: BSD-3-Clause
"""The remainder: when it is cut, when it is replaced, and that nothing hides it."""

import pytest

END = 1 << 16


@pytest.fixture
def engine(probe):
    """An engine whose remainder is what one block of 32 bytes has left of a region."""
    engine = probe.Engine(END)
    engine.add_region(engine.first, END)
    assert engine.aside == 0
    assert engine.alloc(32) + 32 == engine.aside
    return engine


def size(engine, block):
    return {found["block"]: found["size"] for found in engine.walk(engine.first)}[block]


def take_all_but(engine, n_bytes):
    """Leave ``n_bytes`` of the remainder, which is all that is free."""
    wall = engine.alloc(size(engine, engine.aside) - n_bytes - 16)
    assert size(engine, engine.aside) in (n_bytes, n_bytes + 16)
    return wall


def test_small_requests_are_cut_off_its_front(engine):
    for need in (32, 48, 1008, 512):
        aside, listed = engine.aside, len(engine.listed())
        assert engine.alloc(need) == aside
        assert aside + need <= engine.aside <= aside + need + 16
        assert len(engine.listed()) == listed == 1


def test_a_listed_block_of_the_very_size_comes_first(engine):
    freed, _ = engine.alloc(96), engine.alloc(32)
    engine.free(freed)
    aside = engine.aside
    assert engine.alloc(80) == aside
    assert engine.alloc(96) == freed


def test_a_larger_request_leaves_it_while_a_listed_block_serves(engine):
    freed, _ = engine.alloc(2048), engine.alloc(32)
    engine.free(freed)
    aside = engine.aside
    assert engine.alloc(1024) == freed
    assert engine.aside == aside


@pytest.mark.parametrize("need", [1024, 4096, 20_000])
@pytest.mark.parametrize("alignment", [16, 256])
def test_a_larger_or_aligned_request_takes_it_if_nothing_else_serves(
    engine, need, alignment
):
    aside = engine.aside
    block = engine.alloc(need, alignment)
    assert aside <= block < aside + alignment + 16
    assert engine.aside != aside


def holes(engine, *sizes):
    """Free blocks of these sizes, each between two that are in use."""
    blocks = []
    for need in sizes:
        blocks.append(engine.alloc(need))
        engine.alloc(32)
    for block in blocks:
        engine.free(block)
    return blocks


def test_the_least_block_with_bytes_to_spare_replaces_it(engine):
    """The old one is listed, and what is left of the block is the new one."""
    _, exact, best, _ = holes(engine, 96, 144, 256, 512)
    take_all_but(engine, 64)
    old = engine.aside
    assert engine.alloc(128) == best
    assert engine.aside == best + 128
    assert old in engine.listed()
    assert exact in engine.listed()


def test_a_block_without_bytes_to_spare_serves_if_no_other_does(engine):
    fits, less = holes(engine, 144, 96)
    take_all_but(engine, 64)
    old = engine.aside
    assert engine.alloc(128) == fits
    assert engine.aside == old, "16 bytes are no block"
    assert less in engine.listed()


def test_it_is_used_up_when_nothing_else_serves(engine):
    take_all_but(engine, 64)
    last = engine.aside
    whole = size(engine, last)
    assert engine.alloc(whole + 16) == 0
    assert engine.aside == last
    assert engine.alloc(whole - 16) == last
    assert engine.aside == 0
    assert engine.alloc(32) == 0
    engine.free(last)
    assert engine.alloc(whole) == last


@pytest.mark.parametrize("free_left", [False, True])
def test_what_merges_with_it_is_it(engine, free_left):
    left, block = engine.alloc(96), engine.alloc(64)
    if free_left:
        engine.free(left)
    engine.free(block)
    assert engine.aside == (left if free_left else block)
    assert list(engine.listed()) == [engine.aside]


def test_a_block_behind_it_merges_with_it(engine):
    hole, wall = engine.alloc(512), engine.alloc(32)
    take_all_but(engine, 64)
    engine.free(hole)
    engine.alloc(96)
    assert hole < engine.aside < wall
    aside = engine.aside
    engine.free(wall)
    assert engine.aside == aside
    assert size(engine, aside) == 512 + 32 - 96


def test_a_resize_takes_it_in(engine):
    block = engine.alloc(96)
    aside = engine.aside
    assert engine.resize(block, 4096)
    assert engine.aside == 0, "the rest of a resize goes on its list"
    assert aside not in engine.listed()


def test_a_search_finds_it_last(engine):
    (hole,) = holes(engine, 512)
    aside = engine.aside
    assert engine.find(512) == hole
    assert engine.find(528) == aside
    assert engine.find(size(engine, aside)) == aside
    assert engine.find(size(engine, aside) + 16) == 0


def test_it_can_be_listed(engine, probe):
    aside = engine.aside
    engine.list_aside()
    assert engine.aside == 0
    assert engine.listed() == {aside: probe.mapping(size(engine, aside))[0]}
    engine.list_aside()
    assert len(engine.listed()) == 1
    assert engine.alloc(96) == aside
