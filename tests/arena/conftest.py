# SPDX-License-Identifier: BSD-3-Clause
"""Arenas made in each of the three ways."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xmem import Arena


@pytest.fixture(params=["anonymous", "create", "open"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Arena]:
    """A function that makes an arena in one of the three ways."""

    def made(n_bytes: int, **keywords: int) -> Arena:
        if request.param == "anonymous":
            return Arena.anonymous(n_bytes, **keywords)
        path = tmp_path / f"arena-{len(list(tmp_path.iterdir()))}"
        arena = Arena.create(path, n_bytes, **keywords)
        if request.param == "open":
            arena.close()
            arena = Arena.open(path)
        return arena

    return made
