# SPDX-License-Identifier: BSD-3-Clause
"""The superblock of a new arena: constants that are stated elsewhere as well."""

import ast
import re

import pytest
from support.builds import ROOT

import xmem

HEADER = (ROOT / "xmem" / "arena" / "superblock.pxd").read_text()
DEFAULT_POOLS = int(re.search(r"ARENA_DEFAULT_POOLS = (\d+)", HEADER)[1])


def test_the_default_of_pools_is_that_of_the_stub():
    tree = ast.parse((ROOT / "xmem" / "arena" / "arena.pyi").read_text())
    defaults = [
        ast.literal_eval(default)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for name, default in zip(
            node.args.kwonlyargs, node.args.kw_defaults, strict=True
        )
        if name.arg == "max_pools"
    ]
    assert defaults == [DEFAULT_POOLS] * 4


@pytest.mark.parametrize("made", ["anonymous", "create"])
def test_so_many_pools_are_made_by_default(made, arena_path):
    where = () if made == "anonymous" else (arena_path,)
    with getattr(xmem.Arena, made)(*where, 4 << 20, page_size=4096) as arena:
        pools = [xmem.Pool(arena) for _ in range(DEFAULT_POOLS)]
        with pytest.raises(xmem.OutOfMemory):
            xmem.Pool(arena)
        assert [pool.id for pool in pools] == list(range(1, DEFAULT_POOLS + 1))


@pytest.mark.parametrize("n_bytes", [1 << 44, (1 << 44) - 4095])
def test_the_number_of_a_page_has_32_bits(n_bytes):
    with pytest.raises(xmem.BadArgument, match=r"fewer than 2\*\*32 pages"):
        xmem.Arena.anonymous(n_bytes, page_size=4096)
